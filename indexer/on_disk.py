"""What processes that share a folder of derived files do for each other: wait, and clear up after the dead."""

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
    """Held by one process and one thread at a time: by whoever writes derived files there. The folder may be new.

    So what is unfinished there when it is taken is a dead process's, and is removed.
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
    """Files and folders that killed processes seem to have left: nobody has written to them for a minute."""
    return [path for path in sorted(folder.glob(UNFINISHED)) if _age(path) > _UNFINISHED_S]


def _age(path: Path) -> float:
    """Seconds since a file was written to; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
