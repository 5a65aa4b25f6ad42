"""The command `export`: write vectors to a file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, ForceOption, StoreOption, open_store
from cli.medlens_output.lines import say


def export(
    to: Annotated[Path, typer.Argument(help="The file to write.")],
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="The file format: npz, parquet or faiss. Default: the format of the file's ending."
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write the vectors of all frames, with their keys and attributes, to a file for other tools."""
    from indexer.tasks.exchange import export_frames

    with reporting_errors(None), open_store(store) as opened:
        count = export_frames(opened, to, form, force=force)
        say(f"wrote {count} vectors to {to.name}", err=True)
