"""`medlens info`: what is in a store, and by which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.catalog.model_change import ModelChanges
from indexer.catalog.sql_catalog import Counts
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts
from retrieval.encoders.released import title


@dataclass(frozen=True)
class StoreFacts:
    """`model` describes the store's model (`EncoderSpec.to_json()`). `labelled_frames` counts the frames with saved
    labels, by label set; `former_labels` names the model of those sets that a former model made. `next_model` says how
    far a change of the model is that was begun: `model`, `frames`, `of_frames`, `sentences`, `of_sentences`. `indexes`
    has what is known of each index with a file, by `frame` and `sentence`."""

    model: Mapping[str, Any]
    counts: Counts
    labelled_frames: Mapping[str, int]
    former_labels: Mapping[str, str]
    next_model: Mapping[str, Any] | None
    indexes: Mapping[str, Mapping[str, Any]]


def store_facts(store: Store) -> StoreFacts:
    """Count and describe. Reads the catalog and the heads of the index files; no model is loaded."""
    saved_sets = store.catalog.labels.saved_sets()
    return StoreFacts(
        model=store.model,
        counts=store.catalog.counts(),
        labelled_frames={saved.label_set: saved.frames for saved in saved_sets},
        former_labels={saved.label_set: saved.former_model for saved in saved_sets if saved.former_model is not None},
        next_model=_next_model(store.catalog.model_changes),
        indexes=index_facts(store),
    )


def _next_model(changes: ModelChanges) -> dict[str, Any] | None:
    begun = changes.pending()
    if begun is None:
        return None
    made = changes.made()
    return {
        "model": title(begun.model),
        "frames": made.frames,
        "of_frames": made.all_frames,
        "sentences": made.sentences,
        "of_sentences": made.all_sentences,
    }
