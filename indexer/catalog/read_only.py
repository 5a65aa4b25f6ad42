"""A SQLite catalog that may be read and not written: one that its owner lends to a group, or on read-only media.

SQLite reads a database in WAL mode only with its log and that one's index beside it. While its owner works they are
there. Otherwise nobody writes. Then a log that still holds commits (its owner was killed, or only the log was copied)
is read with an index of its own in memory, which takes exclusive locking and so no locks at all; without such a log
the file is opened as one that does not change (`immutable`). That nobody wrote meanwhile is looked at afterwards.
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
    """Whether this process may write the database, or make it: the file, and its log in the same folder."""
    return not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection that can't write."""
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
    """A value that differs as soon as anyone has committed anything, or has emptied the log."""
    places = (path, path.with_name(f"{path.name}-wal"))
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns) if (s := _stat(place)) else None for place in places)


@contextmanager
def unchanged(path: Path, label: str) -> Iterator[None]:
    """StoreError if the database's file was written to meanwhile: what was read may be half of one state."""
    before = _written(path)
    yield
    if _written(path) != before:
        raise StoreError(
            f"the catalog of {label} was written while it was read, without the right to lock it", hint="Try again."
        )


def _written(path: Path) -> tuple[int, int] | None:
    found = _stat(path)
    return None if found is None else (found.st_size, found.st_mtime_ns)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
