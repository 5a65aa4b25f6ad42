"""The frames and report sentences of a store, encoded by the model that the store is being changed to.

Pictures are read again from the archives, in guarded workers as `pipeline` reads them, and encoded and kept in the
catalog a batch at a time, beside the vectors in use. So a run that is killed loses at most the batches in hand, and the
same command goes on where it stopped. What comes into the store meanwhile is encoded too, before the vectors are
swapped.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from indexer.catalog.model_change import Made, MissingFrames, ModelChange
from indexer.guard.pool import GuardedPool
from indexer.reading.files import FramesToRead, OtherContent, ReadSettings, read_frames, set_settings
from indexer.records import Rejection
from indexer.run.lease import Lease
from indexer.run.stages import Clock, StagePipeline
from indexer.sources.opening import locate
from indexer.store.store import Store
from retrieval.encoders.released import title
from retrieval.encoders.spec import IndexingEncoder, differing
from retrieval.encoders.unread import unread
from retrieval.errors import DicomError, FileUnreadable
from retrieval.types import Embeddings, Uint8Image

log = logging.getLogger(__name__)

CHANGED = "changed"  # the reason of a file that does not hold any more what was indexed
MOST_FILES = 512  # read for one batch


@dataclass(frozen=True)
class ReembedProgress:
    """How far a change of the model is: vectors made, of how many, and the files that can't be read again."""

    frames: int
    all_frames: int
    sentences: int
    all_sentences: int
    unreadable: int


OnReembedProgress = Callable[[ReembedProgress], None]


@dataclass(frozen=True)
class ReembedReport:
    """What a run did. `switched`: the store has the new model now, and every vector in it is of that model.

    `frames` and `sentences` were encoded by this run, `kept` vectors by earlier ones that were stopped. `unreadable`
    are the files that can't be read again, `unreadable_frames` how many frames they hold; with them the store keeps its
    former model, unless they were to be left out: then `left_out` instances were. `former_labels` are the saved label
    sets that a former model made.
    """

    model: str
    former_model: str
    switched: bool
    frames: int = 0
    sentences: int = 0
    kept: int = 0
    unreadable: tuple[Rejection, ...] = ()
    unreadable_frames: int = 0
    left_out: int = 0
    former_labels: tuple[str, ...] = ()
    seconds: float = 0.0


def change_model(
    store: Store,
    encoder: IndexingEncoder,
    *,
    workers: int | None = None,
    drop_unreadable: bool = False,
    restart: bool = False,
    on_progress: OnReembedProgress = lambda progress: None,
) -> ReembedReport:
    """Encode all of a store by `encoder`, then give the store that model, in one transaction.

    Until then the store answers by its former model. Files that can't be read again keep it from being changed; with
    `drop_unreadable` their instances are taken out of the catalog in the same transaction, and the next indexing run
    looks at those files. `workers` are decoding processes, by default one for each processor.

    Raises StoreError if another process is at work on such a change, or if one to another model was begun: that is
    dropped with `restart`. On KeyboardInterrupt the batch in hand is kept, then it is raised again. `on_progress` is
    called in this thread, several times a second.
    """
    started, former = time.monotonic(), title(store.model)
    model = encoder.spec.to_json()
    if not differing(store.model, model):
        store.require_model(model)
        store.catalog.model_changes.require_none_begun(model, restart=restart)
        store.catalog.claims.drop_expired_leases()  # of a run that was killed after the swap
        store.refresh()  # its index files may be of the former model still
        return _report(store, title(model), former, True, started)
    key = store.pseudonym_key
    with Lease(store.catalog) as lease:
        change = store.catalog.model_changes.begin(model, lease.id, restart=restart)
        run = _Run(store, encoder, change, on_progress)
        settings = ReadSettings(key, encoder.spec.preprocess, encoder.spec.render_profile)
        count = workers or max(os.cpu_count() or 1, 1)
        left_out: int | None = None
        with GuardedPool(read_frames, workers=count, initializer=set_settings, initargs=(settings,)) as pool:
            while left_out is None:  # until nothing came meanwhile
                run.sentences()
                run.frames(pool)
                if run.unreadable and not drop_unreadable:
                    break
                left_out = store.catalog.model_changes.finish(change, run.unreadable)
    if run.too_long:
        log.warning(
            "%d report sentences are longer than %s reads; their ends are found by words only",
            run.too_long,
            title(model),
        )
    if left_out is not None:
        store.require_model(model)
        store.derived.renew_indexes()
    return _report(store, title(model), former, left_out is not None, started, run, left_out or 0)


@dataclass
class _Batch:
    frame_ids: list[int] = field(default_factory=list)
    pictures: list[Uint8Image] = field(default_factory=list)
    files: int = 0


