"""The database under the catalog: engine, transactions, migrations, and its errors in words a user can act on.

SQLite runs in WAL mode with synchronous=FULL: what was reported as committed survives a power cut, and readers never
wait for a writer. Writers take the write lock at the start (BEGIN IMMEDIATE; an advisory lock on PostgreSQL), so ids
become visible in ascending order, which the high-water marks of the vector indexes depend on.
"""

from __future__ import annotations

import glob
import logging
import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from indexer.catalog import read_only
from indexer.catalog.errors import CORRUPT_HINT, translate
from indexer.catalog.schema import SCHEMA_REVISION
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound
from retrieval.on_disk import written_whole
from retrieval.optional import require_optional

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 120.0
MIGRATIONS = Path(__file__).with_name("migrations")
_LONGEST_VALUE = 256 << 20  # bytes
_WRITE_LOCK = 0x6D65646C656E73  # "medlens"


class Database:
    """An engine, with transactions whose errors come out as StoreError."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._turn = threading.Lock()
        self._watching = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        self.is_sqlite = url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"hide_parameters": True}
        file = Path(str(url.database)) if self.is_sqlite else None
        self._lent = file if file is not None and not read_only.may_be_written(file) else None
        if self._lent is not None:  # a pooled connection would keep pages that have changed since
            options |= {
                "creator": partial(read_only.connect, self._lent, BUSY_TIMEOUT_S),
                "poolclass": sa.pool.NullPool,
            }
        elif self.is_sqlite:
            options["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        else:
            options |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
        if url.drivername == "postgresql+psycopg":
            require_optional("psycopg", "a PostgreSQL database", StoreError)
        try:
            self.engine = sa.create_engine(url, **options)
        except sa.exc.ArgumentError as exc:
            raise StoreError(f"{self.label} is no database URL", hint=_URL_HINT) from exc
        except ModuleNotFoundError as exc:
            raise StoreError(
                f"the driver {exc.name!r} of {url.drivername} is not installed",
                hint="Write postgresql:// for the driver that medlens[postgresql] brings, or install this one.",
            ) from exc
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _set_pragmas if self._lent is None else _open_to_read)
        else:
            sa.event.listen(self.engine, "connect", _wait_for_the_disk)
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
        lent = nullcontext() if self._lent is None else read_only.unchanged(self._lent, self.label)
        with lent, self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, committed at the end or rolled back."""
        # Threads of this process queue here; SQLite's own waiting is to ask again after a while.
        with self._turn, self._translated(), self.engine.connect() as connection:
            connection.execution_options(medlens_writing=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as exc:
            raise translate(exc, self.label) from exc
        except UnicodeDecodeError as exc:  # sqlite3 quotes what it finds, be it text or not
            what = "is damaged (text that is not UTF-8)"
            raise StoreCorrupt(f"the catalog of {self.label} {what}", hint=CORRUPT_HINT) from exc

    def checkpoint(self) -> bool:
        """SQLite: empty the write-ahead log, which holds copies of pages that were erased since.

        False if a reader was in the way for BUSY_TIMEOUT_S; then the next checkpoint does it.
        """
        if not self.is_sqlite:
            return True
        with self._translated(), self.engine.connect() as connection:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (busy, *_) = raw.fetchone() or (1,)
            raw.close()
        if busy:
            log.info("the write-ahead log is in use by a reader; it is emptied at the next checkpoint")
        return not busy

    def scrub(self) -> None:
        """After an erasure: leave no copy of what is gone where this database keeps copies.

        SQLite's log is emptied, and backups from before a migration are removed. PostgreSQL vacuums. StoreError if a
        reader keeps SQLite's log in use.
        """
        for backup in self.backups():
            backup.unlink(missing_ok=True)
            log.warning("removed %s, an old copy of the catalog that held what was erased", backup.name)
        if not self.is_sqlite:
            with self._translated(), self.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
        elif not self.checkpoint():
            raise StoreError(
                f"all is erased from the catalog of {self.label}, but another process keeps its write-ahead log in use",
                hint="End the other medlens processes, then run the same command again: it empties the log.",
            )

    def state(self) -> Hashable:
        """A value that differs as soon as anyone has committed anything, in this process or another; cheap to ask.

        What is worked out from the database after asking holds as long as the answer is the same.
        """
        with self._translated():
            if self._lent is not None:
                return read_only.stamp(self._lent)
            if self.is_sqlite:
                # data_version counts what other connections commit: this one commits nothing, so nothing escapes it.
                with self._watching:
                    if self._watch is None:
                        place = str(self.url.database)
                        self._watch = sqlite3.connect(place, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
                    return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
            with self.engine.connect() as connection:  # equal snapshots see the same transactions
                return str(connection.execute(sa.text("SELECT CAST(pg_current_snapshot() AS text)")).scalar_one())

    def close(self) -> None:
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self.engine.dispose()

    def revision(self) -> str | None:
        """The schema that the database has, None where medlens has made nothing in it."""
        with self.reading() as connection:
            return _revision(connection)

    def migrate(self, then: Callable[[sa.Connection], None] | None = None) -> None:
        """Bring the database to SCHEMA_REVISION, from nothing or from an older schema, in one transaction.

        What is there on SQLite is backed up first, under the lock that keeps everyone else from writing. `then` writes
        more in the same transaction.
        """
        from alembic import command

        with self.writing() as connection:
            found = _revision(connection)
            if found not in (None, SCHEMA_REVISION):  # not if another process has been quicker
                self._back_up(str(found))
                log.warning("migrating the catalog of %s from schema %s to %s", self.label, found, SCHEMA_REVISION)
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA_REVISION)
            if then is not None:
                then(connection)

    def require_current(self) -> None:
        """Migrate an older schema after a backup, on SQLite.

        Raises StoreIncompatible for a schema that this code does not know, and for an older one on PostgreSQL: backups
        are the server's business, and other machines may be at work with the older medlens.
        """
        if self.is_sqlite:
            self._require_plain_tables()
        if not self.outdated():
            return
        if self.is_sqlite:
            self.migrate()
            return
        raise StoreIncompatible(
            f"the database {self.label} has schema {str(self.revision())[:40]!r}, expected {SCHEMA_REVISION}",
            hint="Stop the other medlens processes, back up (pg_dump), then run: medlens migrate --store URL",
        )

    def _require_plain_tables(self) -> None:
        """StoreCorrupt for views, triggers, virtual tables and computed columns: medlens makes none of them.

        A catalog may be a stranger's. To read a view or a computed column runs what its maker wrote, which may never
        end; a trigger runs it when something else is written.
        """
        other = sa.text(
            "SELECT type || ' ' || name FROM sqlite_master WHERE type NOT IN ('table', 'index') "
            "OR sql LIKE 'CREATE VIRTUAL%' OR sql LIKE '%GENERATED%' OR sql LIKE '% AS (%' LIMIT 1"
        )
        with self.reading() as connection:
            found = connection.execute(other).scalar()
        if found is not None:
            raise StoreCorrupt(
                f"the catalog of {self.label} has something that medlens did not make: {str(found)[:60]!r}",
                hint="It may be made to harm. Ask whoever sent it, or index the archive into a new store.",
            )

    def outdated(self) -> bool:
        """Whether `migrate` has something to do. Raises StoreIncompatible for a schema from a newer medlens."""
        found = self.revision()
        if found == SCHEMA_REVISION:
            return False
        if found is None:
            if self.is_sqlite:
                raise StoreCorrupt(f"the catalog of {self.label} has no schema", hint=CORRUPT_HINT)
            raise StoreNotFound(f"the database {self.label} holds no medlens store")
        from alembic.script import ScriptDirectory

        known = {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}
        if found not in known:
            raise StoreIncompatible(
                f"the catalog of {self.label} has schema {str(found)[:40]!r}; this medlens knows schemas up to "
                f"{SCHEMA_REVISION}",
                hint="Use the newer medlens that wrote it: pip install --upgrade medlens",
            )
        return True

    def backups(self) -> list[Path]:
        """The copies that migrations have left beside a SQLite catalog."""
        if not self.is_sqlite or not self.url.database:
            return []
        source = Path(self.url.database)
        return sorted(source.parent.glob(f"{glob.escape(source.name)}.schema-*.backup"))

    def _back_up(self, revision: str) -> None:
        """Whole or not at all. An earlier backup of the same schema is replaced."""
        if not self.is_sqlite or not self.url.database:
            return
        source = Path(self.url.database)
        target = source.with_name(f"{source.name}.schema-{revision}.backup")
        try:
            with (
                written_whole(target, durable=True, like=source) as temporary,
                closing(sqlite3.connect(source)) as old,
                closing(sqlite3.connect(temporary)) as new,
            ):
                old.backup(new)
        except sqlite3.Error as exc:
            raise translate(exc, self.label) from exc
        except OSError as exc:
            raise StoreError(
                f"the catalog of {self.label} can't be backed up before its migration: {exc.strerror}",
                hint="Make room beside it and check permissions; nothing was changed.",
            ) from exc
        log.warning("kept the old catalog of %s as %s", self.label, target.name)


def _revision(connection: sa.Connection) -> str | None:
    table = sa.table("alembic_version", sa.column("version_num"))
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.select(table.c.version_num)).scalars().all()
    if len(found) != 1:
        raise StoreCorrupt(f"the catalog names {len(found)} schema versions, expected one", hint=CORRUPT_HINT)
    return str(found[0])


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


def _wait_for_the_disk(connection: Any, _record: object) -> None:
    """PostgreSQL with `synchronous_commit = off` would report commits that a power cut takes back."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone()[0] == "off":
            cursor.execute("SET synchronous_commit = on")
    connection.commit()


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # _begin opens transactions, not the driver
    _distrust(connection)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _open_to_read(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    _distrust(connection)


def _distrust(connection: sqlite3.Connection) -> None:
    """What is written into a schema calls no function that could do harm, and no value is larger than any of ours."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema=OFF").close()


def _begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("medlens_writing", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
