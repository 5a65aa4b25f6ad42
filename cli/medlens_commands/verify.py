"""The command `verify`: check a whole store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import write_rows

if TYPE_CHECKING:
    from indexer.tasks.verifying import Check


def verify(
    store: StoreOption = DEFAULT_STORE,
    files: Annotated[
        bool, typer.Option("--files", help="Also check that the indexed files are still in their archives, unchanged.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    style: FormatOption = None,
) -> None:
    """Check a whole store: database, key, rows, every vector, and the index files.

    The exit code is 3 if something is wrong. --repair rebuilds index files and removes damaged rows, so that the next
    `medlens index` adds them again.
    """
    from indexer.tasks.verifying import verify_store

    with reporting_errors(style) as chosen, open_store(store) as opened:
        checks = verify_store(opened, files=files, repair=repair)
        write_rows([_row(check) for check in checks], chosen)
    if not all(check.sound for check in checks):
        raise typer.Exit(3)


def _row(check: Check) -> dict[str, Any]:
    state = "sound" if not check.wrong else "repaired" if check.repaired else "wrong"
    return {"check": check.name, "state": state, "looked_at": check.looked_at, "wrong": check.wrong} | {
        "detail": check.detail
    }
