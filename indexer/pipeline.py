"""From an archive to a store: walk, read in guarded workers, encode in batches, commit.

Reading goes on in the workers while a batch is encoded here. A batch is committed in one transaction, so a run that is
killed loses at most the batch in hand, and the same command goes on where it stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.archive import iter_files
from indexer.catalog import KnownFile
from indexer.frames import FramePolicy
from indexer.guard import GuardedPool
from indexer.reading import FileToRead, ReadFile, ReadSettings, read_file, set_settings
from indexer.records import FileStat, IndexedFile, IndexReport, Rejection
from indexer.store import Store
from retrieval.encoder import ClipEncoder
from retrieval.errors import DicomError

FRAMES_PER_COMMIT = 128
FILES_PER_COMMIT = 512


@dataclass(frozen=True)
class Progress:
    """How far a run is. `total` is None until the archive has been counted."""

    files: int
    total: int | None
    frames: int
    rejected: int


OnProgress = Callable[[Progress], None]


def index_archive(
    roots: Sequence[Path],
    store: Store,
    encoder: ClipEncoder,
    *,
    frames: FramePolicy = FramePolicy(),
    workers: int | None = None,
    prune: bool = False,
    keep_descriptions: bool = True,
    skip: Sequence[Path] = (),
    on_progress: OnProgress = lambda progress: None,
) -> IndexReport:
    """Bring the store up to date with the archives under `roots` and say what was done.

    Files whose size and modification time are known are not opened. With `prune`, what is gone from the archive leaves
    the store. Files that can't be used become Rejections; the run goes on.

    Raises StoreIncompatible before any work if the store belongs to another model, MedlensError for a root that can't
    be read. On KeyboardInterrupt what was read so far is committed, then it is raised again.
    """
    store.require_model(encoder.spec.to_json())
    settings = ReadSettings(
        store.pseudonym_key, encoder.spec.preprocess, encoder.spec.render_profile, frames, keep_descriptions
    )
    started = time.monotonic()
    walks = [iter_files(root, skip=skip, on_rejection=lambda r: None) for root in roots]  # a bad root is refused here
    total = _CountedFiles(walks)
    run = _Run(store, encoder, on_progress, total)
    count = workers or max(os.cpu_count() or 1, 1)
    with GuardedPool(read_file, workers=count, initializer=set_settings, initargs=(settings,)) as pool:
        for root in roots:
            run.index_root(root, pool, skip, prune)
    store.refresh()
    return run.report(time.monotonic() - started)


class _CountedFiles:
    """Counts the files of an archive in the background, for the time that is left."""

    def __init__(self, walks: Sequence[Iterator[object]]) -> None:
        self.total: int | None = None
        self._walks = walks
        threading.Thread(target=self._count, name="medlens-count", daemon=True).start()

    def _count(self) -> None:
        self.total = sum(1 for walk in self._walks for _ in walk)


@dataclass
class _Run:
    """What has been done so far, and the batch in hand."""

    store: Store
    encoder: ClipEncoder
    on_progress: OnProgress
    counted: _CountedFiles
    files: int = 0
    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    duplicates: int = 0
    frames: int = 0
    reports: int = 0
    not_embedded: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejection] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    _read: list[tuple[FileStat, ReadFile]] = field(default_factory=list)
    _refused: list[tuple[FileStat, Rejection]] = field(default_factory=list)

    def index_root(
        self, root: Path, pool: GuardedPool[FileToRead, ReadFile], skip: Sequence[Path], prune: bool
    ) -> None:
        catalog = self.store.catalog
        archive = catalog.archive_id(root.resolve())
        known = catalog.known_files(archive)
        walk = iter_files(root, skip=skip, on_rejection=self.rejected.append)
        try:
            for file, outcome in pool.map(self._changed(walk, known)):
                if isinstance(outcome, DicomError):
                    self._refused.append((file.stat, Rejection(file.stat.path, outcome.code, str(outcome))))
                else:
                    self._read.append((file.stat, outcome))
                self._tell()
                if (
                    self._frames_in_hand() >= FRAMES_PER_COMMIT
                    or len(self._read) + len(self._refused) >= FILES_PER_COMMIT
                ):
                    self._commit(archive)
        finally:
            # Also when interrupted: what was read is not thrown away.
            self._commit(archive)
        if prune and known:  # what is left was not met by the walk
            self.removed += catalog.forget(archive, list(known))

    def report(self, seconds: float) -> IndexReport:
        return IndexReport(
            indexed=self.indexed,
            unchanged=self.unchanged,
            updated=self.updated,
            removed=self.removed,
            duplicates=self.duplicates,
            frames=self.frames,
            reports=self.reports,
            not_embedded=dict(self.not_embedded),
            rejected=tuple(self.rejected),
            warnings=dict(self.warnings),
            seconds=seconds,
        )

    def _changed(self, walk: Iterator[tuple[FileStat, Path]], known: dict[str, KnownFile]) -> Iterator[FileToRead]:
        """The files to read. Takes out of `known` what the walk meets."""
        for stat, path in walk:
            self.files += 1
            before = known.pop(stat.path, None)
            if before is None or (before.size, before.mtime_ns) != (stat.size, stat.mtime_ns):
                yield FileToRead(stat, path)
            elif before.status == "rejected":
                self.rejected.append(Rejection(stat.path, before.reason, before.detail))
            else:
                self.unchanged += 1
            if self.files % 1000 == 0:
                self._tell()

    def _frames_in_hand(self) -> int:
        return sum(len(read.pictures) for _, read in self._read)

    def _tell(self) -> None:
        frames = self.frames + self._frames_in_hand()
        self.on_progress(Progress(self.files, self.counted.total, frames, len(self.rejected) + len(self._refused)))

    def _commit(self, archive: int) -> None:
        if not self._read and not self._refused:
            return
        outcome = self.store.catalog.commit(archive, self._encoded(), self._refused)
        self.indexed += outcome.added
        self.updated += outcome.updated
        self.unchanged += outcome.unchanged
        self.removed += outcome.removed
        self.duplicates += outcome.duplicates
        self.frames += outcome.frames
        self.reports += outcome.reports
        self.rejected += [rejection for _, rejection in self._refused] + list(outcome.conflicts)
        for _, read in self._read:
            if read.record.kind == "other":
                self.not_embedded[str(read.record.attributes.get("modality") or "unknown")] += 1
            self.warnings.update(read.record.warnings)
        self._read.clear()
        self._refused.clear()
        self._tell()

    def _encoded(self) -> list[IndexedFile]:
        pictures = [picture for _, read in self._read for picture in read.pictures]
        texts = list(dict.fromkeys(text for _, read in self._read for text in read.sentences))
        image_vectors = self.encoder.encode_images(pictures)
        text_vectors = self.encoder.encode_text(texts)
        place = {text: i for i, text in enumerate(texts)}
        files, start = [], 0
        for stat, read in self._read:
            end = start + len(read.pictures)
            files.append(
                IndexedFile(
                    stat=stat,
                    record=read.record,
                    frame_numbers=read.frame_numbers,
                    frame_vectors=image_vectors[start:end],
                    sentences=read.sentences,
                    sentence_vectors=text_vectors[np.array([place[t] for t in read.sentences], np.int64)],
                    content_hash=read.content_hash,
                )
            )
            start = end
        return files
