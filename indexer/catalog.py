"""The catalog: what is in the archive, with every vector. The vector indexes are derived from it.

A row and its vector are committed in one transaction, so that no crash can part them. Vectors are float16, little
endian: half the size, and the inner product moves by less than 0.0005, far below what tells two images apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from retrieval.errors import StoreCorrupt, StoreError, StoreNotFound
from retrieval.types import FrameKey, SearchFilter

from .commits import CommitOutcome, Writer
from .database import Database, parse_url
from .filters import conditions
from .keywords import COLUMNS
from .records import FileStat, IndexedFile, Rejection
from .schema import archives, deletions, files, frames, instances, reports, sentences
from .schema import manifest as settings

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]  # [N, embed_dim], unit norm
VectorKind = Literal["frame", "sentence"]

_CHUNK = 10_000  # ids per statement; SQLite takes 32,766 parameters, PostgreSQL 65,535
_TABLES = {"frame": frames, "sentence": sentences}


class KnownFile(NamedTuple):
    """What the catalog remembers of a file. `reason` is 'duplicate' for a second copy of an indexed instance."""

    size: int
    mtime_ns: int
    status: str
    reason: str
    detail: str


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
class ReportRow:
    """One report's text and where it comes from."""

    sop_instance_uid: str
    study_instance_uid: str
    patient_pseudonym: str | None
    text: str


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
        with self._database.reading() as connection:
            row = connection.execute(sa.select(settings.c.value).where(settings.c.key == key)).one_or_none()
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


