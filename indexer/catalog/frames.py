"""The frames: which pass a filter, what is known of them, and their vectors. What search asks of a catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.batching import chunks, delete_where_in, rows_where_in
from indexer.catalog.conditions import frame_conditions
from indexer.catalog.database import Database
from indexer.catalog.filter_notes import filter_notes
from indexer.catalog.schema import FRAMES_IN_FULL, OWN_COLUMNS, archives, deletions, files, frames, instances, of_frame
from indexer.catalog.vectors import Ids, Vectors, VectorSets, unpacked
from indexer.catalog.vectors_in_use import VectorsInUse
from indexer.keywords import COLUMNS
from retrieval.errors import StoreError
from retrieval.types import SHORT_KEY_LETTERS, Embeddings, FrameKey, Lineage, SearchFilter


@dataclass(frozen=True)
class FrameBatch:
    """Some frames, by ascending id: `vectors` [n, embed_dim] float32, unit norm but for float16's rounding."""

    ids: Ids
    vectors: Embeddings
    sop_instance_uids: Sequence[str]
    frame_numbers: Sequence[int]
    study_instance_uids: Sequence[str | None]
    patients: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class FoundFrame:
    """A frame of the catalog: its id in the vector index, its key and what it belongs to."""

    id: int
    key: FrameKey
    lineage: Lineage


