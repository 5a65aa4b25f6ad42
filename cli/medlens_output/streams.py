"""Write rows as they arrive, for results that are too many to hold in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.medlens_output.formats import Format, Row, write_rows
from retrieval.errors import QueryError
from retrieval.neutral import neutral_values
from retrieval.optional import require_optional

if TYPE_CHECKING:
    from indexer.outputs import Output

PARQUET = ".parquet"
PARQUET_MARK = "medlens_rows"  # a key of a file's metadata
_CHUNK = 20_000


def style_for(output: Path | None, chosen: Format, asked: Format | None) -> Format:
    """Return the format of an output file: the requested one, else that of the file's ending."""
    endings = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".json": Format.JSON}
    return chosen if output is None or asked is not None else endings.get(output.suffix.lower(), Format.JSONL)


def write_stream(rows: Iterable[Row], style: Format, output: Output | None, *, head: Row | None = None) -> int:
    """Write rows with the same keys to stdout or to a file that appears only when it is complete. Returns their number.

    A file that ends in .parquet is written as Parquet. JSON lines, CSV and Parquet hold some thousand rows in memory at
    a time; a table and JSON, which are for few rows, hold all of them.
    """
    if output is not None and output.path.suffix.lower() == PARQUET:
        return _write_parquet(rows, output)
    if output is None:
        return _write(rows, style, sys.stdout, head)
    with output.whole() as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as out:
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
            out.write(text.getvalue().partition("\n")[2])  # the header is above the first chunk
        else:
            write_rows(chunk, style, out=out)
        count += len(chunk)
    return count


def _write_parquet(rows: Iterable[Row], output: Output) -> int:
    require_optional("pyarrow", "a Parquet file", QueryError)
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, count = None, 0
    with output.whole() as temporary:
        for chunk in map(neutral_values, _chunks(rows)):
            table = pa.Table.from_pylist(chunk, schema=writer.schema if writer else _schema(pa, chunk))
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            count += len(chunk)
        if writer is None:
            raise QueryError(
                "there are no rows to write", hint="A Parquet file needs at least one row; use a wider filter."
            )
        writer.close()
    return count


def _schema(pa: Any, chunk: list[Row]) -> Any:
    """Return the column types of the first rows.

    A column without a value there is numeric if it belongs to a label, else text.
    """
    guessed = pa.Table.from_pylist(chunk).schema

    def settled(field: Any) -> Any:
        if pa.types.is_null(field.type):
            return field.with_type(pa.float64() if field.name.startswith(("score", "probability")) else pa.string())
        if pa.types.is_list(field.type):  # columns of names; those of the first rows may all be empty
            return field.with_type(pa.list_(pa.string()))
        return field

    return pa.schema([settled(field) for field in guessed], metadata={PARQUET_MARK: "1"})


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
