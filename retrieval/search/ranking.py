"""Rankings of frames, and the fusion of the parts of a query into one exact ranking.

A ranking can be built on another one. The hybrid ranking fuses reports with a dense ranking, and a caller can pass a
`RankingStep` to the search, for example a reranker, that wraps the query's ranking. All readers use the protocol.

The weighted sum of inner products equals the inner product with the weighted sum of the vectors. EMBEDDING, AVERAGE and
SUM therefore need one search each and give the same order; only the scale of their scores differs. The best n frames
under MAX are among the best n of each part. RRF reads the first `depth` ranks of each part and ignores deeper ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from retrieval.errors import QueryError
from retrieval.search.query import RRF_CONSTANT, Fusion, Query
from retrieval.types import Embeddings, RowFilter, VectorIndex

Ranked = list[tuple[int, float]]  # (frame id, score), best first, equal scores by ascending id
CANCELLED = 1e-4  # a weighted sum of embeddings shorter than this, relative to the weights, counts as zero
_COSINE = "cosine similarity"
_SCALES = {
    Fusion.EMBEDDING: "cosine similarity to the weighted sum of the parts' embeddings",
    Fusion.AVERAGE: "weighted average of the parts' cosine similarities",
    Fusion.SUM: "weighted sum of the parts' cosine similarities",
    Fusion.MAX: "best weighted cosine similarity of the parts",
    Fusion.RRF: "weighted sum of 1 / (60 + rank)",
}


@runtime_checkable
class Ranking(Protocol):
    """Frames in the order of one score."""

    @property
    def scale(self) -> str:
        """What the score means, in words."""
        ...

    @property
    def additive(self) -> bool:
        """Whether the parts of a breakdown add up to the score."""
        ...

    @property
    def depth(self) -> int | None:
        """The last rank of the ranking; None if it ranks all frames."""
        ...

    def top(self, n: int) -> Ranked:
        """The n best frames, or all if there are fewer. A larger n gives a list that begins with the same frames."""
        ...

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        """The scores of the given frames, as far as they may be searched."""
        ...

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """The contribution of each part to the score, by the name of the part."""
        ...


@runtime_checkable
class RankingByParts(Ranking, Protocol):
    """A ranking whose score is a sum over parts, and that can also rank the frames by each part alone."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the parts, as in the breakdown."""
        ...

    def top_by_part(self, n: int) -> list[Ranked]:
        """The n best frames for each part, by the part's contribution to the score."""
        ...


RankingStep = Callable[[Ranking, Query], Ranking]  # wraps the ranking of a query in another one


def dense_ranking(query: Query, vectors: Embeddings, index: VectorIndex, allowed: RowFilter | None) -> Ranking:
    """The ranking of frames by the parts of a query, whose embeddings are `vectors` [parts, D].

    It ranks all frames, or the `allowed` ones. Raises QueryError if the parts cancel out.
    """
    weights = np.array([part.weight for part in query.parts])
    weighted = weights[:, None] * vectors.astype(np.float64)
    total = weighted.sum(axis=0)
    norm, size = float(np.linalg.norm(total)), float(np.abs(weights).sum())
    if query.fusion is not Fusion.MAX and norm < CANCELLED * size:
        raise cancelled()
    if query.fusion is Fusion.RRF:
        return ReciprocalRanks.search(query, vectors, index, allowed)
    plain = len(weights) == 1 and (weights[0] == 1 or query.fusion in (Fusion.EMBEDDING, Fusion.AVERAGE))
    scale = _COSINE if plain else _SCALES[query.fusion]
    if query.fusion is Fusion.MAX:
        return BestPart(query.names, weighted, index, allowed, scale)
    factor = {Fusion.EMBEDDING: 1 / norm if norm else 1.0, Fusion.AVERAGE: 1 / size, Fusion.SUM: 1.0}[query.fusion]
    return WeightedSum(query.names, weighted * factor, index, allowed, scale)


def cancelled() -> QueryError:
    """The error for a query whose parts cancel out."""
    return QueryError(
        "the parts of the query cancel out: their weighted sum is zero",
        hint="Change a weight, or remove what the query both searches for and avoids.",
    )


