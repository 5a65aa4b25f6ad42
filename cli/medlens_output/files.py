"""What a command writes and where: the kinds of output files, and stdout."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cli.medlens_output.formats import Format
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from indexer.output_formats import OutputFormat
    from indexer.outputs import Output


def require_suffix(what: str, path: Path | None, *suffixes: str) -> None:
    """Raise QueryError, before any work is done, if a file's ending is not one that can be written."""
    if path is not None and path.suffix.lower() not in suffixes:
        *others, last = suffixes
        expected = f"{', '.join(others)} or {last}" if others else last
        raise QueryError(f"the {what} file ends in {path.suffix!r}; expected {expected}")


def rows_format(
    what: str, style: Format, columns: Collection[str], head: Sequence[str], values: tuple[str, ...] = ()
) -> OutputFormat:
    """Return the output format of rows in that style.

    A file of this kind is recognised by `columns`, by further columns that begin with one of `values`, and by the first
    keys of its head.
    """
    from indexer.output_formats import csv_file, html_page, json_document, json_lines, table

    if style is Format.CSV:
        return csv_file(f"{what} in CSV", columns, values)
    if style is Format.JSONL:
        return json_lines(f"{what} in JSON lines", columns, values)
    if style is Format.JSON:
        return json_document(f"{what} in JSON", head)
    if style is Format.HTML:
        return html_page(f"a page of {what}", "hits")
    return table(f"a table of {what}")


@contextmanager
def destination(output: Output | None) -> Iterator[TextIO]:
    """Yield stdout, or a file that appears only when everything is written."""
    if output is None:
        yield sys.stdout
        return
    import io

    buffer = io.StringIO()
    yield buffer
    output.write_text(buffer.getvalue())
