"""Wiring of `medlens classify`: label sets over files, over folders that take days, over the vectors of a store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cli.medlens_progress import progress_bar
from cli.medlens_streams import Row, Spool
from indexer.catalog.frames import FrameBatch
from indexer.catalog.labels import SavedSet
from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_pictures
from indexer.sources.folders import iter_files
from indexer.sources.source import Where
from indexer.store.questions import store_model
from indexer.store.store import Store
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import LightEncoder, open_encoder
from retrieval.errors import MedlensError, QueryError
from retrieval.types import Embeddings, SearchFilter, Uint8Image
from retrieval.zeroshot.calibration import Calibration, calibration_from, read_calibration
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labelling import Labeller, Said, StudyPool, Wishes
from retrieval.zeroshot.labels import LabelSet, load_labels

logger = logging.getLogger(__name__)

BATCH = 64  # pictures encoded at a time
CALIBRATION_KEY = "calibration/"  # in the manifest, with the beginning of the label set's fingerprint

Layout = Literal["nested", "flat", "short"]
Failure = Callable[[str, MedlensError], None]


@dataclass(frozen=True)
class Ask:
    """What `classify` was asked. `layout`: nested for JSON, flat for CSV and Parquet, short for people."""

    labels: LabelSet
    wishes: Wishes
    calibration: Path | None = None
    layout: Layout = "nested"

    def labeller(self, encoder: ClipEncoder | LightEncoder, store: Store | None = None) -> Labeller:
        """With the calibration that was named, else the store's for this set and model, else none."""
        kept = read_calibration(self.calibration) if self.calibration else None
        if kept is None and store is not None:
            kept = calibration_of(store, self.labels)
        classifier = ZeroShotClassifier(self.labels, encoder, encoder.logit_scale)
        return Labeller(classifier, encoder.spec.to_json(), kept, self.wishes)

    def said(self, said: Said, i: int) -> Row:
        ways = {"nested": said.row, "flat": said.flat_row, "short": said.short_row}
        return ways[self.layout](i)


def classify_files(
    files: Sequence[Path], ask: Ask, model: str | None, device: str, on_failure: Failure
) -> tuple[Iterator[Row], Labeller]:
    """A row per file, in order. Multi-frame files: their first frame. What can't be read goes to `on_failure`."""
    encoder = ClipEncoder.from_source(resolve_model(model), device)
    labeller = ask.labeller(encoder)
    return _rows_of(named_files(files), encoder, labeller, ask, on_failure), labeller


@contextmanager
def classify_resumed(
    files: Sequence[Path], ask: Ask, model: str | None, device: str, output: Path, on_failure: Failure
) -> Iterator[tuple[Iterator[Row], Labeller]]:
    """The same for many files: rows are spooled beside the output as they come, and files that are there are skipped.

    The spool goes when the block, which writes the output, has ended well.
    """
    encoder = ClipEncoder.from_source(resolve_model(model), device)
    labeller = ask.labeller(encoder)
    with Spool(output, f"{labeller.made_by} {ask.wishes} {ask.layout}") as spool:
        if spool.done:
            logger.warning("going on: %d files are done", len(spool.done))
        todo = ((name, path) for name, path in named_files(files) if name not in spool.done)
        with progress_bar("files") as update:
            rows: list[Row] = []
            for number, row in enumerate(_rows_of(todo, encoder, labeller, ask, on_failure), len(spool.done) + 1):
                rows.append(row)
                if len(rows) == BATCH:
                    spool.add(rows)
                    rows.clear()
                    update(number, None, "")
            spool.add(rows)
        yield spool.rows(), labeller
        spool.drop()


def classify_store(
    store: Store, ask: Ask, model: str | None, device: str, where: SearchFilter, *, by_study: bool, save: bool
) -> tuple[Iterator[Row], Labeller]:
    """A row per frame (or study) of a store that passes the filter, from the vectors: no pixel is read.

    `save` keeps the labels in the catalog as the rows are taken.
    """
    labeller = ask.labeller(store_model(store, model, device), store)
    if by_study:
        return _study_rows(store, ask, labeller, where, save), labeller
    return _frame_rows(store, ask, labeller, where, save), labeller


def calibration_of(store: Store, labels: LabelSet) -> Calibration | None:
    """The calibration that the store keeps for a label set as it is worded now."""
    values = store.manifest.get(CALIBRATION_KEY + labels.fingerprint[:32])
    if values is not None:
        return calibration_from(values, f"the calibration of {labels.name!r} in the store")
    for key in store.manifest:
        if key.startswith(CALIBRATION_KEY) and store.manifest[key].get("label_set") == labels.name:
            logger.warning(
                "the store has a calibration of %r in another wording; what follows are scores, no probabilities",
                labels.name,
            )
    return None


