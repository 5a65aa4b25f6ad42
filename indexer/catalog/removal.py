"""How files and their instances are removed: who inherits an instance, what is removed with it, what is logged and kept
out.

All functions work in a transaction that the caller opened for writing and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa

from indexer.catalog.batching import chunks, rows_where_in
from indexer.catalog.erasure import Erasures, keep_out
from indexer.catalog.schema import VECTOR_TABLES, deletions, files, instances
from indexer.records import FileStat

DUPLICATE = "duplicate"  # the reason of a file that is a second copy of an indexed instance
CONFLICT = "conflict"  # the reason of a file whose UID belongs to another file with other content


def forget(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> int:
    """Remove files with their instances.

    Returns the number removed; an instance with another copy is kept under its path.
    """
    gone = 0
    for chunk in chunks(paths):
        ids = _files_at(connection, archive_id, chunk)
        gone += detach(connection, ids)
        connection.execute(sa.delete(files).where(files.c.id.in_(ids)))
    return gone


def hand_over(connection: sa.Connection, archive_id: int, paths: Sequence[str], gone: Collection[str]) -> int:
    """Pass the instances of the files at `paths`, which are gone, to copies that are not in `gone`. Returns the number.

    The others stay as they are.
    """
    moved = 0
    for chunk in chunks(paths):
        owned = _owned(connection, _files_at(connection, archive_id, chunk))
        heirs = _heirs(connection, owned, lambda row: row.archive_id != archive_id or row.path not in gone)
        given = [row for row in owned if (row.sop_instance_uid, row.content_hash) in heirs]
        for row in given:
            inherit(connection, row.id, heirs[row.sop_instance_uid, row.content_hash])
        connection.execute(sa.delete(files).where(files.c.id.in_([row.file_id for row in given])))
        moved += len(given)
    return moved


def erase(connection: sa.Connection, instance_ids: Sequence[int], scope: str, erased: Erasures | None = None) -> None:
    """Remove instances, and the rows of every file that contains or claims them, because paths can contain names.

    With the store's Erasures, each is kept out by its own digest, or by that of its patient, study or series.
    """
    names = {
        "patient": instances.c.patient_pseudonym,
        "study": instances.c.study_instance_uid,
        "series": instances.c.series_instance_uid,
        "instance": instances.c.sop_instance_uid,
    }
    for chunk in chunks(instance_ids):
        rows = connection.execute(
            sa.select(instances.c.sop_instance_uid, names[scope].label("name")).where(instances.c.id.in_(chunk))
        ).all()
        theirs = files.c.sop_instance_uid.in_([row.sop_instance_uid for row in rows])
        if erased is not None:
            digests = {erased.digest(scope, row.name): scope for row in rows}
            for row in connection.execute(sa.select(files).where(theirs)):
                digests[erased.of_file(row.archive_id, FileStat(row.path, row.size, row.mtime_ns))] = "file"
            keep_out(connection, digests)
        _delete_instances(connection, chunk)
        connection.execute(sa.delete(files).where(theirs))


def detach(connection: sa.Connection, file_ids: Sequence[int]) -> int:
    """Separate files from their instances.

    Returns the number removed; an instance with another copy passes to that file.
    """
    owned = _owned(connection, file_ids)
    left = set(file_ids)
    heirs = _heirs(connection, owned, lambda row: row.id not in left)
    gone = []
    for row in owned:
        heir = heirs.get((row.sop_instance_uid, row.content_hash))
        if heir is None:
            gone.append(row.id)
        else:
            inherit(connection, row.id, heir)
    _delete_instances(connection, gone)
    return len(gone)


def log_deletions(connection: sa.Connection, kind: str, row_ids: Sequence[int]) -> None:
    """Log for the derived indexes that rows with vectors are removed."""
    if row_ids:
        connection.execute(sa.insert(deletions), [{"kind": kind, "row_id": row_id} for row_id in row_ids])


def _files_at(connection: sa.Connection, archive_id: int, paths: Sequence[str]) -> list[int]:
    query = sa.select(files.c.id).where(files.c.archive_id == archive_id, files.c.path.in_(paths))
    return list(connection.execute(query).scalars())


def _owned(connection: sa.Connection, file_ids: Sequence[int]) -> Sequence[Any]:
    query = (
        sa.select(instances.c.id, instances.c.file_id, instances.c.sop_instance_uid, files.c.content_hash)
        .select_from(instances.join(files, instances.c.file_id == files.c.id))
        .where(files.c.id.in_(file_ids))
    )
    return connection.execute(query).all()


def _heirs(
    connection: sa.Connection, owned: Sequence[Any], may_be: Callable[[Any], bool]
) -> dict[tuple[str, str], int]:
    """Return the file that can inherit an instance, by its UID and content."""
    uids = [row.sop_instance_uid for row in owned]
    copies = rows_where_in(
        connection, sa.select(files).where(files.c.reason == DUPLICATE), files.c.sop_instance_uid, uids
    )
    return {(row.sop_instance_uid, row.content_hash): row.id for row in copies if may_be(row)}


def inherit(connection: sa.Connection, instance_id: int, file_id: int) -> None:
    """Give an instance to a duplicate of its file."""
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(file_id=file_id))
    connection.execute(sa.update(files).where(files.c.id == file_id).values(reason="", detail=""))


def _delete_instances(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Delete instances with all dependent rows, and log it. Files in conflict with them are to be read again."""
    if not ids:
        return
    for kind, table in VECTOR_TABLES.items():
        rows = sa.select(table.rows.c.id, sa.literal(kind)).select_from(table.joined).where(table.instance_id.in_(ids))
        connection.execute(sa.insert(deletions).from_select([deletions.c.row_id, deletions.c.kind], rows))
    rivals = sa.select(instances.c.sop_instance_uid).where(instances.c.id.in_(ids))
    connection.execute(sa.delete(files).where(files.c.reason == CONFLICT, files.c.sop_instance_uid.in_(rivals)))
    connection.execute(sa.delete(instances).where(instances.c.id.in_(ids)))  # deletes frames and reports as well
