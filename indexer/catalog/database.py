"""The database under the catalog: engine, transactions, migrations, and its errors in words that a user can act on.

SQLite runs in WAL mode with synchronous=FULL: a reported commit survives a power cut, and readers never wait for a
writer. Writers take the write lock at the start (BEGIN IMMEDIATE; an advisory lock on PostgreSQL), so ids become
visible in ascending order. The vector indexes depend on that.
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
from indexer.catalog.copies import copy_state, require_sound
from indexer.catalog.distrust import distrust, require_plain_tables
from indexer.catalog.errors import CORRUPT_HINT, translate
from indexer.catalog.schema import SCHEMA_REVISION
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound
from retrieval.on_disk import written_whole
from retrieval.optional import require_optional

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 120.0
MIGRATIONS = Path(__file__).with_name("migrations")
_WRITE_LOCK = 0x6D65646C656E73  # "medlens"


class Database:
    """An engine with transactions whose errors are raised as StoreError."""

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
            logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what it raises as well
        try:
            self.engine = sa.create_engine(url, **options)
        except sa.exc.ArgumentError as exc:
            raise StoreError(f"{self.label} is not a database URL", hint=_URL_HINT) from exc
        except ModuleNotFoundError as exc:
            raise StoreError(
                f"the driver {exc.name!r} of {url.drivername} is not installed",
                hint="Write postgresql:// to use the driver that medlens[postgresql] installs, or install the "
                "driver you named.",
            ) from exc
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _set_pragmas if self._lent is None else _open_to_read)
        else:
            sa.event.listen(self.engine, "connect", _wait_for_the_disk)
        sa.event.listen(self.engine, "begin", _begin)

    @property
    def label(self) -> str:
        """The name of this database in messages, without a password or a full path."""
        if self.is_sqlite:
            path = Path(self.url.database or "")
            return repr(path.parent.name or path.name)
        return repr(f"{self.url.host or 'local'}/{self.url.database}")

    @property
    def _folders(self) -> tuple[Path, ...]:
        """Return the folders that SQLite writes to."""
        return (Path(str(self.url.database)).parent,) if self.is_sqlite else ()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A read-only transaction. On SQLite it sees one state, on PostgreSQL one state per statement."""
        lent = nullcontext() if self._lent is None else read_only.unchanged(self._lent, self.label)
        with lent, self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start.

        It is committed at the end, or rolled back on an error.
        """
        # Threads of this process wait here; SQLite itself would only retry after a while.
        with self._turn, self._translated(), self.engine.connect() as connection:
            connection.execution_options(medlens_writing=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self, *more_folders: Path) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as exc:
            raise translate(exc, self.label, *self._folders, *more_folders) from exc
        except UnicodeDecodeError as exc:  # sqlite3 quotes what it finds, be it text or not
            what = "is damaged (text that is not UTF-8)"
            raise StoreCorrupt(f"the catalog of {self.label} {what}", hint=CORRUPT_HINT) from exc

    def checkpoint(self) -> bool:
        """On SQLite, empty the write-ahead log, which contains copies of pages that were erased since.

        Returns False if a reader prevented it for BUSY_TIMEOUT_S; then the next checkpoint does it.
        """
        if not self.is_sqlite:
            return True
        with self._translated(), self.engine.connect() as connection:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (busy, *_) = raw.fetchone() or (1,)
            raw.close()
        if busy:
            log.info("a reader is using the write-ahead log, so it will be emptied at the next checkpoint")
        return not busy

    def scrub(self) -> None:
        """After an erasure, remove the copies of erased data that this database keeps.

        On SQLite the log is emptied and backups from before a migration are removed; on PostgreSQL, VACUUM runs. Raises
        StoreError if a reader keeps the log of SQLite in use.
        """
        for backup in self.backups():
            backup.unlink(missing_ok=True)
            log.warning("removed %s, an old copy of the catalog that still contained the erased data", backup.name)
        if not self.is_sqlite:
            with self._translated(), self.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
        elif not self.checkpoint():
            raise StoreError(
                f"everything was erased from the catalog of {self.label}, but another process keeps its "
                "write-ahead log in use",
                hint="Stop the other medlens processes and run the same command again; it then empties the log.",
            )

    def copy_to(self, path: Path) -> None:
        """On SQLite, write one state of the catalog to a new file that only its owner can read. Others may write.

        Raises StoreError if it can't be read or written, StoreCorrupt if it is damaged.
        """
        if not self.is_sqlite or not self.url.database:
            raise ValueError("copy_to was called for a catalog that is not in SQLite")
        file = Path(self.url.database)
        lent = nullcontext() if self._lent is None else read_only.unchanged(file, self.label)
        try:
            with (
                lent,
                self._translated(path.parent),
                closing(
                    sqlite3.connect(file, timeout=BUSY_TIMEOUT_S)
                    if self._lent is None
                    else read_only.connect(file, BUSY_TIMEOUT_S)
                ) as source,
            ):
                copy_state(source, path)
        except OSError as exc:
            raise StoreError(
                f"the catalog of {self.label} can't be copied: {exc.strerror or exc}",
                hint="Make room and check permissions.",
            ) from exc
        require_sound(path, self.label)

    def require_unused(self) -> None:
        """On SQLite, raise StoreError if another process, or another connection of this one, has the catalog open.

        Every open connection holds a lock that prevents a change of the journal mode. The next connection changes the
        mode back.
        """
        self.close()
        try:
            with closing(sqlite3.connect(str(self.url.database), timeout=1.0)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE").close()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreError(
                    f"another process has the store {self.label} open",
                    hint="Stop the other medlens processes, or wait until they have ended.",
                ) from exc
            raise translate(exc, self.label) from exc

    def state(self) -> Hashable:
        """Return a value that changes with every commit, in this process or another. Reading it is cheap.

        Whatever is computed from the database afterwards stays valid while the value is the same.
        """
        with self._translated():
            if self._lent is not None:
                return read_only.stamp(self._lent)
            if self.is_sqlite:
                # data_version counts the commits of other connections; this connection commits nothing.
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
        """The schema revision of the database, or None if medlens has created nothing in it."""
        with self.reading() as connection:
            return _revision(connection)

    def migrate(self, then: Callable[[sa.Connection], None] | None = None) -> None:
        """Migrate the database to SCHEMA_REVISION, from nothing or from an older schema, in one transaction.

        On SQLite the content is backed up first, under the lock that stops all other writers. `then` writes more in the
        same transaction.
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
        """On SQLite, migrate an older schema after a backup.

        Raises StoreIncompatible for an unknown schema, for an older one that this user may not write, and for an older
        one on PostgreSQL: there, backups are the administrator's task, and other machines may still use the older
        medlens.
        """
        if self.is_sqlite:
            with self.reading() as connection:
                require_plain_tables(connection, self.label)
        if not self.outdated():
            return
        if self._lent is not None:
            raise StoreIncompatible(
                f"the catalog of {self.label} has schema {self.revision()}, expected {SCHEMA_REVISION}, "
                "and can't be migrated: this user may not write it",
                hint="Copy the store to a folder that you may write to, or ask its owner to run `medlens migrate`.",
            )
        if self.is_sqlite:
            self.migrate()
            return
        raise StoreIncompatible(
            f"the database {self.label} has schema {str(self.revision())[:40]!r}; expected {SCHEMA_REVISION}",
            hint="Stop the other medlens processes, back up the database (pg_dump), and run: medlens "
            "migrate --store URL",
        )

    def outdated(self) -> bool:
        """Whether `migrate` would change anything. Raises StoreIncompatible for a schema of a newer medlens."""
        found = self.revision()
        if found == SCHEMA_REVISION:
            return False
        if found is None:
            if self.is_sqlite:
                raise StoreCorrupt(f"the catalog of {self.label} does not state its schema version", hint=CORRUPT_HINT)
            raise StoreNotFound(f"the database {self.label} does not contain a medlens store")
        from alembic.script import ScriptDirectory

        known = {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}
        if found not in known:
            raise StoreIncompatible(
                f"the catalog of {self.label} has schema {str(found)[:40]!r}, but this version of medlens "
                f"supports schemas up to {SCHEMA_REVISION}",
                hint="Update medlens: pip install --upgrade medlens",
            )
        return True

    def backups(self) -> list[Path]:
        """The backups that migrations left beside an SQLite catalog."""
        if not self.is_sqlite or not self.url.database:
            return []
        source = Path(self.url.database)
        return sorted(source.parent.glob(f"{glob.escape(source.name)}.schema-*.backup"))

    def _back_up(self, revision: str) -> None:
        """Write the backup completely or not at all. It replaces an earlier backup of the same schema."""
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
                new.execute("PRAGMA journal_mode = OFF").close()  # no file beside it that a kill would leave
                old.backup(new)
        except sqlite3.Error as exc:
            raise translate(exc, self.label, *self._folders) from exc
        except OSError as exc:
            raise StoreError(
                f"the catalog of {self.label} could not be backed up before its migration: {exc.strerror}",
                hint="Free disk space beside the catalog and check the permissions. Nothing was changed.",
            ) from exc
        log.warning("the catalog of %s before its migration was saved as %s", self.label, target.name)