class Frames:
    """The frames of one catalog; a `retrieval.types.Catalog`. Every method is one transaction."""

    def __init__(self, database: Database, vectors: VectorSets, in_use: VectorsInUse) -> None:
        self._database = database
        self._vectors = vectors
        self._in_use = in_use

    def ids_matching(self, where: SearchFilter) -> Ids:
        """Ascending ids of the frames that pass the filter; as `VectorSets.ids_matching`."""
        return self._vectors.ids_matching(where, "frame")

    def filter_notes(self, where: SearchFilter, *, empty: bool) -> tuple[str, ...]:
        """Return what the words of a filter were read as and, if no frame passes (`empty`), what the store has."""
        with self._database.reading() as connection:
            return filter_notes(connection, where, empty=empty, by_frame=True)

    def get(self, ids: Iterable[int]) -> dict[int, tuple[FrameKey, dict[str, Any]]]:
        """Key and attributes by frame id, in the order asked. Ids that are gone are missing from the answer.

        Attributes are the columns of `keywords.COLUMNS` and `schema.OWN_COLUMNS`, `file_path` (relative) and
        `archive_root`.
        """
        query = (
            sa.select(
                frames.c.id,
                frames.c.frame_number,
                *(of_frame(name).label(name) for name in (*COLUMNS, *OWN_COLUMNS)),
                files.c.path.label("file_path"),
                archives.c.root.label("archive_root"),
            )
            .select_from(FRAMES_IN_FULL.join(files, instances.c.file_id == files.c.id).join(archives))
            .order_by(frames.c.id)
        )
        wanted = [int(i) for i in ids]
        found: dict[int, tuple[FrameKey, dict[str, Any]]] = {}
        with self._database.reading() as connection:
            for row in rows_where_in(connection, query, frames.c.id, wanted):
                attributes = dict(row._mapping)
                key = FrameKey(attributes["sop_instance_uid"], attributes.pop("frame_number"))
                found[attributes.pop("id")] = (key, attributes)
        return {i: found[i] for i in wanted if i in found}

    def lineage(self, ids: Iterable[int]) -> dict[int, Lineage]:
        """What frames belong to, by id, in the order asked. Ids that are gone are missing from the answer."""
        columns = [instances.c[f"{name}_instance_uid"] for name in ("sop", "series", "study")]
        query = sa.select(frames.c.id, *columns, instances.c.patient_pseudonym).select_from(frames.join(instances))
        wanted = list(dict.fromkeys(int(i) for i in ids))
        with self._database.reading() as connection:
            found = {row[0]: Lineage(*row[1:]) for row in rows_where_in(connection, query, frames.c.id, wanted)}
        return {i: found[i] for i in wanted if i in found}

    def frames_of(self, column: str, uids: Iterable[str]) -> dict[str, list[int]]:
        """Return ascending frame ids by `study_instance_uid` or another column, in the given order, for values that
        have any.
        """
        key = instances.c[column]
        query = sa.select(key, frames.c.id).select_from(frames.join(instances)).order_by(frames.c.id)
        wanted = list(dict.fromkeys(uids))
        found: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            for row in rows_where_in(connection, query, key, wanted):
                found.setdefault(row[0], []).append(row[1])
        return {uid: found[uid] for uid in wanted if uid in found}

    def keys_with_prefix(self, letters: str, most: int) -> list[FrameKey]:
        """At most `most` frames whose short key begins with these letters, by their short keys."""
        query = (
            sa.select(instances.c.sop_instance_uid, frames.c.frame_number)
            .select_from(frames.join(instances))
            .where(frames.c.short_key >= letters, frames.c.short_key < letters + "{")  # the sign after z
            .order_by(frames.c.short_key)
            .limit(most)
        )
        with self._database.reading() as connection:
            found = [FrameKey(*row) for row in connection.execute(query)]
        return [key for key in found if key.short.startswith(letters[:SHORT_KEY_LETTERS])]

    def frames_of_instance(self, sop_instance_uid: str) -> list[FrameKey]:
        """Return the indexed frames of an instance, by ascending number."""
        query = (
            sa.select(instances.c.sop_instance_uid, frames.c.frame_number)
            .select_from(frames.join(instances))
            .where(instances.c.sop_instance_uid == sop_instance_uid)
            .order_by(frames.c.frame_number)
        )
        with self._database.reading() as connection:
            return [FrameKey(*row) for row in connection.execute(query)]

    def find(self, key: FrameKey) -> FoundFrame:
        """Return a frame by its key. Raises StoreError if it is not in the catalog."""
        columns = [instances.c[f"{name}_instance_uid"] for name in ("sop", "series", "study")]
        query = (
            sa.select(frames.c.id, *columns, instances.c.patient_pseudonym)
            .select_from(frames.join(instances))
            .where(instances.c.sop_instance_uid == key.sop_instance_uid, frames.c.frame_number == key.frame_number)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise StoreError("the frame was deleted from the store", hint="Search again.")
        return FoundFrame(row[0], key, Lineage(row[1], row[2], row[3], row[4]))

    def vectors_of(self, ids: Iterable[int]) -> tuple[Ids, Vectors]:
        """Return (ids [n] ascending, vectors [n, D] float16) of those frames that exist."""
        return self._vectors.vectors_of(ids, "frame")

    def batches(self, where: SearchFilter = SearchFilter(), batch: int = 20_000) -> Iterator[FrameBatch]:
        """Yield all frames that match the filter, with their vectors; each batch is read in its own transaction.

        Raises StoreIncompatible if another process has changed the store's model meanwhile.
        """
        columns = [instances.c[name] for name in ("sop_instance_uid", "study_instance_uid", "patient_pseudonym")]
        query = (
            sa.select(frames.c.id, frames.c.frame_number, frames.c.vector, *columns)
            .select_from(FRAMES_IN_FULL)
            .order_by(frames.c.id)
            .limit(batch)
        )
        after = 0
        while True:
            with self._database.reading() as connection:
                self._in_use.require(connection)
                page = query.where(frames.c.id > after, *frame_conditions(connection, where))
                rows = connection.execute(page).all()
            if rows:
                after = rows[-1].id
                yield _frame_batch(rows)
            if len(rows) < batch:
                return

    def replace_vectors(self, uids: Sequence[str], numbers: Sequence[int], vectors: npt.NDArray[np.float16]) -> int:
        """Replace the vectors of frames, named by SOP Instance UID and frame number, by [n, D].

        Returns how many differed.

        A frame with another vector is another row: its id is new, and the old id is in the log of deletions, so that
        the indexes notice. Raises StoreError for a frame that is named twice or does not exist, and StoreIncompatible
        if another process has changed the store's model; then nothing is replaced.
        """
        wanted = dict(zip(zip(uids, numbers, strict=True), vectors, strict=True))
        if len(wanted) < len(uids):
            (_, number), times = Counter(zip(uids, numbers, strict=True)).most_common(1)[0]
            raise StoreError(f"the frame with number {number} is named {times} times; nothing was replaced")
        with self._database.writing() as connection:
            self._in_use.require(connection)
            changed = _changed(connection, wanted)
            for part in chunks(changed):
                delete_where_in(connection, frames, frames.c.id, [i for i, _ in part])
                connection.execute(sa.insert(deletions), [{"row_id": i, "kind": "frame"} for i, _ in part])
                connection.execute(sa.insert(frames), [values for _, values in part])
        self._database.checkpoint()
        return len(changed)


def _changed(
    connection: sa.Connection, wanted: dict[tuple[str, int], npt.NDArray[np.float16]]
) -> list[tuple[int, dict[str, Any]]]:
    """The ids of frames whose vector differs from the given one, with their new rows, in the order of the ids."""
    uid = instances.c.sop_instance_uid
    columns = (frames.c.instance_id, frames.c.frame_number, frames.c.short_key, frames.c.vector)
    query = sa.select(frames.c.id, *columns, uid)
    query = query.select_from(frames.join(instances))
    found, changed = 0, list[tuple[int, dict[str, Any]]]()
    for row in rows_where_in(connection, query, uid, sorted({uid for uid, _ in wanted})):
        vector = wanted.get((row.sop_instance_uid, row.frame_number))
        if vector is None:
            continue
        found += 1
        new = vector.astype("<f2").tobytes()
        if new != row.vector:
            unchanged = {name: row._mapping[name] for name in ("instance_id", "frame_number", "short_key")}
            changed.append((row.id, unchanged | {"vector": new}))
    if found < len(wanted):
        raise StoreError(
            f"{len(wanted) - found} of {len(wanted)} frames are not in the store; nothing was replaced",
            hint="Index the files of these frames first. Only vectors can be imported; attributes come from the files.",
        )
    return sorted(changed, key=lambda one: one[0])


def _frame_batch(rows: Sequence[Any]) -> FrameBatch:
    ids, vectors = unpacked(rows, "frame")
    _, numbers, _, uids, studies, patients = zip(*rows, strict=True)
    return FrameBatch(ids, vectors.astype(np.float32), uids, numbers, studies, patients)
