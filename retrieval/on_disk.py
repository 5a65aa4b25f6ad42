"""How files come to be: made beside their place under a name of their own, then renamed.

So a reader sees the old file, the new one or none, and what a killed process leaves is known by its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".*.tmp"  # the names of what is not finished


def unfinished_name(path: Path) -> Path:
    """A free name in the folder of `path`. What is made there has the permissions that the umask gives: no `mkstemp`,
    whose files nobody else may read once they are renamed.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def written_whole(path: Path, *, durable: bool = False, alone: bool = False) -> Iterator[Path]:
    """A name to write to, whose file becomes `path` when the block ends well, and goes if it doesn't.

    With `durable`, it survives a power cut from then on. With `alone`, nobody else writes this file at the same time:
    what a killed process has left of it is overwritten, where nothing else clears the folder.

    What a link leads to is replaced, not the link. A pipe or a device can't be replaced and is written to as it is.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield place
        return
    temporary = place.with_name(f".{place.name}.tmp") if alone else unfinished_name(place)
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(place.parent)


@contextmanager
def folder_written_whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """The same for a folder: a new one, to be filled, which becomes `path` when the block ends well.

    What was there goes; without `replace`, OSError if anything is there by then but an empty folder.
    """
    made, old = unfinished_name(path), unfinished_name(path)
    try:
        made.mkdir()
        yield made
        if replace and path.exists():
            path.rename(old)
        made.rename(path)
    finally:
        remove(made)
        remove(old)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; nothing if it is gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or what was created or renamed in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
