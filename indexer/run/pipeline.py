"""From an archive to a store: walk, read in guarded processes, encode in batches, commit.

The three stages overlap (stages.py), with few batches between them. A batch is committed in one transaction, so a run
that is killed loses at most the current batches, and the same command continues where it stopped.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import takewhile
from pathlib import Path

from indexer.guard.pool import GuardedPool
from indexer.reading.files import FileToRead, ReadFile, ReadSettings, SameBytes, read_file, set_settings
from indexer.records import FileStat, IndexedFile, IndexReport, Tally
from indexer.run.batches import Batch, batches, encoded
from indexer.run.changes import ArchiveChanges, CountedFiles
from indexer.run.lease import Lease
from indexer.run.moves import LostFiles, note_vanished, relocated
from indexer.run.options import IndexOptions, OnProgress, Progress
from indexer.run.stages import Clock, StagePipeline
from indexer.sources.folders import Folder
from indexer.sources.source import Source
from indexer.store.store import Store
from retrieval.encoders.spec import IndexingEncoder


def index_archive(
    archives: Sequence[Source | Path],
    store: Store,
    encoder: IndexingEncoder,
    options: IndexOptions = IndexOptions(),
    *,
    on_progress: OnProgress = lambda progress: None,
) -> IndexReport:
    """Update the store from archives, folders or other sources, and return a report.

    Files whose version is known are not opened; moved files keep their vectors, and an archive that has moved is known
    by its new root. Files that can't be used become Rejections, and the run continues. Other processes may index the
    same archive into the same store at the same time and share the work.

    Raises StoreIncompatible before any work if the store belongs to another model, and MedlensError for an archive that
    can't be read or, with `prune`, is empty. On KeyboardInterrupt the current batch is encoded and committed before it
    is raised again. `on_progress` is called in this thread, several times a second.
    """
    store.require_model(encoder.spec.to_json())
    spec = encoder.spec
    settings = ReadSettings(
        store.pseudonym_key, spec.preprocess, spec.render_profile, options.frames, options.keep_descriptions
    )
    started = time.monotonic()
    sources = [Folder(archive) if isinstance(archive, Path) else archive for archive in archives]
    for source in sources:
        source.walk(lambda rejection: None)  # one that can't be read is refused here
    run = _Run(store, encoder, options, on_progress, sources)
    count = options.workers or max(os.cpu_count() or 1, 1)
    with (
        Lease(store.catalog) as lease,
        GuardedPool(read_file, workers=count, initializer=set_settings, initargs=(settings,)) as pool,
    ):
        for source in sources:
            run.index(source, pool, lease)
    store.refresh()
    return run.report(time.monotonic() - started)


class _Run:
    """One run over several archives. `tally` counts what is done, except for the current archive."""

    def __init__(
        self,
        store: Store,
        encoder: IndexingEncoder,
        options: IndexOptions,
        on_progress: OnProgress,
        sources: Sequence[Source],
    ) -> None:
        self.tally = Tally()
        self._commits = 0
        self._clock = Clock()
        self._catalog = store.catalog
        self._erasures = store.erasures
        self._encoder = encoder
        self._options = options
        self._on_progress = on_progress
        self._counted = CountedFiles(sources, options.shard)
        self._lost = LostFiles(store.catalog, sources)

    def index(self, source: Source, pool: GuardedPool[FileToRead, ReadFile | SameBytes], lease: Lease) -> None:
        options = self._options
        erased = None if options.readmit else self._erasures
        self.tally.relocated += relocated(self._catalog, source)
        changes = ArchiveChanges(self._catalog, source, lease, shard=options.shard, erased=erased)
        stale: list[FileStat] = []

        def read(files: Iterator[FileToRead]) -> Iterator[Batch]:
            until_stopped = takewhile(lambda _: not stages.stopping.is_set(), pool.map(files))
            for batch in batches(until_stopped, self._encoder.batch_size):
                yield batch.without_copies(self._catalog.files.hashes_known)

        def encode(batch: Batch) -> tuple[Batch, list[IndexedFile]]:
            return batch, encoded(batch, self._encoder)

        def commit(ready: tuple[Batch, list[IndexedFile]]) -> None:
            stale.extend(self._commit(changes.archive_id, *ready))

        stages = StagePipeline(encode, commit, lambda: self._report_progress(changes.tally), self._clock)
        try:
            for to_read in changes.rounds():
                stages.run(read(to_read))
                changes.put_back(stale)
                stale.clear()
            changes.finish(options.prune)
            if options.shard.total == 1:
                note_vanished(self._catalog, changes.archive_id, changes.tally.vanished)
        finally:
            self.tally.add(changes.tally)
        self._report_progress()

    def report(self, seconds: float) -> IndexReport:
        names = {field.name for field in fields(IndexReport)}
        done = {name: value for name, value in vars(self.tally).items() if name in names}
        done |= {"rejected": tuple(self.tally.rejected), "moved": self.tally.moved + self.tally.adopted}
        return IndexReport(**done, loads=self._clock.loads(), seconds=seconds)

    def _report_progress(self, in_hand: Tally | None = None) -> None:
        """Report the progress. `in_hand` counts the files of the current archive that needed no reading."""
        in_hand = in_hand or Tally()
        reasons = Counter(dict(self.tally.reasons))  # dict() copies at once: other threads add to both
        reasons.update(dict(in_hand.reasons))
        self._on_progress(
            Progress(
                files=self.tally.files + in_hand.files,
                total=self._counted.total,
                frames=self.tally.frames,
                rejected=dict(reasons),
                commits=self._commits,
                loads=self._clock.loads(),
            )
        )

    def _commit(self, archive_id: int, batch: Batch, files: Sequence[IndexedFile]) -> Sequence[FileStat]:
        """Commit a batch in one transaction. Returns the files that have to be read again."""
        lost = self._lost.places({(archive_id, stat.path): content_hash for stat, content_hash in batch.copies})
        outcome = self._catalog.files.commit(
            archive_id,
            files,
            batch.refused,
            batch.copies,
            erased=self._erasures,
            readmit=self._options.readmit,
            lost=lost,
        )
        self.tally.add(outcome.tally)
        self._commits += 1
        return outcome.stale
