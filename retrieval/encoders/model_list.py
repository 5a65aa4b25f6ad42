"""The models that can be used without a download: those that ship with medlens, and those that this user knows."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.encoders.known_models import known_models, remember_model
from retrieval.encoders.model_config import read_config
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import DEFAULT_MODEL, resolve_model, shipped_models


@dataclass(frozen=True)
class ListedModel:
    """A model by its name, the size of its embeddings, and whether it is taken where none is named.

    `place` is where a model of the user's own lies, `fingerprint` tells it from others; both None for a shipped one.
    """

    name: str
    dimensions: int
    default: bool
    place: str | None = None
    fingerprint: str | None = None


def list_models() -> tuple[ListedModel, ...]:
    """Shipped models, then the user's. Raises EncoderError for a configuration or a list that can't be read."""
    shipped = [
        ListedModel(name, read_config(folder).embed_dim, name == DEFAULT_MODEL)
        for name, folder in shipped_models().items()
    ]
    known = [
        ListedModel(one.name, int(one.model["embed_dim"]), False, one.place, fingerprint)
        for fingerprint, one in known_models().items()
    ]
    return (*shipped, *known)


def add_model(place: str) -> ListedModel:
    """Write down where a model lies, so that stores of it are answered with it. `place` is what --model takes.

    Its files are read, all of them, and its weights hashed. Raises WeightsNotFound or EncoderError.
    """
    source = resolve_model(place)
    spec = spec_of(source)
    remember_model(spec, source)
    return ListedModel(spec.name, spec.embed_dim, source.name == DEFAULT_MODEL, source.source, spec.fingerprint)
