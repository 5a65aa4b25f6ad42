"""Files that a command writes: refused before any work if they can't be, and whole or not there afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from retrieval.errors import MedlensError, QueryError


def require_suffix(what: str, path: Path | None, *suffixes: str) -> None:
    """QueryError for a file whose name says another format than can be written, before any work is done."""
    if path is not None and path.suffix.lower() not in suffixes:
        *others, last = suffixes
        expected = f"{', '.join(others)} or {last}" if others else last
        raise QueryError(f"the {what} ends in {path.suffix!r}, expected {expected}")


def require_place(path: Path | None) -> None:
    """MedlensError if a file can't be written there for want of a folder, before any work is done."""
    if path is None:
        return
    if path.is_dir():
        raise MedlensError(f"{path.name or str(path)!r} can't be written: it is a folder", hint="Name a file in it.")
    if not path.parent.is_dir():
        raise MedlensError(
            f"{path.name!r} can't be written: there is no folder {path.parent.name!r}", hint="Make the folder first."
        )


@contextmanager
def destination(path: Path | None) -> Iterator[TextIO]:
    """stdout, or a file that appears only when all is written."""
    if path is None:
        yield sys.stdout
        return
    import io

    require_place(path)
    buffer = io.StringIO()
    yield buffer
    write_text(path, buffer.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8. Raises MedlensError, naming the file without its folders."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # names of files may be no UTF-8


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file. Raises MedlensError, naming the file without its folders."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """`written_whole`; an OSError becomes a MedlensError that names the file without its folders."""
    from retrieval.on_disk import written_whole

    try:
        with written_whole(path) as temporary:
            yield temporary
    except OSError as exc:
        raise MedlensError(f"{path.name!r} can't be written: {exc.strerror or exc}") from exc
