"""What a database says, in words a user can act on."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from retrieval.errors import StoreCorrupt, StoreError, StoreNotFound
from retrieval.on_disk import is_full

CORRUPT_HINT = "Restore the store from a backup, or index the archive into a new store."
_SQLITE: dict[str, tuple[type[StoreError], str, str]] = {
    "SQLITE_BUSY": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "SQLITE_LOCKED": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "SQLITE_CORRUPT": (StoreCorrupt, "is damaged", CORRUPT_HINT),
    "SQLITE_NOTADB": (StoreCorrupt, "is no SQLite database", CORRUPT_HINT),
    "SQLITE_FULL": (StoreError, "can't grow: the disk is full", "Make room; what was committed before is safe."),
    "SQLITE_IOERR": (
        StoreError,
        "can't be read or written",
        "Check the disk and the mount; network folders often fail.",
    ),
    "SQLITE_READONLY": (
        StoreError,
        "can't be written",
        "Ask for write permission on the store's folder and its files.",
    ),
    "SQLITE_PERM": (StoreError, "can't be accessed", "Ask for permission on the store's folder and its files."),
    "SQLITE_CANTOPEN": (StoreError, "can't be opened", "Ask for permission on the store's folder and its files."),
    "SQLITE_AUTH": (StoreError, "can't be accessed", "Ask for permission on the store's folder and its files."),
}
_PERHAPS_FULL = ("SQLITE_IOERR", "SQLITE_CANTOPEN")
_POSTGRES: dict[str, tuple[type[StoreError], str, str]] = {
    "3D000": (StoreNotFound, "does not exist", "Make the database with `createdb`, or check its name."),
    "28": (StoreError, "refuses the login", "Check user and password in the URL, or ~/.pgpass."),
    "42501": (StoreError, "refuses access", "Ask for the right to read and write the tables of medlens."),
    "42P01": (StoreCorrupt, "lacks a table", CORRUPT_HINT),
    "53100": (StoreError, "can't grow: the disk is full", "Make room; what was committed before is safe."),
    "53300": (StoreError, "takes no more connections", "Close others, or raise max_connections."),
    "55P03": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "XX001": (StoreCorrupt, "is damaged", CORRUPT_HINT),
    "XX002": (StoreCorrupt, "is damaged", "REINDEX the database, or restore it from a backup."),
    "08": (StoreError, "can't be reached", "Check that the server runs, and host and port in the URL."),
    "57": (StoreError, "ended the connection", "Try again when the server is up; what was committed before is safe."),
}


def translate(exc: Exception, label: str, folder: Path | None = None) -> StoreError:
    """The StoreError for what SQLAlchemy or its driver raised. `label` names the store; parameters are never shown.

    `folder` is where a SQLite database lies: not each of its errors says that there is no room.
    """
    orig = getattr(exc, "orig", None) or exc
    text = str(orig).strip().splitlines()[0] if str(orig).strip() else type(orig).__name__
    name = str(getattr(orig, "sqlite_errorname", "") or "")
    if name.startswith(_PERHAPS_FULL) and folder is not None and is_full(folder):
        kind, what, hint = _SQLITE["SQLITE_FULL"]
        return kind(f"the catalog of {label} {what} ({name})", hint=hint)
    for prefix, (kind, what, hint) in _SQLITE.items():
        if name.startswith(prefix):
            return kind(f"the catalog of {label} {what} ({name})", hint=hint)
    if name and text.startswith("no such table"):
        return StoreCorrupt(f"the catalog of {label} lacks a table ({text})", hint=CORRUPT_HINT)
    state = str(getattr(orig, "sqlstate", "") or "")
    for prefix, (kind, what, hint) in _POSTGRES.items():
        if state.startswith(prefix):
            return kind(f"the database {label} {what} (SQLSTATE {state})", hint=hint)
    if not state and isinstance(exc, sa.exc.OperationalError):
        if "does not exist" in text and "database" in text:
            kind, what, hint = _POSTGRES["3D000"]
            return kind(f"the database {label} {what}", hint=hint)
        kind, what, hint = _POSTGRES["08"]
        return kind(f"the database {label} {what}", hint=hint)
    return StoreError(f"the catalog of {label} failed: {type(orig).__name__} {name or state}".rstrip())
