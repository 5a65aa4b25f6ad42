"""backup: write a store to one file."""

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
    key: Annotated[bool, typer.Option("--key/--no-key", help="Whether the backup contains the pseudonym key.")] = True,
    erasures: Annotated[
        bool, typer.Option("--erasures", help="Write only the list of what was erased, for a later restore.")
    ] = False,
    force: ForceOption = False,
    style: FormatOption = None,
) -> None:
    """Write one consistent state of a store to a file, while others may use the store. Only you can read the file.

    The file contains the catalog, with all vectors and reports, and the pseudonym key: keep it as safe as the store.
    Anybody who has the key and a list of patient IDs can identify patients. --no-key leaves the key out; a store
    restored without it can be searched but not changed. Index files are left out and rebuilt on restore.

    A backup still contains what is erased later. Write the list of erasures with --erasures after each `medlens delete`
    and keep it apart from the store; `medlens restore` uses it to erase the same again.
    """
    from dataclasses import asdict

    from indexer.tasks import backing_up

    with reporting_errors(style) as chosen, open_store(store) as opened:
        if erasures:
            count = backing_up.write_erasures(opened, file, force=force)
            row, text = {"erasures": count}, f"wrote a list of {count} erasures to {file.name}"
        else:
            done = backing_up.backup(opened, file, key=key, force=force)
            row, text = asdict(done), f"wrote a backup of {done.made} to {file.name} ({done.bytes / 1e6:,.1f} MB)"
            text += "" if done.has_key else ", without its key"
        if chosen is Format.TABLE:
            say(text)
        else:
            write_rows([row], chosen)
