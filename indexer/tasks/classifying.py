"""`medlens classify`: apply a label set to files, to folders that take days, or to the vectors of a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.catalog.frames import FrameBatch
from indexer.catalog.labels import SavedSet
from indexer.reading.files import PictureRequest
from indexer.sources.folders import iter_files
from indexer.store.own_model import store_model
from indexer.store.store import Store
from indexer.tasks.calibrating import stored_calibration
from indexer.tasks.encoding import encode_pictures
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import LightEncoder
from retrieval.errors import MedlensError, QueryError
from retrieval.types import FrameKey, SearchFilter
from retrieval.zeroshot.calibration import Calibration, read_calibration
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labeller import ImageLabels, Labeller, LabelOutcome, LabelRequest, StudyPool
from retrieval.zeroshot.labels import LabelSet

OnUnreadable = Callable[[str, MedlensError], None]


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """The labels of a file. `file` is the given path, or a path relative to the given folder."""

    file: str
    labels: ImageLabels


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The labels of a frame in a store."""

    key: FrameKey
    study_instance_uid: str | None
    labels: ImageLabels


@dataclass(frozen=True, slots=True)
class LabelledStudy:
    """The labels of a study in a store, from so many frames. Frames without a StudyInstanceUID count as one study."""

    study_instance_uid: str | None
    frames: int
    labels: ImageLabels


class FileLabeller:
    """Labels files with one model and one label set. `labeller` names them, and the calibration."""

    def __init__(self, encoder: ClipEncoder, labeller: Labeller) -> None:
        self.labeller = labeller
        self._encoder = encoder

    @classmethod
    def open(
        cls,
        labels: LabelSet,
        *,
        model: str | None = None,
        device: str = "auto",
        calibration: Calibration | Path | None = None,
        request: LabelRequest = LabelRequest(),
    ) -> FileLabeller:
        """Load the model. Raises WeightsNotFound, EncoderError, or CalibrationError if the calibration does not fit or
        is needed for the request and missing.
        """
        encoder = ClipEncoder.from_source(resolve_model(model), device)
        return cls(encoder, _labeller(labels, encoder, _read(calibration), request))

    def label(
        self,
        files: Sequence[Path],
        *,
        skip: Container[str] = frozenset(),
        on_unreadable: OnUnreadable = lambda name, error: None,
    ) -> Iterator[LabelledFile]:
        """Yield labels of files and of files in folders, in order, as they are read.

        A multi-frame file is labelled by its first frame.

        Files whose name is in `skip` are left out. Files that can't be read go to `on_unreadable` and are left out.
        """
        profile = self._encoder.spec.render_profile
        requests = ((name, PictureRequest(path, profile)) for name, path in _named_files(files) if name not in skip)
        for names, vectors in encode_pictures(self._encoder, requests, on_unreadable):
            yield from map(LabelledFile, names, self.labeller.label(vectors).images())


