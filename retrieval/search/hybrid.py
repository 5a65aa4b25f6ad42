"""Rankings by reports: the BM25 ranking of the studies' reports, alone or fused with the dense ranking of the images.

HYBRID adds up two kinds of evidence. Each is measured against what is usual in this store:

    score = image + report    for a frame whose study has a report
    score = image             for a frame whose study has no report

- `image` is the dense score: how many standard deviations it lies above the mean of the store's frames. The mean and
  the standard deviation come from a sample of the frames, the same for every query.
- `report` is 0.3 times the report's BM25 score, in standard deviations above the mean of the store's reports, plus 8
  times its coverage: the BM25 score as a share of the most that a report with all words of the query could reach. A
  word that no report has counts as the rarest. The first term tells a good match among many reports, the second term
  tells it in a store with few reports.

So a missing report counts neither for nor against a study, and neither the number of answers nor the page changes a
score. The two factors were chosen with `benchmarks/answers.py`. Both lists are read until no lower frame can enter the
result, so the ranking is exact.

With the fusion RRF, the reports are one more ranked list. A study without a report gets the rank of its image there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.search.bm25 import ReportIndex
from retrieval.search.query import RRF_CONSTANT, Query, TextPart
from retrieval.search.ranking import Ranked, Ranking, ReciprocalRanks, best_first
from retrieval.types import Lineage, RowFilter

REPORT = "report"
SPREAD_FACTOR = 0.3  # of a report's BM25 in standard deviations
COVERAGE_FACTOR = 8.0  # of the part of the query's information that a report has
SAMPLE = 1000  # frames that say what is a usual score
_FIRST_STUDIES = 64  # whose frames are fetched in the first step


class FrameFinder(Protocol):
    """The part of a catalog that these rankings need."""

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]: ...
    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]: ...


def evidence_line(totals: npt.NDArray[np.floating], information: float) -> tuple[float, float]:
    """The evidence of a report by its BM25: slope * BM25 - offset. `totals` [n] are those of all reports of the store,
    `information` is what a report of all the query's words could score at most.
    """
    slope = COVERAGE_FACTOR / information if information else 0.0
    spread = float(totals.std(dtype=np.float64)) if len(totals) and totals.max() > totals.min() else 0.0
    if not spread:
        return slope, 0.0
    return slope + SPREAD_FACTOR / spread, SPREAD_FACTOR * float(totals.mean(dtype=np.float64)) / spread


class ReportScores:
    """BM25 scores of the studies' reports for a query: the weighted sum over its texts. Negative texts are
    subtracted."""

    def __init__(self, query: Query, reports: ReportIndex) -> None:
        self.studies = reports.studies  # [n] ascending
        self.parts = {
            name: part.weight * reports.scores(part.text)
            for name, part in zip(query.names, query.parts, strict=True)
            if isinstance(part, TextPart) and part.in_reports
        }
        self.total: npt.NDArray[np.float32] = sum(self.parts.values(), np.zeros(len(reports), np.float32))
        information = sum(
            part.weight * reports.information(part.text) for part in query.texts if part.in_reports and part.weight > 0
        )
        self._slope, self._offset = evidence_line(self.total, information)
        self.coverage = float(self.total.max(initial=0.0)) / information if information else 0.0  # of the best report
        matching = np.flatnonzero(self.total > 0)
        self.order = matching[np.argsort(-self.total[matching], kind="stable")]  # rows of matching studies, best first

    def __bool__(self) -> bool:
        return len(self.order) > 0

    def row(self, study: str) -> int | None:
        """The row of a study; None if the study has no report."""
        row = int(np.searchsorted(self.studies, study))
        return row if row < len(self.studies) and self.studies[row] == study else None

    def evidence(self, row: int) -> float:
        """What a report adds to the score of its study's frames; a report that matches nothing takes a little away."""
        return self._slope * float(self.total[row]) - self._offset


class TextRanking:
    """Frames by the BM25 score of their study's report. Frames of studies that do not match are not ranked."""

    scale = "BM25 of the study's report"
    additive = True
    depth = None

    def __init__(self, report_scores: ReportScores, catalog: FrameFinder, allowed: RowFilter | None) -> None:
        self.report_scores = report_scores
        self.catalog = catalog
        self.frames = _StudyFrames(report_scores, catalog, allowed)

    def top(self, n: int) -> Ranked:
        while True:
            best = best_first({i: float(self.report_scores.total[row]) for i, row in self.frames.row_of.items()})[:n]
            row = self.frames.next_row
            if row is None or (
                len(best) == n and self.report_scores.total[row] < best[-1][1]
            ):  # equal scores are ordered by frame
                return best
            self.frames.fetch()

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        return {i: float(self.report_scores.total[row]) for i, row in self._rows(ids).items()}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        parts = self.report_scores.parts.items()
        return {i: {name: float(scores[row]) for name, scores in parts} for i, row in self._rows(ids).items()}

    def _rows(self, ids: Sequence[int]) -> dict[int, int]:
        rows = {i: self.report_scores.row(lineage.study) for i, lineage in self.catalog.lineage(ids).items()}
        return {i: row for i, row in rows.items() if row is not None and self.report_scores.total[row] > 0}


