"""Changing the model of a store: vectors by the new model beside those in use, then one transaction that swaps them.

What is made of the change lies in the tables `next_frames` and `next_sentences`, by the id of the row, and in the
manifest: the new model, and the process at work. Searches know nothing of it. A row that is erased meanwhile takes its
new vector along; one that comes or is replaced has none yet, so the swap does not happen before it has.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from indexer.catalog import claims
from indexer.catalog.batching import chunks, rows_where_in
from indexer.catalog.database import Database
from indexer.catalog.labels import mark_former
from indexer.catalog.manifest import write_settings
from indexer.catalog.new_rows import packed
from indexer.catalog.removal import erase
from indexer.catalog.schema import (
    NEXT_VECTORS,
    VECTOR_TABLES,
    archives,
    files,
    frames,
    instances,
    manifest,
    sentences,
    workers,
)
from indexer.catalog.vectors_in_use import KEY as VECTORS_KEY
from indexer.vector_sets import VectorKind
from retrieval.encoders.released import title
from retrieval.encoders.spec import differing, is_description
from retrieval.errors import StoreCorrupt, StoreError
from retrieval.types import Embeddings

KEY = "model_change"  # in the manifest
OF_THE_MODEL = ("vector_indexes",)  # settings that say something of the former vectors
_PAGE = 2000  # frames or sentences
_FRAMES_AT_ONCE = 128  # of one file: their pictures are in memory together
_DROP = "Restore the store from a backup, or index the archive into a new store."


@dataclass(frozen=True)
class ModelChange:
    """A change that was begun. `id` becomes the mark of the vectors; `lease` is that of the process at work on it."""

    id: str
    model: Mapping[str, Any]
    lease: int

    @property
    def embed_dim(self) -> int:
        return int(self.model["embed_dim"])


@dataclass(frozen=True)
class Made:
    """How many vectors there are by the new model, of how many rows."""

    frames: int
    all_frames: int
    sentences: int
    all_sentences: int


@dataclass(frozen=True)
class MissingFrames:
    """Frames of one instance that have no vector by the new model yet, and the file that holds them."""

    instance_id: int
    frame_ids: tuple[int, ...]
    frame_numbers: tuple[int, ...]
    sop_instance_uid: str
    archive_root: str
    path: str
    content_hash: str | None


@dataclass(frozen=True)
class MissingSentence:
    """A sentence that has no vector by the new model yet."""

    id: int
    text: str


class ModelChanges:
    """The change of the model of one catalog. Every method is one transaction, `missing_...` one for each page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self) -> ModelChange | None:
        """The change that was begun and not finished."""
        with self._database.reading() as connection:
            return _pending(connection)

    def made(self) -> Made:
        """How far it is."""
        with self._database.reading() as connection:
            tables = (NEXT_VECTORS["frame"], frames, NEXT_VECTORS["sentence"], sentences)
            return Made(*(_size(connection, table) for table in tables))

    def begin(self, model: Mapping[str, Any], lease_id: int, *, restart: bool = False) -> ModelChange:
        """Begin a change to a model, or go on with it.

        StoreError if another process is at work on a change, and, unless `restart`, if one to another model was begun:
        with `restart` what was made of that is dropped.
        """
        with self._database.writing() as connection:
            claims.drop_expired_leases(connection, except_lease=lease_id)
            found = _pending(connection)
            self._require_idle(connection, found, lease_id)
            if found is not None and differing(found.model, model):
                self._drop(connection, found, model, restart)
                found = None
            change = ModelChange(found.id if found else uuid.uuid4().hex, dict(model), lease_id)
            write_settings(connection, {KEY: vars(change)})
            return change

    def require_none_begun(self, model: Mapping[str, Any], *, restart: bool = False) -> None:
        """For a store that has the model already: StoreError as `begin` raises it if a change to another was begun."""
        if self.pending() is None:
            return
        with self._database.writing() as connection:
            claims.drop_expired_leases(connection)
            found = _pending(connection)
            self._require_idle(connection, found, None)
            if found is not None:
                self._drop(connection, found, model, restart)

    def abandon(self) -> bool:
        """Drop what was made of a change; whether one was begun. StoreError while a process is at work on it."""
        with self._database.writing() as connection:
            claims.drop_expired_leases(connection)
            found = _pending(connection)
            self._require_idle(connection, found, None)
            _clear(connection)
        self._database.checkpoint()
        return found is not None

    def missing_frames(self, but: Collection[int] = ()) -> Iterator[MissingFrames]:
        """The frames that have no new vector, by instance, but for those of some instances."""
        rows, new = frames.c, NEXT_VECTORS["frame"]
        place = sa.tuple_(rows.instance_id, rows.frame_number)
        query = (
            sa.select(rows.instance_id, rows.frame_number, rows.id)
            .select_from(frames.outerjoin(new, new.c.row_id == rows.id))
            .where(new.c.row_id.is_(None))
            .order_by(rows.instance_id, rows.frame_number)  # from the index of the two: no vector is read
            .limit(_PAGE)
        )
        after = (-1, -1)
        while True:
            with self._database.reading() as connection:
                page = connection.execute(query.where(place > sa.tuple_(*after))).all()
                found = _with_files(connection, [row for row in page if row.instance_id not in but])
            yield from found
            if len(page) < _PAGE:
                return
            after = (page[-1].instance_id, page[-1].frame_number)

    def missing_sentences(self) -> Iterator[list[MissingSentence]]:
        """The sentences that have no new vector, some at a time."""
        new = NEXT_VECTORS["sentence"]
        query = (
            sa.select(sentences.c.id, sentences.c.text)
            .select_from(sentences.outerjoin(new, new.c.row_id == sentences.c.id))
            .where(new.c.row_id.is_(None))
            .order_by(sentences.c.id)
            .limit(_PAGE)
        )
        after = 0
        while True:
            with self._database.reading() as connection:
                page = [MissingSentence(*row) for row in connection.execute(query.where(sentences.c.id > after))]
            if not page:
                return
            yield page
            after = page[-1].id

    def add(self, change: ModelChange, kind: VectorKind, ids: Sequence[int], vectors: Embeddings) -> int:
        """Keep new vectors [n, embed_dim] of rows; how many of those rows are still there and had none.

        StoreError if the change is not this process's any more.
        """
        new, rows = NEXT_VECTORS[kind], VECTOR_TABLES[kind].rows
        values = dict(zip(ids, packed(vectors, len(ids), change.embed_dim, f"{kind} vectors"), strict=True))
        query = (
            sa.select(rows.c.id)
            .select_from(rows.outerjoin(new, new.c.row_id == rows.c.id))
            .where(new.c.row_id.is_(None))
        )
        with self._database.writing() as connection:
            self._require_mine(connection, change)
            there = [row.id for row in rows_where_in(connection, query, rows.c.id, list(values))]
            if there:
                connection.execute(sa.insert(new), [{"row_id": i, "vector": values[i]} for i in there])
            return len(there)

    def finish(self, change: ModelChange, without: Collection[int] = ()) -> int | None:
        """Put the new vectors in the place of the old ones, if every row has one; how many instances were left out.

        Instances of `without` that lack a vector are taken out with their files' rows, so that the next indexing run
        reads those files. None, and nothing is changed, if any other row lacks one. StoreError if the change is not
        this process's any more.
        """
        with self._database.writing() as connection:
            self._require_mine(connection, change)
            left_out = _lacking(connection, "frame")
            if not left_out <= set(without) or _lacking(connection, "sentence"):
                return None
            erase(connection, sorted(left_out), "instance")
            for kind, table in VECTOR_TABLES.items():
                new = NEXT_VECTORS[kind]
                made = sa.select(new.c.vector).where(new.c.row_id == table.rows.c.id).scalar_subquery()
                connection.execute(sa.update(table.rows).values(vector=made))
            former = connection.execute(sa.select(manifest.c.value).where(manifest.c.key == "model")).scalar_one()
            mark_former(connection, former, change.model)
            _clear(connection)
            connection.execute(sa.delete(manifest).where(manifest.c.key.in_(OF_THE_MODEL)))
            write_settings(connection, {"model": dict(change.model), VECTORS_KEY: change.id})
        self._database.checkpoint()
        return len(left_out)

    def _drop(self, connection: sa.Connection, found: ModelChange, wanted: Mapping[str, Any], restart: bool) -> None:
        """Drop what was made by another model than the wanted one, if that is allowed."""
        if not restart:
            raise StoreError(
                f"a change of {self._database.label} to the model {title(found.model)} was begun and is not finished; "
                f"this run is to give it {title(wanted)}",
                hint=f"Go on with --model {found.model.get('name')}, or drop what was made with --restart.",
            )
        _clear(connection)

    def _require_idle(self, connection: sa.Connection, found: ModelChange | None, lease_id: int | None) -> None:
        """StoreError if another process, which is alive, is at work on the change."""
        if found is None or found.lease == lease_id:
            return
        if connection.execute(sa.select(workers.c.id).where(workers.c.id == found.lease)).first() is not None:
            raise StoreError(
                f"another process is changing the model of {self._database.label} to {title(found.model)}",
                hint="Wait until it has ended. If it was on another machine that has failed, wait a minute.",
            )

    def _require_mine(self, connection: sa.Connection, change: ModelChange) -> None:
        found = _pending(connection)
        if found is None or (found.id, found.lease) != (change.id, change.lease):
            raise StoreError(
                f"another process has finished, taken over or abandoned the change of the model of "
                f"{self._database.label}",
                hint="`medlens info` says which model the store has now.",
            )


