"""Additions to the hits of a search: their pictures, rendered from the files in the archive, and sentences of
reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_pictures
from indexer.sources.opening import locate
from indexer.store.store import Store
from retrieval.errors import DicomError, FileUnreadable
from retrieval.types import Embeddings, Hit, SearchFilter, Uint8Image


@dataclass(frozen=True)
class HitPicture:
    """The picture of a hit, uint8 [H, W] or [H, W, 3], or `problem`, a line on why there is none."""

    pixels: Uint8Image | None
    problem: str = ""


def hit_pictures(store: Store, hits: Sequence[Hit], *, longest: int) -> dict[int, HitPicture]:
    """Return by rank the frame of each hit as the store's model sees it, at most `longest` pixels along an edge."""
    profile = store.place.render_profile
    requests: dict[int, PictureRequest] = {}
    pictures: dict[int, HitPicture] = {}
    for hit in hits:
        try:
            where = locate(hit.attributes["archive_root"], hit.attributes["file_path"])
        except FileUnreadable as error:
            pictures[hit.rank] = HitPicture(None, str(error))
        else:
            requests[hit.rank] = PictureRequest(where, profile, hit.key.frame_number, longest=longest)
    for rank, (_, outcome) in zip(requests, load_pictures(requests.values()), strict=True):
        if isinstance(outcome, DicomError):
            pictures[rank] = HitPicture(None, str(outcome))
        else:
            pictures[rank] = HitPicture(outcome)
    return pictures


def best_sentences(store: Store, hits: Sequence[Hit], words: Embeddings | None = None) -> dict[int, str]:
    """Return by rank the sentence nearest to the query's words, from the reports of the hit's study.

    `words` are embeddings [N, D] of unit norm whose mean is used; without them, sentences are compared with the hit's
    own frame. Hits whose study has no report are left out.
    """
    studies = tuple(dict.fromkeys(str(hit.attributes["study_instance_uid"]) for hit in hits))
    catalog = store.catalog
    ids = (
        catalog.vectors.ids_matching(SearchFilter({"study_instance_uid": studies}), kind="sentence") if studies else ()
    )
    if not len(ids):
        return {}
    found, vectors = catalog.vectors.vectors_of(ids, "sentence")
    rows = catalog.reports.sentence_rows(found.tolist())
    by_study: dict[str, list[int]] = {}
    for at, i in enumerate(found.tolist()):
        if i in rows:
            by_study.setdefault(str(rows[i].study_instance_uid), []).append(at)
    query = words.mean(axis=0) if words is not None and len(words) else None
    best = {}
    for hit in hits:
        places = by_study.get(str(hit.attributes["study_instance_uid"]))
        wanted = query if query is not None else _own_vector(store, hit)
        if places and wanted is not None:
            scores = vectors[places].astype(np.float32) @ wanted
            best[hit.rank] = rows[int(found[places[int(np.argmax(scores))]])].text
    return best


def _own_vector(store: Store, hit: Hit) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    ids = store.catalog.frames.ids_matching(SearchFilter({"sop_instance_uid": (hit.key.sop_instance_uid,)})).tolist()
    same = [i for i, (key, _) in store.catalog.frames.get(ids).items() if key == hit.key]
    _, vectors = store.catalog.frames.vectors_of(same)
    return vectors[0].astype(np.float32) if len(vectors) else None
