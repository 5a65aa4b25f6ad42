"""Which process works on which file, so that several `medlens index` processes can share an archive.

A process takes a lease, claims the files that it is about to read, a few at a time, and releases each claim in the
transaction that commits the file. A claim holds for as long as its lease does. A process renews its lease every few
seconds. Whoever claims next drops the leases that have expired, and those whose process has ended on this machine.
So the files of a killed run are taken over at once on the same machine, and within LEASE_S seconds on another one.
On PostgreSQL the database's clock counts, so the clocks of the machines may differ.

A process that lost its lease and comes back does no harm: the content of each file that it commits is compared first.

The catalog stores leases in the table `workers`.
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
    """The answer to a claim. Each requested file is in exactly one of the four fields.

    - `granted`: files to read, each with the content hashes of the indexed files that it may be a copy of
    - `busy`: files that another process has claimed
    - `current`: files that the catalog has already, unchanged
    - `erased`: files that were erased and must stay out
    """

    granted: dict[FileStat, tuple[str, ...]]
    busy: list[FileStat]
    current: dict[FileStat, KnownFile]
    erased: list[FileStat]


class Claims:
    """The leases and claims of one catalog. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take_lease(self, process: Process, lease_s: float = LEASE_S) -> int:
        """Add a lease for a process, after dropping expired leases with their claims. Returns the id of the lease."""
        with self._database.writing() as connection:
            drop_expired_leases(connection)
            row = {**vars(process), "expires_at": _now(connection) + lease_s}
            return int(connection.execute(sa.insert(workers).returning(workers.c.id), [row]).scalar_one())

    def renew(self, lease_id: int, process: Process, lease_s: float = LEASE_S) -> None:
        """Extend a lease by `lease_s` seconds from now."""
        with self._database.writing() as connection:
            renew(connection, lease_id, process, lease_s)

    def end_lease(self, lease_id: int) -> None:
        """Remove a lease and the claims that it still holds."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == lease_id))

    def claim(
        self, archive_id: int, lease_id: int, stats: Sequence[FileStat], erased: Erasures | None = None
    ) -> Claimed:
        """Claim the files that need reading and that no other process has. With `erased`, leave out erased files."""
        with self._database.writing() as connection:
            return claim(connection, archive_id, lease_id, stats, erased)

    def lease_count(self) -> int:
        """The number of leases, expired ones included."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(workers)).scalar_one())

    def expired_leases(self) -> list[int]:
        """Ids of leases that have expired or whose process has ended."""
        with self._database.reading() as connection:
            return expired_leases(connection)

    def drop_expired_leases(self) -> None:
        """Remove expired leases with their claims."""
        with self._database.writing() as connection:
            drop_expired_leases(connection)


def renew(connection: sa.Connection, lease_id: int, process: Process, lease_s: float = LEASE_S) -> None:
    """Extend a lease. A lease that another process dropped, because it had expired, comes back without its claims."""
    until = _now(connection) + lease_s
    updated = connection.execute(sa.update(workers).where(workers.c.id == lease_id).values(expires_at=until))
    if not updated.rowcount:
        connection.execute(sa.insert(workers), [{"id": lease_id, **vars(process), "expires_at": until}])


def expired_leases(connection: sa.Connection) -> list[int]:
    now = _now(connection)
    return [
        row.id
        for row in connection.execute(sa.select(workers))
        if row.expires_at < now or Process(row.place, row.pid, row.started).is_dead()
    ]


def drop_expired_leases(connection: sa.Connection, except_lease: int | None = None) -> None:
    """Remove expired leases with their claims, except the lease of the caller."""
    expired = [lease_id for lease_id in expired_leases(connection) if lease_id != except_lease]
    if expired:
        connection.execute(sa.delete(workers).where(workers.c.id.in_(expired)))


def claim(
    connection: sa.Connection, archive_id: int, lease_id: int, stats: Sequence[FileStat], erased: Erasures | None
) -> Claimed:
    """Claim the files that need reading and that no other process has. The connection holds the write lock."""
    if connection.execute(sa.select(workers.c.id).where(workers.c.id == lease_id)).first() is None:
        renew(connection, lease_id, Process.this())  # another process dropped the expired lease
    drop_expired_leases(connection, except_lease=lease_id)
    current = current_files(connection, archive_id, stats)
    to_read = [stat for stat in stats if stat not in current]
    left_out = _erased(connection, archive_id, to_read, erased)
    to_read = [stat for stat in to_read if stat not in left_out]
    query = sa.select(claims.c.path, claims.c.worker_id).where(claims.c.archive_id == archive_id)
    claimed_by = dict(map(tuple, rows_where_in(connection, query, claims.c.path, [stat.path for stat in to_read])))
    free = [stat for stat in to_read if stat.path not in claimed_by]
    if free:
        rows = [{"archive_id": archive_id, "path": stat.path, "worker_id": lease_id} for stat in free]
        connection.execute(sa.insert(claims), rows)
    granted = free + [stat for stat in to_read if claimed_by.get(stat.path) == lease_id]
    return Claimed(
        granted=candidate_hashes(connection, granted),
        busy=[stat for stat in to_read if claimed_by.get(stat.path, lease_id) != lease_id],
        current=current,
        erased=sorted(left_out, key=lambda stat: stat.path),
    )


def release(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> None:
    """Remove the claims on these files."""
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