@dataclass(frozen=True)
class UsualScores:
    """Mean and standard deviation of a dense ranking's scores over the store; the means of its parts if they add up."""

    mean: float
    spread: float
    parts: Mapping[str, float]

    @classmethod
    def of(cls, dense: Ranking, ids: npt.NDArray[np.int64]) -> UsualScores:
        """By the scores of a sample of frames. The spread is 1 if all frames score the same."""
        rows = list(dense.breakdown(ids.tolist()).values()) if dense.additive else []
        scores = [sum(row.values()) for row in rows] if dense.additive else list(dense.scores(ids.tolist()).values())
        if not scores:
            return cls(0.0, 1.0, {})
        parts = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}
        return cls(float(np.mean(scores)), float(np.std(scores)) or 1.0, parts)


class HybridRanking:
    """Frames by the fusion that the module describes. At least one report must match (`report_scores`)."""

    scale = (
        "how far the image lies above the store's average, in standard deviations, "
        "plus the evidence of the report where there is one"
    )
    additive = True
    depth = None

    def __init__(
        self,
        dense: Ranking,
        report_scores: ReportScores,
        catalog: FrameFinder,
        allowed: RowFilter | None,
        usual: UsualScores,
    ) -> None:
        self.dense = dense
        self.report_scores = report_scores
        self.catalog = catalog
        self.frames = _StudyFrames(report_scores, catalog, allowed)
        self.usual = usual
        self._rows: dict[int, int | None] = {}

    def top(self, n: int) -> Ranked:
        limit = max(2 * n, 64)
        while True:
            ranked = self.dense.top(limit)
            self.frames.fetch()
            best = best_first(self.scores([*(i for i, _ in ranked), *self.frames.row_of]))[:n]
            if len(ranked) < limit:  # the list has every frame
                return best
            floor = self._scaled(ranked[-1][1])
            report = self.report_scores.evidence(self.frames.next_row) if self.frames.next_row is not None else 0.0
            if len(best) == n and best[-1][1] > floor + max(report, 0.0):
                return best
            limit *= 4

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        dense = self.dense.scores(ids)
        rows = self._rows_of(dense)
        return {i: self._fused(score, rows[i]) for i, score in dense.items() if i in rows}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """The report's part, and the parts of the picture's: each measured from its mean."""
        dense = self.dense.scores(ids)
        rows = self._rows_of(dense)
        means = self.usual.parts
        parts = self.dense.breakdown(list(dense)) if means else {}
        out: dict[int, dict[str, float]] = {}
        for i, row in rows.items():
            if means:
                out[i] = {name: (value - means[name]) / self.usual.spread for name, value in parts[i].items()}
            else:
                out[i] = {"dense": self._scaled(dense[i])}
            if row is not None:
                out[i][REPORT] = self.report_scores.evidence(row)
        return out

    def _scaled(self, score: float) -> float:
        return (score - self.usual.mean) / self.usual.spread

    def _fused(self, dense: float, row: int | None) -> float:
        scaled = self._scaled(dense)
        return scaled if row is None else scaled + self.report_scores.evidence(row)

    def _rows_of(self, ids: Iterable[int]) -> dict[int, int | None]:
        """The row of each frame's study; None for a study without a report. Deleted frames are missing."""
        wanted = list(ids)
        self._rows.update(self.frames.row_of)
        unknown = [i for i in wanted if i not in self._rows]
        for i, lineage in self.catalog.lineage(unknown).items():
            self._rows[i] = self.report_scores.row(lineage.study)
        return {i: self._rows[i] for i in wanted if i in self._rows}


def with_reports(
    dense: ReciprocalRanks, report_scores: ReportScores, catalog: FrameFinder, allowed: RowFilter | None
) -> ReciprocalRanks:
    """Reciprocal ranks with the reports as one more list of weight 1. See the module."""
    gains = {i: dict(parts) for i, parts in dense.gains.items()}
    frames = _StudyFrames(report_scores, catalog, allowed)
    ranks = {int(row): rank for rank, row in enumerate(report_scores.order[: dense.depth], 1)}
    while frames.fetch() and len(frames.row_of) < dense.depth:
        pass
    for i, row in frames.row_of.items():
        if row in ranks:
            gains.setdefault(i, {})[REPORT] = 1 / (RRF_CONSTANT + ranks[row])
    for i, lineage in catalog.lineage(dense.gains).items():
        if report_scores.row(lineage.study) is None:
            gains[i][REPORT] = sum(dense.gains[i].values()) / dense.positive
    return ReciprocalRanks((*dense.names, REPORT), gains, dense.positive + 1, dense.depth)


class _StudyFrames:
    """The frames of the studies whose reports match, best first, fetched from the catalog in steps."""

    def __init__(self, report_scores: ReportScores, catalog: FrameFinder, allowed: RowFilter | None) -> None:
        self.row_of: dict[int, int] = {}
        self._report_scores = report_scores
        self._catalog = catalog
        self._allowed = allowed
        self._next = 0
        self._step = _FIRST_STUDIES

    @property
    def next_row(self) -> int | None:
        """The row of the best study whose frames are not fetched yet."""
        return int(self._report_scores.order[self._next]) if self._next < len(self._report_scores.order) else None

    def fetch(self) -> bool:
        """Fetch the frames of the next studies. Returns False if there are none left."""
        rows = self._report_scores.order[self._next : self._next + self._step]
        self._next += len(rows)
        self._step *= 2
        by_study = {str(self._report_scores.studies[row]): int(row) for row in rows}
        new = {
            i: by_study[study]
            for study, frames in self._catalog.frames_of("study_instance_uid", by_study).items()
            for i in frames
        }
        if self._allowed is not None and new:
            new = {i: new[i] for i in self._allowed.passing(np.fromiter(new, np.int64)).tolist()}
        self.row_of.update(new)
        return bool(len(rows))
