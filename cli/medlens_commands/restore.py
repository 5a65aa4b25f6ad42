"""restore: a backup as a store again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, path_given
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say


def restore(
    file: Annotated[Path, typer.Argument(parser=path_given, metavar="FILE", help="A file of `medlens backup`.")],
    store: StoreOption = DEFAULT_STORE,
    erasures: Annotated[
        Path | None, typer.Option("--erasures", metavar="FILE", help="A list of `medlens backup --erasures`.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the store that is there.")] = False,
    style: FormatOption = None,
) -> None:
    """Make a store of a backup. It appears when it is complete, or not at all.

    What was erased since the backup was made is erased again: what the store that is replaced has erased, and what
    --erasures lists. Where there is neither, a warning says so. Stop other medlens processes on that store first.
    """
    from dataclasses import asdict

    from indexer.tasks import restoring

    with reporting_errors(style) as chosen:
        done = restoring.restore(file, store, erasures=erasures, replace=replace)
        if done.erasures is None:
            say(
                f"medlens: there is no list of what was erased since {done.made}: if anything was, it is back\n"
                "  Erase it again, or run `medlens delete --erasures FILE` with a list of `medlens backup --erasures`.",
                err=True,
            )
        if not done.has_key:
            say(
                "medlens: the backup has no key: the store can be searched, and nothing can be added to it or erased\n"
                "  Copy the pseudonym.key of the original store into it.",
                err=True,
            )
        if chosen is Format.TABLE:
            say(f"restored {done.instances} instances as of {done.made}")
            if done.erased:
                say(f"  {done.erased} that were erased since have been erased again")
        else:
            write_rows([asdict(done)], chosen)
