"""`medlens info`: what is in a store, and which model made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.catalog.sql_catalog import Counts
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts
from retrieval.encoders.terms import terms_of_model
from retrieval.errors import StoreCorrupt


@dataclass(frozen=True)
class StoreFacts:
    """What a store holds.

    - `model`: the description of the store's model (`EncoderSpec.to_json()`)
    - `counts`: how many files, instances, frames, ... the catalog has
    - `labelled_frames`: the number of frames with saved labels, by label set
    - `indexes`: the measured properties of each index that has a file, by `frame` and `sentence`
    - `model_terms`: the terms of the model's weights in one line, or "terms unknown"
    """

    model: Mapping[str, Any]
    render_profile: str  # its name; empty if the manifest does not say
    counts: Counts
    labelled_frames: Mapping[str, int]
    indexes: Mapping[str, Mapping[str, Any]]
    model_terms: str


def store_facts(store: Store) -> StoreFacts:
    """Count and describe what a store holds. Reads the catalog and the heads of the index files; loads no model."""
    return StoreFacts(
        model=store.model,
        render_profile=_profile_name(store),
        counts=store.catalog.counts(),
        labelled_frames={saved.label_set: saved.frames for saved in store.catalog.labels.saved_sets()},
        indexes=index_facts(store),
        model_terms=terms_of_model(store.model),
    )


def _profile_name(store: Store) -> str:
    try:
        return store.place.render_profile.name
    except StoreCorrupt:  # what needs it will say so
        return ""