class SqlCatalog:
    """The catalog in SQLite or PostgreSQL. Safe to use from several threads and several processes at once.

    Every method is one transaction. Errors of the database come out as StoreError, with what to do.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._embed_dim: int | None = None
        self.manifest = Manifest(database)

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
        """Open what `create` made; an older schema is migrated, after a backup.

        Raises StoreNotFound, StoreIncompatible (a newer schema) or StoreCorrupt.
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

    # -- what the indexer asks and says

    def archive_id(self, root: str | Path) -> int:
        """The id of the archive at an absolute path, made if it is new."""
        path = str(root)
        find = sa.select(archives.c.id).where(archives.c.root == path)
        with self._database.reading() as connection:
            found = connection.execute(find).scalar()
        if found is not None:
            return int(found)
        with self._database.writing() as connection:
            found = connection.execute(find).scalar()  # another process may have been quicker
            if found is None:
                found = connection.execute(sa.insert(archives).values(root=path).returning(archives.c.id)).scalar_one()
        return int(found)

    def known_files(self, archive_id: int) -> dict[str, KnownFile]:
        """Every file that was seen in the archive, by relative path."""
        columns = [files.c.path, files.c.size, files.c.mtime_ns, files.c.status, files.c.reason, files.c.detail]
        query = sa.select(*columns).where(files.c.archive_id == archive_id)
        with self._database.reading() as connection:
            return {row[0]: KnownFile(*row[1:]) for row in connection.execute(query)}

    def commit(
        self,
        archive_id: int,
        indexed: Sequence[IndexedFile],
        rejected: Sequence[tuple[FileStat, Rejection]] = (),
    ) -> CommitOutcome:
        """Take in files with their frames, sentences and vectors, and rejected files, in one transaction.

        - A path that is known with other content: its instance is replaced.
        - A SOP Instance UID that another file holds: with the same `content_hash` a duplicate is noted, else the file
          is rejected as a conflict and nothing is overwritten.
        - A rejected file that was indexed before loses its instance.

        Vectors that are not finite, not of unit norm or of another size than the store's raise ValueError.
        """
        dim = self.embed_dim
        with self._database.writing() as connection:
            return Writer(connection, archive_id).commit(indexed, rejected, dim)

    def adopt(self, archive_id: int, candidates: Sequence[tuple[FileStat, str]]) -> set[str]:
        """Note files whose content hash is that of an indexed file: moved, copied or only touched.

        Their instance and vectors are kept as they are. Returns the paths that need no decoding; the others do.
        """
        with self._database.writing() as connection:
            return Writer(connection, archive_id).adopt(candidates)

    def forget(self, archive_id: int, paths: Sequence[str]) -> int:
        """Drop files that are gone, with their instances, frames and sentences; how many instances went.

        An instance of which another copy is known is kept under that copy's path.
        """
        with self._database.writing() as connection:
            gone = Writer(connection, archive_id).forget(paths)
        self._database.checkpoint()
        return gone

    def delete_study(self, study_instance_uid: str) -> int:
        """Erase a study; how many instances went. The files stay where they are: see `delete_matching`."""
        return self.delete_matching(SearchFilter({"study_instance_uid": (study_instance_uid,)}))

    def delete_matching(self, where: SearchFilter) -> int:
        """Erase instances with their files' rows, frames, vectors and reports; how many instances went.

        SQLite overwrites what it frees (secure_delete), and the write-ahead log is emptied. Derived indexes are erased
        when they next catch up: `Store.refresh` does it at once. A file that is still in the archive is indexed anew
        by the next run, so remove it there first.
        """
        if not where:
            raise ValueError("delete_matching needs a condition; an empty filter would erase everything")
        with self._database.writing() as connection:
            query = sa.select(instances.c.id).where(*conditions(connection, where))
            ids = connection.execute(query).scalars().all()
            Writer(connection, None).erase(ids)
        self._database.checkpoint()
        return len(ids)

    # -- what search asks

    def ids_matching(self, where: SearchFilter, kind: VectorKind = "frame") -> Ids:
        """Ascending ids of the frames (or report sentences) whose instance passes the filter.

        Raises UnknownFilterKeyword, and QueryError for a value that is none of the column's type.
        """
        with self._database.reading() as connection:
            table = _TABLES[kind]
            query = sa.select(table.c.id)  # sorted here: ORDER BY makes SQLite walk the table with the vectors
            if where:
                joined = frames.join(instances) if kind == "frame" else sentences.join(reports).join(instances)
                query = query.select_from(joined).where(*conditions(connection, where))
            return np.sort(np.fromiter(connection.execute(query).scalars(), dtype=np.int64))

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
        for row in self._by_id(query, frames.c.id, wanted):
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
        found = {row.id: SentenceRow(*row) for row in self._by_id(query, sentences.c.id, wanted)}
        return {i: found[i] for i in wanted if i in found}

    def reports_of(self, study_instance_uids: Iterable[str]) -> dict[str, list[ReportRow]]:
        """Reports by study, of those studies that have one."""
        query = (
            sa.select(
                instances.c.sop_instance_uid,
                instances.c.study_instance_uid,
                instances.c.patient_pseudonym,
                reports.c.text,
            )
            .select_from(reports.join(instances))
            .order_by(reports.c.id)
        )
        found: dict[str, list[ReportRow]] = {}
        for row in self._by_id(query, instances.c.study_instance_uid, list(dict.fromkeys(study_instance_uids))):
            found.setdefault(row.study_instance_uid, []).append(ReportRow(*row))
        return found

    def slices_of(self, series_instance_uids: Iterable[str]) -> list[SliceRow]:
        """The geometry of every image of those series."""
        names = ("series_instance_uid", "image_orientation_patient", "image_position_patient", "image_type")
        columns = [instances.c[name] for name in (*names, "instance_number")]
        query = (
            sa.select(instances.c.sop_instance_uid, *columns)
            .where(instances.c.kind == "image")
            .order_by(instances.c.id)
        )
        wanted = list(dict.fromkeys(series_instance_uids))
        rows = self._by_id(query, instances.c.series_instance_uid, wanted)
        return [SliceRow(row.sop_instance_uid, dict(row._mapping)) for row in rows]

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

    # -- what the derived indexes ask

    def iter_vectors(self, kind: VectorKind, after_id: int = 0, batch: int = 4096) -> Iterator[tuple[Ids, Vectors]]:
        """Batches of (ids [n] int64 ascending, vectors [n, D] float16) of the rows above `after_id`."""
        table = _TABLES[kind]
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
        table = _TABLES[kind]
        query = sa.select(table.c.id, table.c.vector).order_by(table.c.id)
        rows = list(self._by_id(query, table.c.id, sorted({int(i) for i in ids})))
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

    def _by_id(self, query: sa.Select[Any], column: sa.Column[Any], values: Sequence[Any]) -> Iterator[Any]:
        with self._database.reading() as connection:
            for start in range(0, len(values), _CHUNK):
                yield from connection.execute(query.where(column.in_(values[start : start + _CHUNK])))


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
