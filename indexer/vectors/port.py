"""What a store and its tasks need from an index, of whatever kind it is. Search needs less: `VectorIndex`.

Another kind of index, such as one in a database, implements this and is returned by `DerivedFiles.index`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from indexer.vectors.parts import VectorSource
from retrieval.types import Ids, VectorIndex


@runtime_checkable
class StoreIndex(VectorIndex, Protocol):
    """An index that is derived from the catalog, is updated from it, and can be compared with it."""

    @property
    def store_id(self) -> str:
        """Whose vectors these are: `StorePlace.vectors_id` when they were read."""
        ...

    @property
    def ids(self) -> Ids:
        """Ascending ids of all vectors [n]."""
        ...

    def vectors_of(self, ids: Ids) -> npt.NDArray[np.float16]:
        """Return the vectors [n, D] of those of `ids` that exist, by ascending id."""
        ...

    def catch_up(self, catalog: VectorSource) -> object:
        """Add what was committed to the catalog since, and remove what was deleted there."""
        ...
