"""A store answers queries: its model opened when something is encoded, query images read, their patients looked up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.records import Origin
from indexer.store.slices import with_places
from retrieval.encoders.spec import profile_from_json
from retrieval.errors import QueryError, StoreError
from retrieval.search.describe import (
    Neighbour,
    SentenceHit,
    borrowed_sentences,
    nearest_phrases,
    nearest_sentences,
)
from retrieval.search.query import ImagePart, Query, Ranker
from retrieval.search.searcher import Searcher
from retrieval.types import Embeddings, Encoder, SearchResults, Uint8Image, VectorIndex

if TYPE_CHECKING:
    from indexer.store.store import Store
    from retrieval.encoders.clip import ClipEncoder
    from retrieval.encoders.model_source import ModelSource
    from retrieval.encoders.numpy_text.encoder import LightEncoder

log = logging.getLogger(__name__)


class StoreEncoder:
    """The model that a store belongs to, loaded when it is first used: texts without torch where that can be.

    Implements `retrieval.types.Encoder`.
    Without `model`, a place, it is looked for among the shipped models and those that the user knows. When it is
    loaded: WeightsNotFound if it is none of them, StoreIncompatible if the place has another model.
    """

    def __init__(self, store: Store, model: str | None = None, device: str = "auto") -> None:
        self._store = store
        self._asked = (model, device)

    @property
    def name(self) -> str:
        return str(self._store.model["name"])

    @property
    def embed_dim(self) -> int:
        return int(self._store.model["embed_dim"])

    @property
    def device(self) -> str:
        """The device that was asked for: cuda has the index searched there, too."""
        return self._asked[1]

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        return self._loaded.encode_images(images)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return self._loaded.encode_text(texts)

    @property
    def loaded(self) -> bool:
        return "_loaded" in self.__dict__

    def load(self) -> None:
        """Load the model now. Raises StoreIncompatible if it is another than the store's."""
        _ = self._loaded

    @cached_property
    def _loaded(self) -> Encoder:
        return store_model(self._store, *self._asked)


def store_model(store: Store, model: str | None, device: str) -> LightEncoder | ClipEncoder:
    """The store's own model, or the one asked for if it is the same: for words, torch stays away where it can.

    Raises WeightsNotFound if it is not known where it lies, StoreIncompatible for another model."""
    from retrieval.encoders.numpy_text.encoder import encoder_from

    encoder = encoder_from(model_source(store, model), device)
    store.require_model(encoder.spec.to_json())
    return encoder


def model_source(store: Store, model: str | None) -> ModelSource:
    """Where the model that was asked for lies, or the store's own. Places that a store names are never followed."""
    from retrieval.encoders.known_models import find_model
    from retrieval.encoders.model_source import resolve_model

    return resolve_model(model) if model else find_model(store.model)


def search(store: Store, query: Query, encoder: Encoder) -> SearchResults:
    """See `Store.search`."""
    opened = _opened(store, query.images) if query.ranker is not Ranker.TEXT or query.exclude_same_patient else []
    excluded = _patients(query.images, [origin for _, origin in opened]) if query.exclude_same_patient else []
    wants_reports = query.ranker is not Ranker.DENSE and query.texts
    reports = store.reports_index() if wants_reports else None
    frames = partial(store.frames_index, encoder.device if isinstance(encoder, StoreEncoder) else "cpu")
    searcher = Searcher(encoder, _beside(frames, encoder, query), store.catalog, reports)
    results = searcher.search(query, pictures=[picture for picture, _ in opened], excluded_patients=excluded)
    return with_places(results, store.catalog, store.places)


