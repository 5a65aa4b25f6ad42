"""How results are printed. stdout is data only: a table for people on a terminal, JSON lines when piped."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from retrieval.errors import MedlensError

Row = Mapping[str, Any]


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"


def chosen_format(asked: Format | None, out: TextIO | None = None) -> Format:
    """What was asked for, else a table on a terminal and JSON lines elsewhere."""
    return asked or (Format.TABLE if (out or sys.stdout).isatty() else Format.JSONL)


def write_rows(rows: Sequence[Row], style: Format, *, head: Row | None = None, out: TextIO | None = None) -> None:
    """Print rows of equal keys. `head` (query, model ...) frames the rows as JSON and titles a table.

    CSV and JSON lines are rows only. A list in a cell of a table or of CSV is joined with "; ".
    """
    out = out or sys.stdout
    if style is Format.JSON:
        document: Any = {**head, "results": list(rows)} if head is not None else list(rows)
        out.write(json.dumps(document, indent=2, default=_plain, ensure_ascii=False) + "\n")
    elif style is Format.JSONL:
        for row in rows:
            out.write(json.dumps(row, default=_plain, ensure_ascii=False) + "\n")
    elif style is Format.CSV:
        writer = csv.writer(out, lineterminator="\n")
        if rows:
            writer.writerow(rows[0])
        writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    elif style is Format.TABLE:
        _write_table(rows, head, out)
    else:
        raise ValueError(f"{style} is not a format of rows")


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8. Raises MedlensError, naming the file without its folders."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise MedlensError(f"{path.name!r} can't be written: {exc.strerror}") from exc


def _write_table(rows: Sequence[Row], head: Row | None, out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, highlight=False)
    if head:
        console.print(Text("  ".join(f"{key}: {_cell(value)}" for key, value in head.items() if value is not None)))
    if not rows:
        console.print("no results")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return "; ".join(_cell(v) for v in value)
    return str(_plain(value)) if isinstance(value, date) else str(value)


def _csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula."""
    if isinstance(value, (list, tuple)):
        value = "; ".join(str(v) for v in value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return _plain(value) if isinstance(value, date) else value


def _plain(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
