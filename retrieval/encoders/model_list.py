"""The models that can be used without a download: those that ship with medlens, and those that this user knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.encoders import hub
from retrieval.encoders.figures import read_figures
from retrieval.encoders.known_models import known_models, remember_model
from retrieval.encoders.model_config import read_config
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import DEFAULT_MODEL, WEIGHTS_NAMES, resolve_model, shipped_models
from retrieval.encoders.terms import UNKNOWN_TERMS, read_terms, terms_at
from retrieval.encoders.weight_files import TRANSFORMERS_WEIGHTS, weights_beside
from retrieval.errors import EncoderError


@dataclass(frozen=True)
class ListedModel:
    """A model by its name, the size of its embeddings, and whether it is taken where none is named.

    `place` is where a model of the user's own lies, `fingerprint` tells it from others; both None for a shipped one.
    `terms` are those of its weights, in one line; "terms unknown" if its folder does not state them. `megabytes` are
    those of its weights on this machine. `at_hand` says where they are: "shipped", "here", "in the hub's cache", or
    "not here". `figures` are the headline of what `medlens train` measured, None if its folder holds none.
    """

    name: str
    dimensions: int
    default: bool
    place: str | None = None
    fingerprint: str | None = None
    terms: str = UNKNOWN_TERMS
    megabytes: float | None = None
    at_hand: str = "not here"
    figures: str | None = None


def list_models() -> tuple[ListedModel, ...]:
    """Shipped models, then the user's. Raises EncoderError for a configuration or a list that can't be read."""
    shipped = [
        ListedModel(
            name,
            read_config(folder).embed_dim,
            name == DEFAULT_MODEL,
            terms=read_terms(folder),
            megabytes=_megabytes(folder),
            at_hand="shipped",
            figures=read_figures(folder),
        )
        for name, folder in shipped_models().items()
    ]
    known = [
        _listed(one.name, int(one.model["embed_dim"]), one.place, fingerprint)
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
    listed = _listed(spec.name, spec.embed_dim, source.source, spec.fingerprint)
    if source.shipped:
        return replace(listed, default=source.name == DEFAULT_MODEL, at_hand="shipped", terms=read_terms(source.folder))
    return listed


def cached_megabytes(repository: str) -> float | None:
    """The size of a repository's weights in the hub's cache; None if they are not there."""
    folder = hub.cached_folder(repository)
    return None if folder is None else _megabytes(folder)


def _listed(name: str, dimensions: int, place: str, fingerprint: str) -> ListedModel:
    plain = ListedModel(name, dimensions, False, place, fingerprint, terms_at(place))
    if place.startswith(hub.PREFIX):
        megabytes = cached_megabytes(place.removeprefix(hub.PREFIX))
        return replace(plain, megabytes=megabytes, at_hand="not here" if megabytes is None else "in the hub's cache")
    if "@" in place and not place.startswith("local-dir:"):
        file = Path(place.partition("@")[2])
        size = round(file.stat().st_size / 1e6, 1) if file.is_file() else None
        return replace(plain, megabytes=size, at_hand="not here" if size is None else "here")
    folder = Path(place.removeprefix("local-dir:"))
    megabytes = _megabytes(folder)
    return replace(
        plain,
        megabytes=megabytes,
        at_hand="not here" if megabytes is None else "here",
        figures=read_figures(folder),
    )


def _megabytes(folder: Path) -> float | None:
    try:
        found = weights_beside(folder, WEIGHTS_NAMES) or weights_beside(folder, TRANSFORMERS_WEIGHTS)
        return None if found is None else round(found.size / 1e6, 1)
    except (OSError, EncoderError):
        return None
