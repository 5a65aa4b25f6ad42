"""Naive judges of retrieval metrics: plain loops, no numpy tricks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def chance_of_one_query(gallery: int, relevant: int, k: int) -> float:
    """The share of all k-element subsets of the gallery that hold one of the first `relevant` items, by counting."""
    subsets = list(itertools.combinations(range(gallery), min(k, gallery)))
    return sum(any(i < relevant for i in subset) for subset in subsets) / len(subsets)


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    exp = [math.exp(value - highest) for value in logits]
    return [value / math.fsum(exp) for value in exp]


def figures_of_one_order(relevant: Sequence[bool], grades: Sequence[float], depth: int = 10) -> dict[str, float]:
    """Figures of one ranking without ties: relevance and grades in ranked order."""
    ranks = [place for place, wanted in enumerate(relevant, 1) if wanted]
    precisions = [sum(r <= rank for r in ranks) / rank for rank in ranks]
    gain = sum(g / math.log2(place + 1) for place, g in enumerate(grades[:depth], 1))
    ideal = sum(g / math.log2(place + 1) for place, g in enumerate(sorted(grades, reverse=True)[:depth], 1))
    return {
        "rank": ranks[0],
        "reciprocal rank": 1 / ranks[0],
        "average precision": sum(precisions) / len(ranks),
        "ndcg": gain / ideal if ideal else math.nan,
    } | {f"hit {k}": float(ranks[0] <= k) for k in range(1, len(relevant) + 2)}


def expected_figures(scores: Sequence[float], relevant: Sequence[bool], grades: Sequence[float]) -> dict[str, float]:
    """The mean over every order that the scores allow: all permutations whose scores do not rise."""
    totals: dict[str, float] = {}
    allowed = 0
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        allowed += 1
        for name, value in figures_of_one_order([relevant[i] for i in order], [grades[i] for i in order]).items():
            totals[name] = totals.get(name, 0) + value
    return {name: value / allowed for name, value in totals.items()}


def resampled_means(values: Sequence[float], groups: Sequence[str], drawn: Sequence[Sequence[int]]) -> list[float]:
    """The mean of the items of the drawn groups (numbered in sorted order), each as often as it was drawn."""
    names = sorted(set(groups))
    out = []
    for numbers in drawn:
        items = [v for n in numbers for v, g in zip(values, groups, strict=True) if g == names[n]]
        out.append(sum(items) / len(items))
    return out