class WeightedSum:
    """The score is the sum of the inner products with the `weighted` vectors [parts, D]."""

    additive = True
    depth = None

    def __init__(
        self,
        names: Sequence[str],
        weighted: npt.NDArray[np.float64],
        index: VectorIndex,
        allowed: RowFilter | None,
        scale: str,
    ) -> None:
        self.names = tuple(names)
        self.weighted = weighted.astype(np.float32)
        self.index = index
        self.allowed = allowed
        self.scale = scale
        self.vector = weighted.sum(axis=0).astype(np.float32)

    def top(self, n: int) -> Ranked:
        return self.index.search(self.vector[None, :], n, self.allowed)[0]

    def top_by_part(self, n: int) -> list[Ranked]:
        return self.index.search(self.weighted, n, self.allowed)

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        return _scores_of(self.vector[None, :], ids, self.index, self.allowed)[0]

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        return _by_id(self.names, _scores_of(self.weighted, ids, self.index, self.allowed))


class BestPart:
    """The score is the best weighted inner product of a positive part, minus those of the negative parts."""

    additive = False
    depth = None

    def __init__(
        self,
        names: Sequence[str],
        weighted: npt.NDArray[np.float64],
        index: VectorIndex,
        allowed: RowFilter | None,
        scale: str,
    ) -> None:
        negative = np.array([name.startswith("not") for name in names])
        self.names = tuple(names)
        self.weighted = weighted.astype(np.float32)
        self.lifted = (weighted[~negative] + weighted[negative].sum(axis=0)).astype(np.float32)
        self.index = index
        self.allowed = allowed
        self.scale = scale

    def top(self, n: int) -> Ranked:
        lists = self.index.search(self.lifted, n, self.allowed)
        union = sorted({i for ranked in lists for i, _ in ranked})
        return best_first(self.scores(union))[:n]

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        found = _scores_of(self.lifted, ids, self.index, self.allowed)
        return {i: max(scores[i] for scores in found) for i in found[0]}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        return _by_id(self.names, _scores_of(self.weighted, ids, self.index, self.allowed))


class ReciprocalRanks:
    """The score is the sum of weight / (60 + rank) over the parts, for ranks up to a depth.

    `gains` has the summands by frame and part, and `positive` is the sum of the positive weights. A frame that is not
    within the depth of any positive part is not ranked.
    """

    additive = True
    scale = _SCALES[Fusion.RRF]

    def __init__(
        self, names: Sequence[str], gains: Mapping[int, Mapping[str, float]], positive: float, depth: int
    ) -> None:
        self.names = tuple(names)
        self.gains = gains
        self.positive = positive
        self.depth = depth
        self._ranked = best_first({i: sum(parts.values()) for i, parts in gains.items()})

    @classmethod
    def search(
        cls, query: Query, vectors: Embeddings, index: VectorIndex, allowed: RowFilter | None
    ) -> ReciprocalRanks:
        """The ranks of the frames under each part of a query."""
        gains: dict[int, dict[str, float]] = {}
        lists = index.search(vectors, query.depth, allowed)
        parts = zip(query.names, (part.weight for part in query.parts), lists, strict=True)
        for name, weight, ranked in sorted(parts, key=lambda part: -part[1]):  # positive parts rank first
            for rank, (i, _) in enumerate(ranked, 1):
                if weight > 0 or i in gains:
                    gains.setdefault(i, {})[name] = weight / (RRF_CONSTANT + rank)
        return cls(query.names, gains, sum(part.weight for part in query.parts if part.weight > 0), query.depth)

    def top(self, n: int) -> Ranked:
        return self._ranked[:n]

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        return {i: sum(self.gains[i].values()) for i in ids if i in self.gains}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        return {i: {name: self.gains[i].get(name, 0.0) for name in self.names} for i in ids if i in self.gains}


def best_first(scores: dict[int, float]) -> Ranked:
    """Frames by descending score; equal scores by ascending id."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _scores_of(
    vectors: npt.NDArray[np.float32], ids: Sequence[int], index: VectorIndex, allowed: RowFilter | None
) -> list[dict[int, float]]:
    """For each vector, the inner products with the vectors of those frames that are allowed and in the index."""
    wanted = np.array(sorted(set(ids)), dtype=np.int64)  # np.unique imports numpy.ma
    if allowed is not None:
        wanted = allowed.passing(wanted)
    return index.scores(vectors, wanted) if len(wanted) else [{} for _ in vectors]


def _by_id(names: Sequence[str], found: Iterable[dict[int, float]]) -> dict[int, dict[str, float]]:
    out: dict[int, dict[str, float]] = {}
    for name, scores in zip(names, found, strict=True):
        for i, score in scores.items():
            out.setdefault(i, {})[name] = score
    return out
