"""A SQLite catalog that somebody else may have made: what is in its schema is not run."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from retrieval.errors import StoreCorrupt

_LONGEST_VALUE = 256 << 20  # bytes
_OTHER = sa.text(
    "SELECT type || ' ' || name FROM sqlite_master WHERE type NOT IN ('table', 'index') "
    "OR ltrim(sql) LIKE 'CREATE VIRTUAL%' OR sql LIKE '%GENERATED%' OR sql LIKE '% AS (%' LIMIT 1"
)


def distrust(connection: sqlite3.Connection) -> None:
    """Call no function from a schema that could do harm, and take no value that is larger than any of medlens."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema=OFF").close()


def require_plain_tables(connection: sa.Connection, label: str) -> None:
    """Raise StoreCorrupt for views, triggers, virtual tables and computed columns: medlens makes none of them.

    To read a view or a computed column runs what its maker wrote, which may never end; a trigger runs it when something
    else is written.
    """
    found = connection.execute(_OTHER).scalar()
    if found is not None:
        raise StoreCorrupt(
            f"the catalog of {label} has something that medlens did not make: {str(found)[:60]!r}",
            hint="It may be made to harm. Ask whoever sent it, or index the archive into a new store.",
        )
