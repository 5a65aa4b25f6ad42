"""Vectors by kind: what the derived indexes are built from and caught up with.

Vectors are float16, little endian: half the size, and the inner product moves by less than 0.0005, far below what tells
two images apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.batching import rows_where_in
from indexer.catalog.cache import CatalogCache
from indexer.catalog.conditions import conditions, frame_conditions
from indexer.catalog.database import Database
from indexer.catalog.schema import FRAMES_IN_FULL, VECTOR_TABLES, deletions, instances
from indexer.vector_sets import VectorKind
from retrieval.errors import StoreCorrupt
from retrieval.types import SearchFilter

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]  # [N, embed_dim], unit norm

NORM_TOLERANCE = 0.01
_ANSWERS = 16  # filters whose ids are cached


class VectorSets:
    """The vectors of one catalog, by kind: the source of the derived indexes."""

    def __init__(self, database: Database, embed_dim: Callable[[], int | None]) -> None:
        self._database = database
        self._embed_dim = embed_dim
        self._matching: CatalogCache[tuple[str, str], Ids] = CatalogCache(database.state, _ANSWERS)

    def ids_matching(self, where: SearchFilter, kind: VectorKind) -> Ids:
        """Return the ascending ids of the frames that match the filter, or of the sentences whose instance does.

        The array is read-only and cached until the next commit, because the database needs a microsecond per row to
        return it. Raises UnknownFilterKeyword, and QueryError for a value that the column does not accept.
        """
        key = (kind, repr(where))
        return self._matching.get([key], lambda _: {key: self._ids_matching(where, kind)})[key]

    def _ids_matching(self, where: SearchFilter, kind: VectorKind) -> Ids:
        table = VECTOR_TABLES[kind]
        query = sa.select(table.rows.c.id)  # sorted here: ORDER BY makes SQLite walk the table with the vectors
        with self._database.reading() as connection:
            if where and kind == "frame":
                query = query.select_from(FRAMES_IN_FULL).where(*frame_conditions(connection, where))
            elif where:
                query = query.select_from(table.joined.join(instances)).where(*conditions(connection, where))
            ids = np.sort(np.fromiter(connection.execute(query).scalars(), dtype=np.int64))
        ids.flags.writeable = False
        return ids

    def count(self, kind: VectorKind) -> int:
        """Return the number of vectors."""
        with self._database.reading() as connection:
            query = sa.select(sa.func.count()).select_from(VECTOR_TABLES[kind].rows)
            return int(connection.execute(query).scalar_one())

    def iter_vectors(self, kind: VectorKind, after_id: int = 0, batch: int = 4096) -> Iterator[tuple[Ids, Vectors]]:
        """Batches of (ids [n] int64 ascending, vectors [n, D] float16) of the rows above `after_id`."""
        for rows in self._pages(kind, after_id, batch):
            yield unpacked(rows, kind)

    def vectors_of(self, ids: Iterable[int], kind: VectorKind) -> tuple[Ids, Vectors]:
        """Return (ids [n] ascending, vectors [n, D] float16) of those ids that exist."""
        table = VECTOR_TABLES[kind].rows
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id)
        with self._database.reading() as connection:
            rows = list(rows_where_in(connection, query, table.c.id, sorted({int(i) for i in ids})))
        return unpacked(rows, kind) if rows else _no_vectors(self._embed_dim())

    def deleted_since(self, kind: VectorKind, seq: int) -> tuple[int, Ids]:
        """Return the last number of the log, and the ids of the rows deleted after number `seq`."""
        query = (
            sa.select(deletions.c.seq, deletions.c.row_id)
            .where(deletions.c.seq > seq, deletions.c.kind == kind)
            .order_by(deletions.c.seq)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return (rows[-1].seq if rows else seq), np.array([row.row_id for row in rows], dtype=np.int64)

    def bad(self, kind: VectorKind, dim: int) -> tuple[int, list[int]]:
        """The number of vectors, and the ids of those that have a wrong size, are not finite, or not of unit norm."""
        count, bad = 0, list[int]()
        for rows in self._pages(kind, 0, 4096):
            count += len(rows)
            right = [row for row in rows if _size(row.vector) == 2 * dim]
            bad += [row.id for row in rows if _size(row.vector) != 2 * dim]
            array = np.frombuffer(b"".join(row.vector for row in right), dtype="<f2").reshape(len(right), dim)
            norms = np.linalg.norm(array.astype(np.float32), axis=1)
            wrong = ~(np.abs(norms - 1) <= NORM_TOLERANCE)  # true for NaN
            bad += [row.id for row, is_wrong in zip(right, wrong, strict=True) if is_wrong]
        return count, bad

    def instances_of(self, kind: VectorKind, ids: Sequence[int]) -> list[int]:
        """Return the ids of the instances that these rows belong to."""
        table = VECTOR_TABLES[kind]
        query = sa.select(table.instance_id).select_from(table.joined)
        with self._database.reading() as connection:
            return list(dict.fromkeys(row[0] for row in rows_where_in(connection, query, table.rows.c.id, ids)))

    def _pages(self, kind: VectorKind, after_id: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield rows of id and vector, each page in its own transaction."""
        table = VECTOR_TABLES[kind].rows
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id).limit(size)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(query.where(table.c.id > after_id)).all()
            if rows:
                after_id = rows[-1].id
                yield rows
            if len(rows) < size:
                return


def unpacked(rows: Sequence[Any], kind: VectorKind) -> tuple[Ids, Vectors]:
    """(ids, vectors) of rows that have an `id` and a `vector`. Raises StoreCorrupt for vectors of different sizes."""
    sizes = {_size(row.vector) for row in rows}
    if len(sizes) != 1 or 0 in sizes or sizes.pop() % 2:
        raise StoreCorrupt(
            f"the {kind} rows {rows[0].id} to {rows[-1].id} of the catalog have vectors of different sizes",
            hint="Index the archive into a new store.",
        )
    ids = np.array([row.id for row in rows], dtype=np.int64)
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f2").reshape(len(rows), -1)
    return ids, vectors


def _size(vector: object) -> int:
    """Bytes of a vector as the database gives it; 0 for what is none, as SQLite lets anybody write."""
    return len(vector) if isinstance(vector, bytes | memoryview) else 0


def _no_vectors(dim: int | None) -> tuple[Ids, Vectors]:
    return np.empty(0, dtype=np.int64), np.empty((0, dim or 0), dtype=np.float16)
