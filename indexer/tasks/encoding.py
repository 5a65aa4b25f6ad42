"""From files to vectors without indexing: pictures are read in guarded processes and encoded in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_pictures
from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import DicomError, MedlensError
from retrieval.types import Embeddings, Uint8Image

BATCH = 64  # pictures encoded at a time

Key = TypeVar("Key")


def encode_pictures(
    encoder: ClipEncoder,
    requests: Iterable[tuple[Key, PictureRequest]],
    on_unreadable: Callable[[Key, DicomError], None],
) -> Iterator[tuple[list[Key], Embeddings]]:
    """Yield batches of keys with their vectors [n, embed_dim] of unit norm, in the order of the requests.

    `requests` may be endless. Pictures that can't be read go to `on_unreadable` and are left out.
    """
    read_ahead: deque[Key] = deque()  # keys of pictures that the workers have in hand

    def remembered_requests() -> Iterator[PictureRequest]:
        for key, request in requests:
            read_ahead.append(key)
            yield request

    keys: list[Key] = []
    pictures: list[Uint8Image] = []
    for _, outcome in load_pictures(remembered_requests()):
        key = read_ahead.popleft()
        if isinstance(outcome, DicomError):
            on_unreadable(key, outcome)
            continue
        keys.append(key)
        pictures.append(encoder.spec.preprocess.fit(outcome))
        if len(pictures) == BATCH:
            yield keys, encoder.encode_images(pictures)
            keys, pictures = [], []
    if pictures:
        yield keys, encoder.encode_images(pictures)


def encode_all_pictures(
    encoder: ClipEncoder,
    requests: Sequence[PictureRequest],
    error_for: Callable[[int, DicomError], MedlensError],
    on_progress: Callable[[int, int], None],
) -> Embeddings:
    """Return vectors [N, embed_dim] of unit norm, in the order of the requests, at least one.

    The first picture that can't be read ends it: `error_for` its index from 0 is raised. `on_progress` receives the
    number of encoded pictures and the total.
    """

    def refuse(at: int, error: DicomError) -> None:
        raise error_for(at, error) from error

    parts = []
    for places, vectors in encode_pictures(encoder, enumerate(requests), refuse):
        parts.append(vectors)
        on_progress(places[-1] + 1, len(requests))
    return np.concatenate(parts)
