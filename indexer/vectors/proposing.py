"""What names rows that may be the nearest, quicker than a scan of them all, and what it sees of the rows.

The ground that the pieces of an index (parts) and what proposes from them (compressed, gpu) both stand on.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.types import Embeddings, Ids

Rows = npt.NDArray[np.int64]  # positions in one part of an index


class Proposable(Protocol):
    """Rows by position. Those that are dead were removed, and may not be proposed."""

    @property
    def ids(self) -> Ids: ...

    @property
    def dead(self) -> npt.NDArray[np.bool_]: ...

    @property
    def alive(self) -> int: ...

    @property
    def alive_selector(self) -> Any:
        """What FAISS may return; None if that is everything."""
        ...


class Proposer(Protocol):
    """Something quicker than a scan that names rows which may be the nearest, for an exact score."""

    def propose(self, queries: Embeddings, k: int, part: Proposable) -> list[Rows | None]:
        """Per query ascending rows that are not dead, at least min(k, part.alive); None asks for an exact search."""
        ...
