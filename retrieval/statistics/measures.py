"""Statistics of weighted items, which `bootstrap` estimates and resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]
"""Maps the weights of the items [B, N] to values [B]; NaN where the statistic is not defined for a resample."""


def mean_of(values: Floats) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        mean: Floats = weights @ values / weights.sum(axis=1)
        return mean

    return statistic


def median_of(values: Floats) -> Statistic:
    """The median: the middle value, or the mean of the two middle values."""
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
    """The area under the ROC curve: the probability that a positive item scores above a negative one; ties count
    half."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])  # where each block of equal scores starts
    is_positive = positive[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * is_positive, starts, axis=1)
        negatives = np.add.reduceat(ordered * (1 - is_positive), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        won = (positives * (below + negatives / 2)).sum(axis=1)
        with np.errstate(invalid="ignore"):  # NaN: not defined without a positive and a negative item
            area: Floats = won / (positives.sum(axis=1) * negatives.sum(axis=1))
        return area

    return statistic


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics (a macro average). Statistics that are not defined in a resample are left out."""

    def statistic(weights: Floats) -> Floats:
        values = np.stack([one(weights) for one in statistics])
        defined = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
        return mean

    return statistic


def balanced_accuracy_of(right: Bools, truth: Ints) -> Statistic:
    """Balanced accuracy: the share of right answers per class, averaged over the classes that occur."""
    return mean_statistic([mean_where(right.astype(np.float64), truth == label) for label in np.unique(truth)])


def mean_where(values: Floats, chosen: Bools) -> Statistic:
    """The mean of the values of the chosen items."""

    def statistic(weights: Floats) -> Floats:
        mine = weights[:, chosen]
        with np.errstate(invalid="ignore"):
            mean: Floats = mine @ values[chosen] / mine.sum(axis=1)
        return mean

    return statistic
