"""The model that a store belongs to: where it lies on this machine, and loaded when something is to be encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retrieval.encoders.released import released, title
from retrieval.encoders.spec import differing
from retrieval.errors import EncoderError, StoreIncompatible, WeightsNotFound
from retrieval.types import Embeddings, Uint8Image

if TYPE_CHECKING:
    from retrieval.encoders.clip import ClipEncoder
    from retrieval.encoders.model_source import ModelSource
    from retrieval.encoders.numpy_text.encoder import LightEncoder


class HasModel(Protocol):
    """Something that belongs to a model, such as a store."""

    @property
    def model(self) -> dict[str, Any]: ...

    def require_model(self, spec_json: Mapping[str, Any]) -> None: ...


class StoreEncoder:
    """The model of a store, loaded on first use; texts are encoded without torch where possible.

    Implements `retrieval.types.Encoder`. `model` says where the model is; without it, the shipped models and the user's
    own are searched. Loading raises WeightsNotFound if the model is missing, and StoreIncompatible if another model is
    found.
    """

    def __init__(self, store: HasModel, model: str | None = None, device: str = "auto") -> None:
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
        """The requested device."""
        return self._asked[1]

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        return self._loaded.encode_images(images)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return self._loaded.encode_text(texts)

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Of each text the words that the model does not read."""
        return self._loaded.unread(texts)

    @property
    def loaded(self) -> bool:
        return "_loaded" in self.__dict__

    def load(self) -> None:
        """Load the model now. Raises StoreIncompatible if it is not the store's model."""
        _ = self._loaded

    def follow(self) -> None:
        """If the store has another model now than the one that was loaded, load that when it is next used."""
        if self.loaded and differing(self._loaded.spec.to_json(), self._store.model):
            self.__dict__.pop("_loaded", None)

    @cached_property
    def _loaded(self) -> LightEncoder | ClipEncoder:
        return store_model(self._store, *self._asked)


def store_model(store: HasModel, model: str | None, device: str) -> LightEncoder | ClipEncoder:
    """Return the store's own model, or the requested one if it is the same. For texts, torch is avoided where possible.

    Raises WeightsNotFound if its location is unknown, StoreIncompatible for another model.
    """
    from retrieval.encoders.numpy_text.encoder import encoder_from

    encoder = encoder_from(model_source(store, model), device)
    store.require_model(encoder.spec.to_json())
    return encoder


def model_source(store: HasModel, model: str | None) -> ModelSource:
    """Return where the requested model is, or the store's own. A location that a store names is never used.

    Nothing is downloaded of a model that can't be the store's. Raises WeightsNotFound for a model that is not on this
    machine, and StoreIncompatible for one that would have to be downloaded and is not named as the store's.
    """
    from retrieval.encoders.model_source import resolve_model

    if not model:
        return _own_model(store)
    source = resolve_model(model)
    if source.folder is None:
        _require_possible(store, source)
    return source


def _own_model(store: HasModel) -> ModelSource:
    """Where the store's own model lies."""
    from retrieval.encoders.known_models import find_model
    from retrieval.encoders.model_source import DEFAULT_MODEL

    try:
        return find_model(store.model)
    except WeightsNotFound as exc:
        why = "which this medlens does not ship any more" if released(store.model) else f"which is not at hand: {exc}"
        raise WeightsNotFound(
            f"this store was made with {title(store.model)}, {why}; without that model it can't compare words, or "
            "pictures from elsewhere",
            hint=f"Change the store's model: medlens reembed --model {DEFAULT_MODEL}. Until then filters, "
            f"`--ranker text`, `show`, and `--like` with a frame of the store still work. {exc.hint}",
        ) from exc


def _require_possible(store: HasModel, source: ModelSource) -> None:
    """Raise StoreIncompatible for a model of a hub that is not the store's, by its files on this machine; of one that
    has none here, by its name and by where the user's list has the store's model."""
    from retrieval.encoders.known_models import find_model
    from retrieval.encoders.model_parts import model_parts

    if source.checkpoint is not None and Path(source.checkpoint).is_file():
        return
    try:
        spec = model_parts(source, download=False).spec
    except WeightsNotFound as exc:
        with suppress(WeightsNotFound):
            if source.source == find_model(store.model).source:
                return
        if source.name == store.model["name"]:
            return
        raise StoreIncompatible(
            f"the store belongs to the model {title(store.model)!r}; {source.name!r} is not on this machine, so it was "
            "not compared, and nothing was downloaded",
            hint="Leave --model out to use the store's own model. If this is the same one by another name, run "
            f"`medlens models add {source.source}` first: it downloads. To give the store this model: medlens reembed "
            f"--model {source.source}",
        ) from exc
    except (EncoderError, OSError, ValueError):
        return  # loading it says it better
    store.require_model(spec.to_json())