def _revision(connection: sa.Connection) -> str | None:
    table = sa.table("alembic_version", sa.column("version_num"))
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.select(table.c.version_num)).scalars().all()
    if len(found) != 1:
        raise StoreCorrupt(f"the catalog states {len(found)} schema versions; expected one", hint=CORRUPT_HINT)
    return str(found[0])


_URL_HINT = "Give a folder, or a URL like postgresql+psycopg://user@host/database."


def parse_url(location: str | Path) -> URL:
    """Return a database URL from a URL, or from the path of an SQLite file. Raises StoreError for anything else."""
    if isinstance(location, Path):
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(location)
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise StoreError("the location is not a database URL", hint=_URL_HINT) from exc
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"{backend!r} databases are not supported; expected sqlite or postgresql", hint=_URL_HINT)
    if backend == "postgresql" and "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError(
            "an in-memory database cannot hold a store: it would be lost when the program ends", hint=_URL_HINT
        )
    return url


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _wait_for_the_disk(connection: Any, _record: object) -> None:
    """With `synchronous_commit = off`, PostgreSQL would report commits that a power cut can undo."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone()[0] == "off":
            cursor.execute("SET synchronous_commit = on")
    connection.commit()


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # _begin opens transactions, not the driver
    distrust(connection)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _open_to_read(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    distrust(connection)


def _begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("medlens_writing", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
