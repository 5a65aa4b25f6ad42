"""Searches of a store: its indexes and its model are opened, query images are read, their patients looked up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from indexer.records import Origin
from indexer.store.derived import CPU, DerivedFiles
from indexer.store.former_labels import former_label_notes
from indexer.store.own_model import StoreEncoder
from indexer.store.place import StorePlace
from indexer.store.slices import slice_position_cache, with_slice_positions
from retrieval.errors import MedlensError, QueryError, StoreError, StoreIncompatible
from retrieval.search.describe import (
    Neighbour,
    SentenceHit,
    borrowed_sentences,
    nearest_phrases,
    nearest_sentences,
)
from retrieval.search.long_texts import encode_whole
from retrieval.search.query import ImagePart, Query, Ranker
from retrieval.search.ranking import RankingStep
from retrieval.search.refs import FrameRef, ShortRef, StoredRef, resolve
from retrieval.search.searcher import Searcher
from retrieval.types import Embedding, Encoder, SearchResults, Uint8Image, VectorIndex, is_picture

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class StoreSearch:
    """Search and description in one store, with the encoders that were loaded for them."""

    def __init__(self, place: StorePlace, derived: DerivedFiles) -> None:
        self._place = place
        self._derived = derived
        self._catalog = place.catalog
        self._slices = slice_position_cache(place.catalog)
        self._encoders: dict[str, StoreEncoder] = {}  # by the requested device
        self._opened_with = place.vectors_id

    def search(
        self, query: Query, encoder: Encoder | None, device: str | None, steps: Sequence[RankingStep]
    ) -> SearchResults:
        """See `Store.search`."""
        return self._of_one_model(encoder, lambda: self._search(query, encoder, device, steps))

    def _search(
        self, query: Query, encoder: Encoder | None, device: str | None, steps: Sequence[RankingStep]
    ) -> SearchResults:
        encoder, device = self._placed(encoder, device)
        needs_pictures = query.ranker is not Ranker.TEXT or query.exclude_same_patient
        opened = self._shown(query.images) if needs_pictures else []
        excluded = _patients(query.images, [origin for _, origin in opened]) if query.exclude_same_patient else []
        wants_reports = query.ranker is not Ranker.DENSE and query.texts
        reports = self._derived.reports() if wants_reports else None
        frames = _beside(partial(self._derived.index, "frame", device), encoder, query)
        searcher = Searcher(encoder, frames, self._catalog.frames, reports)
        pictures = [what for what, _ in opened]
        results = searcher.search(query, pictures=pictures, excluded_patients=excluded, steps=steps)
        of_filter = (*self._filter_notes(query, results), *former_label_notes(self._catalog, query.where))
        results = replace(results, notes=(*of_filter, *results.notes))
        return with_slice_positions(results, self._catalog, self._slices)

    def _filter_notes(self, query: Query, results: SearchResults) -> tuple[str, ...]:
        """What the words of the filter were read as and, if no frame passes it, what the store has."""
        if not query.where:
            return ()
        empty = results.searched == 0 and not len(self._catalog.frames.ids_matching(query.where))
        return self._catalog.frames.filter_notes(query.where, empty=empty)

    def describe(
        self,
        image: Path | StoredRef | ImagePart,
        encoder: Encoder | None,
        device: str | None,
        *,
        k: int,
        phrases: Sequence[str],
        borrow: int,
    ) -> tuple[SentenceHit, ...]:
        """See `Store.describe`."""
        if borrow < 0:
            raise QueryError(f"borrow is {borrow}; expected a whole number of 0 or more")
        return self._of_one_model(
            encoder, lambda: self._describe(image, encoder, device, k=k, phrases=phrases, borrow=borrow)
        )

    def _describe(
        self,
        image: Path | StoredRef | ImagePart,
        encoder: Encoder | None,
        device: str | None,
        *,
        k: int,
        phrases: Sequence[str],
        borrow: int,
    ) -> tuple[SentenceHit, ...]:
        encoder, device = self._placed(encoder, device)
        index = self._derived.index("sentence", device)
        if not phrases and not len(index):
            raise QueryError(
                "the store has no report sentences to describe an image with",
                hint="Index structured reports (SR) of the same studies, or name a text file with --phrases.",
            )
        [(shown, origin)] = self._shown([image if isinstance(image, ImagePart) else ImagePart(image)])
        vector = encoder.encode_images([shown])[0] if is_picture(shown) else shown.astype(np.float32, copy=False)
        if phrases:
            vectors, notes = encode_whole(encoder, phrases)
            for note in notes:
                log.warning("%s", note)
            return nearest_phrases(vector, k, phrases, vectors)
        known, patient = origin.study_instance_uid, origin.patient_pseudonym
        found = nearest_sentences(vector, k, index, self._catalog.reports, study=known, patient=patient)
        if not borrow:
            return found
        neighbours = self._neighbours(self._derived.index("frame", device), vector, known, borrow)
        return found + borrowed_sentences(vector, neighbours, index, self._catalog.reports, patient=patient)

    def _of_one_model(self, encoder: Encoder | None, ask: Callable[[], Answer]) -> Answer:
        """What `ask` answers by vectors of one model: if that is changed meanwhile, it is asked again."""
        while True:
            before = self._place.vectors_id
            if before != self._opened_with:
                self._follow(encoder)
            try:
                answer = ask()
            except (MedlensError, ValueError):  # a ValueError: vectors of two sizes
                if before == self._place.vectors_id:
                    raise
            else:
                if before == self._place.vectors_id:
                    return answer

    def _follow(self, encoder: Encoder | None) -> None:
        """The store's model was changed: its own encoders are loaded anew. StoreIncompatible for a caller's encoder
        that is of another model, or does not say of which."""
        for own in list(self._encoders.values()):
            own.follow()
        if isinstance(encoder, StoreEncoder):
            encoder.follow()
        elif encoder is not None:
            spec = getattr(encoder, "spec", None)
            if spec is None:
                raise StoreIncompatible(
                    f"the model of the store {self._place.label} was changed while it was open",
                    hint="Open the store again, with an encoder of its new model.",
                )
            self._place.require_model(spec.to_json())

    def _placed(self, encoder: Encoder | None, device: str | None) -> tuple[Encoder, str]:
        """The encoder, by default the store's own, and the device of the index, by default that of the encoder."""
        if encoder is None:
            device_name = device or "auto"
            encoder = self._encoders.setdefault(device_name, StoreEncoder(self._place, device=device_name))
        return encoder, device or _device_of(encoder)

    def _shown(self, images: Sequence[ImagePart]) -> list[tuple[Uint8Image | Embedding, Origin]]:
        """Return the content and the origin of query images.

        For files, the pixels, rendered for the store's model; for frames of the store, their vectors. The patient is
        identified by PatientID under the store's key, else by the store's own row of the same instance.
        """
        files = [part for part in images if isinstance(part.image, Path)]
        loaded = iter(self._loaded(files) if files else ())
        shown: list[tuple[Uint8Image | Embedding, Origin]] = []
        for part in images:
            if isinstance(part.image, Path):
                shown.append(next(loaded))
            elif isinstance(part.image, FrameRef | ShortRef):
                shown.append(self._stored(part.image))
            else:
                shown.append((part.image, Origin()))
        nameless = [o.sop_instance_uid for _, o in shown if o.sop_instance_uid and o.patient_pseudonym is None]
        known = self._catalog.instances.patients_of(nameless)
        return [
            (
                what,
                replace(origin, patient_pseudonym=known.get(origin.sop_instance_uid or "", origin.patient_pseudonym)),
            )
            for what, origin in shown
        ]

    def _stored(self, ref: StoredRef) -> tuple[Embedding, Origin]:
        """Return the vector of a frame of the store, normalized again after float16, and its origin."""
        key = resolve(ref, self._catalog.frames)
        found = self._catalog.frames.find(key)
        _, vectors = self._catalog.frames.vectors_of([found.id])
        vector = vectors[0].astype(np.float32)
        lineage = found.lineage
        return vector / np.linalg.norm(vector), Origin(lineage.instance, lineage.study, lineage.patient)

    def _loaded(self, parts: Sequence[ImagePart]) -> list[tuple[Uint8Image, Origin]]:
        """Return the pixels and origins of query files."""
        from indexer.reading.files import PictureRequest
        from indexer.reading.pictures import QueryImage, load_query_images  # imports pydicom: not for a query in words

        try:
            key: bytes | None = self._place.pseudonym_key
        except StoreError as exc:
            log.warning("the patient of the query image can be identified only by its UID: %s", exc)
            key = None
        profile = self._place.render_profile
        requests = [
            PictureRequest(part.image, profile, part.frame_number) for part in parts if isinstance(part.image, Path)
        ]
        return load_query_images([QueryImage(request, key) for request in requests])

    def _neighbours(
        self, frames: VectorIndex, vector: npt.NDArray[np.float32], own: str | None, count: int
    ) -> list[Neighbour]:
        """The studies with a report whose best picture is most similar to a vector, except the picture's own study."""
        limit = 16 * count
        while True:
            ranked = frames.search(vector[None, :], limit)[0]
            lineage = self._catalog.frames.lineage(i for i, _ in ranked)
            best: dict[str, float] = {}
            for i, score in ranked:
                if i in lineage and lineage[i].study != own:
                    best.setdefault(lineage[i].study, score)
            sentences = self._catalog.reports.sentences_of(best)
            found = [
                Neighbour(s, score, np.array(sentences[s], np.int64)) for s, score in best.items() if s in sentences
            ]
            if len(found) >= count or len(ranked) < limit:
                return found[:count]
            limit *= 4


