"""Errors of the databases, in words that a user can act on."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from retrieval.errors import StoreCorrupt, StoreError, StoreNotFound
from retrieval.on_disk import is_full

CORRUPT_HINT = "Restore the store from a backup, or index the archive into a new store."
_SQLITE: dict[str, tuple[type[StoreError], str, str]] = {
    "SQLITE_BUSY": (
        StoreError,
        "is locked by another process",
        "Wait until the other `medlens` process ends, or stop it.",
    ),
    "SQLITE_LOCKED": (
        StoreError,
        "is locked by another process",
        "Wait until the other `medlens` process ends, or stop it.",
    ),
    "SQLITE_CORRUPT": (StoreCorrupt, "is damaged", CORRUPT_HINT),
    "SQLITE_NOTADB": (StoreCorrupt, "is not an SQLite database", CORRUPT_HINT),
    "SQLITE_FULL": (
        StoreError,
        "can't grow because the disk is full",
        "Free disk space. Everything that was committed before is safe.",
    ),
    "SQLITE_IOERR": (
        StoreError,
        "can't be read or written",
        "Check the disk and its mount. SQLite often fails on network folders.",
    ),
    "SQLITE_READONLY": (
        StoreError,
        "can't be written",
        "Get write permission on the folder of the store and its files.",
    ),
    "SQLITE_PERM": (StoreError, "can't be accessed", "Get permission on the folder of the store and its files."),
    "SQLITE_CANTOPEN": (StoreError, "can't be opened", "Get permission on the folder of the store and its files."),
    "SQLITE_AUTH": (StoreError, "can't be accessed", "Get permission on the folder of the store and its files."),
}
_PERHAPS_FULL = ("SQLITE_IOERR", "SQLITE_CANTOPEN")
_POSTGRES: dict[str, tuple[type[StoreError], str, str]] = {
    "3D000": (StoreNotFound, "does not exist", "Create the database with `createdb`, or check its name."),
    "28": (StoreError, "refuses the login", "Check the user and the password in the URL or in ~/.pgpass."),
    "42501": (StoreError, "refuses access", "Get the right to read and write the tables of medlens."),
    "42P01": (StoreCorrupt, "has no table that is needed", CORRUPT_HINT),
    "53100": (
        StoreError,
        "can't grow because the disk is full",
        "Free disk space. Everything that was committed before is safe.",
    ),
    "53300": (StoreError, "accepts no more connections", "Close other connections, or raise max_connections."),
    "55P03": (StoreError, "is locked by another process", "Wait until the other `medlens` process ends, or stop it."),
    "XX001": (StoreCorrupt, "is damaged", CORRUPT_HINT),
    "XX002": (StoreCorrupt, "is damaged", "Run REINDEX on the database, or restore it from a backup."),
    "08": (
        StoreError,
        "can't be reached",
        "Check that the server is running, and check the host and the port in the URL.",
    ),
    "57": (
        StoreError,
        "ended the connection",
        "Try again when the server is up. Everything that was committed before is safe.",
    ),
}


def translate(exc: Exception, label: str, *folders: Path) -> StoreError:
    """The StoreError for an error of SQLAlchemy or its driver. `label` names the store; parameters are never shown.

    `folders` are those that SQLite writes to: some errors of a full disk do not say that it is full.
    """
    orig = getattr(exc, "orig", None) or exc
    text = str(orig).strip().splitlines()[0] if str(orig).strip() else type(orig).__name__
    name = str(getattr(orig, "sqlite_errorname", "") or "")
    if name.startswith(_PERHAPS_FULL) and any(map(is_full, folders)):
        kind, what, hint = _SQLITE["SQLITE_FULL"]
        return kind(f"the catalog of {label} {what} ({name})", hint=hint)
    for prefix, (kind, what, hint) in _SQLITE.items():
        if name.startswith(prefix):
            return kind(f"the catalog of {label} {what} ({name})", hint=hint)
    if name and text.startswith("no such table"):
        return StoreCorrupt(f"the catalog of {label} has no table that is needed ({text})", hint=CORRUPT_HINT)
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
