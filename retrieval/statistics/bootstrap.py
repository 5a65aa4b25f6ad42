"""Figures with a confidence interval and the value that guessing gives.

Intervals are percentile bootstraps over groups (patients), never over images, because the images of one patient are not
independent. A resample is a weight for each group: how often the group was drawn. Every statistic is therefore computed
from weights. Two models that are evaluated on the same rows get the same draws, so their difference is paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.statistics.measures import Floats, Ints, Statistic, mean_of

BATCH_CELLS = 4_000_000  # weights in memory at a time, 32 MB
LEAST_DEFINED = 0.5  # an interval needs a statistic that is defined for at least this share of the resamples


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the value that guessing gives, all in the unit of the figure (shares: 0 to
    1).

    `low` and `high` are NaN if too few resamples have a value; `chance` is NaN if guessing has no value.
    """

    value: float
    low: float
    high: float
    chance: float

    def __str__(self) -> str:
        return (
            f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}; chance {100 * self.chance:.1f})"
        )


@dataclass(frozen=True)
class Spread:
    """The least, mean and greatest value of a figure that was measured several times."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), float(np.mean(values)), max(values))


class Resamples:
    """Bootstrap draws of whole groups with replacement. Every call gives the same draws."""

    def __init__(self, groups: Sequence[str], *, count: int = 2000, seed: int = 0) -> None:
        if not len(groups):
            raise ValueError("there are no groups to resample, expected at least one")
        if count < 1:
            raise ValueError(f"the number of resamples is {count}, expected at least 1")
        _, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.group_of: Ints = inverse.astype(np.int64)
        self.groups = int(inverse.max()) + 1
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return len(self.group_of)

    def weights(self) -> Iterator[Floats]:
        """Batches [b, N] that say how often each item's group was drawn."""
        rng = np.random.default_rng(self.seed)
        size = max(1, BATCH_CELLS // max(self.groups, len(self)))
        for start in range(0, self.count, size):
            drawn = np.empty((min(size, self.count - start), self.groups))
            for row in drawn:
                row[:] = np.bincount(rng.integers(0, self.groups, self.groups), minlength=self.groups)
            yield drawn[:, self.group_of]

    def values(self, statistics: Mapping[str, Statistic]) -> dict[str, Floats]:
        """The values of each statistic over all resamples, [count], from the same draws."""
        parts: dict[str, list[Floats]] = {name: [] for name in statistics}
        for weights in self.weights():
            for name, statistic in statistics.items():
                parts[name].append(statistic(weights))
        return {name: np.concatenate(found) for name, found in parts.items()}


@dataclass(frozen=True)
class Judgement:
    """The statistics of one model on a set of items, before resampling.

    Both mappings are by the name of the figure: its statistic, and the value that guessing gives. `groups` has the
    group (patient) of each item.
    """

    groups: Sequence[str]
    statistics: Mapping[str, Statistic]
    chance: Mapping[str, float]

    def point(self, name: str) -> float:
        """The figure without its interval."""
        return float(self.statistics[name](np.ones((1, len(self.groups))))[0])

    def estimates(self, *, resamples: int = 2000, seed: int = 0) -> dict[str, Estimate]:
        values = Resamples(self.groups, count=resamples, seed=seed).values(self.statistics)
        return {name: Estimate(self.point(name), *interval(v), self.chance[name]) for name, v in values.items()}


@dataclass(frozen=True)
class Difference:
    """The second model's figure minus the first model's, with the 95 % interval of the paired difference."""

    first: float
    second: float
    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def differences(first: Judgement, second: Judgement, *, resamples: int = 2000, seed: int = 0) -> dict[str, Difference]:
    """The paired differences of two models on the same items. A figure that only one model has is left out."""
    if list(first.groups) != list(second.groups):
        raise ValueError("the two models were evaluated on different items")

    def difference(name: str) -> Statistic:
        return lambda weights: second.statistics[name](weights) - first.statistics[name](weights)

    paired = {name: difference(name) for name in first.statistics if name in second.statistics}
    values = Resamples(first.groups, count=resamples, seed=seed).values(paired)
    out = {}
    for name, found in values.items():
        a, b = first.point(name), second.point(name)
        out[name] = Difference(a, b, b - a, *interval(found))
    return out


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of the defined values; NaN if fewer than half are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) < LEAST_DEFINED * len(values) or not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def estimate(
    per_item: Floats, groups: Sequence[str], chance: float, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of per-item values with its interval. `groups` has the group of each item."""
    if len(groups) != len(per_item) or not len(per_item):
        raise ValueError(f"{len(per_item)} items and {len(groups)} groups, expected the same number, at least one")
    judged = Judgement(groups, {"mean": mean_of(per_item)}, {"mean": chance})
    return judged.estimates(resamples=resamples, seed=seed)["mean"]
