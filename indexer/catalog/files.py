"""The files of the archives: which are known, taking them in, and letting them go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import sqlalchemy as sa

from indexer.catalog.batching import rows_where_in
from indexer.catalog.commit import Commit, CommitOutcome
from indexer.catalog.database import Database
from indexer.catalog.erasure import Erasures
from indexer.catalog.known import ROW, KnownFile, current_files
from indexer.catalog.removal import DUPLICATE, forget, hand_over
from indexer.catalog.schema import PathText, archives, files, instances
from indexer.catalog.vectors_in_use import VectorsInUse
from indexer.records import FileStat, IndexedFile, Rejection

_PAGE = 10_000  # files read at a time: a few MB


class Files:
    """The files of one catalog. Every method is one transaction."""

    def __init__(self, database: Database, embed_dim: Callable[[], int | None], in_use: VectorsInUse) -> None:
        self._database = database
        self._embed_dim = embed_dim
        self._in_use = in_use

    def archive_id(self, root: object) -> int:
        """The id of the archive at an absolute path, or at the URL of another source; made if it is new."""
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
        """Where every archive is, by its id: an absolute path, or a URL."""
        with self._database.reading() as connection:
            return {row.id: row.root for row in connection.execute(sa.select(archives).order_by(archives.c.id))}

    def known(self, archive_id: int) -> Iterator[tuple[str, KnownFile]]:
        """Every file that was seen in the archive, by relative path in ascending order of code points.

        Read in pages, each in a transaction of its own: memory stays small, and no reader holds up a checkpoint.
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
        """Those of the files that are in the catalog in their present version."""
        with self._database.reading() as connection:
            return current_files(connection, archive_id, stats)

    def hashes_known(self, hashes: Iterable[str]) -> set[str]:
        """Those content hashes that an indexed file has."""
        query = sa.select(files.c.content_hash).select_from(instances.join(files, instances.c.file_id == files.c.id))
        wanted = list(dict.fromkeys(filter(None, hashes)))
        with self._database.reading() as connection:
            return {row[0] for row in rows_where_in(connection, query, files.c.content_hash, wanted)}

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
        ValueError. StoreIncompatible if another process has changed the store's model meanwhile.
        """
        dim = self._embed_dim()
        with self._database.writing() as connection:
            self._in_use.require(connection)
            return Commit(connection, archive_id, erased, readmit).take(indexed, rejected, copies, dim)

    def forget(self, archive_id: int, paths: Sequence[str]) -> int:
        """Drop files that are gone, with their instances, frames and sentences; how many instances went.

        An instance of which another copy is known is kept under that copy's path.
        """
        with self._database.writing() as connection:
            gone = forget(connection, archive_id, paths)
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
            found = dict.fromkeys(row[0] for row in rows_where_in(connection, query, files.c.path, paths))
        if not found:
            return 0
        with self._database.writing() as connection:
            return hand_over(connection, archive_id, list(found), gone)
