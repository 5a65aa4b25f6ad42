"""How results are printed. stdout has only data: a table on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TextIO

from retrieval.neutral import neutral_values

Row = Mapping[str, Any]


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"


_NEVER_FOLDED = 12  # characters; numbers, dates and codes are not wrapped


def chosen_format(asked: Format | None, out: TextIO | None = None) -> Format:
    """Return the requested format, else a table on a terminal and JSON lines elsewhere."""
    return asked or (Format.TABLE if (out or sys.stdout).isatty() else Format.JSONL)


def write_rows(
    rows: Sequence[Row],
    style: Format,
    *,
    head: Row | None = None,
    out: TextIO | None = None,
    columns: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print rows that have the same keys.

    `head` (query, model ...) encloses the rows in JSON and is the title of a table; CSV and JSON lines contain only
    rows. In a table or in CSV, a list is joined with "; " and a mapping is written as "name value; ...". `columns` is
    the header of a CSV without rows. If the terminal is too narrow, a table leaves out the columns `spare`, one after
    the other.

    Control characters are removed from every text (`retrieval.neutral`); in a table each text is on one line.
    """
    out = out or sys.stdout
    rows = [neutral_values(row) for row in rows]
    head = None if head is None else neutral_values(head)
    if style is Format.JSON:
        document: Any = {**head, "results": rows} if head is not None else rows
        out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif style is Format.JSONL:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif style is Format.CSV:
        writer = csv.writer(out, lineterminator="\n")
        if rows or columns:
            writer.writerow(rows[0] if rows else columns)
        writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    elif style is Format.TABLE:
        _write_table(rows, head, out, spare)
    else:
        raise ValueError(f"{style} is not a format for rows")


def _write_table(rows: Sequence[Row], head: Row | None, out: TextIO, spare: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, highlight=False)
    if head:
        console.print(Text("  ".join(f"{key}: {_cell(value)}" for key, value in head.items() if value is not None)))
    if not rows:
        console.print("no results")
        return
    texts = {name: [Text(_cell(row[name])) for row in rows] for name in rows[0]}
    widths = {name: max(len(name), *(text.cell_len for text in cells)) for name, cells in texts.items()}
    for name in spare:
        if name in widths and sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            del widths[name]
    left_out = [name.replace("_", " ") for name in texts if name not in widths]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, width in widths.items():
        table.add_column(Text(name.replace("_", " ")), overflow="fold", no_wrap=width <= _NEVER_FOLDED)
    for cells in zip(*(texts[name] for name in widths), strict=True):
        table.add_row(*cells)
    console.print(table)
    if left_out:
        console.print(Text(f"not shown because the terminal is too narrow: {', '.join(left_out)}", style="dim"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return "; ".join(f"{_cell(name)} {_cell(v)}" for name, v in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_cell(v) for v in value)
    return " ".join(str(value).splitlines()).replace("\t", " ")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict):
        return "; ".join(f"{name} {inner}" for name, inner in value.items())
    return "; ".join(str(inner) for inner in value) if isinstance(value, list) else value
