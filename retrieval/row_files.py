"""Reads files of rows, as JSON lines or CSV: pairs files, lists of images and truth files.

A row of a pairs file names its `image` (a path relative to the file) and its `group`, the patient or case. Its `split`
says what it is for. A row without a split is for training ("train").

The files come from strangers, so their size is bounded, and they are read in time linear in their size.
"""

from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.bounded import read_bytes
from retrieval.errors import MedlensError

MOST_BYTES = 1 << 29
LONGEST_ROW = 4 << 20  # characters
TRAIN = "train"
_PIECE = 1 << 20  # bytes
_FIRST = re.compile(rb"[^\s\xef\xbb\xbf]")  # after blanks and the mark that some begin UTF-8 with


@dataclass(frozen=True)
class FileLine:
    """One row of a file. `number` is its line, counted from 1."""

    file: str
    number: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}"

    def text(self, name: str) -> str:
        """The value of a field, with single blanks; "" if the row does not have the field."""
        return plain(self.values.get(name))

    @property
    def split(self) -> str:
        """The split of the row."""
        return self.text("split") or TRAIN

    def require(self, *names: str, error: type[MedlensError]) -> None:
        missing = [name for name in names if not self.text(name)]
        if missing:
            raise error(
                f"{self} has no {' and no '.join(missing)}",
                hint="Every row needs an image and a group: the patient or case that the image belongs to.",
            )


@dataclass(frozen=True)
class RowFile:
    """All rows of a file, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    lines: tuple[FileLine, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent


def read_row_file(
    path: Path, *, what: str, error: type[MedlensError], name: str = "", hint: str = "", takes_csv: bool = False
) -> RowFile:
    """Read a file of rows.

    In messages, `what` is the kind of the file ("pairs file"), `name` its name (by default without folders), and `hint`
    says where such files are searched. Raises `error` for a file that is missing, too large or not UTF-8, or that has a
    row that can't be read.
    """
    name = name or path.name
    try:
        content = read_bytes(path, MOST_BYTES)
    except OSError as exc:
        hint = "Split the file." if exc.errno == errno.EFBIG else hint
        raise error(f"the {what} {name!r} can't be read: {exc.strerror}", hint=hint) from exc
    if (at := _not_utf8(content)) is not None:
        line = content.count(b"\n", 0, at) + 1
        raise error(f"{name}, line {line} is not UTF-8 text", hint=f"Save the {what} as UTF-8.")
    start = _FIRST.search(content)
    is_csv = takes_csv and not (start is not None and start.group() == b"{")
    lines = tuple(_csv_lines(content, name, error) if is_csv else _json_lines(content, name, error))
    return RowFile(path, hashlib.sha256(content).hexdigest(), lines)


def _not_utf8(content: bytes) -> int | None:
    """Where a text stops being UTF-8; None if it is. It is looked through in pieces: it may be as long as memory."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(content)
    for start in range(0, len(content), _PIECE):
        stop = min(start + _PIECE, len(content))
        try:
            decoder.decode(view[start:stop], final=stop == len(content))
        except UnicodeDecodeError as exc:
            return stop - len(exc.object) + exc.start
    return None


def _text(content: bytes, newline: str) -> io.TextIOWrapper:
    """The text of bytes that are UTF-8, decoded as it is read: no copy of the whole is made."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=newline)


def plain(text: object) -> str:
    """The text with single blanks; "" for None."""
    return "" if text is None else " ".join(str(text).split())


def _json_lines(content: bytes, name: str, error: type[MedlensError]) -> Iterator[FileLine]:
    text = _text(content, "\n")
    for number, line in enumerate(iter(lambda: text.readline(LONGEST_ROW + 1), ""), 1):
        if len(line) > LONGEST_ROW:
            raise _too_long(name, number, error)
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as exc:
            why = "it is nested too deeply" if isinstance(exc, RecursionError) else exc
            raise error(
                f"{name}, line {number} is not JSON: {why}", hint="Every line is one JSON object, in curly brackets."
            ) from exc
        if not isinstance(values, dict):
            raise error(
                f"{name}, line {number} is not a JSON object but of type {type(values).__name__}",
                hint="Every line is one JSON object, in curly brackets.",
            )
        yield FileLine(name, number, values)


def _too_long(name: str, number: int, error: type[MedlensError]) -> MedlensError:
    return error(
        f"the row in {name}, line {number} has more than {LONGEST_ROW:,} characters",
        hint="Write one row per line. Check that the quotes around cells with line breaks are closed.",
    )


class _RowTooLong(Exception):
    pass


class _RowLines:
    """The lines of a text. Raises _RowTooLong once a row has too many characters."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._taken = 0

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self._taken += len(line)
        if self._taken > LONGEST_ROW:
            raise _RowTooLong
        return line

    def next_row(self) -> None:
        self._taken = 0


def _csv_lines(content: bytes, name: str, error: type[MedlensError]) -> Iterator[FileLine]:
    lines = _RowLines(_text(content, ""))
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            lines.next_row()
            if None in row or None in row.values():
                raise error(
                    f"the number of cells in {name}, line {reader.line_num} differs from the header",
                    hint="Put cells with a comma or a line break in double quotes.",
                )
            yield FileLine(name, reader.line_num, {column.strip(): value for column, value in row.items()})
    except _RowTooLong as exc:
        raise _too_long(name, reader.line_num + 1, error) from exc
    except csv.Error as exc:
        raise error(
            f"{name}, line {reader.line_num} is not CSV: {exc}", hint="Save the file as plain CSV in UTF-8."
        ) from exc
