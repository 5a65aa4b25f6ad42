"""Statistics of weighted items: what is estimated, and resampled by `bootstrap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]
"""Weights of the items [B, N] to values [B]; NaN where the statistic is not defined for a resample."""


def mean_of(values: Floats) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        mean: Floats = weights @ values / weights.sum(axis=1)
        return mean

    return statistic


def median_of(values: Floats) -> Statistic:
    """The middle value; between two middle ones, half way."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]

    def statistic(weights: Floats) -> Floats:
        reached = np.cumsum(weights[:, order], axis=1)
        half = reached[:, -1:] / 2
        first, after = (reached >= half).argmax(axis=1), (reached > half).argmax(axis=1)
        middle: Floats = (ascending[first] + ascending[after]) / 2
        return middle

    return statistic


def auroc_of(scores: Floats, positive: Bools) -> Statistic:
    """Area under the ROC curve: the chance that a positive scores above a negative, equal scores counting half."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])  # of the blocks of equal scores
    is_positive = positive[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * is_positive, starts, axis=1)
        negatives = np.add.reduceat(ordered * (1 - is_positive), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        won = (positives * (below + negatives / 2)).sum(axis=1)
        with np.errstate(invalid="ignore"):  # without a positive or a negative it is not defined: NaN
            area: Floats = won / (positives.sum(axis=1) * negatives.sum(axis=1))
        return area

    return statistic


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics (a macro average), of those that are defined in a resample."""

    def statistic(weights: Floats) -> Floats:
        values = np.stack([one(weights) for one in statistics])
        defined = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
        return mean

    return statistic


def balanced_accuracy_of(right: Bools, truth: Ints) -> Statistic:
    """Balanced accuracy: the mean over the classes that occur of their share of right answers."""
    return mean_statistic([mean_where(right.astype(np.float64), truth == label) for label in np.unique(truth)])


def mean_where(values: Floats, chosen: Bools) -> Statistic:
    """The mean of the chosen items' values."""

    def statistic(weights: Floats) -> Floats:
        mine = weights[:, chosen]
        with np.errstate(invalid="ignore"):
            mean: Floats = mine @ values[chosen] / mine.sum(axis=1)
        return mean

    return statistic
