"""`medlens info`: what is in a store, and by which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.catalog.sql_catalog import Counts
from indexer.run.moves import VANISHED
from indexer.sources.opening import is_gone
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts


@dataclass(frozen=True)
class StoreFacts:
    """`model` describes the store's model (`EncoderSpec.to_json()`). `labelled_frames` counts the frames with saved
    labels, by label set; `indexes` has what is known of each index with a file, by `frame` and `sentence`.

    Of `archives`, at so many roots there is nothing now: `archives_not_found`. `vanished` counts the instances whose
    files the last indexing run did not find."""

    model: Mapping[str, Any]
    counts: Counts
    labelled_frames: Mapping[str, int]
    indexes: Mapping[str, Mapping[str, Any]]
    archives: int = 0
    archives_not_found: int = 0
    vanished: int = 0


def store_facts(store: Store) -> StoreFacts:
    """Count and describe. Reads the catalog and the heads of the index files; no model is loaded."""
    roots = store.catalog.files.archive_roots().values()
    return StoreFacts(
        model=store.model,
        counts=store.catalog.counts(),
        labelled_frames={saved.label_set: saved.frames for saved in store.catalog.labels.saved_sets()},
        indexes=index_facts(store),
        archives=len(roots),
        archives_not_found=sum(map(is_gone, roots)),
        vanished=sum(store.manifest.get(VANISHED, {}).values()),
    )