def encoded_pictures(
    encoder: ClipEncoder,
    requests: Sequence[PictureRequest],
    unreadable: Callable[[int, MedlensError], MedlensError],
    done: Callable[[int], None],
) -> Embeddings:
    """[N, embed_dim], in the order of the requests, all of which are needed.

    Of one that can't be read, `unreadable` makes the error, by its place from 0; `done` is told how many are encoded.
    """
    parts: list[Embeddings] = []
    batch: list[Uint8Image] = []
    for at, (_, outcome) in enumerate(load_pictures(requests)):
        if isinstance(outcome, MedlensError):
            raise unreadable(at, outcome) from outcome
        batch.append(encoder.spec.preprocess.fit(outcome))
        if len(batch) == BATCH or at + 1 == len(requests):
            parts.append(encoder.encode_images(batch))
            batch.clear()
            done(at + 1)
    return np.concatenate(parts)


def named_files(files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with the name to print: as given, or relative to the folder that was given."""
    for file in files:
        if file.is_dir():
            for stat, path in iter_files(file):
                yield stat.path, path
        else:
            yield os.fsencode(file).decode("utf-8", "backslashreplace"), file


def _rows_of(
    named: Iterator[tuple[str, Path]], encoder: ClipEncoder, labeller: Labeller, ask: Ask, on_failure: Failure
) -> Iterator[Row]:
    names: list[str] = []
    pictures: list[Uint8Image] = []

    def flushed() -> Iterator[Row]:
        said = labeller.label(encoder.encode_images(pictures))
        yield from ({"file": name} | dict(ask.said(said, i)) for i, name in enumerate(names))
        names.clear()
        pictures.clear()

    waiting: dict[Where, list[str]] = {}  # the pool reads ahead; a name waits for its picture

    def requests() -> Iterator[PictureRequest]:
        for name, path in named:
            waiting.setdefault(path, []).append(name)
            yield PictureRequest(path, encoder.spec.render_profile)

    for request, outcome in load_pictures(requests()):
        name = waiting[request.where].pop(0)
        if not waiting[request.where]:
            del waiting[request.where]
        if isinstance(outcome, MedlensError):
            on_failure(name, outcome)
            continue
        names.append(name)
        pictures.append(encoder.spec.preprocess.fit(outcome))
        if len(pictures) == BATCH:
            yield from flushed()
    if pictures:
        yield from flushed()


def _frame_rows(store: Store, ask: Ask, labeller: Labeller, where: SearchFilter, save: bool) -> Iterator[Row]:
    for batch, said in _labelled(store, labeller, where, save):
        for i, (uid, number, study) in enumerate(
            zip(batch.sop_instance_uids, batch.frame_numbers, batch.study_instance_uids, strict=True)
        ):
            key = {"sop_instance_uid": uid, "frame_number": number, "study_instance_uid": study}
            yield key | dict(ask.said(said, i))


def _study_rows(store: Store, ask: Ask, labeller: Labeller, where: SearchFilter, save: bool) -> Iterator[Row]:
    pool = StudyPool(len(ask.labels.labels), independent=ask.labels.independent)
    for batch, said in _labelled(store, labeller, where, save):
        pool.add([study or "" for study in batch.study_instance_uids], said.values, said.unknown)
    studies, counts, values, unknown = pool.pooled()
    said = labeller.say(values, unknown if ask.wishes.unknown is not None else None)
    for i, (study, frames) in enumerate(zip(studies, counts.tolist(), strict=True)):
        yield {"study_instance_uid": study or None, "frames": frames} | dict(ask.said(said, i))


def _labelled(store: Store, labeller: Labeller, where: SearchFilter, save: bool) -> Iterator[tuple[FrameBatch, Said]]:
    labels = store.catalog.labels
    done = 0
    with progress_bar("frames") as update:
        for batch in store.catalog.frames.batches(where):
            said = labeller.label(batch.vectors)
            if save:
                labels.save(saved_set(labeller), [(batch.ids, said.values)])
            yield batch, said
            done += len(batch)
            update(done, None, "")


def saved_set(labeller: Labeller) -> SavedSet:
    labels = labeller.labels
    if labels.name == "inline":
        raise QueryError(
            "inline labels have no name to be kept under",
            hint="Write them to a YAML file with a name: `medlens labels show modality` is an example.",
        )
    return SavedSet(labels.name, labels.names, labeller.made_by, labeller.calibration is not None)


def heard(labels: str, model: str | None, device: str) -> tuple[list[Row], Row]:
    """How a model's text tower hears a label set. Per label: the least similarity (cosine) of one of its phrasings to
    the others' mean, and the label that lies nearest. A phrasing far from the others says something else; two labels at
    a similarity near 1 can't be told apart."""
    found = load_labels(labels)
    encoder = open_encoder(model, device)
    vectors = ZeroShotClassifier(found, encoder, encoder.logit_scale).label_vectors
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    rows: list[Row] = []
    for i, label in enumerate(found.labels):
        said = encoder.encode_text(label.prompts)
        own = said @ vectors[i]
        row: dict[str, object] = {"label": label.name, "phrasings": len(label.prompts)}
        row |= {"odd_one": label.prompts[int(own.argmin())], "its_similarity": round(float(own.min()), 3)}
        if len(found.labels) > 1:
            near = int(alike[i].argmax())
            row |= {"nearest_label": found.names[near], "similarity": round(float(alike[i, near]), 3)}
        rows.append(row)
    return rows, {"name": found.name, "kind": found.kind, "model": encoder.name, "sha256": found.fingerprint[:12]}
