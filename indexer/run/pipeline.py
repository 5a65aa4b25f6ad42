"""From an archive to a store: walk, read in guarded workers, encode in batches, commit.

The three go on at the same time (stages.py), with few batches between them. A batch is committed in one transaction, so
a run that is killed loses at most the batches in hand, and the same command goes on where it stopped.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from indexer.catalog.erasure import Erasures
from indexer.guard.pool import GuardedPool
from indexer.reading.files import FileToRead, ReadFile, ReadSettings, SameBytes, read_file, set_settings
from indexer.reading.frames import FramePolicy
from indexer.records import FileStat, IndexedFile, IndexReport, Rejection
from indexer.run.batches import Batch, batches, encoded
from indexer.run.changes import ArchiveChanges, CountedFiles, Shard
from indexer.run.lease import Worker
from indexer.run.stages import Clock, Line
from indexer.sources.folders import iter_files
from indexer.store.store import Store
from retrieval.encoders.spec import IndexingEncoder


@dataclass(frozen=True)
class Progress:
    """How far a run is. What is counted is done: committed, unchanged or rejected.

    `total` files is None until the archive has been counted. `rejected` is by reason. `loads` is how much of its
    time each stage was at work.
    """

    files: int
    total: int | None
    frames: int
    rejected: Mapping[str, int]
    commits: int
    loads: Mapping[str, float]


OnProgress = Callable[[Progress], None]


def index_archive(
    roots: Sequence[Path],
    store: Store,
    encoder: IndexingEncoder,
    *,
    frames: FramePolicy = FramePolicy(),
    workers: int | None = None,
    prune: bool = False,
    shard: Shard = Shard(),
    readmit: bool = False,
    keep_descriptions: bool = True,
    skip: Sequence[Path] = (),
    on_progress: OnProgress = lambda progress: None,
) -> IndexReport:
    """Bring the store up to date with the archives under `roots` and say what was done.

    Files whose size and modification time are known are not opened; moved ones keep their vectors. With `prune`, what
    is gone from the archive leaves the store. Only files of the `shard` are looked at. What was erased stays out, but
    with `readmit` it is taken in again. Files that can't be used become Rejections; the run goes on. Other processes
    may index the same archive into the same store meanwhile: they share the work.

    Raises StoreIncompatible before any work if the store belongs to another model, MedlensError for a root that can't
    be read, and for one to prune that is empty. On KeyboardInterrupt the batch that is being encoded is finished and
    committed, then it is raised again. `on_progress` is called in this thread, several times a second.
    """
    store.require_model(encoder.spec.to_json())
    settings = ReadSettings(
        store.pseudonym_key, encoder.spec.preprocess, encoder.spec.render_profile, frames, keep_descriptions
    )
    started = time.monotonic()
    for root in roots:
        iter_files(root, on_rejection=lambda rejection: None)  # a bad root is refused here
    run = _Run(store, encoder, on_progress, CountedFiles(roots, skip, shard), store.erasures, readmit)
    count = workers or max(os.cpu_count() or 1, 1)
    with (
        Worker(store.catalog) as worker,
        GuardedPool(read_file, workers=count, initializer=set_settings, initargs=(settings,)) as pool,
    ):
        for root in roots:
            run.index_root(root, pool, worker, skip, shard, prune)
    store.refresh()
    return run.report(time.monotonic() - started)


@dataclass
class _Run:
    """What has been done so far."""

    store: Store
    encoder: IndexingEncoder
    on_progress: OnProgress
    counted: CountedFiles
    erasures: Erasures
    readmit: bool
    files: int = 0  # done with
    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    moved: int = 0
    erased: int = 0
    duplicates: int = 0
    frames: int = 0
    reports: int = 0
    commits: int = 0
    not_embedded: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejection] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    clock: Clock = field(default_factory=Clock)

    def index_root(
        self,
        root: Path,
        pool: GuardedPool[FileToRead, ReadFile | SameBytes],
        worker: Worker,
        skip: Sequence[Path],
        shard: Shard,
        prune: bool,
    ) -> None:
        changes = ArchiveChanges(
            self.store.catalog,
            root,
            worker,
            skip=skip,
            shard=shard,
            erased=None if self.readmit else self.erasures,
            on_rejection=self._reject,
        )
        stale: list[FileStat] = []

        def read(files: Iterator[FileToRead]) -> Iterator[Batch]:
            until_stopped = takewhile(lambda _: not line.stopping.is_set(), pool.map(files))
            for batch in batches(until_stopped, self.encoder.batch_size):
                yield batch.without_copies(self.store.catalog.hashes_known)

        def encode(batch: Batch) -> tuple[Batch, list[IndexedFile]]:
            return batch, encoded(batch, self.encoder)

        def commit(ready: tuple[Batch, list[IndexedFile]]) -> None:
            stale.extend(self._commit(changes.archive_id, *ready))

        def tell() -> None:
            self._tell(changes)

        line = Line(encode, commit, tell, self.clock)
        try:
            for to_read in changes.rounds():
                line.run(read(to_read))
                changes.put_back(stale)
                stale.clear()
        finally:
            self.files += changes.unchanged + changes.erased
            self.unchanged += changes.unchanged
            self.erased += changes.erased
        gone = changes.finish(prune)
        self.removed += gone.removed
        self.moved += gone.moved
        self._tell()

    def report(self, seconds: float) -> IndexReport:
        return IndexReport(
            indexed=self.indexed,
            unchanged=self.unchanged,
            updated=self.updated,
            removed=self.removed,
            moved=self.moved,
            erased=self.erased,
            duplicates=self.duplicates,
            frames=self.frames,
            reports=self.reports,
            not_embedded=dict(self.not_embedded),
            rejected=tuple(self.rejected),
            warnings=dict(self.warnings),
            loads=self.clock.loads(),
            seconds=seconds,
        )

    def _reject(self, rejection: Rejection) -> None:
        """Of a file that needed no reading."""
        self.files += 1
        self.rejected.append(rejection)
        self.reasons[rejection.reason] += 1

    def _tell(self, changes: ArchiveChanges | None = None) -> None:
        """`changes` are those of the archive in hand."""
        files = self.files + (changes.unchanged + changes.erased if changes else 0)
        reasons = dict(self.reasons)
        self.on_progress(Progress(files, self.counted.total, self.frames, reasons, self.commits, self.clock.loads()))

    def _commit(self, archive_id: int, batch: Batch, files: Sequence[IndexedFile]) -> Sequence[FileStat]:
        """One transaction. Returns the files that have to be read again."""
        outcome = self.store.catalog.commit(
            archive_id, files, batch.refused, batch.copies, erased=self.erasures, readmit=self.readmit
        )
        self.files += len(batch) - len(outcome.stale)
        self.erased += outcome.erased
        self.indexed += outcome.added
        self.updated += outcome.updated
        self.unchanged += outcome.unchanged
        self.removed += outcome.removed
        self.duplicates += outcome.duplicates
        self.frames += outcome.frames
        self.reports += outcome.reports
        self.commits += 1
        rejected = [rejection for _, rejection in batch.refused] + list(outcome.conflicts)
        self.rejected += rejected
        self.reasons.update(rejection.reason for rejection in rejected)
        for _, read in batch.read:
            if read.record.kind == "other":
                self.not_embedded[str(read.record.attributes.get("modality") or "unknown")] += 1
            self.warnings.update(read.record.warnings)
        return outcome.stale