def describe(
    store: Store,
    image: Path | ImagePart,
    encoder: Encoder,
    *,
    k: int = 5,
    phrases: Sequence[str] = (),
    borrow: int = 0,
) -> tuple[SentenceHit, ...]:
    """See `Store.describe`."""
    if borrow < 0:
        raise QueryError(f"borrow is {borrow}, expected a whole number from 0")
    index = store.sentences_index()
    if not phrases and not len(index):
        raise QueryError(
            "the store has no report sentences", hint="Index an archive whose studies carry structured reports (SR)."
        )
    [(picture, origin)] = _opened(store, [image if isinstance(image, ImagePart) else ImagePart(image)])
    vector = encoder.encode_images([picture])[0]
    if phrases:
        return nearest_phrases(vector, k, phrases, encoder.encode_text(phrases))
    known, patient = origin.study_instance_uid, origin.patient_pseudonym
    found = nearest_sentences(vector, k, index, store.catalog, study=known, patient=patient)
    if not borrow:
        return found
    neighbours = _neighbours(store, vector, known, borrow)
    return found + borrowed_sentences(vector, neighbours, index, store.catalog, patient=patient)


def _beside(index: Callable[[], VectorIndex], encoder: Encoder, query: Query) -> VectorIndex:
    """Open an index while the model is loaded, if it has to be: neither FAISS nor the weights wait for the other."""
    if query.ranker is Ranker.TEXT or not isinstance(encoder, StoreEncoder) or encoder.loaded:
        return index()
    with ThreadPoolExecutor(max_workers=1) as beside:
        opening = beside.submit(index)
        encoder.load()
        return opening.result()


def _opened(store: Store, images: Sequence[ImagePart]) -> list[tuple[Uint8Image, Origin]]:
    """The pixels of query images, rendered as the store's model wants them, and whose they are.

    The patient is told by PatientID under the store's key, else by the store's own row of the same instance.
    """
    if not images:
        return []
    from indexer.reading.files import PictureRequest
    from indexer.reading.pictures import QueryImage, load_query_images  # and pydicom: not for a query in words

    try:
        key: bytes | None = store.pseudonym_key
    except StoreError as exc:
        log.warning("whose the query image is can be told by its UID only: %s", exc)
        key = None
    profile = profile_from_json(store.model["render_profile"])
    files = [(part.image, part.frame_number) for part in images if isinstance(part.image, Path)]
    loaded = iter(
        load_query_images([QueryImage(PictureRequest(path, profile, frame), key) for path, frame in files])
        if files
        else ()
    )
    opened = [next(loaded) if isinstance(part.image, Path) else (part.image, Origin()) for part in images]
    nameless = [o.sop_instance_uid for _, o in opened if o.sop_instance_uid and o.patient_pseudonym is None]
    known = store.catalog.patients_of(nameless)
    return [
        (picture, replace(origin, patient_pseudonym=known.get(origin.sop_instance_uid or "", origin.patient_pseudonym)))
        for picture, origin in opened
    ]


def _patients(images: Sequence[ImagePart], origins: Sequence[Origin]) -> list[str]:
    """The pseudonyms of those whose pictures are in a query. QueryError if one can't be told."""
    if not images:
        raise QueryError("no image in the query whose patient could be excluded", hint="Add an image to the query.")
    patients = []
    for part, origin in zip(images, origins, strict=True):
        if origin.patient_pseudonym is None:
            name = repr(part.image.name) if isinstance(part.image, Path) else "an image given as pixels"
            raise QueryError(
                f"the patient of {name} can't be told, and was to be excluded",
                hint="Give a DICOM file with its PatientID, or one that is in the store.",
            )
        patients.append(origin.patient_pseudonym)
    return patients


def _neighbours(store: Store, vector: npt.NDArray[np.float32], own: str | None, count: int) -> list[Neighbour]:
    """The studies with a report whose best picture is most like a vector; without the picture's own."""
    frames = store.frames_index()
    asked = 16 * count
    while True:
        ranked = frames.search(vector[None, :], asked)[0]
        lineage = store.catalog.lineage(i for i, _ in ranked)
        best: dict[str, float] = {}
        for i, score in ranked:
            if i in lineage and lineage[i].study != own:
                best.setdefault(lineage[i].study, score)
        sentences = store.catalog.sentences_of(best)
        found = [Neighbour(s, score, np.array(sentences[s], np.int64)) for s, score in best.items() if s in sentences]
        if len(found) >= count or len(ranked) < asked:
            return found[:count]
        asked *= 4
