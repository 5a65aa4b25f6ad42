"""`medlens info`: what is in a store, and which model made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from indexer.catalog.model_change import ModelChanges
from indexer.catalog.sql_catalog import Counts
from indexer.run.moves import VANISHED
from indexer.sources.opening import is_gone
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts
from indexer.tasks.restoring import RESTORED
from retrieval.encoders.released import title
from retrieval.encoders.terms import terms_of_model
from retrieval.errors import StoreCorrupt


@dataclass(frozen=True)
class StoreFacts:
    """What a store holds.

    - `model`: the description of the store's model (`EncoderSpec.to_json()`)
    - `counts`: how many files, instances, frames, ... the catalog has
    - `labelled_frames`: the number of frames with saved labels, by label set
    - `former_labels`: the name of the model that made them, for those label sets whose model the store had before
    - `next_model`: how far a change of the model is that was begun: `model`, `frames`, `of_frames`, `sentences`,
      `of_sentences`
    - `indexes`: the measured properties of each index that has a file, by `frame` and `sentence`
    - `model_terms`: the terms of the model's weights in one line, or "terms unknown"
    - `archives`: how many archives it was made from; at the roots of `archives_not_found` of them there is nothing now
    - `vanished`: the number of instances whose files the last indexing run did not find
    - `restored`: if it was restored from a backup, when (`at`), the time of the backup (`backup_of`), and how many
      erasures were applied again (`erasures`, None if no list was at hand)
    """

    model: Mapping[str, Any]
    render_profile: str  # its name; empty if the manifest does not say
    counts: Counts
    labelled_frames: Mapping[str, int]
    former_labels: Mapping[str, str]
    next_model: Mapping[str, Any] | None
    indexes: Mapping[str, Mapping[str, Any]]
    model_terms: str
    archives: int = 0
    archives_not_found: int = 0
    vanished: int = 0
    restored: Mapping[str, Any] = field(default_factory=dict)


def store_facts(store: Store) -> StoreFacts:
    """Count and describe what a store holds. Reads the catalog and the heads of the index files; loads no model."""
    saved_sets = store.catalog.labels.saved_sets()
    roots = store.catalog.files.archive_roots().values()
    return StoreFacts(
        model=store.model,
        render_profile=_profile_name(store),
        counts=store.catalog.counts(),
        labelled_frames={saved.label_set: saved.frames for saved in saved_sets},
        former_labels={saved.label_set: saved.former_model for saved in saved_sets if saved.former_model is not None},
        next_model=_next_model(store.catalog.model_changes),
        indexes=index_facts(store),
        model_terms=terms_of_model(store.model),
        archives=len(roots),
        archives_not_found=sum(map(is_gone, roots)),
        restored=store.manifest.get(RESTORED, {}),
        vanished=sum(store.manifest.get(VANISHED, {}).values()),
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


def _profile_name(store: Store) -> str:
    try:
        return store.place.render_profile.name
    except StoreCorrupt:  # what needs it will say so
        return ""
