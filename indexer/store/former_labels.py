"""Labels that a model made which the store had before: what is said of a filter on them."""

from __future__ import annotations

from indexer.catalog.conditions import labels_named
from indexer.catalog.sql_catalog import SqlCatalog
from retrieval.types import SearchFilter


def former_label_notes(catalog: SqlCatalog, where: SearchFilter) -> tuple[str, ...]:
    """A note for each label set in a filter that a former model made. Raises QueryError for an invalid filter."""
    former = catalog.labels.former_models(labels_named(where))
    return tuple(
        f"the labels of {label_set!r} in the filter were made by {model}, which is not the store's model any more"
        for label_set, model in former.items()
    )
