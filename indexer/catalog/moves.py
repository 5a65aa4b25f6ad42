"""Known content at another place: a renamed file, an archive that has moved, a second copy.

The content hash identifies a file, whatever its path, its archive or the kind of its source. When a file moves, its row
keeps its id, so the instance keeps its vectors, labels and reports. Every function works in a transaction that the
caller opens and ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from indexer.catalog.batching import chunks, delete_where_in, rows_where_in
from indexer.catalog.new_rows import file_row
from indexer.catalog.removal import DUPLICATE, detach, inherit
from indexer.catalog.schema import archives, files, instances
from indexer.records import FileStat, Rejection, Tally

Where = tuple[int, str]  # an archive's id and a path in it
_ON_THE_WAY = "\\moving/"  # no stored path begins so: a backslash is written as two


class Owner(NamedTuple):
    """The file of an instance, in the version that was last indexed."""

    archive_id: int
    path: str
    size: int
    stamp: int
    content_hash: str

    @property
    def version(self) -> tuple[int, int]:
        """As `FileStat.version`: equal if the file is unchanged."""
        return self.size, self.stamp


_OWNER = (files.c.archive_id, files.c.path, files.c.size, files.c.mtime_ns, files.c.content_hash)
_OWNERS = instances.join(files, instances.c.file_id == files.c.id)


def owners_of(connection: sa.Connection, hashes: Iterable[str]) -> list[Owner]:
    """Return the indexed files with these content hashes."""
    query = sa.select(*_OWNER).select_from(_OWNERS)
    wanted = list(dict.fromkeys(filter(None, hashes)))
    return [Owner(*row) for row in rows_where_in(connection, query, files.c.content_hash, wanted)]


def sample_of(connection: sa.Connection, archive_id: int, count: int) -> list[Owner]:
    """Return at most `count` indexed files of an archive that have a content hash, spread over all of them."""
    mine = (files.c.archive_id == archive_id, files.c.content_hash.is_not(None))
    first, last = connection.execute(sa.select(sa.func.min(files.c.id), sa.func.max(files.c.id)).where(*mine)).one()
    if first is None:
        return []
    query = sa.select(files.c.id, *_OWNER).select_from(_OWNERS).where(*mine).order_by(files.c.id).limit(1)
    found: dict[int, Owner] = {}
    for n in range(count):
        start = first + (last - first + 1) * n // count
        row = connection.execute(query.where(files.c.id >= start)).first()
        if row is not None:
            found[row[0]] = Owner(*row[1:])
    return list(found.values())


def relocate(connection: sa.Connection, archive_id: int, root: str) -> bool:
    """Change the root of an archive. Returns False if another archive has that root."""
    if connection.execute(sa.select(archives.c.id).where(archives.c.root == root)).first() is not None:
        return False
    connection.execute(sa.update(archives).where(archives.c.id == archive_id).values(root=root))
    return True


def adopt(
    connection: sa.Connection,
    archive_id: int,
    copies: Sequence[tuple[FileStat, str]],
    lost: Collection[Where],
    tally: Tally,
) -> set[str]:
    """Record files with the content of an indexed file, by their content hashes. Returns the paths that were recorded.

    An indexed file at one of the places in `lost` has moved, and its row gets the new place. Otherwise the new file is
    a duplicate. Files that exchange their places keep their instances.
    """
    owners = {row.content_hash: row for row in _rows(connection, files.c.content_hash, [h for _, h in copies if h])}
    at = {row.path: row.id for row in _files_at(connection, archive_id, [stat.path for stat, _ in copies])}
    moved: dict[int, FileStat] = {}
    touched: dict[int, FileStat] = {}
    seconds: list[tuple[FileStat, str]] = []
    for stat, content_hash in copies:
        owner = owners.get(content_hash)
        if owner is None:
            continue
        if at.get(stat.path) == owner.id:
            touched[owner.id] = stat
        elif (owner.archive_id, owner.path) in lost and owner.id not in moved:
            moved[owner.id] = stat
        else:
            seconds.append((stat, content_hash))
    _move(connection, archive_id, moved, {at[stat.path] for stat in moved.values() if stat.path in at}, tally)
    _set_places(connection, archive_id, touched)
    tally.unchanged += len(touched)
    recorded = _record(connection, archive_id, seconds, tally)
    return {stat.path for stat in (*moved.values(), *touched.values())} | recorded


def take_from_lost(
    connection: sa.Connection, archive_id: int, lost: Collection[int], excluded: Collection[str], after: int, limit: int
) -> tuple[int, int | None]:
    """Give instances whose files were in the archives `lost` to duplicates in this one.

    At most `limit` instances of those archives are examined, by ascending id from the first one `after` an id.
    Duplicates at a path in `excluded` are left alone. Returns the number of instances that were given, and the id to go
    on after; None at the end.
    """
    query = (
        sa.select(instances.c.id, instances.c.file_id, files.c.content_hash)
        .select_from(_OWNERS)
        .where(files.c.archive_id.in_(lost), instances.c.id > after)
        .order_by(instances.c.id)
        .limit(limit)
    )
    owned = connection.execute(query).all()
    copies = sa.select(files.c.id, files.c.path, files.c.content_hash).where(
        files.c.archive_id == archive_id, files.c.reason == DUPLICATE
    )
    heirs: dict[str, int] = {}
    hashes = [row.content_hash for row in owned if row.content_hash]
    for row in sorted(rows_where_in(connection, copies, files.c.content_hash, hashes), key=lambda row: row.path):
        if row.path not in excluded:
            heirs.setdefault(row.content_hash, row.id)
    given = [row for row in owned if row.content_hash in heirs]
    for row in given:
        inherit(connection, row.id, heirs[row.content_hash])
    delete_where_in(connection, files, files.c.id, [row.file_id for row in given])
    return len(given), owned[-1].id if len(owned) == limit else None


def owns_nothing(connection: sa.Connection, archive_id: int) -> bool:
    """Return whether an archive has files, but no instance."""
    mine = files.c.archive_id == archive_id
    if connection.execute(sa.select(files.c.id).where(mine).limit(1)).first() is None:
        return False
    return connection.execute(sa.select(instances.c.id).select_from(_OWNERS).where(mine).limit(1)).first() is None


def drop_without_instances(connection: sa.Connection, archive_ids: Collection[int]) -> None:
    """Remove the files, rejected ones and duplicates, of those archives that have no instance."""
    for archive_id in archive_ids:
        if owns_nothing(connection, archive_id):  # another process may have indexed it meanwhile
            connection.execute(sa.delete(files).where(files.c.archive_id == archive_id))


def count_owning(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> int:
    """Return how many of the files at these paths have an instance."""
    query = sa.select(sa.func.count()).select_from(_OWNERS).where(files.c.archive_id == archive_id)
    return sum(row[0] for row in rows_where_in(connection, query, files.c.path, paths))


def _rows(
    connection: sa.Connection, column: sa.ColumnElement[str], values: Sequence[str]
) -> Iterable[sa.Row[tuple[int, int, str, str, str]]]:
    query = sa.select(files.c.id, files.c.archive_id, files.c.path, files.c.content_hash, files.c.sop_instance_uid)
    return rows_where_in(connection, query.select_from(_OWNERS), column, list(dict.fromkeys(values)))


def _files_at(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> Iterable[sa.Row[tuple[int, str]]]:
    query = sa.select(files.c.id, files.c.path).where(files.c.archive_id == archive_id)
    return rows_where_in(connection, query, files.c.path, paths)


def _move(
    connection: sa.Connection, archive_id: int, moved: dict[int, FileStat], there: Collection[int], tally: Tally
) -> None:
    """Give rows their new places. The rows in `there` have these places now; those that do not move are removed."""
    replaced = sorted(set(there) - moved.keys())
    tally.removed += detach(connection, replaced)
    delete_where_in(connection, files, files.c.id, replaced)
    on_the_way = sorted(set(there) & moved.keys())
    for part in chunks(on_the_way):
        path = sa.literal(_ON_THE_WAY) + sa.cast(files.c.id, sa.Text)
        connection.execute(sa.update(files).where(files.c.id.in_(part)).values(path=path))
    _set_places(connection, archive_id, moved)
    tally.adopted += len(moved)


def _set_places(connection: sa.Connection, archive_id: int, places: dict[int, FileStat]) -> None:
    if places:
        names = {"archive_id": "to_archive", "path": "to_path", "size": "to_size", "mtime_ns": "to_stamp"}
        update = sa.update(files).where(files.c.id == sa.bindparam("row"))
        connection.execute(
            update.values({name: sa.bindparam(key) for name, key in names.items()}),
            [
                {"row": row, "to_archive": archive_id, "to_path": s.path, "to_size": s.size, "to_stamp": s.stamp}
                for row, s in places.items()
            ],
        )


def _record(
    connection: sa.Connection, archive_id: int, copies: Sequence[tuple[FileStat, str]], tally: Tally
) -> set[str]:
    """Record duplicates in place of what was known at their paths. Returns the paths that were recorded.

    Left out are copies of an instance that was removed here.
    """
    replaced = [row.id for row in _files_at(connection, archive_id, [stat.path for stat, _ in copies])]
    tally.removed += detach(connection, replaced)
    delete_where_in(connection, files, files.c.id, replaced)
    owners = {row.content_hash: row for row in _rows(connection, files.c.content_hash, [h for _, h in copies])}
    rows = []
    for stat, content_hash in copies:
        if content_hash in owners:
            uid = owners[content_hash].sop_instance_uid
            note = Rejection(stat.path, DUPLICATE, f"the file is a byte-for-byte copy of another file of {uid}")
            rows.append(file_row(archive_id, stat, "indexed", note, content_hash, uid))
    if rows:
        connection.execute(sa.insert(files), rows)
    tally.duplicates += len(rows)
    return {row["path"] for row in rows}
