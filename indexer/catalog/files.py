"""The files of the archives: which are known, how they are added, and how they are removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import sqlalchemy as sa

from indexer.catalog import moves
from indexer.catalog.batching import rows_where_in
from indexer.catalog.commit import Commit, CommitOutcome
from indexer.catalog.database import Database
from indexer.catalog.erasure import Erasures
from indexer.catalog.known import ROW, KnownFile, current_files
from indexer.catalog.moves import Owner, Where
from indexer.catalog.removal import DUPLICATE, forget, hand_over
from indexer.catalog.schema import PathText, archives, files, instances
from indexer.catalog.vectors_in_use import VectorsInUse
from indexer.records import FileStat, IndexedFile, Rejection

_PAGE = 10_000  # files read at a time: a few MB
_TAKEN_AT_ONCE = 2000  # instances per transaction


class Files:
    """The files of one catalog. Every method is one transaction."""

    def __init__(self, database: Database, embed_dim: Callable[[], int | None], in_use: VectorsInUse) -> None:
        self._database = database
        self._embed_dim = embed_dim
        self._in_use = in_use

    def archive_id(self, root: object) -> int:
        """Return the id of the archive at an absolute path or a source's URL; an unknown archive gets a new id."""
        place = str(root)
        find = sa.select(archives.c.id).where(archives.c.root == place)
        with self._database.reading() as connection:
            found = connection.execute(find).scalar()
        if found is not None:
            return int(found)
        with self._database.writing() as connection:
            found = connection.execute(find).scalar()  # another process may have been quicker
            if found is None:
                insert = sa.insert(archives).values(root=place).returning(archives.c.id)
                found = connection.execute(insert).scalar_one()
        return int(found)

    def archive_roots(self) -> dict[int, str]:
        """Return the place of every archive, an absolute path or a URL, by its id."""
        with self._database.reading() as connection:
            return {row.id: row.root for row in connection.execute(sa.select(archives).order_by(archives.c.id))}

    def known(self, archive_id: int) -> Iterator[tuple[str, KnownFile]]:
        """Yield every known file of the archive, by relative path, in ascending order of code points.

        The rows are read in pages, each in its own transaction, so that memory stays small and no reader delays a
        checkpoint.
        """
        raw = sa.type_coerce(files.c.path, sa.Text)  # PathText would cost as much as reading the row
        query = sa.select(raw, *ROW).where(files.c.archive_id == archive_id).order_by(files.c.path).limit(_PAGE)
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

    def current(self, archive_id: int, stats: Sequence[FileStat]) -> dict[FileStat, KnownFile]:
        """Return those of the files that the catalog has in their current version."""
        with self._database.reading() as connection:
            return current_files(connection, archive_id, stats)

    def hashes_known(self, hashes: Iterable[str]) -> set[str]:
        """Return those of the content hashes that an indexed file has."""
        query = sa.select(files.c.content_hash).select_from(instances.join(files, instances.c.file_id == files.c.id))
        wanted = list(dict.fromkeys(filter(None, hashes)))
        with self._database.reading() as connection:
            return {row[0] for row in rows_where_in(connection, query, files.c.content_hash, wanted)}

    def owners(self, hashes: Iterable[str]) -> list[Owner]:
        """Return the indexed files that have one of these content hashes."""
        with self._database.reading() as connection:
            return moves.owners_of(connection, hashes)

    def sample(self, archive_id: int, count: int) -> list[Owner]:
        """Return at most `count` indexed files of an archive, spread over all that have a content hash."""
        with self._database.reading() as connection:
            return moves.sample_of(connection, archive_id, count)

    def count(self, archive_id: int) -> int:
        """Return the number of indexed files of an archive, duplicates included."""
        mine = (files.c.archive_id == archive_id, files.c.status == "indexed")
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(files).where(*mine)).scalar_one())

    def count_owning(self, archive_id: int, paths: Sequence[str]) -> int:
        """Return how many of the files at these paths have an instance."""
        with self._database.reading() as connection:
            return moves.count_owning(connection, archive_id, paths)

    def relocate(self, archive_id: int, root: str) -> bool:
        """Change the root of an archive. Returns False if another archive has that root."""
        with self._database.writing() as connection:
            return moves.relocate(connection, archive_id, root)

    def commit(
        self,
        archive_id: int,
        indexed: Sequence[IndexedFile],
        rejected: Sequence[tuple[FileStat, Rejection]] = (),
        copies: Sequence[tuple[FileStat, str]] = (),
        *,
        erased: Erasures | None = None,
        readmit: bool = False,
        lost: Collection[Where] = (),
    ) -> CommitOutcome:
        """Add files with their frames, sentences and vectors, and rejected files, in one transaction.

        - If a path is known with other content, its instance is replaced.
        - If another file has the same SOP Instance UID: with the same `content_hash` the file is recorded as a
          duplicate, else it is rejected as a conflict and nothing is overwritten.
        - A rejected file that was indexed before loses its instance.
        - `copies` are files with the content hash of an indexed file, because they were moved, copied or only touched;
          its instance and vectors are kept. The indexed file has moved if its place is in `lost`; otherwise the new one
          is recorded as a duplicate. If there is no such file any more, they are `stale` in the outcome.
        - With `erased`, erased files are left out; with `readmit` they are added and no longer kept out.

        Claims on the files end. Raises ValueError for vectors that are not finite, not of unit norm, or of another size
        than the store's, and StoreIncompatible if another process has changed the store's model.
        """
        dim = self._embed_dim()
        with self._database.writing() as connection:
            self._in_use.require(connection)
            return Commit(connection, archive_id, erased, readmit, lost).take(indexed, rejected, copies, dim)

    def forget(self, archive_id: int, paths: Sequence[str]) -> int:
        """Remove files that are gone, with their instances, frames and sentences.

        Returns the number of instances removed.

        An instance with another known copy is kept under the path of that copy.
        """
        with self._database.writing() as connection:
            gone = forget(connection, archive_id, paths)
        self._database.checkpoint()
        return gone

    def hand_over(self, archive_id: int, paths: Sequence[str], gone: Collection[str]) -> int:
        """Pass the instances of the files at `paths`, which are gone, to known copies of them.

        Returns the number passed on.

        Copies at a path in `gone` are not considered. Instances without a copy stay as they are.
        """
        copy = files.alias()
        query = (
            sa.select(files.c.path)
            .select_from(instances.join(files, instances.c.file_id == files.c.id))
            .join(copy, copy.c.sop_instance_uid == instances.c.sop_instance_uid)
            .where(files.c.archive_id == archive_id, copy.c.reason == DUPLICATE)
        )
        with self._database.reading() as connection:
            found = dict.fromkeys(row[0] for row in rows_where_in(connection, query, files.c.path, paths))
        if not found:
            return 0
        with self._database.writing() as connection:
            return hand_over(connection, archive_id, list(found), gone)

    def take_from_lost(self, archive_id: int, lost: Collection[int], gone: Collection[str]) -> int:
        """Give the instances of archives that are gone to duplicates in this one, except those at a path in `gone`.

        Some at a time, so that other processes get their turn. Returns the number of instances.
        """
        taken, after = 0, 0
        while True:
            with self._database.writing() as connection:
                given, last = moves.take_from_lost(connection, archive_id, lost, gone, after, _TAKEN_AT_ONCE)
            taken += given
            if last is None:
                return taken
            after = last

    def drop_without_instances(self, archive_ids: Collection[int]) -> None:
        """Remove the files, rejected ones and duplicates, of those archives that have no instance."""
        with self._database.reading() as connection:
            none = [each for each in archive_ids if moves.owns_nothing(connection, each)]
        if none:
            with self._database.writing() as connection:
                moves.drop_without_instances(connection, none)
