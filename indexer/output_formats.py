"""How an earlier output is distinguished from a file that somebody else wrote: by a mark, or by its columns.

Only the first bytes are read and, if a format has its metadata at the end, the last ones. Nothing is unpacked.
"""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

_HEAD = 1 << 16
_FOOTER = 1 << 24  # bytes of a Parquet file's description


@dataclass(frozen=True)
class OutputFormat:
    """The name of a kind of output, for messages ("a page of hits"), and the test whether a file is an earlier one."""

    name: str
    _is_one: Callable[[Path], bool]

    def recognises(self, path: Path) -> bool:
        """Whether a non-empty file is an output of this kind. A file that can't be read is not."""
        try:
            return self._is_one(path)
        except (OSError, ValueError, RecursionError, csv.Error):
            return False


def csv_file(name: str, columns: Collection[str], values: tuple[str, ...] = ()) -> OutputFormat:
    """CSV with exactly these columns, and any further ones whose name begins with one of `values`."""
    return OutputFormat(name, lambda path: _are(_csv_columns(path), columns, values))


def json_lines(name: str, keys: Collection[str], values: tuple[str, ...] = ()) -> OutputFormat:
    """JSON lines whose first object has exactly these keys; see `csv_file`."""
    return OutputFormat(name, lambda path: _are(_first_keys(_first_line(path)), keys, values))


def json_document(name: str, keys: Sequence[str]) -> OutputFormat:
    """A JSON object that begins with these keys."""
    return OutputFormat(name, lambda path: _first_keys(_text(path), len(keys)) == list(keys))


def table(name: str) -> OutputFormat:
    """A table for people. It has no mark, so no existing file is recognised as one."""
    return OutputFormat(name, lambda path: False)


def html_page(name: str, kind: str) -> OutputFormat:
    """A page whose generator is medlens."""
    mark = f'<meta name="generator" content="medlens {kind}">'
    return OutputFormat(name, lambda path: _text(path).startswith("<!doctype html>") and mark in _text(path))


def picture(name: str, kind: str) -> OutputFormat:
    """A picture with the mark "medlens KIND": PNG in its Software, JPEG in its comment, SVG and PDF in their
    Creator.
    """
    return OutputFormat(name, lambda path: _is_picture(path, f"medlens {kind}".encode()))


def npz(name: str, arrays: Collection[str]) -> OutputFormat:
    """An npz file with exactly these arrays."""

    def is_one(path: Path) -> bool:
        import zipfile

        try:
            with zipfile.ZipFile(path) as file:
                return sorted(file.namelist()) == sorted(f"{array}.npy" for array in arrays)
        except zipfile.BadZipFile:
            return False

    return OutputFormat(name, is_one)


def parquet(name: str, mark: str) -> OutputFormat:
    """A Parquet file with this key in its metadata."""
    return OutputFormat(name, lambda path: mark.encode() in _parquet_footer(path))


def beside(name: str, magic: bytes, ending: str, other: OutputFormat) -> OutputFormat:
    """A file that begins with `magic` and has another output beside it, whose name has this further ending."""

    def is_one(path: Path) -> bool:
        companion = path.with_name(path.name + ending)
        return _head(path).startswith(magic) and companion.is_file() and other.recognises(companion)

    return OutputFormat(name, is_one)


def beginning(name: str, magic: bytes) -> OutputFormat:
    """Return the format of a file that begins with these bytes."""
    return OutputFormat(name, lambda path: _head(path).startswith(magic))


def _are(found: Sequence[str], wanted: Collection[str], values: tuple[str, ...]) -> bool:
    others = [name for name in found if name not in wanted]
    return {*wanted} <= {*found} and all(name.startswith(values) for name in others)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _text(path: Path) -> str:
    return _head(path).decode("utf-8", "replace")


def _first_line(path: Path) -> str:
    return _text(path).partition("\n")[0]


def _csv_columns(path: Path) -> list[str]:
    return next(csv.reader(io.StringIO(_first_line(path))), [])


def _first_keys(text: str, most: int | None = None) -> list[str]:
    """Return the first keys of a JSON object, of which perhaps only the beginning is given.

    Raises ValueError if it is not one.
    """
    decoder, keys = json.JSONDecoder(), list[str]()
    at = _past_blanks(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not a JSON object")
    while most is None or len(keys) < most:
        key, at = decoder.raw_decode(text, _past_blanks(text, at + 1))
        at = _past_blanks(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError("not a JSON object")
        keys.append(key)
        if len(keys) == most:
            break
        _, at = decoder.raw_decode(text, _past_blanks(text, at + 1))
        at = _past_blanks(text, at)
        if text[at : at + 1] != ",":
            break
    return keys


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\r", "\t"):
        at += 1
    return at


def _is_picture(path: Path, mark: bytes) -> bool:
    head = _head(path)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"tEXtSoftware\0" + mark in head
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xfe" + struct.pack(">H", len(mark) + 2) + mark in head
    if head.startswith(b"%PDF"):
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _HEAD, 0))
            return b"/Creator (" + mark in head + file.read(_HEAD)
    return head.lstrip().startswith(b"<?xml") and b"<dc:title>" + mark in head


def _parquet_footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(size - 8, 0))
        length, magic = struct.unpack("<I4s", file.read(8).rjust(8, b"\0"))
        if magic != b"PAR1" or length > min(_FOOTER, size - 8):
            return b""
        file.seek(size - 8 - length)
        return file.read(length)
