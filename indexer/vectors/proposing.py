"""The interface between the parts of an index and what proposes candidates from them faster than a full scan.

The modules parts, compressed and gpu share it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.types import Embeddings, Ids

Rows = npt.NDArray[np.int64]  # positions in one part of an index


class Proposable(Protocol):
    """Rows by position. Removed rows (`dead`) must not be proposed."""

    @property
    def ids(self) -> Ids: ...

    @property
    def dead(self) -> npt.NDArray[np.bool_]: ...

    @property
    def alive(self) -> int: ...

    @property
    def alive_selector(self) -> Any:
        """The selector of the rows that FAISS may return; None if it may return all."""
        ...


class Proposer(Protocol):
    """Proposes rows that may be the nearest, faster than a full scan, for exact scoring."""

    def propose(self, queries: Embeddings, k: int, part: Proposable) -> list[Rows | None]:
        """Ascending rows per query that are not removed, at least min(k, part.alive); None requests an exact search."""
        ...
