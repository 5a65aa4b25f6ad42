"""restore: make a store from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, path_given
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say


def restore(
    file: Annotated[
        Path, typer.Argument(parser=path_given, metavar="FILE", help="A file that `medlens backup` wrote.")
    ],
    store: StoreOption = DEFAULT_STORE,
    erasures: Annotated[
        Path | None, typer.Option("--erasures", metavar="FILE", help="A list that `medlens backup --erasures` wrote.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing store.")] = False,
    style: FormatOption = None,
) -> None:
    """Make a store from a backup. The store appears when it is complete, or not at all.

    What was erased after the backup was made is erased again, by the erasures of the replaced store and by the list of
    --erasures. If there is neither, a warning is shown. Stop other medlens processes on an existing store first.
    """
    from dataclasses import asdict

    from indexer.tasks import restoring

    with reporting_errors(style) as chosen:
        done = restoring.restore(file, store, erasures=erasures, replace=replace)
        if done.erasures is None:
            say(
                f"medlens: no list says what was erased after {done.made}; anything erased since then is back\n"
                "  Erase it again, or run `medlens delete --erasures FILE` with a list of `medlens backup --erasures`.",
                err=True,
            )
        if not done.has_key:
            say(
                "medlens: the backup has no pseudonym key; the store can be searched but not changed\n"
                "  Copy pseudonym.key from the original store into the new one.",
                err=True,
            )
        if chosen is Format.TABLE:
            say(f"restored {done.instances} instances from a backup of {done.made}")
            if done.erased:
                say(f"  {done.erased} instances that were erased after the backup were erased again")
        else:
            write_rows([asdict(done)], chosen)
