"""The forgetting gate: how much a model that continued on other data has lost on its old data.

The dev rows of each rehearsal source are evaluated before the first step and after the last one. Patients are resampled
with the same draws for both models, so the interval belongs to the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.retrieval import Direction
from retrieval.statistics.bootstrap import Difference, Judgement, differences
from retrieval.statistics.measures import mean_statistic, mean_where

RECALL = "R@10"
_DEPTH = 10


@dataclass(frozen=True)
class Forgetting:
    """R@10 (mean of both directions) of each rehearsal source with dev rows. `most_lost` is in percentage points."""

    most_lost: float
    sources: dict[str, Difference]

    def lost(self, source: str) -> float:
        """The loss in percentage points; negative for a gain."""
        return -100 * self.sources[source].value

    @property
    def forgotten(self) -> list[str]:
        """The sources that lost more than `most_lost`."""
        return [name for name in self.sources if self.lost(name) > self.most_lost + 1e-9]

    def line(self, source: str) -> str:
        found = self.sources[source]
        return (
            f"{source}: {RECALL} of {100 * found.first:.1f} before, {100 * found.second:.1f} after: "
            f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        )


def both_ways(forth: Direction, back: Direction) -> Judgement:
    """The mean of both directions as one figure, resampled by patient."""
    hits = [way.figures.hits[_DEPTH].astype(np.float64) for way in (forth, back)]
    first = np.arange(len(hits[0]) + len(hits[1])) < len(hits[0])
    values = np.concatenate(hits)
    statistic = mean_statistic([mean_where(values, chosen) for chosen in (first, ~first)])
    return Judgement([*forth.judgement.groups, *back.judgement.groups], {RECALL: statistic}, {})


def compared(before: Mapping[str, Judgement], after: Mapping[str, Judgement], most_lost: float) -> Forgetting:
    return Forgetting(most_lost, {name: differences(before[name], after[name])[RECALL] for name in before})


def forgetting_lines(forgetting: Forgetting | None) -> list[str]:
    """For the model card."""
    if forgetting is None:
        return ["No rehearsal source was named: nothing says what the model has forgotten."]
    verdict = (
        f"**More is lost than may be, {forgetting.most_lost} points: {', '.join(forgetting.forgotten)}.**"
        if forgetting.forgotten
        else f"At most {forgetting.most_lost} points may be lost: the gate is passed."
    )
    return [
        f"{RECALL} on the dev rows of the old sets, the mean of both ways, with the 95 % interval of the difference:",
        "",
        *(f"- {forgetting.line(name)}" for name in forgetting.sources),
        "",
        verdict,
    ]
