"""Rankings by reports: the BM25 ranking of the studies' reports, alone or fused with the dense ranking of the images.

HYBRID is a convex combination (Bruch, Gai and Ingber 2023, "An analysis of fusion functions for hybrid retrieval"):

    score = (1 - SHARE) * dense + SHARE * report        for a frame whose study has a report
    score = dense                                       for a frame whose study has none

where `dense` is 1 for the best frame and 0 for the frame at rank `depth` (the worst frame, in a smaller store), and
`report` is the study's BM25 score divided by the best report's. A missing report counts neither for nor against a
study: the image's score takes its place. Both lists are read until no lower frame can enter the result, so the ranking
is exact.

With the fusion RRF, the reports are one more ranked list. A study without a report gets the rank of its image there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.search.bm25 import ReportIndex
from retrieval.search.query import RRF_CONSTANT, Query, TextPart
from retrieval.search.ranking import Ranked, Ranking, ReciprocalRanks, best_first
from retrieval.types import Lineage, RowFilter

SHARE = 0.5
REPORT = "report"
_FIRST_STUDIES = 64  # whose frames are fetched in the first step


class FrameFinder(Protocol):
    """The part of a catalog that these rankings need."""

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]: ...
    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]: ...


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
        matching = np.flatnonzero(self.total > 0)
        self.order = matching[np.argsort(-self.total[matching], kind="stable")]  # rows of matching studies, best first

    def __bool__(self) -> bool:
        return len(self.order) > 0

    def row(self, study: str) -> int | None:
        """The row of a study; None if the study has no report."""
        row = int(np.searchsorted(self.studies, study))
        return row if row < len(self.studies) and self.studies[row] == study else None

    def share(self, row: int) -> float:
        """A report's score divided by the best report's: 0 to 1."""
        return max(float(self.total[row]) / float(self.total[self.order[0]]), 0.0)


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


class HybridRanking:
    """Frames by the fusion that the module describes. At least one report must match (`report_scores`)."""

    scale = "mean of the image's and the report's score, each from 0 to 1; the image's score where there is no report"
    additive = True
    depth = None

    def __init__(
        self, dense: Ranking, report_scores: ReportScores, catalog: FrameFinder, allowed: RowFilter | None, depth: int
    ) -> None:
        self.dense = dense
        self.report_scores = report_scores
        self.catalog = catalog
        self.frames = _StudyFrames(report_scores, catalog, allowed)
        self._rows: dict[int, int | None] = {}
        first = dense.top(depth)
        self._high, self._low = (first[0][1], first[-1][1]) if first else (0.0, 0.0)
        self._reference = first[-1:]

    def top(self, n: int) -> Ranked:
        limit = max(2 * n, 64)
        while True:
            ranked = self.dense.top(limit)
            self.frames.fetch()
            best = best_first(self.scores([*(i for i, _ in ranked), *self.frames.row_of]))[:n]
            if len(ranked) < limit:  # the list has every frame
                return best
            floor = self._scaled(ranked[-1][1])
            report = self.report_scores.share(self.frames.next_row) if self.frames.next_row is not None else 0.0
            if len(best) == n and best[-1][1] > max(floor, (1 - SHARE) * floor + SHARE * report):
                return best
            limit *= 4

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        dense = self.dense.scores(ids)
        rows = self._rows_of(dense)
        return {i: self._fused(score, rows[i]) for i, score in dense.items() if i in rows}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """The report's part, and the parts of the dense score relative to those of the frame at rank `depth`."""
        dense = self.dense.scores(ids)
        rows = self._rows_of(dense)
        spread = self._high - self._low
        split = self.dense.additive and spread > 0
        parts = self.dense.breakdown([*dense, *(i for i, _ in self._reference)]) if split else {}
        out: dict[int, dict[str, float]] = {}
        for i, row in rows.items():
            share = 1.0 if row is None else 1 - SHARE
            if split:
                base = parts[self._reference[0][0]]
                out[i] = {name: share * (value - base[name]) / spread for name, value in parts[i].items()}
            else:
                out[i] = {"dense": share * self._scaled(dense[i])}
            if row is not None:
                out[i][REPORT] = SHARE * self.report_scores.share(row)
        return out

    def _scaled(self, score: float) -> float:
        spread = self._high - self._low
        return (score - self._low) / spread if spread > 0 else 1.0

    def _fused(self, dense: float, row: int | None) -> float:
        scaled = self._scaled(dense)
        return scaled if row is None else (1 - SHARE) * scaled + SHARE * self.report_scores.share(row)

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
