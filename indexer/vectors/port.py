"""What a store and the tasks on it ask of an index, of whatever kind it is. Search asks less: `VectorIndex`.

Another kind of index, one in a database for example, implements this and is returned by `DerivedFiles.index`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from indexer.vectors.parts import VectorSource
from retrieval.types import Ids, VectorIndex


@runtime_checkable
class StoreIndex(VectorIndex, Protocol):
    """An index that is derived from the catalog, follows it, and can be held against it."""

    @property
    def store_id(self) -> str:
        """Whose vectors these are: `StorePlace.vectors_id` when they were read."""
        ...

    @property
    def ids(self) -> Ids:
        """Ascending ids of all vectors [n]."""
        ...

    def vectors_of(self, ids: Ids) -> npt.NDArray[np.float16]:
        """The vectors [n, D] of those of `ids` that are here, by ascending id."""
        ...

    def catch_up(self, catalog: VectorSource) -> object:
        """Take in what was committed to the catalog since, and let go what was deleted there."""
        ...
