"""models and train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import (
    DeviceOption,
    FormatOption,
    answering,
)
from cli.medlens_output import Format, write_rows


def register(app: typer.Typer) -> None:
    app.command()(models)
    app.command()(train)


def models(style: FormatOption = None) -> None:
    """The models that ship with medlens, and how to name others."""
    from retrieval.encoders.model_source import DEFAULT_MODEL, read_config, shipped_models

    with answering(style) as chosen:
        rows = []
        for name, folder in shipped_models().items():
            config = read_config(folder)["model_cfg"]
            rows.append({"name": name, "dimensions": config["embed_dim"], "default": name == DEFAULT_MODEL})
        write_rows(rows, chosen)
        if chosen is Format.TABLE:
            typer.echo("Others: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Their own cards say more.")


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; see the README's section on training.")],
    data: Annotated[
        Path | None, typer.Option(help="Where the pairs files and stores lie. Default: beside the file.")
    ] = None,
    device: DeviceOption = "auto",
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model to learn from: a name, a folder, hf-hub:ORG/REPO.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start anew instead of going on.")] = False,
    continue_from: Annotated[
        str | None,
        typer.Option("--continue", help="Go on from this model: a shipped one, or a folder that train wrote."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also log for TensorBoard, to a folder of the run's name in this one.")
    ] = None,
) -> None:
    """Train a pair of encoders on image-text pairs. Stopped, the same command goes on where it was.

    Exit code 3 if a model that went on from another has forgotten more than the configuration allows.
    """
    from cli.medlens_training import run_training

    passed = run_training(
        config, data, device, teacher, restart=restart, continue_from=continue_from, tensorboard=tensorboard
    )
    if not passed:
        raise typer.Exit(3)
