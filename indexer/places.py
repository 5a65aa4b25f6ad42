"""Where in its stack a hit stands: slice 41 of 120. Worked out when asked, since stacks grow while they are indexed."""

from __future__ import annotations

from dataclasses import replace

from indexer.catalog.sql_catalog import SqlCatalog
from indexer.frames import slice_places
from retrieval.types import SearchResults


def with_places(results: SearchResults, catalog: SqlCatalog) -> SearchResults:
    """The same results, each hit with the attributes `slice` (from 1) and `slices`: None if it is not in a stack."""
    series = {str(h.attributes["series_instance_uid"]) for h in results.hits if h.attributes["series_instance_uid"]}
    places = slice_places(catalog.slices_of(sorted(series)))
    hits = []
    for hit in results.hits:
        place = places.get(hit.key.sop_instance_uid)
        of_stack = {"slice": place.number, "slices": place.total} if place else {"slice": None, "slices": None}
        hits.append(replace(hit, attributes={**hit.attributes, **of_stack}))
    return replace(results, hits=tuple(hits))
