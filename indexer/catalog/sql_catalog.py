"""The catalog: what is in the archive, with every vector. The vector indexes are derived from it.

A row and its vector are committed in one transaction, so that no crash can part them. Vectors are float16, little
endian: half the size, and the inner product moves by less than 0.0005, far below what tells two images apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.checks import CatalogChecks
from indexer.catalog.database import Database, parse_url
from indexer.catalog.filters import conditions
from indexer.catalog.indexing import IndexingCatalog
from indexer.catalog.label_scores import LabelScores
from indexer.catalog.lineage import LineageReads
from indexer.catalog.remembered import Remembered
from indexer.catalog.schema import VECTOR_TABLES, archives, deletions, files, frames, instances, reports, sentences
from indexer.catalog.schema import manifest as settings
from indexer.catalog.selection import SELECT, SelectionLevel
from indexer.keywords import COLUMNS
from indexer.vector_sets import VectorKind
from retrieval.errors import StoreCorrupt, StoreError, StoreNotFound
from retrieval.types import FrameKey, SearchFilter

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]  # [N, embed_dim], unit norm

_ANSWERS = 16  # filters whose ids are remembered


@dataclass(frozen=True)
class SentenceRow:
    """One sentence of a report. `position` counts from 0."""

    id: int
    text: str
    position: int
    sop_instance_uid: str
    study_instance_uid: str | None
    patient_pseudonym: str | None


@dataclass(frozen=True)
class SliceRow:
    """Where one image of a series lies. What `frames.slice_places` asks for."""

    sop_instance_uid: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Counts:
    """How much is in the catalog. `files` are those indexed, second copies included."""

    files: int = 0
    instances: int = 0
    frames: int = 0
    studies: int = 0
    series: int = 0
    patients: int = 0
    reports: int = 0
    sentences: int = 0
    modalities: Mapping[str, int] = field(default_factory=dict)  # instances by Modality, '' where it is not said
    rejected: Mapping[str, int] = field(default_factory=dict)  # files by reason


class Manifest(MutableMapping[str, Any]):
    """The store's settings: JSON values by key, each assignment a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, key: str) -> Any:
        try:
            with self._database.reading() as connection:
                row = connection.execute(sa.select(settings.c.value).where(settings.c.key == key)).one_or_none()
        except ValueError as exc:
            raise StoreCorrupt(
                f"the setting {key!r} of {self._database.label} is no JSON",
                hint="Restore the store from a backup, or index the archive into a new store.",
            ) from exc
        if row is None:
            raise KeyError(key)
        return row.value

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, values: Any = (), /, **more: Any) -> None:
        """Set all of them in one transaction."""
        new = dict(values, **more)
        with self._database.writing() as connection:
            _set(connection, new)

    def __delitem__(self, key: str) -> None:
        with self._database.writing() as connection:
            if not connection.execute(sa.delete(settings).where(settings.c.key == key)).rowcount:
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        with self._database.reading() as connection:
            return iter(connection.execute(sa.select(settings.c.key).order_by(settings.c.key)).scalars().all())

    def __len__(self) -> int:
        return len(list(iter(self)))