class _Run:
    """One run. `unreadable` are the instances whose files can't be read again, with why and how many frames."""

    def __init__(
        self, store: Store, encoder: IndexingEncoder, change: ModelChange, on_progress: OnReembedProgress
    ) -> None:
        self.unreadable: dict[int, tuple[Rejection, int]] = {}
        self.new_frames = self.new_sentences = 0
        self.too_long = 0  # sentences
        self.before = store.catalog.model_changes.made()
        self._changes = store.catalog.model_changes
        self._encoder = encoder
        self._change = change
        self._on_progress = on_progress
        self._all: Made = self.before
        self._clock = Clock()

    def sentences(self) -> None:
        """Encode the sentences that have no new vector; equal ones of a batch once."""
        self._all = self._changes.made()
        for page in self._changes.missing_sentences():
            for start in range(0, len(page), MOST_FILES):
                part = page[start : start + MOST_FILES]
                texts = list(dict.fromkeys(sentence.text for sentence in part))
                place = {text: i for i, text in enumerate(texts)}
                vectors = self._encoder.encode_text(texts)[[place[sentence.text] for sentence in part]]
                self.too_long += sum(map(bool, unread(self._encoder, texts)))
                added = self._changes.add(self._change, "sentence", [sentence.id for sentence in part], vectors)
                self.new_sentences += added
                self._report_progress()

    def frames(self, pool: GuardedPool[FramesToRead, tuple[Uint8Image, ...] | OtherContent]) -> None:
        """Read, encode and keep the frames that have no new vector."""

        def encode(batch: _Batch) -> tuple[list[int], Embeddings]:
            return batch.frame_ids, self._encoder.encode_images(batch.pictures)

        def keep(encoded: tuple[list[int], Embeddings]) -> None:
            ids, vectors = encoded
            if ids:
                self.new_frames += self._changes.add(self._change, "frame", ids, vectors)

        stages = StagePipeline(encode, keep, self._report_progress, self._clock)
        stages.run(self._batches(pool, stages))
        self._report_progress()

    def _batches(
        self,
        pool: GuardedPool[FramesToRead, tuple[Uint8Image, ...] | OtherContent],
        stages: StagePipeline[_Batch, tuple[list[int], Embeddings]],
    ) -> Iterator[_Batch]:
        """Of as many pictures as the encoder takes at a time; the last file may bring more."""
        in_hand: deque[MissingFrames] = deque()  # what the workers read, in this order

        def requests() -> Iterator[FramesToRead]:
            for missing in self._changes.missing_frames(but=set(self.unreadable)):
                try:
                    where = locate(missing.archive_root, missing.path)
                except FileUnreadable as error:
                    self._refuse(missing, error.code, str(error))
                    continue
                in_hand.append(missing)
                uid, numbers = missing.sop_instance_uid, missing.frame_numbers
                yield FramesToRead(where, uid, numbers, missing.content_hash or "")

        batch = _Batch()
        for _, outcome in takewhile(lambda _: not stages.stopping.is_set(), pool.map(requests())):
            missing = in_hand.popleft()
            if isinstance(outcome, DicomError):
                self._refuse(missing, outcome.code, str(outcome))
                continue
            if isinstance(outcome, OtherContent):
                self._refuse(missing, CHANGED, "its content is not what was indexed: run `medlens index` first")
                continue
            batch.frame_ids += missing.frame_ids
            batch.pictures += outcome
            batch.files += 1
            if len(batch.pictures) >= self._encoder.batch_size or batch.files >= MOST_FILES:
                yield batch
                batch = _Batch()
        if batch.pictures:
            yield batch

    def _refuse(self, missing: MissingFrames, reason: str, detail: str) -> None:
        _, before = self.unreadable.get(missing.instance_id, (None, 0))
        self.unreadable[missing.instance_id] = Rejection(missing.path, reason, detail), before + len(missing.frame_ids)

    def _report_progress(self) -> None:
        self._on_progress(
            ReembedProgress(
                self.before.frames + self.new_frames,
                self._all.all_frames,
                self.before.sentences + self.new_sentences,
                self._all.all_sentences,
                len(self.unreadable),
            )
        )


def _report(
    store: Store,
    model: str,
    former: str,
    switched: bool,
    started: float,
    run: _Run | None = None,
    left_out: int = 0,
) -> ReembedReport:
    labels = tuple(saved.label_set for saved in store.catalog.labels.saved_sets() if saved.former_model)
    seconds = time.monotonic() - started
    if run is None:
        return ReembedReport(model, former, switched, former_labels=labels, seconds=seconds)
    refused = sorted(run.unreadable.values(), key=lambda one: one[0].path)
    return ReembedReport(
        model,
        former,
        switched,
        run.new_frames,
        run.new_sentences,
        run.before.frames + run.before.sentences,
        tuple(rejection for rejection, _ in refused),
        sum(count for _, count in refused),
        left_out,
        labels,
        seconds,
    )
