"""import: vectors from a file in the place of a store's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, StoreOption, open_store
from cli.medlens_output.lines import say


def import_(
    source: Annotated[Path, typer.Argument(help="An npz or parquet file with vectors, UIDs and frame numbers.")],
    store: StoreOption = DEFAULT_STORE,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Take vectors whose file doesn't say by which model they were made.")
    ] = False,
) -> None:
    """Replace vectors of frames that the store has by those in a file, found by SOP Instance UID and frame number."""
    from indexer.tasks.exchange import import_frames

    with reporting_errors(None), open_store(store) as opened:
        outcome = import_frames(opened, source, any_model=any_model)
        say(f"replaced {outcome.replaced} vectors, {outcome.unchanged} were the same already", err=True)
