"""What can be wrong inside a catalog, and taking out what is, so that the next indexing run puts it right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import sqlalchemy as sa

from indexer.catalog import claims
from indexer.catalog.commits import DUPLICATE, NORM_TOLERANCE, Writer
from indexer.catalog.database import Database
from indexer.catalog.schema import VECTOR_TABLES, deletions, files, frames, hanging_tables, instances
from indexer.vector_sets import VectorKind

_PAGE = 4096
_CHUNK = 5000


class CatalogChecks:
    """Looks at one catalog. Each `..._ids` is a list of rows that are wrong; none of them changes anything."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def integrity(self) -> list[str]:
        """What SQLite says of its own pages, indexes and references; nothing if all is well, or on PostgreSQL."""
        if not self._database.is_sqlite:
            return []
        with self._database.reading() as connection:
            said = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
            if said != ["ok"]:
                return [str(line).splitlines()[-1] for line in said]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [f"{len(broken)} rows refer to rows that are not there"] if broken else []

    def bad_vectors(self, kind: VectorKind, dim: int) -> tuple[int, list[int]]:
        """How many vectors there are, and the ids of those of a wrong size, not finite, or not of unit norm."""
        table = VECTOR_TABLES[kind].rows
        count, after = 0, 0
        bad: list[int] = []
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id).limit(_PAGE)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(query.where(table.c.id > after)).all()
            if not rows:
                return count, bad
            count += len(rows)
            after = rows[-1].id
            right = [row for row in rows if len(row.vector) == 2 * dim]
            bad += [row.id for row in rows if len(row.vector) != 2 * dim]
            array = np.frombuffer(b"".join(row.vector for row in right), dtype="<f2").reshape(len(right), dim)
            norms = np.linalg.norm(array.astype(np.float32), axis=1)
            wrong = ~(np.abs(norms - 1) <= NORM_TOLERANCE)  # true for NaN
            bad += [row.id for row, is_wrong in zip(right, wrong, strict=True) if is_wrong]

    def lone_rows(self) -> dict[str, list[int]]:
        """Ids of rows that lack what they hang on, by table."""
        out: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            for table in hanging_tables():
                held = [sa.exists().where(key.column == key.parent) for key in table.foreign_keys]
                query = sa.select(table.c.id).where(~sa.and_(*held))
                if found := list(connection.execute(query).scalars()):
                    out[table.name] = found
        return out

    def empty_files(self) -> list[int]:
        """Ids of files that are noted as indexed while their instance is not there: they would never be read again."""
        own = ~sa.exists().where(instances.c.file_id == files.c.id)
        other = ~sa.exists().where(instances.c.sop_instance_uid == files.c.sop_instance_uid)
        missing = sa.or_(sa.and_(files.c.reason == "", own), sa.and_(files.c.reason == DUPLICATE, other))
        with self._database.reading() as connection:
            return list(connection.execute(sa.select(files.c.id).where(files.c.status == "indexed", missing)).scalars())

    def blind_images(self) -> list[int]:
        """Ids of instances that are images and have no frame in the catalog: no search can find them."""
        query = sa.select(instances.c.id).where(
            instances.c.kind == "image",
            sa.func.coalesce(instances.c.number_of_frames, 1) > 0,
            ~sa.exists().where(frames.c.instance_id == instances.c.id),
        )
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def dead_workers(self) -> list[int]:
        """Ids of workers whose process is gone."""
        with self._database.reading() as connection:
            return claims.dead_workers(connection)

    # -- repairs

    def drop_instances(self, ids: Sequence[int]) -> None:
        """Take out instances with their files' rows: the next indexing run reads and encodes them anew."""
        with self._database.writing() as connection:
            Writer(connection, None).erase(ids, "instance")

    def drop_files(self, ids: Sequence[int]) -> None:
        with self._database.writing() as connection:
            for chunk in _chunks(ids):
                connection.execute(sa.delete(files).where(files.c.id.in_(chunk)))

    def drop_lone_rows(self, found: dict[str, list[int]]) -> None:
        kinds = {table.rows.name: kind for kind, table in VECTOR_TABLES.items()}
        with self._database.writing() as connection:
            for table in hanging_tables():
                kind = kinds.get(table.name)
                for chunk in _chunks(found.get(table.name, [])):
                    if kind:
                        connection.execute(sa.insert(deletions), [{"kind": kind, "row_id": i} for i in chunk])
                    connection.execute(sa.delete(table).where(table.c.id.in_(chunk)))

    def bury(self) -> None:
        """Take out dead workers with their claims."""
        with self._database.writing() as connection:
            claims.bury(connection)

    def instances_of(self, kind: VectorKind, ids: Sequence[int]) -> list[int]:
        """The instances that frames, or report sentences, belong to."""
        table = VECTOR_TABLES[kind]
        found: dict[int, None] = {}
        with self._database.reading() as connection:
            for chunk in _chunks(ids):
                query = sa.select(table.instance_id).select_from(table.joined).where(table.rows.c.id.in_(chunk))
                found.update(dict.fromkeys(connection.execute(query).scalars()))
        return list(found)


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
