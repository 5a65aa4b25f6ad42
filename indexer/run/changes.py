"""Which files of an archive have to be read: compare the walk with the catalog's list, and claim what is new.

Both come in ascending order of their paths and are compared side by side, in memory that does not grow with the
archive. An unchanged file costs a stat. The others are claimed a few at a time, so that several processes can share an
archive. Files that another process has claimed are tried again at the end, and taken over if that process has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from indexer.catalog.batching import chunks
from indexer.catalog.erasure import Erasures
from indexer.catalog.known import KnownFile
from indexer.catalog.removal import DUPLICATE
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.reading.files import FileToRead
from indexer.records import FileStat, Rejection, Tally
from indexer.run.lease import Lease
from indexer.run.options import Shard
from indexer.sources.opening import is_gone
from indexer.sources.source import Source
from retrieval.errors import MedlensError

FILES_PER_CLAIM = 128
_MOST_BUSY = 8192  # files of other processes that are remembered before checking which of them are done
_FORGOTTEN_AT_ONCE = 2000  # per transaction, so that other processes get their turn
_POLL_S = 0.5


class ArchiveChanges:
    """Yields the files of one archive that have to be read, in rounds. `tally` counts the files that need no reading.

    Commit the files of a round before requesting the next: another process may be waiting for them.
    """

    def __init__(
        self,
        catalog: SqlCatalog,
        source: Source,
        lease: Lease,
        *,
        shard: Shard = Shard(),
        erased: Erasures | None = None,
    ) -> None:
        self.archive_id = catalog.files.archive_id(source.root)
        self.tally = Tally()
        self._catalog = catalog
        self._source = source
        self._lease = lease
        self._shard = shard
        self._erased = erased
        self._met_any = False
        self._met_copies = False  # files that the catalog has as second copies
        self._walked = False
        self._busy: list[FileStat] = []
        self._gone: list[str] = []
        self._unseen: set[str] = set()  # what the walk could not read

    def rounds(self) -> Iterator[Iterator[FileToRead]]:
        """Yield the files that the walk finds, then, until there are none, the files that others had claimed or
        `put_back` returned.
        """
        yield self._first()
        while self._busy:
            before = len(self._busy)
            yield self._again()
            if len(self._busy) == before:
                time.sleep(_POLL_S)

    def put_back(self, stats: Sequence[FileStat]) -> None:
        """Return files that were claimed and not committed; they come again in a later round."""
        self._busy += stats

    def finish(self, prune: bool) -> None:
        """Finish after the last round: move instances whose files were moved, also from archives that are gone; with
        `prune` remove files that are gone from this archive, otherwise count them.

        The tally counts both. Files in folders that the walk could not read are kept. Raises MedlensError if the walk
        found nothing where there were files, because the disk may not be mounted.
        """
        if not self._walked:
            raise ValueError("finish was called before the walk had ended")
        gone = [path for path in self._gone if not self._is_unseen(path)]
        if prune and gone and not self._met_any:
            raise MedlensError(
                f"the archive {self._source.label} has no files, but the store has {len(gone)} of it; "
                "nothing was pruned",
                hint=(
                    "Check that the disk of the archive is mounted. If the files were really deleted, use "
                    "`medlens delete`."
                ),
            )
        files, all_gone = self._catalog.files, set(gone)
        roots = files.archive_roots().items()
        lost = [other for other, root in roots if other != self.archive_id and is_gone(root)]
        if lost and self._met_copies:
            self.tally.moved += files.take_from_lost(self.archive_id, lost, all_gone)
        files.drop_without_instances(lost)
        for chunk in chunks(gone, _FORGOTTEN_AT_ONCE):
            self.tally.moved += files.hand_over(self.archive_id, chunk, all_gone)
            if prune:
                self.tally.removed += files.forget(self.archive_id, chunk)
            else:
                self.tally.vanished += files.count_owning(self.archive_id, chunk)

    # -- rounds

    def _first(self) -> Iterator[FileToRead]:
        known = self._known()
        before = next(known, None)
        chunk: list[FileStat] = []
        for stat in self._source.walk(self._not_seen):
            self._met_any = True
            path = stat.path
            if path not in self._shard:
                continue
            while before is not None and before[0] < path:
                self._gone.append(before[0])
                before = next(known, None)
            if before is not None and before[0] == path:
                file = before[1]
                before = next(known, None)
                if file.version == stat.version:
                    self._note(path, file)
                    continue
            chunk.append(stat)
            if len(chunk) >= FILES_PER_CLAIM:
                yield from self._claimed(chunk)
                chunk = []
        while before is not None:
            self._gone.append(before[0])
            before = next(known, None)
        self._walked = True
        yield from self._claimed(chunk)

    def _again(self) -> Iterator[FileToRead]:
        waiting, self._busy = self._busy, []
        for chunk in chunks(waiting, FILES_PER_CLAIM):
            yield from self._claimed(chunk)

    def _claimed(self, stats: Sequence[FileStat]) -> Iterator[FileToRead]:
        if not stats:
            return
        answer = self._catalog.claims.claim(self.archive_id, self._lease.id, stats, self._erased)
        for stat, file in answer.current.items():  # another process was faster
            self._note(stat.path, file)
        self.tally.erased += len(answer.erased)
        self._busy += answer.busy
        if len(self._busy) >= _MOST_BUSY:
            self._drop_done()
        for stat, candidates in answer.granted.items():
            yield FileToRead(stat, self._source.locate(stat.path), candidates)

    def _drop_done(self) -> None:
        done = self._catalog.files.current(self.archive_id, self._busy)
        for stat, file in done.items():
            self._note(stat.path, file)
        self._busy = [stat for stat in self._busy if stat not in done]

    def _known(self) -> Iterator[tuple[str, KnownFile]]:
        known = self._catalog.files.known(self.archive_id)
        return known if self._shard.total == 1 else (item for item in known if item[0] in self._shard)

    def _note(self, path: str, file: KnownFile) -> None:
        if file.status == "rejected":
            self.tally.reject(Rejection(path, file.reason, file.detail))
        else:
            self.tally.unchanged += 1
            self._met_copies |= file.reason == DUPLICATE

    def _not_seen(self, rejection: Rejection) -> None:
        self._unseen.add(rejection.path.rstrip("/"))
        if rejection.path in self._shard:
            self.tally.reject(rejection)

    def _is_unseen(self, path: str) -> bool:
        if not self._unseen:
            return False
        if "." in self._unseen or path in self._unseen:
            return True
        at = path.find("/")
        while at >= 0:
            if path[:at] in self._unseen:
                return True
            at = path.find("/", at + 1)
        return False


class CountedFiles:
    """Counts the files of archives in a background thread, to estimate the remaining time."""

    def __init__(self, sources: Sequence[Source], shard: Shard = Shard()) -> None:
        self.total: int | None = None
        self._sources, self._shard = sources, shard
        threading.Thread(target=self._count, name="medlens-count", daemon=True).start()

    def _count(self) -> None:
        self.total = sum(source.count() for source in self._sources) // self._shard.total