class StoreLabeller:
    """Labels the frames of a store from their vectors, without reading pixels or encoding images."""

    def __init__(self, store: Store, labeller: Labeller) -> None:
        self.labeller = labeller
        self._store = store

    @classmethod
    def open(
        cls,
        store: Store,
        labels: LabelSet,
        *,
        model: str | None = None,
        device: str = "auto",
        calibration: Calibration | Path | None = None,
        request: LabelRequest = LabelRequest(),
    ) -> StoreLabeller:
        """Load the store's model; `model` says where it is. Without a calibration, the store's own is used, if there is
        one. Raises as `FileLabeller.open` does, and StoreIncompatible for another model.
        """
        encoder = store_model(store, model, device)
        chosen = _read(calibration) or stored_calibration(store, labels)
        return cls(store, _labeller(labels, encoder, chosen, request))

    def frames(
        self,
        where: SearchFilter = SearchFilter(),
        *,
        save: bool = False,
        on_progress: Callable[[int], None] = lambda frames: None,
    ) -> Iterator[LabelledFrame]:
        """Yield the labels of every frame that matches the filter.

        With `save` the labels are also stored in the catalog, for filters such as `label.NAME > 0.8`. `on_progress`
        receives the number of frames done. Raises QueryError for an invalid filter, and for inline labels that are to
        be saved.
        """
        for batch, outcome in self._outcomes(where, save, on_progress):
            keys = map(FrameKey, batch.sop_instance_uids, batch.frame_numbers)
            yield from map(LabelledFrame, keys, batch.study_instance_uids, outcome.images())

    def studies(
        self,
        where: SearchFilter = SearchFilter(),
        *,
        save: bool = False,
        on_progress: Callable[[int], None] = lambda frames: None,
    ) -> Iterator[LabelledStudy]:
        """Yield the labels of every study with a matching frame: a finding's highest value, a choice's mean. `save`
        stores the labels of the frames. Arguments and errors are those of `frames`.
        """
        labels, asks_unknown = self.labeller.labels, False
        pool = StudyPool(len(labels.labels), independent=labels.independent)
        for batch, outcome in self._outcomes(where, save, on_progress):
            asks_unknown = outcome.unknown is not None
            pool.add([study or "" for study in batch.study_instance_uids], outcome.values, outcome.unknown)
        studies, counts, values, unknown = pool.pooled()
        outcome = self.labeller.decide(values, unknown if asks_unknown else None)
        yield from map(LabelledStudy, (study or None for study in studies), counts.tolist(), outcome.images())

    def filter_notes(self, where: SearchFilter) -> tuple[str, ...]:
        """Return what the words of a filter were read as and, if no frame matches, what the store has instead."""
        if not where:
            return ()
        found = self._store.catalog.frames.ids_matching(where)
        return self._store.catalog.frames.filter_notes(where, empty=not len(found))

    def _outcomes(
        self, where: SearchFilter, save: bool, on_progress: Callable[[int], None]
    ) -> Iterator[tuple[FrameBatch, LabelOutcome]]:
        saved = _saved_set(self.labeller) if save else None
        labels, done = self._store.catalog.labels, 0
        for batch in self._store.catalog.frames.batches(where):
            outcome = self.labeller.label(batch.vectors)
            if saved is not None:
                labels.save(saved, [(batch.ids, outcome.values)])
            yield batch, outcome
            done += len(batch)
            on_progress(done)


def classify_files(
    files: Sequence[Path],
    labels: LabelSet,
    *,
    model: str | None = None,
    device: str = "auto",
    calibration: Calibration | Path | None = None,
    request: LabelRequest = LabelRequest(),
    on_unreadable: OnUnreadable = lambda name, error: None,
) -> Iterator[LabelledFile]:
    """Zero-shot labels of DICOM files, pictures and folders of them: see `FileLabeller`."""
    opened = FileLabeller.open(labels, model=model, device=device, calibration=calibration, request=request)
    return opened.label(files, on_unreadable=on_unreadable)


def classify_frames(
    store: Store,
    labels: LabelSet,
    *,
    where: SearchFilter = SearchFilter(),
    save: bool = False,
    model: str | None = None,
    device: str = "auto",
    calibration: Calibration | Path | None = None,
    request: LabelRequest = LabelRequest(),
) -> Iterator[LabelledFrame]:
    """Zero-shot labels of a store's frames: see `StoreLabeller.frames`."""
    opened = StoreLabeller.open(store, labels, model=model, device=device, calibration=calibration, request=request)
    return opened.frames(where, save=save)


def classify_studies(
    store: Store,
    labels: LabelSet,
    *,
    where: SearchFilter = SearchFilter(),
    save: bool = False,
    model: str | None = None,
    device: str = "auto",
    calibration: Calibration | Path | None = None,
    request: LabelRequest = LabelRequest(),
) -> Iterator[LabelledStudy]:
    """Zero-shot labels of a store's studies: see `StoreLabeller.studies`."""
    opened = StoreLabeller.open(store, labels, model=model, device=device, calibration=calibration, request=request)
    return opened.studies(where, save=save)


def _labeller(
    labels: LabelSet, encoder: ClipEncoder | LightEncoder, calibration: Calibration | None, request: LabelRequest
) -> Labeller:
    classifier = ZeroShotClassifier(labels, encoder, encoder.logit_scale)
    return Labeller(classifier, encoder.spec.to_json(), calibration, request)


def _read(calibration: Calibration | Path | None) -> Calibration | None:
    return read_calibration(calibration) if isinstance(calibration, Path) else calibration


def _named_files(files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for file in files:
        if file.is_dir():
            for stat, path in iter_files(file):
                yield stat.path, path
        else:
            yield os.fsencode(file).decode("utf-8", "backslashreplace"), file


def _saved_set(labeller: Labeller) -> SavedSet:
    labels = labeller.labels
    if labels.name == "inline":
        raise QueryError(
            "labels given on the command line have no name to save them under",
            hint=("Write the labels to a YAML file with a name. `medlens labels show modality` prints an example."),
        )
    return SavedSet(labels.name, labels.names, labeller.made_by, labeller.calibration is not None)
