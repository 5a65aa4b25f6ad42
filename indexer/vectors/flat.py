"""Float16 vectors by position, all compared with a query: by NumPy at first, by FAISS once that is faster.

Importing FAISS takes as long as dozens of NumPy's scans of a hundred thousand vectors, and a search in a new process is
a single scan. So NumPy does the first scans, up to a number of comparisons, and FAISS is loaded for later ones: nobody
waits more than about twice as long as with the better choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.half import widened
from retrieval.types import Embeddings

Vectors = npt.NDArray[np.float16]  # [n, D]
Scores = npt.NDArray[np.float32]

FEW = 2**28  # numbers that NumPy compares before FAISS is loaded: ten times 100,000 vectors of 256
_BLOCK = 2**16  # numbers that are widened at a time


class Flat:
    """Vectors [n, D], finite; never changed.

    `load` opens the FAISS index of a file that has them, and returns it with the owner of its memory; without it, one
    is made. `require(first, stop)` raises StoreCorrupt if the file's rows from `first` to `stop` are damaged.
    """

    def __init__(
        self,
        vectors: Vectors,
        load: Callable[[], tuple[Any, Any]] | None = None,
        require: Callable[[int, int], None] = lambda first, stop: None,
    ) -> None:
        self.unchecked = vectors
        self._load = load
        self._require = require
        self._scanned = 0

    def __len__(self) -> int:
        return len(self.unchecked)

    @property
    def vectors(self) -> Vectors:
        """All vectors, checked."""
        return self.rows(0, len(self))

    def rows(self, first: int, stop: int) -> Vectors:
        """The vectors from `first` to before `stop`, checked."""
        self._require(first, min(stop, len(self)))
        return self.unchecked[first:stop]

    def scan(self, queries: Embeddings) -> Scores | None:
        """Return inner products [Q, n] in float32; None if FAISS should be used from now on."""
        count, dim = self.unchecked.shape
        self._scanned += count * dim * len(queries)
        if self._scanned > FEW:
            return None
        out = np.empty((count, len(queries)), dtype=np.float32)
        step = max(_BLOCK // dim, 1)
        block = np.empty((step, dim), dtype=np.float32)
        for start in range(0, count, step):
            some = self.rows(start, start + step)
            np.matmul(widened(some, out=block[: len(some)]), queries.T, out=out[start : start + len(some)])
        return out.T

    @property
    def faiss_index(self) -> Any:
        """An IndexScalarQuantizer of the vectors."""
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        if self._load is not None:
            return self._load()
        index = new_flat(self.vectors.shape[1])
        if len(self.vectors):  # FAISS's float16 codes are the float16 numbers themselves
            index.add_sa_codes(np.ascontiguousarray(self.vectors, dtype="<f2").view(np.uint8))
        return index, None


def load_faiss() -> Any:
    """Return FAISS, imported on first use. Untyped: its stubs know neither downcasts nor the Python additions."""
    import faiss

    return faiss


def new_flat(dim: int) -> Any:
    faiss = load_faiss()
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
