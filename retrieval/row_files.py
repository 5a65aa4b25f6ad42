"""Files of rows, as JSON lines or CSV: pairs files, lists of images and truth files are all read here.

A row of a pairs file names its `image` (a path relative to the file) and its `group`, the patient or case. Its `split`
says what it is for: "train" where it is missing or empty, since rows that nobody held out are for training.

A file is a stranger's: it is bounded, and read in time linear in its size.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import MedlensError

MOST_BYTES = 1 << 29
LONGEST_ROW = 4 << 20  # characters
TRAIN = "train"


@dataclass(frozen=True)
class FileLine:
    """One row as it stands in its file. `number` counts the file's lines from 1."""

    file: str
    number: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}"

    def text(self, name: str) -> str:
        """A field's value with its blanks made single; empty where the row has none."""
        return plain(self.values.get(name))

    @property
    def split(self) -> str:
        """What the row is for."""
        return self.text("split") or TRAIN

    def require(self, *names: str, error: type[MedlensError]) -> None:
        missing = [name for name in names if not self.text(name)]
        if missing:
            raise error(
                f"{self} has no {' and no '.join(missing)}",
                hint="Every row needs an image and its group: the patient or case that it belongs to.",
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
    """Read a file of rows. In messages `what` is its kind ("pairs file") and `name` says which it is, else its name
    without folders; `hint` says where such files are looked for.

    Raises `error` for a file that is missing, too large, not UTF-8, or has a row that can't be read, by its line.
    """
    name = name or path.name
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise error(f"the {what} {name!r} can't be read: {exc.strerror}", hint=hint) from exc
    if len(content) > MOST_BYTES:
        raise error(f"the {what} {name!r} has more than {MOST_BYTES:,} bytes", hint="Split it.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise error(f"{name}, line {line} is not UTF-8 text", hint=f"Save the {what} as UTF-8.") from exc
    is_csv = takes_csv and not text.lstrip().startswith("{")
    lines = tuple(_csv_lines(text, name, error) if is_csv else _json_lines(text, name, error))
    return RowFile(path, hashlib.sha256(content).hexdigest(), lines)


def plain(text: object) -> str:
    """A text with its blanks made single; empty for None."""
    return "" if text is None else " ".join(str(text).split())


def _json_lines(text: str, name: str, error: type[MedlensError]) -> Iterator[FileLine]:
    for number, line in enumerate(io.StringIO(text), 1):
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
        f"{name}, line {number}: a row has more than {LONGEST_ROW:,} characters",
        hint="One row is one line; a cell that holds line breaks stands in double quotes, which have to end.",
    )


class _RowTooLong(Exception):
    pass


class _RowLines:
    """The lines of a text, as long as a row has not taken too many characters of them."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self._taken = 0

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken += len(line)
        if self._taken > LONGEST_ROW:
            raise _RowTooLong
        return line

    def next_row(self) -> None:
        self._taken = 0


def _csv_lines(text: str, name: str, error: type[MedlensError]) -> Iterator[FileLine]:
    lines = _RowLines(text)
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            lines.next_row()
            if None in row or None in row.values():
                raise error(
                    f"{name}, line {reader.line_num} has another number of cells than the header",
                    hint="A cell that holds a comma or a line break stands in double quotes.",
                )
            yield FileLine(name, reader.line_num, {column.strip(): value for column, value in row.items()})
    except _RowTooLong as exc:
        raise _too_long(name, reader.line_num + 1, error) from exc
    except csv.Error as exc:
        raise error(
            f"{name}, line {reader.line_num} is not CSV: {exc}", hint="Save it as plain CSV, in UTF-8."
        ) from exc
