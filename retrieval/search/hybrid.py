"""Reports as a partner of the pictures: the BM25 ranking of the studies' reports, alone or fused with the dense one.

HYBRID is a convex combination (Bruch, Gai and Ingber 2023, "An analysis of fusion functions for hybrid retrieval"):

    score = (1 - SHARE) * dense + SHARE * report        for a frame whose study has a report
    score = dense                                       for a frame whose study has none

where `dense` is 1 for the best frame and 0 for the one at rank `depth` (the worst, in a smaller store), and `report` is
the study's BM25 as a share of the best report's. So a missing report counts neither for nor against a study: the
picture's score stands in for it. Both lists are read on until no frame below can come in between: the ranking is exact.

With the fusion RRF the reports are one more ranked list, and a missing report's rank is that of the picture.
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
    """What is asked of the catalog."""

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]: ...
    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]: ...


class ReportScores:
    """BM25 of the studies' reports for a query: the weighted sum over its texts, negative ones subtracted."""

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
        """Where a study stands; None if it has no report."""
        row = int(np.searchsorted(self.studies, study))
        return row if row < len(self.studies) and self.studies[row] == study else None

    def share(self, row: int) -> float:
        """A report's score as a share of the best one's, 0 to 1."""
        return max(float(self.total[row]) / float(self.total[self.order[0]]), 0.0)


class TextRanking:
    """Frames by the BM25 of their study's reports; those of studies that match nothing are not ranked."""

    scale = "BM25 of the study's report"
    additive = True
    depth = None

    def __init__(self, found: ReportScores, catalog: FrameFinder, allowed: RowFilter | None) -> None:
        self.found = found
        self.catalog = catalog
        self.frames = _StudyFrames(found, catalog, allowed)

    def top(self, n: int) -> Ranked:
        while True:
            best = best_first({i: float(self.found.total[row]) for i, row in self.frames.row_of.items()})[:n]
            row = self.frames.next_row
            if row is None or (len(best) == n and self.found.total[row] < best[-1][1]):  # equal ones go by the frame
                return best
            self.frames.fetch()

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        return {i: float(self.found.total[row]) for i, row in self._rows(ids).items()}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        parts = self.found.parts.items()
        return {i: {name: float(scores[row]) for name, scores in parts} for i, row in self._rows(ids).items()}

    def _rows(self, ids: Sequence[int]) -> dict[int, int]:
        rows = {i: self.found.row(lineage.study) for i, lineage in self.catalog.lineage(ids).items()}
        return {i: row for i, row in rows.items() if row is not None and self.found.total[row] > 0}


class HybridRanking:
    """Frames by the fusion that the module describes. `found` matches at least one report."""

    scale = "half the picture's and half the report's score, each from 0 to 1; the picture's where there is no report"
    additive = True
    depth = None

    def __init__(
        self, dense: Ranking, found: ReportScores, catalog: FrameFinder, allowed: RowFilter | None, depth: int
    ) -> None:
        self.dense = dense
        self.found = found
        self.catalog = catalog
        self.frames = _StudyFrames(found, catalog, allowed)
        self._rows: dict[int, int | None] = {}
        first = dense.top(depth)
        self._high, self._low = (first[0][1], first[-1][1]) if first else (0.0, 0.0)
        self._reference = first[-1:]

    def top(self, n: int) -> Ranked:
        asked = max(2 * n, 64)
        while True:
            ranked = self.dense.top(asked)
            self.frames.fetch()
            best = best_first(self.scores([*(i for i, _ in ranked), *self.frames.row_of]))[:n]
            if len(ranked) < asked:  # every frame is among them
                return best
            floor = self._scaled(ranked[-1][1])
            report = self.found.share(self.frames.next_row) if self.frames.next_row is not None else 0.0
            if len(best) == n and best[-1][1] > max(floor, (1 - SHARE) * floor + SHARE * report):
                return best
            asked *= 4

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        dense = self.dense.scores(ids)
        rows = self._rows_of(dense)
        return {i: self._fused(score, rows[i]) for i, score in dense.items() if i in rows}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """The report's part, and the parts of the dense score, measured from those of the frame at rank `depth`."""
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
                out[i][REPORT] = SHARE * self.found.share(row)
        return out

    def _scaled(self, score: float) -> float:
        spread = self._high - self._low
        return (score - self._low) / spread if spread > 0 else 1.0

    def _fused(self, dense: float, row: int | None) -> float:
        scaled = self._scaled(dense)
        return scaled if row is None else (1 - SHARE) * scaled + SHARE * self.found.share(row)

    def _rows_of(self, ids: Iterable[int]) -> dict[int, int | None]:
        """The row of each frame's study, None without a report; frames that are gone are missing."""
        wanted = list(ids)
        self._rows.update(self.frames.row_of)
        unknown = [i for i in wanted if i not in self._rows]
        for i, lineage in self.catalog.lineage(unknown).items():
            self._rows[i] = self.found.row(lineage.study)
        return {i: self._rows[i] for i in wanted if i in self._rows}


def with_reports(
    dense: ReciprocalRanks, found: ReportScores, catalog: FrameFinder, allowed: RowFilter | None
) -> ReciprocalRanks:
    """Reciprocal ranks with the reports as one more list of weight 1; see the module."""
    gains = {i: dict(parts) for i, parts in dense.gains.items()}
    frames = _StudyFrames(found, catalog, allowed)
    ranks = {int(row): rank for rank, row in enumerate(found.order[: dense.depth], 1)}
    while frames.fetch() and len(frames.row_of) < dense.depth:
        pass
    for i, row in frames.row_of.items():
        if row in ranks:
            gains.setdefault(i, {})[REPORT] = 1 / (RRF_CONSTANT + ranks[row])
    for i, lineage in catalog.lineage(dense.gains).items():
        if found.row(lineage.study) is None:
            gains[i][REPORT] = sum(dense.gains[i].values()) / dense.positive
    return ReciprocalRanks((*dense.names, REPORT), gains, dense.positive + 1, dense.depth)


class _StudyFrames:
    """The frames of the studies whose reports match, best first, fetched some studies at a time."""

    def __init__(self, found: ReportScores, catalog: FrameFinder, allowed: RowFilter | None) -> None:
        self.row_of: dict[int, int] = {}
        self._found = found
        self._catalog = catalog
        self._allowed = allowed
        self._next = 0
        self._step = _FIRST_STUDIES

    @property
    def next_row(self) -> int | None:
        """The best study whose frames are not fetched yet."""
        return int(self._found.order[self._next]) if self._next < len(self._found.order) else None

    def fetch(self) -> bool:
        """Fetch the next studies' frames; False if there are none left."""
        rows = self._found.order[self._next : self._next + self._step]
        self._next += len(rows)
        self._step *= 2
        by_study = {str(self._found.studies[row]): int(row) for row in rows}
        new = {
            i: by_study[study]
            for study, frames in self._catalog.frames_of("study_instance_uid", by_study).items()
            for i in frames
        }
        if self._allowed is not None and new:
            new = {i: new[i] for i in self._allowed.passing(np.fromiter(new, np.int64)).tolist()}
        self.row_of.update(new)
        return bool(len(rows))
