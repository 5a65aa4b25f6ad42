"""How good a ranking is, with an interval and with chance beside it.

Retrieval is judged over the whole gallery, never within a batch, and a retrieved item with the same text counts as
right. Intervals resample patients (groups), not images: images of one patient are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolMatrix = npt.NDArray[np.bool_]
FloatMatrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and what guessing would give. All in the unit of the figure (shares: 0 to 1)."""

    value: float
    low: float
    high: float
    chance: float

    def __str__(self) -> str:
        return (
            f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}; chance {100 * self.chance:.1f})"
        )


def recall_at_k(similarity: FloatMatrix, relevant: BoolMatrix, k: int) -> npt.NDArray[np.float64]:
    """Per query 1 if a relevant item is among the first k, else 0. Ties go to the lower column.

    `similarity` and `relevant` are [queries, gallery]; every query needs a relevant item.
    """
    _check(similarity, relevant, k)
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    found: npt.NDArray[np.float64] = np.take_along_axis(relevant, top, axis=1).max(axis=1).astype(np.float64)
    return found


def chance_recall_at_k(relevant: BoolMatrix, k: int) -> float:
    """Expected recall@k of a random ranking: the mean over queries of 1 - C(n - r, k) / C(n, k)."""
    n = relevant.shape[1]
    k = min(k, n)
    miss = np.ones(len(relevant))
    r = relevant.sum(axis=1).astype(np.float64)
    for drawn in range(k):
        miss *= np.clip(n - r - drawn, 0, None) / (n - drawn)
    return float((1 - miss).mean())


def estimate(
    per_item: npt.NDArray[np.float64], groups: Sequence[str], chance: float, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Mean of per-item values with a percentile bootstrap over groups (patients), one group for each item."""
    if len(groups) != len(per_item) or not len(per_item):
        raise ValueError(f"{len(per_item)} items and {len(groups)} groups, expected the same number, at least one")
    low, high = bootstrap(lambda rows: float(per_item[rows].mean()), groups, resamples=resamples, seed=seed)
    return Estimate(float(per_item.mean()), low, high, chance)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float], groups: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of row indices, resampling whole groups with replacement."""
    _, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = [np.flatnonzero(inverse == g) for g in range(inverse.max() + 1)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[g] for g in drawn])))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _check(similarity: FloatMatrix, relevant: BoolMatrix, k: int) -> None:
    if similarity.shape != relevant.shape or similarity.ndim != 2:
        raise ValueError(
            f"similarity is {similarity.shape}, relevant {relevant.shape}, expected the same [queries, gallery]"
        )
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    if not relevant.any(axis=1).all():
        raise ValueError(f"{int((~relevant.any(axis=1)).sum())} queries have no relevant item in the gallery")
