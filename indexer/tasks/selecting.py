"""`medlens select`: what matches a filter, without a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from indexer.catalog.conditions import require_valid
from indexer.catalog.selection import SelectionLevel
from indexer.store.store import Store
from retrieval.types import SearchFilter


def select(
    store: Store, where: SearchFilter = SearchFilter(), *, level: SelectionLevel = "study"
) -> Iterator[dict[str, Any]]:
    """Yield the studies, series or instances that match a filter, one row each, in the order of their UIDs.

    Rows have the names of `indexer.catalog.selection.SELECTED`; rows of instances also have `file_path` and
    `archive_root`, which can contain names of patients. No model is used. Raises QueryError for an invalid filter.
    """
    require_valid(where)
    return store.catalog.instances.select(where, level)


def selection_notes(store: Store, where: SearchFilter, *, empty: bool) -> tuple[str, ...]:
    """Return what the words of a filter were read as and, if the selection is `empty`, what the store has instead."""
    return store.catalog.instances.filter_notes(where, empty=empty)