def _pending(connection: sa.Connection) -> ModelChange | None:
    found = connection.execute(sa.select(manifest.c.value).where(manifest.c.key == KEY)).scalar_one_or_none()
    if found is None:
        return None
    try:
        change = ModelChange(str(found["id"]), dict(found["model"]), int(found["lease"]))
    except (LookupError, TypeError, ValueError) as exc:
        raise StoreCorrupt(f"the setting {KEY!r} does not describe a change of the model", hint=_DROP) from exc
    if not is_description(change.model):
        raise StoreCorrupt(f"the setting {KEY!r} does not name a model", hint=_DROP)
    return change


def _clear(connection: sa.Connection) -> None:
    for table in NEXT_VECTORS.values():
        connection.execute(sa.delete(table))
    connection.execute(sa.delete(manifest).where(manifest.c.key == KEY))


def _size(connection: sa.Connection, table: sa.Table) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _lacking(connection: sa.Connection, kind: VectorKind) -> set[int]:
    """The instances with a row that has no new vector."""
    table, new = VECTOR_TABLES[kind], NEXT_VECTORS[kind]
    joined = table.joined.outerjoin(new, new.c.row_id == table.rows.c.id)
    query = sa.select(table.instance_id).select_from(joined).where(new.c.row_id.is_(None)).distinct()
    return set(connection.execute(query).scalars())


def _with_files(connection: sa.Connection, rows: Sequence[Any]) -> list[MissingFrames]:
    by_instance: dict[int, list[Any]] = {}
    for row in rows:
        by_instance.setdefault(row.instance_id, []).append(row)
    query = sa.select(
        instances.c.id, instances.c.sop_instance_uid, archives.c.root, files.c.path, files.c.content_hash
    ).select_from(instances.join(files, instances.c.file_id == files.c.id).join(archives))
    held = {row.id: row for row in rows_where_in(connection, query, instances.c.id, list(by_instance))}
    return [
        MissingFrames(
            instance_id,
            tuple(row.id for row in part),
            tuple(row.frame_number for row in part),
            held[instance_id].sop_instance_uid,
            held[instance_id].root,
            held[instance_id].path,
            held[instance_id].content_hash,
        )
        for instance_id, its in by_instance.items()
        if instance_id in held
        for part in chunks(its, _FRAMES_AT_ONCE)
    ]
