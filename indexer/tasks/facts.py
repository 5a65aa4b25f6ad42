"""`medlens info`: what is in a store, and by which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.catalog.sql_catalog import Counts
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts
from retrieval.errors import StoreCorrupt


@dataclass(frozen=True)
class StoreFacts:
    """`model` describes the store's model (`EncoderSpec.to_json()`). `labelled_frames` counts the frames with saved
    labels, by label set; `indexes` has what is known of each index with a file, by `frame` and `sentence`."""

    model: Mapping[str, Any]
    render_profile: str  # its name; empty if the manifest does not say
    counts: Counts
    labelled_frames: Mapping[str, int]
    indexes: Mapping[str, Mapping[str, Any]]


def store_facts(store: Store) -> StoreFacts:
    """Count and describe. Reads the catalog and the heads of the index files; no model is loaded."""
    return StoreFacts(
        model=store.model,
        render_profile=_profile_name(store),
        counts=store.catalog.counts(),
        labelled_frames={saved.label_set: saved.frames for saved in store.catalog.labels.saved_sets()},
        indexes=index_facts(store),
    )


def _profile_name(store: Store) -> str:
    try:
        return store.place.render_profile.name
    except StoreCorrupt:  # what needs it will say so
        return ""
