"""Who works on which file, so that several `medlens index` processes share an archive and none reads what another has.

A process enters as a worker, claims the files it is about to read, a few at a time, and lets go of them in the very
transaction that commits them. A claim is as good as its worker is alive: a worker renews its lease every few seconds,
and whoever claims next throws out those whose lease has run out, or whose process is known to be dead because it was on
the same machine. So a run that was killed is taken over at once there, and within LEASE_S elsewhere. Times are the
database's on PostgreSQL, so machines' clocks may differ.

A worker that was taken for dead and comes back does no harm: what it commits is compared by content like anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from indexer.catalog.erasure import Erasures, any_erased, which_erased
from indexer.catalog.schema import claims, files, workers
from indexer.records import FileStat

LEASE_S = 60.0
_CHUNK = 5000
_MOST_CANDIDATES = 4096  # rows of the same size and time that are looked at for one claim
_MOST_HASHES = 64  # content hashes that one file is compared with


class KnownFile(NamedTuple):
    """What the catalog remembers of a file. `reason` is 'duplicate' for a second copy of an indexed instance."""

    size: int
    mtime_ns: int
    status: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Claimed:
    """The answer to a claim. Each file that was asked for is in one of the four.

    `mine` are to be read, each with the content hashes of indexed files that it may be a copy of; `busy` are with
    another worker; `current` are in the catalog as they are on disk; `erased` are to stay out.
    """

    mine: dict[FileStat, tuple[str, ...]]
    busy: list[FileStat]
    current: dict[FileStat, KnownFile]
    erased: list[FileStat]


@dataclass(frozen=True)
class Process:
    """A process, as far as others on its machine can tell whether it lives."""

    place: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        return cls(_place(), os.getpid(), _started(os.getpid()))

    def is_dead(self) -> bool:
        """Certainly dead. False where it can't be told."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is another user's, and alive
        return _started(self.pid) != self.started


def enter(connection: sa.Connection, process: Process, lease_s: float = LEASE_S) -> int:
    """The id of a new worker."""
    row = {**vars(process), "expires_at": _now(connection) + lease_s}
    return int(connection.execute(sa.insert(workers).returning(workers.c.id), [row]).scalar_one())


def renew(connection: sa.Connection, worker_id: int, process: Process, lease_s: float = LEASE_S) -> None:
    """A longer lease. A worker that was thrown out, because it had stopped for long, comes back without its claims."""
    until = _now(connection) + lease_s
    found = connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(expires_at=until))
    if not found.rowcount:
        connection.execute(sa.insert(workers), [{"id": worker_id, **vars(process), "expires_at": until}])


def leave(connection: sa.Connection, worker_id: int) -> None:
    """Its claims go with it."""
    connection.execute(sa.delete(workers).where(workers.c.id == worker_id))


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
    held: dict[str, int] = {}
    for chunk in _chunks([stat.path for stat in wanted]):
        query = sa.select(claims.c.path, claims.c.worker_id)
        rows = connection.execute(query.where(claims.c.archive_id == archive_id, claims.c.path.in_(chunk)))
        held.update((row.path, row.worker_id) for row in rows)
    free = [stat for stat in wanted if stat.path not in held]
    if free:
        rows_ = [{"archive_id": archive_id, "path": stat.path, "worker_id": worker_id} for stat in free]
        connection.execute(sa.insert(claims), rows_)
    mine = free + [stat for stat in wanted if held.get(stat.path) == worker_id]
    return Claimed(
        mine=_with_candidates(connection, archive_id, mine),
        busy=[stat for stat in wanted if held.get(stat.path, worker_id) != worker_id],
        current=current,
        erased=sorted(out, key=lambda stat: stat.path),
    )


def release(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> None:
    for chunk in _chunks(paths):
        connection.execute(sa.delete(claims).where(claims.c.archive_id == archive_id, claims.c.path.in_(chunk)))


def current_files(connection: sa.Connection, archive_id: int, stats: Sequence[FileStat]) -> dict[FileStat, KnownFile]:
    """Those of the files that are in the catalog with their present size and time."""
    found: dict[str, KnownFile] = {}
    columns = [files.c.path, files.c.size, files.c.mtime_ns, files.c.status, files.c.reason, files.c.detail]
    for chunk in _chunks([stat.path for stat in stats]):
        query = sa.select(*columns).where(files.c.archive_id == archive_id, files.c.path.in_(chunk))
        found.update((row[0], KnownFile(*row[1:])) for row in connection.execute(query))
    return {
        stat: known
        for stat in stats
        if (known := found.get(stat.path)) and (known.size, known.mtime_ns) == (stat.size, stat.mtime_ns)
    }


def _erased(
    connection: sa.Connection, archive_id: int, stats: Sequence[FileStat], erased: Erasures | None
) -> set[FileStat]:
    if erased is None or not stats or not any_erased(connection):
        return set()
    digests = {erased.of_file(archive_id, stat): stat for stat in stats}
    return {digests[digest] for digest in which_erased(connection, list(digests))}


def _with_candidates(
    connection: sa.Connection, archive_id: int, stats: Sequence[FileStat]
) -> dict[FileStat, tuple[str, ...]]:
    """Files with the content hashes they may have: of an indexed file with the same size and time, moved or copied,
    or of the same size under the same path, touched. Only a hint; a copy that is missed here is found once it is read.
    """
    out: dict[FileStat, tuple[str, ...]] = dict.fromkeys(stats, ())
    usable = (files.c.content_hash.is_not(None), files.c.status == "indexed")
    columns = (files.c.archive_id, files.c.path, files.c.size, files.c.mtime_ns, files.c.content_hash)
    for start in range(0, len(stats), 1000):
        part = stats[start : start + 1000]
        keys = sa.tuple_(files.c.size, files.c.mtime_ns).in_([(stat.size, stat.mtime_ns) for stat in part])
        moved = connection.execute(sa.select(*columns).where(keys, *usable).limit(_MOST_CANDIDATES)).all()
        own = files.c.archive_id == archive_id, files.c.path.in_([stat.path for stat in part])
        touched = connection.execute(sa.select(*columns).where(*own, *usable)).all()
        by_stat: dict[tuple[int, int], dict[str, None]] = {}
        for row in moved:
            by_stat.setdefault((row.size, row.mtime_ns), {})[row.content_hash] = None
        by_path = {(row.path, row.size): row.content_hash for row in touched}
        for stat in part:
            hashes = list(by_stat.get((stat.size, stat.mtime_ns), {}))[:_MOST_HASHES]
            if (stat.path, stat.size) in by_path:
                hashes.append(by_path[stat.path, stat.size])
            out[stat] = tuple(hashes)
    return out


def _now(connection: sa.Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    return time.time()


def _place() -> str:
    """A digest of what a PID is good for: this machine, since it was started, this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # no Linux: the host's name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the boot; '' where the system does not say, 'ended' for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # from field 3 on; the second, the name, may hold anything
    return "ended" if fields[0] in "ZX" else fields[19]


def _chunks(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
