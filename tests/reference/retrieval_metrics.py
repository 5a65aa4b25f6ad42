"""Naive judges of retrieval metrics: plain loops, no numpy tricks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def recall_at_k(similarity: Sequence[Sequence[float]], relevant: Sequence[Sequence[bool]], k: int) -> list[float]:
    """Per query 1.0 if a relevant item is among the k most similar; equal similarities in the gallery's order."""
    found = []
    for row, wanted in zip(similarity, relevant, strict=True):
        ranked = sorted(range(len(row)), key=lambda i: (-row[i], i))
        found.append(1.0 if any(wanted[i] for i in ranked[:k]) else 0.0)
    return found


def chance_of_one_query(gallery: int, relevant: int, k: int) -> float:
    """The share of all k-element subsets of the gallery that hold one of the first `relevant` items, by counting."""
    subsets = list(itertools.combinations(range(gallery), min(k, gallery)))
    return sum(any(i < relevant for i in subset) for subset in subsets) / len(subsets)


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    exp = [math.exp(value - highest) for value in logits]
    return [value / math.fsum(exp) for value in exp]
