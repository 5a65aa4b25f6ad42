"""What the catalog knows about a file, and how it answers for the files that a walk found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from indexer.catalog.batching import chunks, rows_where_in
from indexer.catalog.schema import archives, files
from indexer.records import FileStat

_MOST_CANDIDATES = 4096  # rows of the same version that are examined for one claim
_MOST_HASHES = 64  # content hashes that one file is compared with
_PAIRS = 1000  # per statement: of versions
_SIZES = 100  # per statement: each is a query of its own


class KnownFile(NamedTuple):
    """A file's row. `reason` is 'duplicate' for a second copy of an indexed instance."""

    size: int
    stamp: int
    status: str
    reason: str
    detail: str

    @property
    def version(self) -> tuple[int, int]:
        """As `FileStat.version`: equal while the file is unchanged."""
        return self.size, self.stamp


ROW = (files.c.size, files.c.mtime_ns, files.c.status, files.c.reason, files.c.detail)  # the columns of a KnownFile


def current_files(connection: sa.Connection, archive_id: int, stats: Sequence[FileStat]) -> dict[FileStat, KnownFile]:
    """Return those of the files that the catalog has in their current version."""
    query = sa.select(files.c.path, *ROW).where(files.c.archive_id == archive_id)
    rows = rows_where_in(connection, query, files.c.path, [stat.path for stat in stats])
    found = {path: KnownFile(*row) for path, *row in rows}
    return {stat: known for stat in stats if (known := found.get(stat.path)) and known.version == stat.version}


def candidate_hashes(connection: sa.Connection, stats: Sequence[FileStat]) -> dict[FileStat, tuple[str, ...]]:
    """Return each file with the content hashes it may have, because it was moved, copied or touched.

    The hashes are those of indexed files with the same version, of the same size under the same path in any archive, or
    of the same size if few files have it. This is only a hint: a copy that is missed is recognised when it is read.
    """
    out: dict[FileStat, tuple[str, ...]] = dict.fromkeys(stats, ())
    usable = (files.c.content_hash.is_not(None), files.c.status == "indexed")
    columns = (files.c.path, files.c.size, files.c.mtime_ns, files.c.content_hash)
    everywhere = files.c.archive_id.in_(sa.select(archives.c.id))  # the index on paths begins with the archive
    for part in chunks(stats, _PAIRS):
        versions = sa.tuple_(files.c.size, files.c.mtime_ns).in_([stat.version for stat in part])
        moved = connection.execute(sa.select(*columns).where(versions, *usable).limit(_MOST_CANDIDATES)).all()
        there = sa.select(*columns).where(everywhere, files.c.path.in_([stat.path for stat in part]), *usable)
        by_version: dict[tuple[int, int], dict[str, None]] = {}
        for row in moved:
            by_version.setdefault((row.size, row.mtime_ns), {})[row.content_hash] = None
        by_path: dict[tuple[str, int], list[str]] = {}
        for row in connection.execute(there):
            by_path.setdefault((row.path, row.size), []).append(row.content_hash)
        by_size = _by_size(connection, {stat.size for stat in part if stat.version not in by_version})
        for stat in part:
            hashes = dict.fromkeys(by_path.get((stat.path, stat.size), ()))
            hashes |= dict.fromkeys(list(by_version.get(stat.version, {}))[:_MOST_HASHES])
            hashes |= dict.fromkeys(by_size.get(stat.size, ()))
            out[stat] = tuple(hashes)
    return out


def _by_size(connection: sa.Connection, sizes: Collection[int]) -> dict[int, list[str]]:
    """Return the content hashes of indexed files by size, without sizes that more than _MOST_HASHES files have."""
    usable = (files.c.content_hash.is_not(None), files.c.status == "indexed")
    found: dict[int, list[str]] = {}
    for part in chunks(sorted(sizes), _PAIRS):
        values = sa.values(sa.column("size", sa.BigInteger), literal_binds=True).data([(size,) for size in part])
        asked = values.cte("asked")
        same = sa.exists().where(files.c.size == asked.c.size, *usable)
        there = connection.execute(sa.select(asked.c.size).where(same)).scalars().all()  # most files are of a new size
        for some in chunks(there, _SIZES):
            each = (sa.select(files.c.size, files.c.content_hash).where(files.c.size == n, *usable) for n in some)
            first = [sa.select(query.limit(_MOST_HASHES + 1).subquery()) for query in each]
            for size, content_hash in connection.execute(sa.union_all(*first)):
                found.setdefault(size, []).append(content_hash)
    return {size: hashes for size, hashes in found.items() if len(hashes) <= _MOST_HASHES}
