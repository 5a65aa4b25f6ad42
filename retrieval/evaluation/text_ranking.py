"""The text baseline: the BM25 ranker of the search, which sees no image, and its fusion with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.search.bm25 import build_report_index
from retrieval.search.hybrid import evidence_line
from retrieval.statistics.measures import Floats


class TextScores(NamedTuple):
    """BM25 of each document for each query [queries, documents], and what a document could have at most [queries]."""

    scores: npt.NDArray[np.float32]
    information: Floats


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> TextScores:
    """Scores by the report index of the search, with each document as one report."""
    index = build_report_index({f"{i:09d}": document for i, document in enumerate(documents)})
    columns = index.studies.astype(np.int64)
    out = np.zeros((len(queries), len(documents)), np.float32)
    for row, query in zip(out, queries, strict=True):
        row[columns] = index.scores(query)
    return TextScores(out, np.array([index.information(query) for query in queries]))


def fused(dense: npt.NDArray[np.floating], text: TextScores) -> Floats:
    """The hybrid ranker's scores [queries, gallery] where every entry has a text; see `retrieval.search.hybrid`."""
    means, spreads = dense.mean(axis=1, keepdims=True), dense.std(axis=1, keepdims=True)
    out: Floats = (dense - means) / np.where(spreads > 0, spreads, 1)
    for row, totals, information in zip(out, text.scores, text.information, strict=True):
        if totals.any():
            slope, offset = evidence_line(totals, float(information))
            row += slope * totals - offset
    return out
