"""How files come to be: made beside their place under a name of their own, then renamed; those of a store are synced.

So a reader sees the old file, the new one or none, and what a killed process leaves is known by its name.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".*.tmp"
_UNFINISHED_S = 60.0


def unfinished_name(path: Path) -> Path:
    """A free name in the folder of `path`. What is made there has the permissions that the umask gives: no `mkstemp`,
    whose files nobody else may read once they are renamed.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to, whose file becomes `path` when the block ends well, and goes if it doesn't.

    What a link leads to is replaced, not the link. A pipe or a device can't be replaced and is written to as it is.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield place
        return
    temporary = unfinished_name(place)
    try:
        yield temporary
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Held by one process and one thread at a time: by whoever writes derived files there. The folder may be new.

    So what is unfinished there when it is taken is a dead process's, and is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for path in folder.glob(_UNFINISHED):
            remove(path)
        yield
    finally:
        os.close(handle)


def unfinished(folder: Path) -> list[Path]:
    """Files and folders that killed processes seem to have left: nobody has written to them for a minute."""
    return [path for path in sorted(folder.glob(_UNFINISHED)) if _age(path) > _UNFINISHED_S]


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; nothing if it is gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _age(path: Path) -> float:
    """Seconds since a file was written to; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
