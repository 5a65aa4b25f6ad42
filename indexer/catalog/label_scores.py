"""Zero-shot labels of the frames: reading all frames in bounded memory, and keeping the labels for filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.database import Database
from indexer.catalog.filters import conditions
from indexer.catalog.schema import frames, instances, label_scores, labels
from retrieval.errors import StoreCorrupt
from retrieval.types import Embeddings, SearchFilter


@dataclass(frozen=True)
class FrameBatch:
    """Some frames, by ascending id: `vectors` [n, embed_dim] float32, unit norm but for float16's rounding."""

    ids: npt.NDArray[np.int64]
    vectors: Embeddings
    sop_instance_uids: Sequence[str]
    frame_numbers: Sequence[int]
    study_instance_uids: Sequence[str | None]
    patients: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class SavedSet:
    """A label set whose labels the catalog keeps. `made_by` tells what made them apart."""

    label_set: str
    labels: tuple[str, ...]
    made_by: str
    is_probability: bool
    frames: int = 0


class LabelScores:
    """The labels of a catalog's frames. Errors of the database come out as StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def iter_frames(self, where: SearchFilter = SearchFilter(), batch: int = 20_000) -> Iterator[FrameBatch]:
        """All frames that pass the filter, in batches."""
        after = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(self._frames(connection, where, after, batch)).all()
            if rows:
                after = rows[-1][0]
                yield _unpacked(rows)
            if len(rows) < batch:
                return

    def save(self, saved: SavedSet, values: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]) -> int:
        """Keep labels: batches of (frame ids [n], values [n, labels] from 0 to 1, NaN to leave out). How many frames.

        What was kept of the set goes first if something else made it: other labels, model, wording or calibration.
        Each batch is a transaction; a run that was stopped is completed by running it again. Frames that were deleted
        meanwhile are left out.
        """
        ids_of = self._label_ids(saved)
        count = 0
        for frame_ids, scores in values:
            with self._database.writing() as connection:
                there = _still_there(connection, frame_ids)
                for column, label_id in enumerate(ids_of):
                    keep = there & ~np.isnan(scores[:, column])
                    pairs = zip(frame_ids[keep].tolist(), scores[keep, column].tolist(), strict=True)
                    rows = [{"label_id": label_id, "frame_id": i, "score": round(v, 6)} for i, v in pairs]
                    if rows:
                        insert = _insert(connection, label_scores)
                        update = {"score": insert.excluded.score}
                        key = [label_scores.c.label_id, label_scores.c.frame_id]
                        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=update), rows)
                count += int(there.sum())
        return count

    def saved_sets(self) -> list[SavedSet]:
        """What is kept, by name."""
        counted = (
            sa.select(labels, sa.func.count(label_scores.c.frame_id).label("frames"))
            .select_from(labels.outerjoin(label_scores))
            .group_by(*labels.c)
            .order_by(labels.c.label_set, labels.c.id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(counted).all()
        found: dict[str, SavedSet] = {}
        for row in rows:
            before = found.get(row.label_set)
            names = (*before.labels, row.label) if before else (row.label,)
            most = max(row.frames, before.frames if before else 0)
            found[row.label_set] = SavedSet(row.label_set, names, row.made_by, row.is_probability, most)
        return list(found.values())

    def forget(self, label_set: str) -> bool:
        """Drop a set's labels; whether there were any."""
        with self._database.writing() as connection:
            return _forgotten(connection, label_set)

    def _label_ids(self, saved: SavedSet) -> list[int]:
        mine = labels.c.label_set == saved.label_set
        wanted = [(name, saved.made_by, saved.is_probability) for name in saved.labels]
        with self._database.writing() as connection:
            query = (
                sa.select(labels.c.label, labels.c.made_by, labels.c.is_probability).where(mine).order_by(labels.c.id)
            )
            if [tuple(row) for row in connection.execute(query)] != wanted:
                _forgotten(connection, saved.label_set)
                rows = [
                    {"label_set": saved.label_set, "label": n, "made_by": m, "is_probability": p} for n, m, p in wanted
                ]
                connection.execute(sa.insert(labels), rows)
            return list(connection.execute(sa.select(labels.c.id).where(mine).order_by(labels.c.id)).scalars())

    def _frames(self, connection: sa.Connection, where: SearchFilter, after: int, batch: int) -> sa.Select[Any]:
        columns = [instances.c[n] for n in ("sop_instance_uid", "study_instance_uid", "patient_pseudonym")]
        query = sa.select(frames.c.id, frames.c.frame_number, frames.c.vector, *columns)
        query = query.select_from(frames.join(instances)).where(frames.c.id > after)
        return query.where(*conditions(connection, where)).order_by(frames.c.id).limit(batch)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """The dialect's own INSERT, which knows conflicts. PostgreSQL's takes long to import, and only this wants it."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def _forgotten(connection: sa.Connection, label_set: str) -> bool:
    return bool(connection.execute(sa.delete(labels).where(labels.c.label_set == label_set)).rowcount)


def _still_there(connection: sa.Connection, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    if not len(ids):
        return np.zeros(0, np.bool_)
    span = frames.c.id.between(int(ids.min()), int(ids.max()))
    present = np.fromiter(connection.execute(sa.select(frames.c.id).where(span)).scalars(), np.int64)
    return np.isin(ids, present)


def _unpacked(rows: Sequence[Any]) -> FrameBatch:
    ids, numbers, blobs, uids, studies, patients = zip(*rows, strict=True)
    sizes = {len(blob) for blob in blobs}
    if len(sizes) != 1 or 0 in sizes or sizes.pop() % 2:
        raise StoreCorrupt(
            f"vectors of different sizes among the frames {ids[0]} to {ids[-1]} of the catalog",
            hint="Index the archive into a new store.",
        )
    vectors = np.frombuffer(b"".join(blobs), "<f2").astype(np.float32).reshape(len(rows), -1)
    return FrameBatch(np.array(ids, np.int64), vectors, uids, numbers, studies, patients)
