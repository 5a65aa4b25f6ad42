"""Known content at another place: a file that was renamed, an archive that is mounted elsewhere, a second copy.

A file's identity is its content hash, whatever its path, its archive or the kind of its source. Its row keeps its id
when it moves, and so the instance its vectors, labels and reports. All of it works in a transaction that the caller
opened, and ends.
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
    """The file that an instance is known by, as it was when it was last looked at."""

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
    """The indexed files with these content hashes."""
    query = sa.select(*_OWNER).select_from(_OWNERS)
    wanted = list(dict.fromkeys(filter(None, hashes)))
    return [Owner(*row) for row in rows_where_in(connection, query, files.c.content_hash, wanted)]


def sample_of(connection: sa.Connection, archive_id: int, count: int) -> list[Owner]:
    """At most `count` indexed files of an archive that have a content hash, spread over the order they came in."""
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
    """Know an archive by another root; False if another archive has that root by now."""
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
    """Note files whose content is that of an indexed file, by their content hashes; the paths of those that were noted.

    An indexed file at one of the places in `lost` has moved: its row takes the new place. Else the new file is a second
    copy. Files that change places with one another keep their instances, too.
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
    noted = _note(connection, archive_id, seconds, tally)
    return {stat.path for stat in (*moved.values(), *touched.values())} | noted


def take_from_lost(connection: sa.Connection, archive_id: int, lost: Collection[int], but: Collection[str]) -> int:
    """Pass instances whose files were in the archives `lost` to copies of them in this one; how many.

    No copy at a path in `but` takes over.
    """
    copy = files.alias()
    query = (
        sa.select(instances.c.id, files.c.id, copy.c.id, copy.c.path)
        .select_from(_OWNERS)
        .join(copy, (copy.c.content_hash == files.c.content_hash) & (copy.c.reason == DUPLICATE))
        .where(files.c.archive_id.in_(lost), copy.c.archive_id == archive_id)
        .order_by(copy.c.id)
    )
    heirs: dict[int, tuple[int, int]] = {}
    for instance, owner, heir, path in connection.execute(query):
        if path not in but:
            heirs.setdefault(instance, (owner, heir))
    for instance, (_, heir) in heirs.items():
        inherit(connection, instance, heir)
    delete_where_in(connection, files, files.c.id, [owner for owner, _ in heirs.values()])
    return len(heirs)


def owns_nothing(connection: sa.Connection, archive_id: int) -> bool:
    """Whether there are files of an archive, and no instance is known by any of them."""
    mine = files.c.archive_id == archive_id
    if connection.execute(sa.select(files.c.id).where(mine).limit(1)).first() is None:
        return False
    return connection.execute(sa.select(instances.c.id).select_from(_OWNERS).where(mine).limit(1)).first() is None


def drop_without_instances(connection: sa.Connection, archive_ids: Collection[int]) -> None:
    """Forget all files of those archives, rejected ones and second copies, that no instance is known by."""
    for archive_id in archive_ids:
        if owns_nothing(connection, archive_id):  # somebody may have indexed it meanwhile
            connection.execute(sa.delete(files).where(files.c.archive_id == archive_id))


def count_owning(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> int:
    """How many files at these paths an instance is known by."""
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
    """Give rows their new places; `there` are rows that are at those places now. Those that do not move on go."""
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


def _note(connection: sa.Connection, archive_id: int, copies: Sequence[tuple[FileStat, str]], tally: Tally) -> set[str]:
    """Second copies, in place of what was known at their paths. Their paths, but for copies of what went just now."""
    replaced = [row.id for row in _files_at(connection, archive_id, [stat.path for stat, _ in copies])]
    tally.removed += detach(connection, replaced)
    delete_where_in(connection, files, files.c.id, replaced)
    owners = {row.content_hash: row for row in _rows(connection, files.c.content_hash, [h for _, h in copies])}
    rows = []
    for stat, content_hash in copies:
        if content_hash in owners:
            uid = owners[content_hash].sop_instance_uid
            note = Rejection(stat.path, DUPLICATE, f"the same bytes as another file of {uid}")
            rows.append(file_row(archive_id, stat, "indexed", note, content_hash, uid))
    if rows:
        connection.execute(sa.insert(files), rows)
    tally.duplicates += len(rows)
    return {row["path"] for row in rows}
