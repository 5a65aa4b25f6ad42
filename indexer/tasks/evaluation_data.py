"""A store as something to be judged on: its own reports say what an image shows, its own headers what kind it is.

The vectors are those that the store has, so nothing is decoded and no model runs, unless another one is to be judged on
the same frames. Every frame of a study is paired with every sentence of the study's reports: a coarse truth, since a
sentence seldom speaks of each slice, and the same for every model.
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
PLANES = (
    "sagittal",
    "coronal",
    "axial",
)  # by the axis of the patient that the slice is across: x, y, z (PS3.3 C.7.6.2)
OBLIQUE = 0.9  # below this cosine to an axis a slice is called none of them
READ = 10_000  # rows of the catalog at a time


@dataclass(frozen=True)
class StoreEvaluationData:
    """The rows, the store's vectors of them [N, D], its vectors of their sentences, and the files of the frames."""

    rows: EvaluationRows
    images: Embeddings
    sentences: Mapping[str, npt.NDArray[np.float32]]
    places: tuple[tuple[str, str, int], ...]  # archive root, path in it, frame number

    def requests(self, profile: RenderProfile) -> list[PictureRequest]:
        """What to read for another model. Raises EvaluationError for a path that leads out of its archive."""
        out = []
        for root, path, number in self.places:
            try:
                out.append(PictureRequest(locate(root, path), profile, number))
            except FileUnreadable as exc:
                raise EvaluationError(f"a file of the store can't be read: {exc}") from exc
        return out


def store_evaluation_data(store: Store, *, limit: int, seed: int = 0) -> StoreEvaluationData:
    """At most `limit` frames of studies that have a report (of all studies, where none has), whole patients at a time.

    Raises EvaluationError if the store has no frames.
    """
    catalog = store.catalog
    ids = catalog.frames.ids_matching(SearchFilter())
    if not len(ids):
        raise EvaluationError("the store has no frames to be judged on", hint="Index an archive into it first.")
    said = sentences_by_study(store)
    frames = frame_rows(store, ids)
    with_report = {i for i, attributes in frames.items() if attributes["study_instance_uid"] in said}
    chosen = [i for i in frames if i in with_report] if with_report else list(frames)
    groups = {i: str(frames[i]["patient_pseudonym"] or frames[i]["study_instance_uid"]) for i in chosen}
    drawn = draw_groups([groups[i] for i in chosen], limit, seed)
    kept = [chosen[i] for i in drawn]
    notes = []
    if with_report and len(with_report) < len(frames):
        notes.append(
            f"{len(frames) - len(with_report)} of {len(frames)} frames are of studies without a report: left out"
        )
    if len(kept) < len(chosen):
        notes.append(f"{len(kept)} of {len(chosen)} frames were drawn, by whole patients (--limit raises it)")
    nameless = sum(frames[i]["patient_pseudonym"] is None for i in kept)
    if nameless:
        notes.append(f"{nameless} frames name no patient: their study stands in, so intervals may be too narrow")

    found, vectors = catalog.frames.vectors_of(kept)
    order = np.searchsorted(found, kept)
    studies = [str(frames[i]["study_instance_uid"]) for i in kept]
    texts = {study: tuple(dict.fromkeys(text for _, text in said.get(study, ()))) for study in set(studies)}
    asking = {study: max(own, key=len) for study, own in texts.items() if len(own) > 1}
    wanted = {i: text for study in texts for i, text in said.get(study, ())}
    sentence_ids, sentence_vectors = catalog.vectors.vectors_of(wanted, "sentence")
    known = {wanted[int(i)]: v for i, v in zip(sentence_ids, unit(sentence_vectors), strict=True)}
    rows = EvaluationRows(
        name=store.label.strip("'"),
        texts=tuple(texts[study] for study in studies),
        groups=tuple(groups[i] for i in kept),
        fields={
            **{name: tuple(_said(frames[i][name]) for i in kept) for name in FIELDS},
            "plane": tuple(plane_of(frames[i]["image_orientation_patient"]) for i in kept),
        },
        queries=tuple(asking.get(study) for study in studies) if asking else None,
        documents=tuple(" ".join(t for t in texts[s] if t != asking.get(s)) if s in asking else "" for s in studies)
        if asking
        else None,
        facts={
            "store": store.label.strip("'"),
            "limit": limit,
            "seed": seed,
            "text": "sentences of the study's reports",
        },
        notes=tuple(notes),
    )
    places = tuple((frames[i]["archive_root"], frames[i]["file_path"], frames[i]["frame_number"]) for i in kept)
    return StoreEvaluationData(rows, unit(vectors[order]), known, places)


def plane_of(orientation: object) -> str | None:
    """The plane of a slice by its ImageOrientationPatient (six numbers, joined by backslashes as in the file), None if
    it is oblique or not said."""
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
    """float32 of unit norm: what was stored as float16 is off by up to 0.0005."""
    wide = vectors.astype(np.float32)
    out: Embeddings = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return out


def frame_rows(store: Store, ids: npt.NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """What is known of frames, by id: FIELDS, whose they are, and where their files lie."""
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
    """Sentences (id, text) by study."""
    ids = store.catalog.vectors.ids_matching(SearchFilter(), "sentence")
    out: dict[str, list[tuple[int, str]]] = {}
    for start in range(0, len(ids), READ):
        for row in store.catalog.reports.sentence_rows(ids[start : start + READ]).values():
            if row.study_instance_uid and plain(row.text):
                out.setdefault(row.study_instance_uid, []).append((row.id, plain(row.text)))
    return out


def _said(value: object) -> str | None:
    return plain(value) or None
