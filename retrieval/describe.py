"""Image to text: the sentences of the archive's own reports that lie nearest to a picture. Nothing is generated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.types import VectorIndex


class SentenceRow(Protocol):
    """One sentence of a report as a catalog keeps it."""

    @property
    def text(self) -> str: ...
    @property
    def study_instance_uid(self) -> str | None: ...


class SentenceCatalog(Protocol):
    def sentence_rows(self, ids: Iterable[int]) -> Mapping[int, SentenceRow]: ...


@dataclass(frozen=True)
class SentenceHit:
    """One answer: `score` is the cosine similarity; `studies` are all that say this sentence, the nearest first."""

    rank: int
    score: float
    text: str
    studies: tuple[str, ...]


def nearest_sentences(
    vector: npt.NDArray[np.float32], k: int, index: VectorIndex, catalog: SentenceCatalog
) -> tuple[SentenceHit, ...]:
    """The `k` different sentences nearest to a vector [embed_dim] of unit norm, equal ones folded, best first."""
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    asked = 4 * k
    while True:
        ranked = index.search(vector[None, :], asked, None)[0]
        rows = catalog.sentence_rows(i for i, _ in ranked)
        folded: dict[str, tuple[float, str, dict[str, None]]] = {}
        for i, score in ranked:
            row = rows.get(i)
            if row is None:  # deleted since the index was read
                continue
            _, _, studies = folded.setdefault(row.text.casefold(), (score, row.text, {}))
            if row.study_instance_uid:
                studies[row.study_instance_uid] = None
        if len(folded) >= k or len(ranked) < asked:
            break
        asked *= 4
    best = list(folded.values())[:k]
    return tuple(SentenceHit(n, score, text, tuple(studies)) for n, (score, text, studies) in enumerate(best, 1))
