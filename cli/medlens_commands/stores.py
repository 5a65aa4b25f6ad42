"""info, verify, delete, migrate: what a store holds, whether it is sound, what is to leave it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import (
    DEFAULT_STORE,
    FormatOption,
    StoreOption,
    answering,
    open_store,
    said,
)
from cli.medlens_output import Format, write_rows
from retrieval.errors import QueryError


def register(app: typer.Typer) -> None:
    for command in (info, verify, delete, migrate):
        app.command()(command)


def info(store: StoreOption = DEFAULT_STORE, style: FormatOption = None) -> None:
    """What is in a store, and by which model."""
    from cli.medlens_asking import store_facts

    with answering(style) as chosen, open_store(store) as opened:
        facts = store_facts(opened)
        if chosen is Format.TABLE:
            write_rows([{"": name.replace("_", " "), " ": said(value)} for name, value in facts.items()], chosen)
        else:
            write_rows([facts], chosen)


def verify(
    store: StoreOption = DEFAULT_STORE,
    files: Annotated[bool, typer.Option("--files", help="Also look whether the archives' files are there.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be.")] = False,
    style: FormatOption = None,
) -> None:
    """Check a whole store: database, key, rows, every vector, the index files. Exit code 3 if something is wrong.

    With --repair, index files are built anew, and damaged vectors taken out: the next `medlens index` makes them again.
    """
    from cli.medlens_stores import check_row
    from indexer.tasks.verifying import verify_store

    with answering(style) as chosen, open_store(store) as opened:
        checks = verify_store(opened, files=files, repair=repair)
        write_rows([check_row(check) for check in checks], chosen)
    if not all(check.sound for check in checks):
        raise typer.Exit(3)


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
    from cli.medlens_stores import erasure_filter, would_erase

    with answering(style) as chosen, open_store(store) as opened:
        wanted = erasure_filter(patient or [], study or [], series or [], where)
        found = would_erase(opened, wanted)
        if not any(found.values()):
            typer.echo("medlens: nothing in the store matches", err=True)
            if patient:
                typer.echo("  --patient takes a patient_pseudonym from a search's answers, not a PatientID", err=True)
        elif not (yes or dry_run):
            _confirm(found)
        gone = 0 if dry_run else opened.erase(wanted, keep_out=keep_out)
        write_rows([{"erased": gone, **{f"matching_{name}": n for name, n in found.items()}}], chosen)


def _confirm(found: dict[str, int]) -> None:
    what = ", ".join(f"{count} {name}" for name, count in found.items())
    if not sys.stdin.isatty():
        raise QueryError(f"this would erase {what}", hint="Say --yes to do it, or --dry-run to only look.")
    if not typer.confirm(f"Erase {what}? There is no way back but to index the files again", err=True):
        raise typer.Exit(1)


def migrate(store: StoreOption = DEFAULT_STORE) -> None:
    """Bring a store that an older medlens wrote to the present schema. A store in a folder is backed up first."""
    from indexer.store.store import Store, is_url

    with answering(None):
        done = Store.upgrade(store if is_url(store) else Path(store))
        typer.echo("the store was migrated" if done else "the store has the present schema already")
