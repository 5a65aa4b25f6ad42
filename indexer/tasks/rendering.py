"""`medlens render`: a frame of a file as the encoder sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexer.burned_in import warning
from indexer.reading.files import PictureRequest
from indexer.reading.pictures import QueryImage, load_picture, load_query_images
from indexer.store.store import Store
from indexer.tasks.showing import show
from retrieval.encoders.model_source import render_profile_of, resolve_model
from retrieval.search.refs import StoredRef
from retrieval.types import Uint8Image


def render_file(
    file: Path,
    *,
    frame_number: int = 1,
    window: str | None = None,
    model: str | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Uint8Image:
    """Render a frame at full size, uint8 [H, W] or [H, W, 3], by the render profile of a model, by default the shipped
    one.

    `frame_number` counts from 1. `window` is lung, soft tissue, bone, brain, stroke, or one of the file's own. `warn`
    is called if the picture may show text about a patient. Raises InvalidImage for a file that is not an image, another
    DicomError for DICOM that can't be shown, WeightsNotFound for a missing model.
    """
    profile = render_profile_of(resolve_model(model))
    request = PictureRequest(file, profile, frame_number, window)
    [(picture, origin)] = load_query_images([QueryImage(request, key=None)])
    _warn_of_burned_in_text(origin.burned_in_text, warn)
    return picture


def render_stored(
    store: Store,
    ref: StoredRef,
    *,
    window: str | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Uint8Image:
    """Render a frame of a store, from its file, by the render profile of the store's model.

    Raises QueryError for a reference to nothing in the store, FileUnreadable if the file is gone, and as `render_file`
    does.
    """
    facts = show(store, ref)
    _warn_of_burned_in_text(facts.attributes["burned_in_text"], warn)
    profile = store.place.render_profile
    return load_picture(facts.where, profile, frame_number=facts.key.frame_number, window=window)


def _warn_of_burned_in_text(burned_in_text: object, warn: Callable[[str], None]) -> None:
    if message := warning(burned_in_text):
        warn(message)
