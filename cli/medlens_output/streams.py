"""Rows that are too many to hold, written as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cli.medlens_output.files import whole_file
from cli.medlens_output.formats import Format, Row, write_rows
from retrieval.errors import QueryError
from retrieval.optional import require_optional

PARQUET = ".parquet"
_CHUNK = 20_000


def style_for(output: Path | None, chosen: Format, asked: Format | None) -> Format:
    """The format for an output file: what was asked for, else by its ending."""
    endings = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".json": Format.JSON}
    return chosen if output is None or asked is not None else endings.get(output.suffix.lower(), Format.JSONL)


def write_stream(rows: Iterable[Row], style: Format, output: Path | None, *, head: Row | None = None) -> int:
    """Write rows of equal keys to stdout or to a file, which appears only when all is written; how many.

    A file that ends in .parquet is Parquet. JSON lines, CSV and Parquet hold some thousand rows at a time; a table and
    JSON, which are for few, hold all.
    """
    if output is not None and output.suffix.lower() == PARQUET:
        return _write_parquet(rows, output)
    if output is None:
        return _write(rows, style, sys.stdout, head)
    with whole_file(output) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as out:
        return _write(rows, style, out, head)


def _write(rows: Iterable[Row], style: Format, out: Any, head: Row | None) -> int:
    if style not in (Format.JSONL, Format.CSV):
        held = list(rows)
        write_rows(held, style, head=head, out=out)
        return len(held)
    count = 0
    for chunk in _chunks(rows):
        if style is Format.CSV and count:
            import io

            text = io.StringIO()
            write_rows(chunk, style, out=text)
            out.write(text.getvalue().partition("\n")[2])  # the header stands above the first chunk
        else:
            write_rows(chunk, style, out=out)
        count += len(chunk)
    return count


def _write_parquet(rows: Iterable[Row], output: Path) -> int:
    require_optional("pyarrow", "a Parquet file", QueryError)
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, count = None, 0
    with whole_file(output) as temporary:
        for chunk in _chunks(rows):
            table = pa.Table.from_pylist(chunk, schema=writer.schema if writer else _schema(pa, chunk))
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            count += len(chunk)
        if writer is None:
            raise QueryError("there are no rows to write", hint="Parquet wants at least one; widen the filter.")
        writer.close()
    return count


def _schema(pa: Any, chunk: list[Row]) -> Any:
    """Types by the first rows; a column of which they say nothing is one of numbers if it is a label's, else text."""
    guessed = pa.Table.from_pylist(chunk).schema

    def settled(field: Any) -> Any:
        if pa.types.is_null(field.type):
            return field.with_type(pa.float64() if field.name.startswith(("score", "probability")) else pa.string())
        if pa.types.is_list(field.type):  # of names; the first rows' may all be empty
            return field.with_type(pa.list_(pa.string()))
        return field

    return pa.schema([settled(field) for field in guessed])


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
