"""The command `delete`: erase patients, studies, series, or everything that a filter matches."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say
from retrieval.errors import QueryError


def delete(
    store: StoreOption = DEFAULT_STORE,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="UID",
            help="Erase the study with this Study Instance UID. Repeat the option to erase several.",
        ),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            metavar="UID",
            help="Erase the series with this Series Instance UID. Repeat the option to erase several.",
        ),
    ] = None,
    patient: Annotated[
        list[str] | None,
        typer.Option(
            "--patient",
            metavar="PSEUDONYM",
            help="Erase the patient with this pseudonym, as shown in search results. Repeat the option to "
            "erase several.",
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            "--where",
            help="Erase everything that matches this filter, written as for `medlens search`, but without words for "
            "values such as x-ray.",
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")] = False,
    keep_out: Annotated[
        bool,
        typer.Option(
            "--keep-out/--no-keep-out", help="Whether `medlens index` leaves out the erased files from now on."
        ),
    ] = True,
    erasures: Annotated[
        Path | None,
        typer.Option(
            "--erasures",
            metavar="FILE",
            help="Erase again what a list of `medlens backup --erasures` names. No other option may name anything.",
        ),
    ] = None,
    style: FormatOption = None,
) -> None:
    """Erase patients, studies, series, or everything that a filter matches, from a store and from all copies inside it.

    The files of the archive are not touched. Only keyed digests of the erased files are kept, so that the next `medlens
    index` leaves these files out; `medlens index --readmit` indexes them again. With --erasures, what this store had
    erased before it was restored from a backup is erased again.
    """
    from indexer.tasks.erasing import erase, erase_again, plan_erasure

    with reporting_errors(style), usage(style):
        if erasures is not None and (study or series or patient or where or dry_run):
            raise QueryError(
                "--erasures can't be combined with options that name what to erase or with --dry-run",
                hint="Use --erasures alone.",
            )
    with reporting_errors(style) as chosen, open_store(store) as opened:
        if erasures is not None:  # decided before, in this very store
            write_rows([{"erased": erase_again(opened, erasures)}], chosen)
            return
        plan = plan_erasure(opened, patients=patient or (), studies=study or (), series=series or (), where=where)
        for note in opened.notes_on(plan.where):
            say(note, err=True)
        if not plan:
            say("medlens: nothing in the store matches; nothing was erased", err=True)
            for note in plan.notes:
                say(f"  {note}", err=True)
            if patient:
                say("  --patient takes the patient_pseudonym of a search result, not a PatientID", err=True)
        elif not (yes or dry_run):
            _confirm(plan.matching)
        gone = 0 if dry_run else erase(opened, plan, keep_out=keep_out)
        notes = {"notes": plan.notes} if plan.notes and chosen in (Format.JSON, Format.JSONL) else {}
        matching = {f"matching_{name}": n for name, n in plan.matching.items()}
        write_rows([{"erased": gone, **matching, **notes}], chosen)


def _confirm(matching: Mapping[str, int]) -> None:
    what = ", ".join(f"{count} {name}" for name, count in matching.items())
    if not sys.stdin.isatty():
        raise QueryError(
            f"without a terminal to confirm on, --yes is needed to erase {what}",
            hint="Add --yes to erase, or --dry-run to only look.",
        )
    if not typer.confirm(f"Erase {what}? This can only be undone by indexing the files again", err=True):
        raise typer.Exit(1)
