"""A ranking in which the frames whose header contradicts the words of the query fall behind.

This is a prior and not a filter: such a frame loses PENALTY standard deviations of the store's scores. A frame that
fits much better than all others is still found, whatever its header says. A frame whose header is silent loses nothing.
The frames that agree and the frames that contradict are ranked apart, each group exactly, and merged.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrieval.search.ranking import Ranked, Ranking, best_first

PENALTY = 4.0  # standard deviations of the store's scores
HEADER = "header"


class PreferringRanking:
    """The frames of `agreeing` by their scores, and those of `rest` by theirs less `penalty`."""

    depth = None

    def __init__(self, agreeing: Ranking, rest: Ranking, penalty: float) -> None:
        self.agreeing = agreeing
        self.rest = rest
        self.penalty = penalty
        self.additive = agreeing.additive
        self.scale = f"{agreeing.scale}, less {penalty:.2g} where the header contradicts the words"

    def top(self, n: int) -> Ranked:
        behind = [(i, score - self.penalty) for i, score in self.rest.top(n)]
        return best_first(dict(self.agreeing.top(n) + behind))[:n]

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        behind = {i: score - self.penalty for i, score in self.rest.scores(ids).items()}
        return self.agreeing.scores(ids) | behind

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        behind = {i: {**parts, HEADER: -self.penalty} for i, parts in self.rest.breakdown(ids).items()}
        return self.agreeing.breakdown(ids) | behind
