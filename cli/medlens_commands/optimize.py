"""optimize: vector indexes as quick as a store's size asks for."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import write_rows


class Kind(StrEnum):
    """The kinds of index that can be asked for."""

    FLAT = "flat"
    IVF_RABITQ = "ivf-rabitq"


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
    with reporting_errors(style) as chosen, open_store(store) as opened:
        measured = optimize_store(opened, kind=kind.value if kind else None, memory=allowed)
        write_rows([{"vectors": name} | figures for name, figures in measured.items()], chosen)


def _bytes(text: str) -> int:
    """2G, 500M or a plain number, in units of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is no amount of memory: 2G, 500M or a number of bytes")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
