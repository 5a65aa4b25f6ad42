"""An SQLite catalog that may be read but not written: shared with a group by its owner, or on read-only media.

SQLite reads a database in WAL mode only with its log and the log's index beside it. They are there while its owner
works. Otherwise nobody writes. A log that still holds commits (its owner was killed, or only the log was copied) is
then read with an index in memory, which needs exclusive locking mode and therefore no locks at all. Without such a log
the file is opened as one that does not change (`immutable`). After reading, it is checked that nobody has written.
https://sqlite.org/wal.html#read_only_databases https://sqlite.org/wal.html#noshm
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from retrieval.errors import StoreError


def may_be_written(path: Path) -> bool:
    """Whether this process may write or create the database: the file, and its log in the same folder."""
    return not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Return a connection that can't write."""
    log, index = (_stat(path.with_name(f"{path.name}{end}")) for end in ("-wal", "-shm"))
    if log is not None and index is not None:
        how = ""
    elif log is not None and log.st_size:
        how = "&vfs=unix-none"
    else:
        how = "&immutable=1"
    place = f"file:{quote(str(path.absolute()))}?mode=ro{how}"
    connection = sqlite3.connect(place, timeout=timeout_s, check_same_thread=False, uri=True)
    if how == "&vfs=unix-none":
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").close()
    return connection


def stamp(path: Path) -> Hashable:
    """Return a value that changes with every commit, and when the log is emptied."""
    places = (path, path.with_name(f"{path.name}-wal"))
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns) if (s := _stat(place)) else None for place in places)


@contextmanager
def unchanged(path: Path, label: str) -> Iterator[None]:
    """Raise StoreError if the database's file was written meanwhile, because a mixture of two states may have been
    read.
    """
    before = _written(path)
    yield
    if _written(path) != before:
        raise StoreError(
            f"the catalog of {label} was changed while it was read; medlens has no right to lock it here",
            hint="Run the command again.",
        )


def _written(path: Path) -> tuple[int, int] | None:
    found = _stat(path)
    return None if found is None else (found.st_size, found.st_mtime_ns)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
