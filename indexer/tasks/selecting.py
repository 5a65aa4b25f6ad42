"""`medlens select`: what a filter lets through, without a query."""

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
    """The studies, series or instances that a filter lets through, a row each, in the order of their UIDs.

    Rows have the names of `indexer.catalog.selection.SELECTED`; those of instances also `file_path` and `archive_root`,
    which can hold names of patients. No model is asked. Raises QueryError for a filter that makes no sense.
    """
    require_valid(where)
    return store.catalog.instances.select(where, level)
