"""What the indexer asks of the catalog and tells it: known files, claims, commits, and what is to go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog import claims
from indexer.catalog.claims import Claimed, KnownFile, Process
from indexer.catalog.commits import DUPLICATE, CommitOutcome, Writer
from indexer.catalog.database import Database
from indexer.catalog.erasure import Erasures
from indexer.catalog.filters import column_named, conditions
from indexer.catalog.replacing import replace_vectors
from indexer.catalog.schema import PathText, archives, files, frames, instances, reports, sentences
from indexer.records import FileStat, IndexedFile, Rejection
from retrieval.types import SearchFilter

_PAGE = 10_000  # files read at a time: a few MB
_NAMED = {"patient_pseudonym": "patient", "study_instance_uid": "study", "series_instance_uid": "series"}


class IndexingCatalog:
    """The half of `SqlCatalog` that writes."""

    _database: Database

    @property
    def embed_dim(self) -> int | None:
        """Numbers per vector. None before a model is set."""
        raise NotImplementedError

    # -- files

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

    def archive_roots(self) -> dict[int, str]:
        """The absolute path of every archive, by its id."""
        with self._database.reading() as connection:
            return {row.id: row.root for row in connection.execute(sa.select(archives).order_by(archives.c.id))}

    def known_files(self, archive_id: int) -> Iterator[tuple[str, KnownFile]]:
        """Every file that was seen in the archive, by relative path in ascending order of code points.

        Read in pages, each in a transaction of its own: memory stays small, and no reader holds up a checkpoint.
        """
        raw = sa.type_coerce(files.c.path, sa.Text)  # PathText would cost as much as reading the row
        columns = [raw, files.c.size, files.c.mtime_ns, files.c.status, files.c.reason, files.c.detail]
        query = sa.select(*columns).where(files.c.archive_id == archive_id).order_by(files.c.path).limit(_PAGE)
        as_path = PathText().process_result_value
        after, dialect = "", self._database.engine.dialect
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(query.where(files.c.path > after)).all()
            for path, *rest in rows:
                after = path if path.isascii() else str(as_path(path, dialect))
                yield after, KnownFile._make(rest)
            if len(rows) < _PAGE:
                return

    def current_files(self, archive_id: int, stats: Sequence[FileStat]) -> dict[FileStat, KnownFile]:
        """Those of the files that are in the catalog with their present size and time."""
        with self._database.reading() as connection:
            return claims.current_files(connection, archive_id, stats)

    # -- who works on what

    def enter(self, process: Process, lease_s: float) -> int:
        """Begin to work on this store; the worker's id."""
        with self._database.writing() as connection:
            return claims.enter(connection, process, lease_s)

    def renew(self, worker_id: int, process: Process, lease_s: float) -> None:
        """Say that a worker is alive."""
        with self._database.writing() as connection:
            claims.renew(connection, worker_id, process, lease_s)

    def leave(self, worker_id: int) -> None:
        """End a worker, with the claims it still has."""
        with self._database.writing() as connection:
            claims.leave(connection, worker_id)

    def claim(
        self, archive_id: int, worker_id: int, stats: Sequence[FileStat], erased: Erasures | None = None
    ) -> Claimed:
        """Claim files to read. With `erased`, those that were erased are left out."""
        with self._database.writing() as connection:
            return claims.claim(connection, archive_id, worker_id, stats, erased)

    # -- commits

    def commit(
        self,
        archive_id: int,
        indexed: Sequence[IndexedFile],
        rejected: Sequence[tuple[FileStat, Rejection]] = (),
        copies: Sequence[tuple[FileStat, str]] = (),
        *,
        erased: Erasures | None = None,
        readmit: bool = False,
    ) -> CommitOutcome:
        """Take in files with their frames, sentences and vectors, and rejected files, in one transaction.

        - A path that is known with other content: its instance is replaced.
        - A SOP Instance UID that another file holds: with the same `content_hash` a duplicate is noted, else the file
          is rejected as a conflict and nothing is overwritten.
        - A rejected file that was indexed before loses its instance.
        - `copies` are files with the content hash of an indexed file, moved, copied or only touched: its instance and
          vectors are kept as they are. Those for which there is no such file any more are `stale` in the outcome.
        - With `erased`, what was erased is left out; with `readmit` it is taken in and no longer kept out.

        Claims on the files end. Vectors that are not finite, not of unit norm or of another size than the store's raise
        ValueError.
        """
        dim = self.embed_dim
        with self._database.writing() as connection:
            return Writer(connection, archive_id, erased, readmit).commit(indexed, rejected, copies, dim)

    def hashes_known(self, hashes: Iterable[str]) -> set[str]:
        """Those content hashes that an indexed file has."""
        wanted = list(dict.fromkeys(filter(None, hashes)))
        found: set[str] = set()
        with self._database.reading() as connection:
            for start in range(0, len(wanted), _PAGE):
                query = (
                    sa.select(files.c.content_hash)
                    .select_from(instances.join(files, instances.c.file_id == files.c.id))
                    .where(files.c.content_hash.in_(wanted[start : start + _PAGE]))
                )
                found.update(connection.execute(query).scalars())
        return found

    def replace_vectors(
        self, uids: Sequence[str], frame_numbers: Sequence[int], vectors: npt.NDArray[np.float16]
    ) -> int:
        """Give frames other vectors [n, D], all or none; how many differed. StoreError for a frame that isn't there."""
        with self._database.writing() as connection:
            replaced = replace_vectors(connection, uids, frame_numbers, vectors)
        self._database.checkpoint()
        return replaced

    # -- what goes

    def forget(self, archive_id: int, paths: Sequence[str]) -> int:
        """Drop files that are gone, with their instances, frames and sentences; how many instances went.

        An instance of which another copy is known is kept under that copy's path.
        """
        with self._database.writing() as connection:
            gone = Writer(connection, archive_id).forget(paths)
        self._database.checkpoint()
        return gone

    def hand_over(self, archive_id: int, paths: Sequence[str], gone: Collection[str]) -> int:
        """Of files at `paths`, which are gone, pass the instances to known copies: they were moved. How many.

        No copy at a path in `gone` takes over. Those without a copy stay as they are.
        """
        copy = files.alias()
        query = (
            sa.select(files.c.path)
            .select_from(instances.join(files, instances.c.file_id == files.c.id))
            .join(copy, copy.c.sop_instance_uid == instances.c.sop_instance_uid)
            .where(files.c.archive_id == archive_id, copy.c.reason == DUPLICATE)
        )
        with self._database.reading() as connection:
            chunks = (paths[start : start + _PAGE] for start in range(0, len(paths), _PAGE))
            found = [p for chunk in chunks for p in connection.execute(query.where(files.c.path.in_(chunk))).scalars()]
        if not found:
            return 0
        with self._database.writing() as connection:
            return Writer(connection, archive_id).hand_over(list(dict.fromkeys(found)), gone)

    def delete_matching(self, where: SearchFilter, erased: Erasures | None = None) -> int:
        """Erase instances with their files' rows, frames, vectors and reports; how many instances went.

        SQLite overwrites what it frees (secure_delete), its write-ahead log is emptied, and copies of the catalog that
        a migration left are removed. PostgreSQL is told to vacuum; what its own logs and backups hold is its
        administrator's. Derived indexes are erased when they next catch up: `Store.refresh` does it at once.

        With `erased`, a later run keeps out what went, and what else has the patient, study or series that the filter
        names by itself. Without, a file that is still in the archive is indexed anew.
        """
        if not where:
            raise ValueError("delete_matching needs a condition; an empty filter would erase everything")
        with self._database.writing() as connection:
            query = sa.select(instances.c.id).where(*conditions(connection, where))
            ids = connection.execute(query).scalars().all()
            named = [_NAMED.get(column_named(name)) for name in where.equals]
            scope = named[0] if len(named) == 1 and not where.where else None
            Writer(connection, None, erased).erase(ids, scope or "instance")
            claims.bury(connection)
        self._database.scrub()
        return len(ids)

    def count_matching(self, where: SearchFilter) -> dict[str, int]:
        """What `delete_matching` would erase: patients, studies, instances, frames, report sentences."""

        def distinct(column: sa.Column[Any]) -> sa.Function[int]:
            return sa.func.count(column.distinct())

        with self._database.reading() as connection:
            chosen = conditions(connection, where)
            row = connection.execute(
                sa.select(
                    distinct(instances.c.patient_pseudonym).label("patients"),
                    distinct(instances.c.study_instance_uid).label("studies"),
                    sa.func.count().label("instances"),
                ).where(*chosen)
            ).one()
            held = sa.select(sa.func.count()).select_from(frames.join(instances)).where(*chosen)
            said = sa.select(sa.func.count()).select_from(sentences.join(reports).join(instances)).where(*chosen)
            return {
                **row._mapping,
                "frames": connection.execute(held).scalar_one(),
                "sentences": connection.execute(said).scalar_one(),
            }
