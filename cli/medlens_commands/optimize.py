"""The command `optimize`: choose and build the fastest suitable vector indexes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import write_rows


class Kind(StrEnum):
    """The kinds of index that --kind accepts."""

    FLAT = "flat"
    IVF_RABITQ = "ivf-rabitq"


def optimize(
    store: StoreOption = DEFAULT_STORE,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", help="The memory that searches may keep in use, such as 2G or 500M. Default: no limit."
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--kind",
            help="The kind of index: flat (exact) or ivf-rabitq (compressed). Default: flat while it is "
            "fast enough and fits in --memory.",
        ),
    ] = None,
    style: FormatOption = None,
) -> None:
    """Make searches in a large store faster: measure its vector indexes, and compress them if that is needed.

    A flat index is exact. A compressed index is used only if its measured recall is high enough.
    """
    from indexer.tasks.optimizing import optimize_store

    allowed = None if memory is None else _bytes(memory)
    with reporting_errors(style) as chosen, open_store(store) as opened:
        measured = optimize_store(opened, kind=kind.value if kind else None, memory=allowed)
        write_rows([{"vectors": name} | figures for name, figures in measured.items()], chosen)


def _bytes(text: str) -> int:
    """Return the number of bytes of `2G`, `500M` or a plain number. The units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is not an amount of memory; write 2G, 500M or a number of bytes")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
