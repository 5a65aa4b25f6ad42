"""The position of a hit in its stack: slice 41 of 120.

It is computed on request, because stacks grow during indexing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from indexer.catalog.cache import CatalogCache
from indexer.catalog.instances import SliceRow
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.reading.frames import SlicePosition, slice_positions
from retrieval.types import SearchResults

SlicePositionCache = CatalogCache[str, Mapping[str, SlicePosition]]  # by series, then by SOP Instance UID
_SERIES = 256  # series in the cache


def slice_position_cache(catalog: SqlCatalog) -> SlicePositionCache:
    """Return an empty cache for `with_slice_positions`."""
    return CatalogCache(catalog.state, _SERIES)


def with_slice_positions(results: SearchResults, catalog: SqlCatalog, known: SlicePositionCache) -> SearchResults:
    """Return the results, each hit with the attributes `slice` (from 1) and `slices`; None if it is not in a stack.

    `known` caches the positions of series from earlier requests.
    """

    def work(series: list[str]) -> dict[str, Mapping[str, SlicePosition]]:
        found: dict[str, list[SliceRow]] = {uid: [] for uid in series}
        for row in catalog.instances.slices_of(series):
            found[row.attributes["series_instance_uid"]].append(row)
        return {uid: slice_positions(rows) for uid, rows in found.items()}

    asked = (h.attributes["series_instance_uid"] for h in results.hits)
    stacks = known.get((uid for uid in asked if uid), work)
    hits = []
    for hit in results.hits:
        place = stacks.get(hit.attributes["series_instance_uid"], {}).get(hit.key.sop_instance_uid)
        of_stack = {"slice": place.number, "slices": place.total} if place else {"slice": None, "slices": None}
        hits.append(replace(hit, attributes={**hit.attributes, **of_stack}))
    return replace(results, hits=tuple(hits))
