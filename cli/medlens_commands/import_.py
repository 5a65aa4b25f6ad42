"""The command `import`: replace vectors of a store by those in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, StoreOption, open_store
from cli.medlens_output.lines import say


def import_(
    source: Annotated[
        Path, typer.Argument(help="The npz or parquet file with vectors, SOP Instance UIDs and frame numbers.")
    ],
    store: StoreOption = DEFAULT_STORE,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Also accept a file that does not name the model that made its vectors.")
    ] = False,
) -> None:
    """Replace the vectors of frames in a store by those in a file.

    A vector is assigned to its frame by SOP Instance UID and frame number. Frames that are not in the store are an
    error.
    """
    from indexer.tasks.exchange import import_frames

    with reporting_errors(None), open_store(store) as opened:
        outcome = import_frames(opened, source, any_model=any_model)
        say(f"replaced {outcome.replaced} vectors; {outcome.unchanged} were identical already", err=True)
