"""Who works on which file, so that several `medlens index` processes share an archive and none reads what another has.

A process enters as a worker, claims the files it is about to read, a few at a time, and lets go of them in the very
transaction that commits them. A claim is as good as its worker is alive: a worker renews its lease every few seconds,
and whoever claims next throws out those whose lease has run out, or whose process is known to be dead because it was on
the same machine. So a run that was killed is taken over at once there, and within LEASE_S elsewhere. Times are the
database's on PostgreSQL, so machines' clocks may differ.

A worker that was taken for dead and comes back does no harm: what it commits is compared by content like anything else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from indexer.catalog.batching import chunks, rows_where_in
from indexer.catalog.database import Database
from indexer.catalog.erasure import Erasures, any_erased, which_erased
from indexer.catalog.known import KnownFile, candidate_hashes, current_files
from indexer.catalog.processes import Process
from indexer.catalog.schema import claims, workers
from indexer.records import FileStat

LEASE_S = 60.0


@dataclass(frozen=True)
class Claimed:
    """The answer to a claim. Each file that was asked for is in one of the four.

    `mine` are to be read, each with the content hashes of indexed files that it may be a copy of; `busy` are with
    another worker; `current` are in the catalog as they are; `erased` are to stay out.
    """

    mine: dict[FileStat, tuple[str, ...]]
    busy: list[FileStat]
    current: dict[FileStat, KnownFile]
    erased: list[FileStat]


class Claims:
    """The workers and claims of one catalog. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, process: Process, lease_s: float = LEASE_S) -> int:
        """Begin to work on this store, and throw out the dead with their claims; the worker's id."""
        with self._database.writing() as connection:
            bury(connection)
            row = {**vars(process), "expires_at": _now(connection) + lease_s}
            return int(connection.execute(sa.insert(workers).returning(workers.c.id), [row]).scalar_one())

    def renew(self, worker_id: int, process: Process, lease_s: float = LEASE_S) -> None:
        """Say that a worker is alive."""
        with self._database.writing() as connection:
            renew(connection, worker_id, process, lease_s)

    def leave(self, worker_id: int) -> None:
        """End a worker, with the claims it still has."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == worker_id))

    def claim(
        self, archive_id: int, worker_id: int, stats: Sequence[FileStat], erased: Erasures | None = None
    ) -> Claimed:
        """Claim those of the files that need reading and are nobody's. With `erased`, what was erased is left out."""
        with self._database.writing() as connection:
            return claim(connection, archive_id, worker_id, stats, erased)

    def workers(self) -> int:
        """How many workers have entered and not left."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(workers)).scalar_one())

    def dead_workers(self) -> list[int]:
        """Ids of workers whose process is gone."""
        with self._database.reading() as connection:
            return dead_workers(connection)

    def bury(self) -> None:
        """Take out dead workers with their claims."""
        with self._database.writing() as connection:
            bury(connection)


def renew(connection: sa.Connection, worker_id: int, process: Process, lease_s: float = LEASE_S) -> None:
    """A longer lease. A worker that was thrown out, because it had stopped for long, comes back without its claims."""
    until = _now(connection) + lease_s
    found = connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(expires_at=until))
    if not found.rowcount:
        connection.execute(sa.insert(workers), [{"id": worker_id, **vars(process), "expires_at": until}])


def dead_workers(connection: sa.Connection) -> list[int]:
    now = _now(connection)
    return [
        row.id
        for row in connection.execute(sa.select(workers))
        if row.expires_at < now or Process(row.place, row.pid, row.started).is_dead()
    ]


def bury(connection: sa.Connection, but: int | None = None) -> None:
    """Throw out the dead, and their claims; but not one who is asking."""
    dead = [worker_id for worker_id in dead_workers(connection) if worker_id != but]
    if dead:
        connection.execute(sa.delete(workers).where(workers.c.id.in_(dead)))


def claim(
    connection: sa.Connection, archive_id: int, worker_id: int, stats: Sequence[FileStat], erased: Erasures | None
) -> Claimed:
    """Claim those of the files that need reading and are nobody's. The connection holds the write lock."""
    if connection.execute(sa.select(workers.c.id).where(workers.c.id == worker_id)).first() is None:
        renew(connection, worker_id, Process.this())  # thrown out, because it had stopped for long
    bury(connection, but=worker_id)
    current = current_files(connection, archive_id, stats)
    wanted = [stat for stat in stats if stat not in current]
    out = _erased(connection, archive_id, wanted, erased)
    wanted = [stat for stat in wanted if stat not in out]
    query = sa.select(claims.c.path, claims.c.worker_id).where(claims.c.archive_id == archive_id)
    held = dict(map(tuple, rows_where_in(connection, query, claims.c.path, [stat.path for stat in wanted])))
    free = [stat for stat in wanted if stat.path not in held]
    if free:
        rows = [{"archive_id": archive_id, "path": stat.path, "worker_id": worker_id} for stat in free]
        connection.execute(sa.insert(claims), rows)
    mine = free + [stat for stat in wanted if held.get(stat.path) == worker_id]
    return Claimed(
        mine=candidate_hashes(connection, mine),
        busy=[stat for stat in wanted if held.get(stat.path, worker_id) != worker_id],
        current=current,
        erased=sorted(out, key=lambda stat: stat.path),
    )


def release(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> None:
    """End the claims on these files."""
    for chunk in chunks(paths):
        connection.execute(sa.delete(claims).where(claims.c.archive_id == archive_id, claims.c.path.in_(chunk)))


def _erased(
    connection: sa.Connection, archive_id: int, stats: Sequence[FileStat], erased: Erasures | None
) -> set[FileStat]:
    if erased is None or not stats or not any_erased(connection):
        return set()
    digests = {erased.of_file(archive_id, stat): stat for stat in stats}
    return {digests[digest] for digest in which_erased(connection, list(digests))}


def _now(connection: sa.Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    return time.time()
