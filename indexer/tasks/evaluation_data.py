"""A store as test data: its reports describe its images, and its headers state their kind.

The vectors are the store's own, so nothing is decoded and no model runs, unless another model is evaluated on the same
frames. Every frame of a study is paired with every sentence of the study's reports: a coarse truth, because a sentence
seldom describes each slice, but the same for every model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.reading.files import PictureRequest
from indexer.sources.opening import locate
from retrieval.errors import EvaluationError, FileUnreadable
from retrieval.evaluation.rows import EvaluationRows, draw_groups
from retrieval.row_files import plain
from retrieval.types import Embeddings, RenderProfile, SearchFilter

if TYPE_CHECKING:
    from indexer.store.store import Store

FIELDS = ("modality", "body_part_examined", "view_position", "laterality", "patient_sex")
# By the patient's axis that is perpendicular to the slice: x, y, z (PS3.3 C.7.6.2).
PLANES = ("sagittal", "coronal", "axial")
OBLIQUE = 0.9  # below this cosine to an axis, a slice has none of these planes
READ = 10_000  # rows of the catalog at a time


@dataclass(frozen=True)
class StoreEvaluationData:
    """The rows, the store's vectors of them [N, D] and of their sentences, and the files of the frames."""

    rows: EvaluationRows
    images: Embeddings
    sentences: Mapping[str, npt.NDArray[np.float32]]
    places: tuple[tuple[str, str, int], ...]  # archive root, path in it, frame number

    def requests(self, profile: RenderProfile) -> list[PictureRequest]:
        """Return what another model must read. Raises EvaluationError for a path that leads out of its archive."""
        out = []
        for root, path, number in self.places:
            try:
                out.append(PictureRequest(locate(root, path), profile, number))
            except FileUnreadable as exc:
                raise EvaluationError(f"a file of the store can't be read: {exc}") from exc
        return out


def store_evaluation_data(store: Store, *, limit: int, seed: int = 0) -> StoreEvaluationData:
    """Return at most `limit` frames of studies with a report (of all studies if none has one), as whole patients.

    Raises EvaluationError if the store has no frames.
    """
    catalog = store.catalog
    ids = catalog.frames.ids_matching(SearchFilter())
    if not len(ids):
        raise EvaluationError("the store has no frames to evaluate a model on", hint="Index an archive into it first.")
    sentences_of = sentences_by_study(store)
    frames = frame_rows(store, ids)
    with_report = {i for i, attributes in frames.items() if attributes["study_instance_uid"] in sentences_of}
    chosen = [i for i in frames if i in with_report] if with_report else list(frames)
    groups = {i: str(frames[i]["patient_pseudonym"] or frames[i]["study_instance_uid"]) for i in chosen}
    drawn = draw_groups([groups[i] for i in chosen], limit, seed)
    drawn_ids = [chosen[i] for i in drawn]
    notes = []
    if with_report and len(with_report) < len(frames):
        notes.append(
            f"{len(frames) - len(with_report)} of {len(frames)} frames are left out because their "
            "studies have no report"
        )
    if len(drawn_ids) < len(chosen):
        notes.append(
            f"{len(drawn_ids)} of {len(chosen)} frames were drawn, as whole patients; use --limit to draw more"
        )
    nameless = sum(frames[i]["patient_pseudonym"] is None for i in drawn_ids)
    if nameless:
        notes.append(
            f"{nameless} frames do not name a patient; their study is used instead, so the intervals may be too narrow"
        )

    found_ids, vectors = catalog.frames.vectors_of(drawn_ids)
    order = np.searchsorted(found_ids, drawn_ids)
    studies = [str(frames[i]["study_instance_uid"]) for i in drawn_ids]
    texts = {study: tuple(dict.fromkeys(text for _, text in sentences_of.get(study, ()))) for study in set(studies)}
    query_texts = {study: max(own, key=len) for study, own in texts.items() if len(own) > 1}
    text_of_id = {i: text for study in texts for i, text in sentences_of.get(study, ())}
    sentence_ids, sentence_vectors = catalog.vectors.vectors_of(text_of_id, "sentence")
    vector_of_text = {text_of_id[int(i)]: v for i, v in zip(sentence_ids, unit(sentence_vectors), strict=True)}
    rows = EvaluationRows(
        name=store.label.strip("'"),
        texts=tuple(texts[study] for study in studies),
        groups=tuple(groups[i] for i in drawn_ids),
        fields={
            **{name: tuple(_text_or_none(frames[i][name]) for i in drawn_ids) for name in FIELDS},
            "plane": tuple(plane_of(frames[i]["image_orientation_patient"]) for i in drawn_ids),
        },
        queries=tuple(query_texts.get(study) for study in studies) if query_texts else None,
        documents=tuple(
            " ".join(t for t in texts[s] if t != query_texts.get(s)) if s in query_texts else "" for s in studies
        )
        if query_texts
        else None,
        facts={
            "store": store.label.strip("'"),
            "limit": limit,
            "seed": seed,
            "text": "sentences of the study's reports",
        },
        notes=tuple(notes),
    )
    places = tuple((frames[i]["archive_root"], frames[i]["file_path"], frames[i]["frame_number"]) for i in drawn_ids)
    return StoreEvaluationData(rows, unit(vectors[order]), vector_of_text, places)


def plane_of(orientation: object) -> str | None:
    """Return the plane of a slice by its ImageOrientationPatient (six numbers, joined by backslashes as in the file);
    None if it is oblique or not stated.
    """
    try:
        values = np.array([float(v) for v in str(orientation or "").split("\\")])
    except ValueError:
        return None
    if values.shape != (6,) or not np.isfinite(values).all():
        return None
    across = np.abs(np.cross(values[:3], values[3:]))
    axis = int(across.argmax())
    return PLANES[axis] if across[axis] >= OBLIQUE else None


def unit(vectors: npt.NDArray[np.floating]) -> Embeddings:
    """Return float32 of unit norm; float16 vectors are off by up to 0.0005."""
    wide = vectors.astype(np.float32)
    out: Embeddings = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return out


def frame_rows(store: Store, ids: npt.NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """Return the values of frames by id: FIELDS, study and patient, and their files."""
    keep = (
        "study_instance_uid",
        "patient_pseudonym",
        "image_orientation_patient",
        "archive_root",
        "file_path",
        *FIELDS,
    )
    out = {}
    for start in range(0, len(ids), READ):
        for i, (key, attributes) in store.catalog.frames.get(ids[start : start + READ]).items():
            out[i] = {name: attributes[name] for name in keep} | {"frame_number": key.frame_number}
    return out


def sentences_by_study(store: Store) -> dict[str, list[tuple[int, str]]]:
    """Return sentences (id, text) by study."""
    ids = store.catalog.vectors.ids_matching(SearchFilter(), "sentence")
    out: dict[str, list[tuple[int, str]]] = {}
    for start in range(0, len(ids), READ):
        for row in store.catalog.reports.sentence_rows(ids[start : start + READ]).values():
            if row.study_instance_uid and plain(row.text):
                out.setdefault(row.study_instance_uid, []).append((row.id, plain(row.text)))
    return out


def _text_or_none(value: object) -> str | None:
    return plain(value) or None
