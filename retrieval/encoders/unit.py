"""Scales embeddings to unit norm: the last step of every encoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.errors import NonFiniteEmbedding
from retrieval.types import Embeddings


def unit(features: npt.NDArray[np.float32], what: str) -> Embeddings:
    """Rows scaled to unit norm. Raises NonFiniteEmbedding for rows that are NaN, infinite or all zero."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if bad.size:
        raise NonFiniteEmbedding(
            f"the model returned no valid vector for {bad.size} of {len(features)} {what}s (first at index {bad[0]})",
            hint="The weights may be damaged or belong to another architecture. Try --device cpu or another model.",
        )
    rows: Embeddings = (features / norms).astype(np.float32)
    return rows
