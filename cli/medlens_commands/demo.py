"""demo: all of it once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import (
    DeviceOption,
    ModelOption,
    answering,
)


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the store and the page of hits go.")] = Path(".demo"),
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """All of it once, on the DICOM files that pydicom's package carries: index, search, classify, a page of hits."""
    from cli.medlens_demo import run_demo

    with answering(None):
        run_demo(folder, model, device, typer.echo)
