"""`medlens optimize`: build each index in the kind that its size needs, and record the measurements in the manifest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.store.store import Store
from indexer.vector_sets import VECTOR_SETS, VectorKind
from retrieval.errors import StoreError

if TYPE_CHECKING:
    from indexer.vectors.choose import IndexKind

MANIFEST_KEY = "vector_indexes"


def optimize_store(
    store: Store,
    *,
    kind: IndexKind | None = None,
    memory: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Choose, build and write every index. Returns the measurements by set of vectors, for sets that have any.

    `memory` in bytes is for all indexes together: the frames come first, the others get the rest.
    """
    from indexer.vectors.choose import optimize

    measured: dict[str, dict[str, Any]] = {}
    for vectors, of_set in VECTOR_SETS.items():
        outcome = optimize(
            store.derived.index_file_of(vectors),
            store.catalog.vectors,
            _some_vectors(store, of_set.query_kind),
            kind=kind,
            memory=memory,
            on_progress=on_progress,
        )
        if outcome is None:
            continue
        measured[vectors] = outcome[1].figures()
        measured[vectors]["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if memory is not None:
            memory = max(0, memory - outcome[1].memory_bytes)
    store.derived.forget()
    store.manifest[MANIFEST_KEY] = measured
    return measured


def index_facts(store: Store) -> dict[str, dict[str, Any]]:
    """Return, for each index with a file, its current kind, its rows, and the measurements of the last
    `optimize_store`.
    """
    from indexer.vectors.file import open_file

    measured = store.manifest.get(MANIFEST_KEY)
    facts: dict[str, dict[str, Any]] = {}
    for vectors in VECTOR_SETS:
        try:
            meta = open_file(store.derived.index_file_of(vectors).path).meta
        except (FileNotFoundError, StoreError):
            continue
        kind = "ivf-rabitq" if "compressed_at" in meta else "flat"
        figures = measured.get(vectors) if isinstance(measured, dict) else None
        in_file = meta.get("measured")  # also of an `optimize` that was killed before it wrote the manifest
        own = in_file if isinstance(in_file, dict) else {}
        if not isinstance(figures, dict) or figures.get("kind") != kind or not own.items() <= figures.items():
            figures = own
        then = {"rows_measured" if name == "rows" else name: value for name, value in figures.items()}
        facts[vectors] = {"kind": kind, "rows": meta["count"]} | then
    return facts


def _some_vectors(store: Store, kind: VectorKind, count: int = 200) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Return vectors spread evenly over those of one kind."""
    ids = store.index(kind).ids
    chosen = ids[np.unique(np.linspace(0, len(ids) - 1, num=min(count, len(ids)), dtype=np.int64))] if len(ids) else ids
    return store.index(kind).vectors_of(chosen)
