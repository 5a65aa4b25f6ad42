"""backup: a store in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    ForceOption,
    FormatOption,
    StoreOption,
    open_store,
    path_given,
)
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say


def backup(
    file: Annotated[Path, typer.Argument(parser=path_given, metavar="FILE", help="The file to write.")],
    store: StoreOption = DEFAULT_STORE,
    key: Annotated[
        bool, typer.Option("--key/--no-key", help="Whether the key of the pseudonyms is in the backup.")
    ] = True,
    erasures: Annotated[
        bool, typer.Option("--erasures", help="Write only the list of what was erased, for a later restore.")
    ] = False,
    force: ForceOption = False,
    style: FormatOption = None,
) -> None:
    """Write a store to one file, as of one moment, while others may write to it. Only you can read the file.

    It has the catalog, with all vectors and reports, and the key that tells patients apart: keep it as safe as the
    store. Whoever has the key and a list of patient IDs can tell who is who; --no-key leaves it out, and then a
    restored store can't be extended. Index files are left out: they are built anew.

    What is erased later stays in the backup. Keep the list that --erasures writes apart from the store, and write it
    again after each `medlens delete`: `medlens restore` erases by it.
    """
    from dataclasses import asdict

    from indexer.tasks import backing_up

    with reporting_errors(style) as chosen, open_store(store) as opened:
        if erasures:
            count = backing_up.write_erasures(opened, file, force=force)
            row, text = {"erasures": count}, f"wrote {count} digests of what was erased to {file.name}"
        else:
            done = backing_up.backup(opened, file, key=key, force=force)
            row, text = asdict(done), f"wrote the store as of {done.made} to {file.name} ({done.bytes / 1e6:,.1f} MB)"
            text += "" if done.has_key else ", without its key"
        if chosen is Format.TABLE:
            say(text)
        else:
            write_rows([row], chosen)
