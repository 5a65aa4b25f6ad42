"""The database under the catalog: engine, transactions, migrations, and its errors in words a user can act on.

SQLite runs in WAL mode with synchronous=FULL: what was reported as committed survives a power cut, and readers never
wait for a writer. Writers take the write lock at the start (BEGIN IMMEDIATE; an advisory lock on PostgreSQL), so ids
become visible in ascending order, which the high-water marks of the vector indexes depend on.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound

from .schema import SCHEMA_REVISION

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 120.0
MIGRATIONS = Path(__file__).with_name("migrations")
_WRITE_LOCK = 0x6D65646C656E73  # "medlens"

_CORRUPT_HINT = "Restore the store from a backup, or index the archive into a new store."
_SQLITE_ERRORS: dict[str, tuple[type[StoreError], str, str]] = {
    "SQLITE_BUSY": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "SQLITE_LOCKED": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "SQLITE_CORRUPT": (StoreCorrupt, "is damaged", _CORRUPT_HINT),
    "SQLITE_NOTADB": (StoreCorrupt, "is no SQLite database", _CORRUPT_HINT),
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
_POSTGRES_ERRORS: dict[str, tuple[type[StoreError], str, str]] = {
    "3D000": (StoreNotFound, "does not exist", "Make the database with `createdb`, or check its name."),
    "28": (StoreError, "refuses the login", "Check user and password in the URL, or ~/.pgpass."),
    "42501": (StoreError, "refuses access", "Ask for the right to read and write the tables of medlens."),
    "42P01": (StoreCorrupt, "lacks a table", _CORRUPT_HINT),
    "53100": (StoreError, "can't grow: the disk is full", "Make room; what was committed before is safe."),
    "53300": (StoreError, "takes no more connections", "Close others, or raise max_connections."),
    "55P03": (StoreError, "is locked by another process", "Wait for the other `medlens` to end, or stop it."),
    "XX001": (StoreCorrupt, "is damaged", _CORRUPT_HINT),
    "XX002": (StoreCorrupt, "is damaged", "REINDEX the database, or restore it from a backup."),
    "08": (StoreError, "can't be reached", "Check that the server runs, and host and port in the URL."),
    "57": (StoreError, "ended the connection", "Try again when the server is up; what was committed before is safe."),
}


def translate(exc: Exception, label: str) -> StoreError:
    """The StoreError for what SQLAlchemy or its driver raised. `label` names the store; parameters are never shown."""
    orig = getattr(exc, "orig", None) or exc
    text = str(orig).strip().splitlines()[0] if str(orig).strip() else type(orig).__name__
    name = str(getattr(orig, "sqlite_errorname", "") or "")
    for prefix, (kind, what, hint) in _SQLITE_ERRORS.items():
        if name.startswith(prefix):
            return kind(f"the catalog of {label} {what} ({name})", hint=hint)
    if name and text.startswith("no such table"):
        return StoreCorrupt(f"the catalog of {label} lacks a table ({text})", hint=_CORRUPT_HINT)
    state = str(getattr(orig, "sqlstate", "") or "")
    for prefix, (kind, what, hint) in _POSTGRES_ERRORS.items():
        if state.startswith(prefix):
            return kind(f"the database {label} {what} (SQLSTATE {state})", hint=hint)
    if not state and isinstance(exc, sa.exc.OperationalError):
        if "does not exist" in text and "database" in text:
            kind, what, hint = _POSTGRES_ERRORS["3D000"]
            return kind(f"the database {label} {what}", hint=hint)
        kind, what, hint = _POSTGRES_ERRORS["08"]
        return kind(f"the database {label} {what}", hint=hint)
    return StoreError(f"the catalog of {label} failed: {type(orig).__name__} {name or state}".rstrip())


class Database:
    """An engine, with transactions whose errors come out as StoreError."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"hide_parameters": True}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        else:
            options |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
        try:
            self.engine = sa.create_engine(url, **options)
        except sa.exc.ArgumentError as exc:
            raise StoreError(f"{self.label} is no database URL", hint=_URL_HINT) from exc
        except ModuleNotFoundError as exc:
            raise StoreError(
                f"the driver {exc.name!r} of {url.drivername} is not installed",
                hint="pip install 'medlens[postgresql]'",
            ) from exc
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _set_pragmas)
        sa.event.listen(self.engine, "begin", _begin)

    @property
    def label(self) -> str:
        """What messages call this database: no password, no full path."""
        if self.is_sqlite:
            path = Path(self.url.database or "")
            return repr(path.parent.name or path.name)
        return repr(f"{self.url.host or 'local'}/{self.url.database}")

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that writes nothing. SQLite sees one state in it, PostgreSQL one per statement."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, committed at the end or rolled back."""
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(medlens_writing=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as exc:
            raise translate(exc, self.label) from exc

    def checkpoint(self) -> None:
        """SQLite: empty the write-ahead log, which holds copies of pages that were erased since."""
        if self.is_sqlite:
            with self._translated(), self.engine.connect() as connection:
                raw = connection.connection.cursor()
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                (busy, *_) = raw.fetchone() or (1,)
                raw.close()
                if busy:
                    log.info("the write-ahead log is in use by a reader; it is emptied at the next checkpoint")

    def close(self) -> None:
        self.engine.dispose()

    def revision(self) -> str | None:
        """The schema that the database has, None where medlens has made nothing in it."""
        table = sa.table("alembic_version", sa.column("version_num"))
        with self.reading() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(sa.select(table.c.version_num)).scalars().all()
        if len(found) != 1:
            raise StoreCorrupt(f"the catalog of {self.label} names {len(found)} schema versions", hint=_CORRUPT_HINT)
        return str(found[0])

    def migrate(self, then: Callable[[sa.Connection], None] | None = None) -> None:
        """Bring the database to SCHEMA_REVISION, from nothing or from an older schema, in one transaction.

        `then` writes more in the same transaction.
        """
        from alembic import command

        with self.writing() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA_REVISION)
            if then is not None:
                then(connection)

    def require_current(self) -> None:
        """Migrate an older schema after a backup. StoreIncompatible for one that this code does not know."""
        found = self.revision()
        if found == SCHEMA_REVISION:
            return
        if found is None:
            if self.is_sqlite:
                raise StoreCorrupt(f"the catalog of {self.label} has no schema", hint=_CORRUPT_HINT)
            raise StoreNotFound(f"the database {self.label} holds no medlens store")
        from alembic.script import ScriptDirectory

        known = {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}
        if found not in known:
            raise StoreIncompatible(
                f"the catalog of {self.label} has schema {found}; this medlens knows schemas up to {SCHEMA_REVISION}",
                hint="Use the newer medlens that wrote it: pip install --upgrade medlens",
            )
        self._back_up(found)
        log.info("migrating the catalog of %s from schema %s to %s", self.label, found, SCHEMA_REVISION)
        self.migrate()

    def _back_up(self, revision: str) -> None:
        if not self.is_sqlite or not self.url.database:
            return  # PostgreSQL: the migration is one transaction, backups are the server's business
        source = Path(self.url.database)
        target = source.with_name(f"{source.name}.schema-{revision}.backup")
        try:
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
                old.backup(new)
        except sqlite3.Error as exc:
            raise translate(exc, self.label) from exc
        log.info("kept the old catalog of %s as %s", self.label, target.name)


_URL_HINT = "Give a folder, or a URL like postgresql+psycopg://user@host/database."


def parse_url(location: str | Path) -> URL:
    """A database URL from a URL, or from the path of a SQLite file. StoreError for what is neither."""
    if isinstance(location, Path):
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(location)
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise StoreError("the location is no database URL", hint=_URL_HINT) from exc
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"{backend!r} databases are not supported, only sqlite and postgresql", hint=_URL_HINT)
    if backend == "postgresql" and "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("a store in memory would be lost at the end", hint=_URL_HINT)
    return url


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # _begin opens transactions, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("medlens_writing", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
