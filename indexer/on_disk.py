"""How processes share a folder of derived files: a lock, and the removal of unfinished files."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.on_disk import UNFINISHED, make_folder_like_its_parent, remove

_UNFINISHED_S = 60.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for one process and one thread that writes derived files there.

    The folder is created if necessary.

    Unfinished files that are there when the lock is taken belong to a process that has ended, and are removed.
    """
    make_folder_like_its_parent(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for path in folder.glob(UNFINISHED):
            remove(path)
        yield
    finally:
        os.close(handle)


def unfinished(folder: Path) -> list[Path]:
    """Return files and folders that killed processes seem to have left: nothing was written to them for a minute."""
    return [path for path in sorted(folder.glob(UNFINISHED)) if _age(path) > _UNFINISHED_S]


def _age(path: Path) -> float:
    """Return the seconds since a file was written; 0 if it does not exist."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
