"""delete: erase patients, studies, series, or what a filter matches."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import write_rows
from cli.medlens_output.lines import say
from retrieval.errors import QueryError


def delete(
    store: StoreOption = DEFAULT_STORE,
    study: Annotated[list[str] | None, typer.Option("--study", metavar="UID", help="May be repeated.")] = None,
    series: Annotated[list[str] | None, typer.Option("--series", metavar="UID", help="May be repeated.")] = None,
    patient: Annotated[
        list[str] | None, typer.Option("--patient", metavar="PSEUDONYM", help="As in the results of a search.")
    ] = None,
    where: Annotated[str, typer.Option("--where", help="A filter in words, as for `medlens search`.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    keep_out: Annotated[
        bool, typer.Option("--keep-out/--no-keep-out", help="Whether `medlens index` is to leave it out from now on.")
    ] = True,
    style: FormatOption = None,
) -> None:
    """Erase patients, studies, series or whatever a filter matches: rows, vectors, texts, and all copies in the store.

    The archive's files stay where they are. Of what is erased only keyed digests are kept, so that the next run does
    not take it in again; `medlens index --readmit` does.
    """
    from indexer.tasks.erasing import erase, plan_erasure

    with reporting_errors(style) as chosen, open_store(store) as opened:
        plan = plan_erasure(opened, patients=patient or (), studies=study or (), series=series or (), where=where)
        for note in opened.notes_on(plan.where):
            say(note, err=True)
        if not plan:
            say("medlens: nothing in the store matches", err=True)
            if patient:
                say("  --patient takes a patient_pseudonym from a search's answers, not a PatientID", err=True)
        elif not (yes or dry_run):
            _confirm(plan.matching)
        gone = 0 if dry_run else erase(opened, plan, keep_out=keep_out)
        write_rows([{"erased": gone, **{f"matching_{name}": n for name, n in plan.matching.items()}}], chosen)


def _confirm(matching: Mapping[str, int]) -> None:
    what = ", ".join(f"{count} {name}" for name, count in matching.items())
    if not sys.stdin.isatty():
        raise QueryError(f"this would erase {what}", hint="Say --yes to do it, or --dry-run to only look.")
    if not typer.confirm(f"Erase {what}? There is no way back but to index the files again", err=True):
        raise typer.Exit(1)
