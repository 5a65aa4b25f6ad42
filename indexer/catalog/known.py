"""What the catalog knows about a file, and how it answers for the files that a walk found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from indexer.catalog.batching import chunks, rows_where_in
from indexer.catalog.schema import files
from indexer.records import FileStat

_MOST_CANDIDATES = 4096  # rows of the same version that are examined for one claim
_MOST_HASHES = 64  # content hashes that one file is compared with
_PAIRS = 1000  # per statement: of versions


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


def candidate_hashes(
    connection: sa.Connection, archive_id: int, stats: Sequence[FileStat]
) -> dict[FileStat, tuple[str, ...]]:
    """Return each file with the content hashes it may have, because it was moved, copied or touched.

    The hash is that of an indexed file with the same version, or of the same size under the same path. This is only a
    hint: a copy that is missed here is recognised when it is read.
    """
    out: dict[FileStat, tuple[str, ...]] = dict.fromkeys(stats, ())
    usable = (files.c.content_hash.is_not(None), files.c.status == "indexed")
    columns = (files.c.path, files.c.size, files.c.mtime_ns, files.c.content_hash)
    for part in chunks(stats, _PAIRS):
        versions = sa.tuple_(files.c.size, files.c.mtime_ns).in_([stat.version for stat in part])
        moved = connection.execute(sa.select(*columns).where(versions, *usable).limit(_MOST_CANDIDATES)).all()
        own = files.c.archive_id == archive_id, files.c.path.in_([stat.path for stat in part])
        touched = connection.execute(sa.select(*columns).where(*own, *usable)).all()
        by_version: dict[tuple[int, int], dict[str, None]] = {}
        for row in moved:
            by_version.setdefault((row.size, row.mtime_ns), {})[row.content_hash] = None
        by_path = {(row.path, row.size): row.content_hash for row in touched}
        for stat in part:
            hashes = list(by_version.get(stat.version, {}))[:_MOST_HASHES]
            if (stat.path, stat.size) in by_path:
                hashes.append(by_path[stat.path, stat.size])
            out[stat] = tuple(hashes)
    return out
