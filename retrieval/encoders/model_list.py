"""The models that can be used without a download: those that ship with medlens, and those that this user knows."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.encoders.known_models import known_models, remember_model
from retrieval.encoders.model_config import read_config
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import DEFAULT_MODEL, resolve_model, shipped_models
from retrieval.encoders.terms import UNKNOWN_TERMS, read_terms, terms_at


@dataclass(frozen=True)
class ListedModel:
    """A model by its name, the size of its embeddings, and whether it is taken where none is named.

    `place` is where a model of the user's own lies, `fingerprint` tells it from others; both None for a shipped one.
    `terms` are those of its weights, in one line; "terms unknown" if its folder does not state them.
    """

    name: str
    dimensions: int
    default: bool
    place: str | None = None
    fingerprint: str | None = None
    terms: str = UNKNOWN_TERMS


def list_models() -> tuple[ListedModel, ...]:
    """Shipped models, then the user's. Raises EncoderError for a configuration or a list that can't be read."""
    shipped = [
        ListedModel(name, read_config(folder).embed_dim, name == DEFAULT_MODEL, terms=read_terms(folder))
        for name, folder in shipped_models().items()
    ]
    known = [
        ListedModel(one.name, int(one.model["embed_dim"]), False, one.place, fingerprint, terms_at(one.place))
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
    default, terms = source.name == DEFAULT_MODEL, read_terms(source.folder)
    return ListedModel(spec.name, spec.embed_dim, default, source.source, spec.fingerprint, terms)