def _device_of(encoder: Encoder) -> str:
    """Return the device of an encoder: its name, or a `Device`. The CPU, if it names none."""
    device = getattr(encoder, "device", CPU)
    return str(getattr(device, "name", device))


def _beside(index: Callable[[], VectorIndex], encoder: Encoder, query: Query) -> VectorIndex:
    """Open an index while the model is loaded, if it must be, so that FAISS and the weights are read at the same
    time.
    """
    encodes = query.texts or any(not isinstance(part.image, FrameRef | ShortRef) for part in query.images)
    if query.ranker is Ranker.TEXT or not encodes or not isinstance(encoder, StoreEncoder) or encoder.loaded:
        return index()
    with ThreadPoolExecutor(max_workers=1) as beside:
        opening = beside.submit(index)
        encoder.load()
        return opening.result()


def _patients(images: Sequence[ImagePart], origins: Sequence[Origin]) -> list[str]:
    """Return the pseudonyms of the patients of the query images. Raises QueryError if one is unknown."""
    if not images:
        raise QueryError("the query has no image, so no patient can be left out", hint="Add an image to the query.")
    patients = []
    for part, origin in zip(images, origins, strict=True):
        if origin.patient_pseudonym is None:
            name = repr(part.image.name) if isinstance(part.image, Path) else "an image given as pixels"
            raise QueryError(
                f"the patient of {name} is unknown, so results of the same patient can't be left out",
                hint="Use a DICOM file with a PatientID, or an image that is in the store.",
            )
        patients.append(origin.patient_pseudonym)
    return patients
