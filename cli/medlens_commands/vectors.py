"""optimize, export, import: what is done with a store's vectors as such."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import DEFAULT_STORE, FormatOption, StoreOption, answering, open_store
from cli.medlens_output import write_rows


class Kind(StrEnum):
    """The kinds of index that can be asked for."""

    FLAT = "flat"
    IVF_RABITQ = "ivf-rabitq"


def register(app: typer.Typer) -> None:
    app.command()(optimize)
    app.command("export")(export_vectors)
    app.command("import")(import_vectors)


def _bytes(text: str) -> int:
    """2G, 500M or a plain number, in units of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is no amount of memory: 2G, 500M or a number of bytes")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def optimize(
    store: StoreOption = DEFAULT_STORE,
    memory: Annotated[
        str | None, typer.Option("--memory", help="What searches may keep in memory: 2G, 500M. Default: no bound.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="flat (exact) or ivf-rabitq (compressed). Default: what is needed.")
    ] = None,
    style: FormatOption = None,
) -> None:
    """Make the store's vector indexes as quick as its size asks for: exact, or compressed with measured recall."""
    from indexer.tasks.optimizing import optimize_store

    allowed = None if memory is None else _bytes(memory)
    with answering(style) as chosen, open_store(store) as opened:
        measured = optimize_store(opened, kind=kind.value if kind else None, memory=allowed)
        write_rows([{"vectors": name} | figures for name, figures in measured.items()], chosen)


def export_vectors(
    to: Annotated[Path, typer.Argument(help="The file to write.")],
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str | None, typer.Option("--format", help="npz, parquet or faiss. Default: by the file's ending.")
    ] = None,
) -> None:
    """Write the frames' vectors with their keys and attributes to a file for other tools."""
    from indexer.tasks.exchange import export_frames

    with answering(None), open_store(store) as opened:
        count = export_frames(opened, to, form)
        typer.echo(f"wrote {count} vectors to {to.name}", err=True)


def import_vectors(
    source: Annotated[Path, typer.Argument(help="An npz or parquet file with vectors, UIDs and frame numbers.")],
    store: StoreOption = DEFAULT_STORE,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Take vectors whose file doesn't say by which model they were made.")
    ] = False,
) -> None:
    """Replace vectors of frames that the store has by those in a file, found by SOP Instance UID and frame number."""
    from indexer.tasks.exchange import import_frames

    with answering(None), open_store(store) as opened:
        outcome = import_frames(opened, source, any_model=any_model)
        typer.echo(f"replaced {outcome.replaced} vectors, {outcome.unchanged} were the same already", err=True)
