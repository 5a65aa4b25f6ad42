"""Copies of an SQLite catalog: made while others write, and checked when somebody else may have made them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from indexer.catalog.errors import CORRUPT_HINT, translate
from retrieval.errors import StoreCorrupt
from retrieval.on_disk import make_private

_OF_A_RUN = ("claims", "workers")  # of the processes that are at work on the catalog itself


def copy_state(source: sqlite3.Connection, target: Path) -> None:
    """Write one state of a catalog to a new file that only its owner can read. Others may write meanwhile.

    Claims and the remains of deleted rows are left out. Raises sqlite3.Error or OSError.
    """
    make_private(target)
    with closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE").close()  # one file, without a log beside it
        copy.execute("PRAGMA secure_delete=ON").close()
        there = {row[0] for row in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in there.intersection(_OF_A_RUN):
            copy.execute(f"DELETE FROM {table}")
        copy.commit()


def require_sound(path: Path, label: str) -> None:
    """Raise StoreCorrupt unless a file is a sound SQLite database that has only tables and indexes.

    A trigger or a view of somebody else would run when the catalog is written or read.
    """
    place = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(place, uri=True)) as database:
            database.execute("PRAGMA trusted_schema=OFF").close()
            found = database.execute("SELECT type, upper(substr(ltrim(sql), 1, 14)) FROM sqlite_master").fetchall()
            if any(kind not in ("table", "index") or start == "CREATE VIRTUAL" for kind, start in found):
                raise StoreCorrupt(
                    f"the catalog of {label} has triggers, views or virtual tables, which medlens never creates",
                    hint="Do not use it: somebody has changed it.",
                )
            [said] = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as exc:
        raise translate(exc, label) from exc
    if said != "ok":
        raise StoreCorrupt(f"the catalog of {label} is damaged", hint=CORRUPT_HINT)
