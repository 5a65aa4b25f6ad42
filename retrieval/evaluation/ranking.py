"""Ranking measures per query over a whole gallery.

Equal scores have no order. Every figure is the expected value over all orders of tied items, in closed form (McSherry
and Najork 2008, "Computing information retrieval performance measures efficiently in the presence of tied scores"). A
model that returns one vector for everything is therefore exactly at chance, whatever the order of the files. The chance
level itself is the same computation with all items tied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.statistics.measures import Bools, Floats, Ints

DEPTH = 10  # the depth of nDCG
DECIMALS = 7  # scores are rounded: scores that float32 can't distinguish are tied


@dataclass(frozen=True)
class QueryFigures:
    """Figures per query, [Q] each.

    `hits[k]` is recall as defined in the cross-modal literature: 1 if a relevant item is among the first k. `rank` is
    the rank of the best relevant item, from 1. `ndcg` is graded by labels; NaN for a query without labels.
    """

    hits: dict[int, Floats]
    reciprocal_rank: Floats
    average_precision: Floats
    rank: Floats
    ndcg: Floats | None = None

    def named(self) -> dict[str, Floats]:
        """The figures by their common names."""
        out = {f"R@{k}": found for k, found in self.hits.items()}
        out |= {"MRR": self.reciprocal_rank, "mAP": self.average_precision, "median rank": self.rank}
        return out if self.ndcg is None else out | {f"nDCG@{DEPTH}": self.ndcg}


def judge(
    scores: npt.NDArray[np.floating], relevant: Bools, ks: tuple[int, ...], grades: Floats | None = None
) -> QueryFigures:
    """Compute the figures of each query.

    `scores`, `relevant` and `grades` (0 or more) are [queries, gallery]; a higher score is better. Every query needs a
    relevant item. Raises ValueError for different shapes, scores that are not finite, or a k below 1.
    """
    _check(scores, relevant, ks)
    rounded = np.round(scores.astype(np.float64), DECIMALS)
    queries, gallery = rounded.shape
    order = np.argsort(-rounded, axis=1, kind="stable")
    ranked = np.take_along_axis(rounded, order, axis=1)
    found = np.take_along_axis(relevant, order, axis=1).astype(np.float64)

    # Blocks of equal scores, over all queries in one row; a block never reaches into the next query.
    fresh = np.ones((queries, gallery), bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    starts = np.flatnonzero(fresh)
    size = np.diff(np.r_[starts, queries * gallery])
    inside = np.add.reduceat(found.ravel(), starts)  # relevant items of the block
    before = starts % gallery  # items ranked above the block
    query = starts // gallery
    cumulated = np.cumsum(inside) - inside
    above = cumulated - cumulated[np.flatnonzero(before == 0)][query]  # relevant items ranked above the block

    holds = np.flatnonzero(inside > 0)
    _, at = np.unique(query[holds], return_index=True)
    first = holds[at]  # each query's first block with a relevant item
    a, t, r = before[first], size[first], inside[first].astype(np.int64)
    return QueryFigures(
        hits={k: 1 - _none_drawn(t, r, np.clip(k - a, 0, t)) for k in ks},
        reciprocal_rank=_reciprocal_rank(a, t, r),
        average_precision=_average_precision(found, size, inside, before, above),
        rank=a + (t + 1) / (r + 1),
        ndcg=None if grades is None else _ndcg(np.take_along_axis(grades, order, axis=1), starts, size),
    )


def chance_median(gallery: int, relevant: Ints) -> float:
    """The median rank of a random ranking. `relevant` [Q] has the number of relevant items of each query.

    It is the smallest rank within which at least half of all (query, ranking) pairs have a relevant item.
    """
    whole = np.full(len(relevant), gallery)
    low, high = 1, gallery
    while low < high:
        middle = (low + high) // 2
        if 1 - _none_drawn(whole, relevant, np.full_like(whole, middle)).mean() >= 0.5:
            high = middle
        else:
            low = middle + 1
    return float(low)


def _none_drawn(size: Ints, relevant: Ints, drawn: Ints) -> Floats:
    """C(size - relevant, drawn) / C(size, drawn): the probability that no relevant item is drawn."""
    table = np.r_[0.0, np.cumsum(np.log(np.arange(1, int(size.max(initial=1)) + 1)))]  # ln n!
    rest = size - relevant
    possible = rest >= drawn
    left = np.where(possible, rest - drawn, 0)
    share = np.exp(table[rest] - table[left] - table[size] + table[size - drawn])
    miss: Floats = np.where(possible, share, 0.0)
    return np.where(drawn == 0, 1.0, miss)


def _reciprocal_rank(before: Ints, size: Ints, relevant: Ints) -> Floats:
    out: Floats = 1 / (before + 1.0)
    for i in np.flatnonzero(relevant < size):
        a, t, r = int(before[i]), int(size[i]), int(relevant[i])
        # The first of r relevant items among t lies at place j with probability C(t - j, r - 1) / C(t, r): recursively.
        places = np.arange(1, t - r + 2)
        ratio = np.r_[1.0, (t - places[:-1] - r + 1) / (t - places[:-1])]
        chance_of = r / t * np.cumprod(ratio)
        out[i] = float((chance_of / (a + places)).sum())
    return out


def _average_precision(found: Floats, size: Ints, inside: Floats, before: Ints, above: Floats) -> Floats:
    """For each place: the probability of a relevant item, times the expected precision if the item is relevant."""
    shape = found.shape
    place = np.tile(np.arange(1, shape[1] + 1), shape[0])
    within = place - np.repeat(before, size) - 1  # items of the same block ahead of the place
    share = np.repeat(inside / size, size)
    among_others = np.repeat((inside - 1) / np.maximum(size - 1, 1), size)
    precision = (np.repeat(above, size) + 1 + within * among_others) / place
    total: Floats = (share * precision).reshape(shape).sum(axis=1) / found.sum(axis=1)
    return total


def _ndcg(ranked: Floats, starts: Ints, size: Ints) -> Floats:
    """nDCG (Jarvelin and Kekalainen 2002) with linear gains and the discount log2(rank + 1). Tied items share their
    mean gain."""
    if (ranked < 0).any():
        raise ValueError("a grade is below 0")
    shared = np.repeat(np.add.reduceat(ranked.ravel(), starts) / size, size).reshape(ranked.shape)
    depth = min(DEPTH, ranked.shape[1])
    discount = 1 / np.log2(np.arange(2, depth + 2))
    best = -np.partition(-ranked, depth - 1, axis=1)[:, :depth]
    ideal = np.sort(best, axis=1)[:, ::-1] @ discount
    with np.errstate(invalid="ignore"):
        value: Floats = np.where(ideal > 0, shared[:, :depth] @ discount / ideal, np.nan)
    return value


def _check(scores: npt.NDArray[np.floating], relevant: Bools, ks: tuple[int, ...]) -> None:
    if scores.shape != relevant.shape or scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores are {scores.shape}, relevant {relevant.shape}, expected the same [queries, gallery]")
    if min(ks) < 1:
        raise ValueError(f"k is {min(ks)}, expected at least 1")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
    if not relevant.any(axis=1).all():
        raise ValueError(f"{int((~relevant.any(axis=1)).sum())} queries have no relevant item in the gallery")
