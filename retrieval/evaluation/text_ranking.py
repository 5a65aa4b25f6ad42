"""The text baseline: the BM25 ranker of the search, which sees no image, and its fusion with the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.search.bm25 import build_report_index
from retrieval.search.hybrid import SHARE
from retrieval.search.query import Query
from retrieval.statistics.measures import Floats

DEPTH = Query.depth


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> npt.NDArray[np.float32]:
    """Scores [queries, documents], 0 or more, by the report index of the search with each document as one report."""
    index = build_report_index({f"{i:09d}": document for i, document in enumerate(documents)})
    columns = index.studies.astype(np.int64)
    out = np.zeros((len(queries), len(documents)), np.float32)
    for row, query in zip(out, queries, strict=True):
        row[columns] = index.scores(query)
    return out


def fused(dense: npt.NDArray[np.floating], text: npt.NDArray[np.floating]) -> Floats:
    """The hybrid ranker's scores [queries, gallery] where every entry has a text; see `retrieval.search.hybrid`."""
    best_first = -np.sort(-dense.astype(np.float64), axis=1)
    high, low = best_first[:, :1], best_first[:, min(DEPTH, dense.shape[1]) - 1][:, None]
    spread = high - low
    scaled: Floats = np.where(spread > 0, (dense - low) / np.where(spread > 0, spread, 1), 1.0)
    best = text.max(axis=1, keepdims=True)
    mixed: Floats = (1 - SHARE) * scaled + SHARE * text / np.where(best > 0, best, 1)
    return np.where(best > 0, mixed, scaled)