class SqlCatalog(IndexingCatalog, LineageReads):
    """The catalog in SQLite or PostgreSQL. Safe to use from several threads and several processes at once.

    Every method is one transaction. Errors of the database come out as StoreError, with what to do.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._embed_dim: int | None = None
        self._matching: Remembered[tuple[str, str], Ids] = Remembered(database.state, _ANSWERS)
        self.manifest = Manifest(database)
        self.label_scores = LabelScores(database)

    @classmethod
    def create(cls, url: str | Path, manifest: Mapping[str, Any] | None = None) -> SqlCatalog:
        """Make the tables at a database URL, or in a new SQLite file, and set the manifest: all or nothing.

        StoreError if there is a catalog already.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and Path(str(parsed.database)).exists():
                raise StoreError(f"there is a file in the place of the new catalog of {database.label}")
            if database.revision() is not None:
                raise StoreError(f"there is a store already in {database.label}", hint="Open it instead.")
            database.migrate(lambda connection: _set(connection, manifest or {}))
        except BaseException:
            database.close()
            raise
        return cls(database)

    @classmethod
    def open(cls, url: str | Path) -> SqlCatalog:
        """Open what `create` made; an older schema is migrated, after a backup, on SQLite.

        Raises StoreNotFound, StoreCorrupt, or StoreIncompatible: a newer schema, or on PostgreSQL an older one, which
        `upgrade` migrates.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and not Path(str(parsed.database)).exists():
                raise StoreNotFound(f"there is no catalog in {database.label}")
            database.require_current()
        except BaseException:
            database.close()
            raise
        return cls(database)

    @classmethod
    def upgrade(cls, url: str | Path) -> bool:
        """Migrate an older catalog, on SQLite after a backup; whether there was anything to do.

        Raises as `open` does, but not for an older schema on PostgreSQL: this is how that is migrated.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and not Path(str(parsed.database)).exists():
                raise StoreNotFound(f"there is no catalog in {database.label}")
            if not database.outdated():
                return False
            database.migrate()
            return True
        finally:
            database.close()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> SqlCatalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def embed_dim(self) -> int | None:
        """Numbers per vector, from the manifest's model. None before a model is set."""
        if self._embed_dim is None:
            model = self.manifest.get("model")
            self._embed_dim = int(model["embed_dim"]) if model and "embed_dim" in model else None
        return self._embed_dim

    # -- what search asks

    def state(self) -> Hashable:
        """A value that differs as soon as anyone has committed anything; cheap to ask."""
        return self._database.state()

    def ids_matching(self, where: SearchFilter, kind: VectorKind = "frame") -> Ids:
        """Ascending ids of the frames (or report sentences) whose instance passes the filter.

        Read-only, and remembered until anything is committed: the database takes a microsecond a row to say it again.
        Raises UnknownFilterKeyword, and QueryError for a value that is none of the column's type.
        """
        key = (kind, repr(where))
        return self._matching.get([key], lambda _: {key: self._ids_matching(where, kind)})[key]

    def _ids_matching(self, where: SearchFilter, kind: VectorKind) -> Ids:
        with self._database.reading() as connection:
            table = VECTOR_TABLES[kind]
            query = sa.select(table.rows.c.id)  # sorted here: ORDER BY makes SQLite walk the table with the vectors
            if where:
                query = query.select_from(table.joined.join(instances)).where(*conditions(connection, where))
            ids = np.sort(np.fromiter(connection.execute(query).scalars(), dtype=np.int64))
        ids.flags.writeable = False
        return ids

    def select(self, where: SearchFilter, level: SelectionLevel = "study") -> Iterator[dict[str, Any]]:
        """What passes the filter, as one row per study, series or instance, in the order of their UIDs.

        A study's row has its attributes, `modalities`, and how many `series`, `instances` and `frames` of it pass.
        """
        with self._database.reading() as connection:
            yield from SELECT[level](connection, where)

    def get(self, ids: Iterable[int]) -> dict[int, tuple[FrameKey, dict[str, Any]]]:
        """Key and attributes by frame id, in the order asked. Ids that are gone are missing from the answer.

        Attributes are the columns of `keywords.COLUMNS`, `patient_pseudonym`, `kind`, `file_path` (relative) and
        `archive_root`.
        """
        wanted = [int(i) for i in ids]
        query = (
            sa.select(
                frames.c.id,
                frames.c.frame_number,
                *(instances.c[name] for name in (*COLUMNS, "patient_pseudonym", "kind")),
                files.c.path.label("file_path"),
                archives.c.root.label("archive_root"),
            )
            .select_from(frames.join(instances).join(files, instances.c.file_id == files.c.id).join(archives))
            .order_by(frames.c.id)
        )
        found: dict[int, tuple[FrameKey, dict[str, Any]]] = {}
        for row in self._where_in(query, frames.c.id, wanted):
            attributes = dict(row._mapping)
            key = FrameKey(attributes["sop_instance_uid"], attributes.pop("frame_number"))
            found[attributes.pop("id")] = (key, attributes)
        return {i: found[i] for i in wanted if i in found}

    def sentence_rows(self, ids: Iterable[int]) -> dict[int, SentenceRow]:
        """Sentences by id, in the order asked. Ids that are gone are missing from the answer."""
        wanted = [int(i) for i in ids]
        query = sa.select(
            sentences.c.id,
            sentences.c.text,
            sentences.c.position,
            instances.c.sop_instance_uid,
            instances.c.study_instance_uid,
            instances.c.patient_pseudonym,
        ).select_from(sentences.join(reports).join(instances))
        found = {row.id: SentenceRow(*row) for row in self._where_in(query, sentences.c.id, wanted)}
        return {i: found[i] for i in wanted if i in found}

    def slices_of(self, series_instance_uids: Iterable[str]) -> list[SliceRow]:
        """The geometry of every image of those series that has any."""
        geometry = ("image_orientation_patient", "image_position_patient")
        names = ("sop_instance_uid", "series_instance_uid", *geometry, "image_type", "instance_number")
        query = (
            sa.select(*(instances.c[name] for name in names))
            .where(instances.c.kind == "image", *(instances.c[name].is_not(None) for name in geometry))
            .order_by(instances.c.id)
        )
        wanted = list(dict.fromkeys(series_instance_uids))
        rows = self._where_in(query, instances.c.series_instance_uid, wanted)
        return [SliceRow(row[0], dict(zip(names, row, strict=True))) for row in rows]

    def counts(self) -> Counts:
        def distinct(column: sa.Column[Any]) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count(column.distinct())).scalar_subquery()

        def size(table: sa.Table) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count()).select_from(table).scalar_subquery()

        with self._database.reading() as connection:
            totals = connection.execute(
                sa.select(
                    sa.select(sa.func.count()).where(files.c.status == "indexed").scalar_subquery().label("files"),
                    size(instances).label("instances"),
                    size(frames).label("frames"),
                    distinct(instances.c.study_instance_uid).label("studies"),
                    distinct(instances.c.series_instance_uid).label("series"),
                    distinct(instances.c.patient_pseudonym).label("patients"),
                    size(reports).label("reports"),
                    size(sentences).label("sentences"),
                )
            ).one()
            modality = sa.func.coalesce(instances.c.modality, "")
            by_modality = connection.execute(sa.select(modality, sa.func.count()).group_by(modality).order_by(modality))
            modalities = {row[0]: row[1] for row in by_modality}
            by_reason = connection.execute(
                sa.select(files.c.reason, sa.func.count())
                .where(files.c.status == "rejected")
                .group_by(files.c.reason)
                .order_by(files.c.reason)
            )
            rejected = {row[0]: row[1] for row in by_reason}
        return Counts(**totals._mapping, modalities=modalities, rejected=rejected)

    @property
    def checks(self) -> CatalogChecks:
        """What looks for damage."""
        return CatalogChecks(self._database)

    # -- what the derived indexes ask

    def vector_count(self, kind: VectorKind) -> int:
        with self._database.reading() as connection:
            return int(
                connection.execute(sa.select(sa.func.count()).select_from(VECTOR_TABLES[kind].rows)).scalar_one()
            )

    def iter_vectors(self, kind: VectorKind, after_id: int = 0, batch: int = 4096) -> Iterator[tuple[Ids, Vectors]]:
        """Batches of (ids [n] int64 ascending, vectors [n, D] float16) of the rows above `after_id`."""
        table = VECTOR_TABLES[kind].rows
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id).limit(batch)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(query.where(table.c.id > after_id)).all()
            if rows:
                after_id = rows[-1].id
                yield _unpacked(rows, kind)
            if len(rows) < batch:
                return

    def vectors_of(self, ids: Iterable[int], kind: VectorKind = "frame") -> tuple[Ids, Vectors]:
        """(ids [n] ascending, vectors [n, D] float16) of those ids that are there."""
        table = VECTOR_TABLES[kind].rows
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id)
        rows = list(self._where_in(query, table.c.id, sorted({int(i) for i in ids})))
        return _unpacked(rows, kind) if rows else _no_vectors(self.embed_dim)

    def deleted_since(self, kind: VectorKind, seq: int) -> tuple[int, Ids]:
        """The log's last number and the ids of the rows deleted after number `seq`."""
        query = (
            sa.select(deletions.c.seq, deletions.c.row_id)
            .where(deletions.c.seq > seq, deletions.c.kind == kind)
            .order_by(deletions.c.seq)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return (rows[-1].seq if rows else seq), np.array([row.row_id for row in rows], dtype=np.int64)


def _set(connection: sa.Connection, values: Mapping[str, Any]) -> None:
    if values:
        connection.execute(sa.delete(settings).where(settings.c.key.in_(values)))
        connection.execute(sa.insert(settings), [{"key": key, "value": value} for key, value in values.items()])


def _unpacked(rows: Sequence[Any], kind: str) -> tuple[Ids, Vectors]:
    sizes = {len(row.vector) for row in rows}
    if len(sizes) != 1 or 0 in sizes or sizes.pop() % 2:
        raise StoreCorrupt(
            f"vectors of different sizes among the {kind} rows {rows[0].id} to {rows[-1].id} of the catalog",
            hint="Index the archive into a new store.",
        )
    ids = np.array([row.id for row in rows], dtype=np.int64)
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f2").reshape(len(rows), -1)
    return ids, vectors


def _no_vectors(dim: int | None) -> tuple[Ids, Vectors]:
    return np.empty(0, dtype=np.int64), np.empty((0, dim or 0), dtype=np.float16)
