"""`medlens calibrate`: fit a calibration of one label set and one model to labelled images, in a store or in files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from indexer.reading.files import PictureRequest
from indexer.store.own_model import store_model
from indexer.store.store import Store
from indexer.tasks.encoding import encode_all_pictures
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import LightEncoder
from retrieval.errors import CalibrationError, DicomError
from retrieval.types import Embeddings, SearchFilter
from retrieval.zeroshot.calibration import Calibration, calibration_from
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.ground_truth import GroundTruth, GroundTruthRow
from retrieval.zeroshot.labels import LabelSet

log = logging.getLogger(__name__)

_MANIFEST_KEY = "calibration/"  # followed by the beginning of the label set's fingerprint
_SHOWN = 3  # wrong rows in a message
_UIDS = 5000  # per filter


def calibrate_store(
    store: Store, truth: GroundTruth, labels: LabelSet, *, model: str | None = None, device: str = "auto"
) -> Calibration:
    """Calibrate on a store's vectors, and save the calibration in the store.

    `truth` names images by UID (`read_truth`); `model` says where the store's model is. Raises StoreIncompatible for
    another model, CalibrationError for images that the store does not have, patients that contradict the store's, and
    too few labelled rows.
    """
    _require_fitting()
    encoder = store_model(store, model, device)
    rows, vectors, pseudonyms = _stored(store, truth)
    calibration = _fitted(encoder, labels, truth, rows, vectors, _patients(rows, pseudonyms, truth.name))
    store.manifest[_manifest_key(labels)] = json.loads(calibration.model_dump_json())
    return calibration


def calibrate_files(
    truth: GroundTruth,
    folder: Path,
    labels: LabelSet,
    *,
    model: str | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Calibrate on pictures or DICOM files, which `truth` names relative to `folder`.

    `on_progress` receives the number of encoded images and the total. Raises CalibrationError for an image that can't
    be read and for too few labelled rows, WeightsNotFound or EncoderError for a model that can't be used.
    """
    _require_fitting()
    encoder = ClipEncoder.from_source(resolve_model(model), device)
    requests = [PictureRequest(folder / str(row.file), encoder.spec.render_profile) for row in truth.rows]

    def unusable(at: int, error: DicomError) -> CalibrationError:
        return CalibrationError(
            f"line {truth.rows[at].line} of the truth file {truth.name!r} names an image that can't be used: {error}",
            hint="Paths in the truth file are relative to its folder. Remove the row, or correct its path.",
        )

    vectors = encode_all_pictures(encoder, requests, unusable, on_progress)
    patients = [row.patient or str(row.file) for row in truth.rows]
    return _fitted(encoder, labels, truth, truth.rows, vectors, patients)


def stored_calibration(store: Store, labels: LabelSet) -> Calibration | None:
    """Return the store's calibration of a label set with its current prompts.

    None, with a warning, if there is only one for other prompts, or for a model that the store had before. Raises
    CalibrationError for one that can't be read.
    """
    values = store.manifest.get(_manifest_key(labels))
    if values is not None:
        kept = calibration_from(values, f"the calibration of {labels.name!r} in the store")
        if kept.is_for(store.model):
            return kept
        log.warning(
            "the store's calibration of %r is for its former model %s; what follows are scores, not probabilities. Run "
            "`medlens calibrate` again",
            labels.name,
            kept.model,
        )
        return None
    for key in store.manifest:
        if not key.startswith(_MANIFEST_KEY):
            continue
        other = store.manifest[key]
        if isinstance(other, Mapping) and other.get("label_set") == labels.name:
            log.warning(
                "the store has a calibration of %r with other prompts; the labels below have scores, not probabilities",
                labels.name,
            )
    return None


def _manifest_key(labels: LabelSet) -> str:
    return _MANIFEST_KEY + labels.fingerprint[:32]


def _require_fitting() -> None:
    """Raise CalibrationError, before minutes of encoding, if the optional dependencies for fitting are missing."""
    from retrieval.zeroshot.fitting import require_fitting

    require_fitting()


def _fitted(
    encoder: ClipEncoder | LightEncoder,
    labels: LabelSet,
    truth: GroundTruth,
    rows: Sequence[GroundTruthRow],
    vectors: Embeddings,
    patients: list[str],
) -> Calibration:
    from retrieval.zeroshot.fitting import LabelledRows, fit_calibration  # labelling needs no fitting

    classifier = ZeroShotClassifier(labels, encoder, encoder.logit_scale)
    values = np.array([row.values for row in rows])
    labelled = LabelledRows(vectors, values, patients, truth.name, truth.sha256)
    return fit_calibration(classifier, labelled, encoder.spec.to_json())


def _stored(store: Store, truth: GroundTruth) -> tuple[list[GroundTruthRow], Embeddings, list[str | None]]:
    """The truth rows by frame, with the frames' vectors and pseudonyms. A row without a frame applies to all frames."""
    wanted: dict[str, list[GroundTruthRow]] = {}
    for row in truth.rows:
        wanted.setdefault(str(row.uid), []).append(row)
    uids = list(wanted)
    rows: list[GroundTruthRow] = []
    vectors: list[Embeddings] = []
    pseudonyms: list[str | None] = []
    met: set[int] = set()
    for start in range(0, len(uids), _UIDS):
        where = SearchFilter({"sop_instance_uid": tuple(uids[start : start + _UIDS])})
        for batch in store.catalog.frames.batches(where):
            frames = zip(batch.sop_instance_uids, batch.frame_numbers, batch.patients, strict=True)
            for i, (uid, number, pseudonym) in enumerate(frames):
                for mine in (row for row in wanted[uid] if row.frame in (None, number)):
                    met.add(mine.line)
                    rows.append(mine)
                    vectors.append(batch.vectors[i])
                    pseudonyms.append(pseudonym)
    missing = [row for row in truth.rows if row.line not in met]
    if missing:
        shown = ", ".join(str(row.line) for row in missing[:_SHOWN])
        raise CalibrationError(
            f"{len(missing)} of the {len(truth.rows)} images in the truth file {truth.name!r} are not "
            f"in the store {store.label} (lines {shown}{' ...' if len(missing) > _SHOWN else ''})",
            hint=("Check that the truth file belongs to this archive. Index the missing images, or remove their rows."),
        )
    return rows, np.stack(vectors), pseudonyms


def _patients(rows: Sequence[GroundTruthRow], pseudonyms: Sequence[str | None], where: str) -> list[str]:
    """Return the patient of each row from the store, else from the truth file. They must not contradict each other."""
    named: dict[str, set[str]] = {}
    for row, pseudonym in zip(rows, pseudonyms, strict=True):
        if row.patient is not None and pseudonym is not None:
            named.setdefault(pseudonym, set()).add(row.patient)
    contradicted = sum(len(names) > 1 for names in named.values())
    if contradicted:
        raise CalibrationError(
            f"the truth file {where!r} names several patients for each of {contradicted} patients in the store",
            hint=(
                "Check that the truth file belongs to this archive. Remove its column `patient` to use "
                "the patients in the store."
            ),
        )
    return [p or row.patient or str(row.uid) for row, p in zip(rows, pseudonyms, strict=True)]
