"""Rows that are too many to hold, written as they come; and a spool from which a run that was stopped goes on."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from cli.medlens_output import Format, write_rows
from retrieval.errors import MedlensError, QueryError

Row = Mapping[str, Any]
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
    partial = output.with_name(f".{output.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            count = _write(rows, style, out, head)
        partial.replace(output)
    except OSError as exc:
        raise MedlensError(f"{output.name!r} can't be written: {exc.strerror}") from exc
    finally:
        partial.unlink(missing_ok=True)
    return count


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
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as exc:
        raise QueryError(
            "Parquet needs pyarrow, which is not installed", hint="pip install 'medlens[parquet]'"
        ) from exc
    partial = output.with_name(f".{output.name}.partial")
    writer, count = None, 0
    try:
        for chunk in _chunks(rows):
            table = pa.Table.from_pylist(chunk, schema=writer.schema if writer else _schema(pa, chunk))
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            count += len(chunk)
        if writer is None:
            raise QueryError("there are no rows to write", hint="Parquet wants at least one; widen the filter.")
        writer.close()
        partial.replace(output)
    except OSError as exc:
        raise MedlensError(f"{output.name!r} can't be written: {exc.strerror or exc}") from exc
    finally:
        partial.unlink(missing_ok=True)
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


class Spool:
    """Rows by file beside an output, kept until the output is whole, so that the same command goes on where it stopped.

    `stamp` says what made the rows; a spool of something else is begun anew.
    """

    def __init__(self, output: Path, stamp: str) -> None:
        self._path = output.with_name(f".{output.name}.partial.jsonl")
        self._stamp = stamp
        self.done = self._kept()
        self._out: IO[str] | None = None

    def _kept(self) -> set[str]:
        """Names of the files whose rows are there; a last line that was torn is cut off."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return set()
        except OSError as exc:
            raise MedlensError(f"{self._path.name!r} can't be read: {exc.strerror}") from exc
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines or json.loads(lines[0]) != {"stamp": self._stamp}:
            self._path.unlink()
            return set()
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        return {str(json.loads(line)["file"]) for line in lines[1:]}

    def __enter__(self) -> Spool:
        new = not self._path.exists()
        try:
            self._out = self._path.open("a", encoding="utf-8")
        except OSError as exc:
            raise MedlensError(f"{self._path.name!r} can't be written: {exc.strerror}") from exc
        if new:
            self._out.write(json.dumps({"stamp": self._stamp}) + "\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._out is not None:
            self._out.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Rows with a key `file`. They are in the file when this returns."""
        if self._out is None:
            raise ValueError("the spool is not open")
        self._out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._out.flush()

    def rows(self) -> Iterator[Row]:
        """All rows so far, in the order in which they came."""
        with self._path.open(encoding="utf-8") as file:
            next(file)
            yield from (json.loads(line) for line in file)

    def drop(self) -> None:
        """The output is whole."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
