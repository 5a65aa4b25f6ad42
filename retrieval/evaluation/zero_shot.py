"""Figures of zero-shot labels: accuracy, AUROC and calibration error, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.statistics.bootstrap import Estimate, Judgement, estimate
from retrieval.statistics.measures import (
    Bools,
    Floats,
    Ints,
    Statistic,
    auroc_of,
    balanced_accuracy_of,
    mean_of,
    mean_statistic,
)
from retrieval.statistics.reliability import calibration_error_of, calibration_floor

BINS = 15  # bins of confidence, as in Guo et al. 2017
ACCURACY, BALANCED, AUROC, ECE = "accuracy", "balanced accuracy", "macro AUROC", "ECE"
AMONG_OCCURRING = "accuracy among occurring"


@dataclass(frozen=True)
class LabelFigures:
    """One label against the rest.

    `rows` is the number of rows with the label, `answered` the number of rows with the label as answer. `recall` and
    `precision` are NaN if they are not defined; `auroc` is None if all rows or no rows have the label.
    """

    label: str
    rows: int
    answered: int | None
    recall: float
    precision: float
    auroc: Estimate | None


@dataclass(frozen=True)
class ExclusiveScores:
    """Scores of images with exclusive labels: `scores` [N, labels], each row a distribution, and `truth` [N]."""

    names: tuple[str, ...]
    scores: Floats
    truth: Ints
    groups: tuple[str, ...]

    @classmethod
    def known(
        cls, names: Sequence[str], scores: npt.NDArray[np.floating], labels: Ints, groups: Sequence[str]
    ) -> ExclusiveScores:
        """The rows with a known label. `labels` [N] are indices, or -1 for unknown; unknown rows are left out."""
        if not len(scores) == len(labels) == len(groups) or scores.shape[1] != len(names):
            raise ValueError(
                f"scores are {scores.shape}, with {len(labels)} labels, {len(groups)} groups and {len(names)} names"
            )
        rows = np.flatnonzero(labels >= 0)
        chosen = scores[rows].astype(np.float64)
        if not np.isfinite(chosen).all():
            raise ValueError("scores are not finite")
        return cls(tuple(names), chosen, labels[rows], tuple(groups[int(i)] for i in rows))

    @property
    def answer(self) -> Ints:
        best: Ints = self.scores.argmax(axis=1)
        return best

    @property
    def confidence(self) -> Floats:
        highest: Floats = self.scores.max(axis=1)
        return highest

    @property
    def right(self) -> Bools:
        found: Bools = self.answer == self.truth
        return found

    @property
    def occurring(self) -> Ints:
        return np.unique(self.truth)


def judge_exclusive(labelled: ExclusiveScores) -> Judgement:
    """The statistics and chance levels of exclusive labels. All labels of the set are possible answers.

    The chance level of ECE is the ECE of a perfectly calibrated model with the same confidences on as few rows. A lower
    ECE can't be distinguished from a perfect one.
    """
    offered = len(labelled.names)
    chance = {
        ACCURACY: 1 / offered,
        BALANCED: 1 / offered,
        AMONG_OCCURRING: 1 / len(labelled.occurring),
        AUROC: 0.5,
        ECE: calibration_floor(labelled.confidence, BINS),
    }
    return Judgement(labelled.groups, exclusive_statistics(labelled), chance)


def exclusive_statistics(labelled: ExclusiveScores) -> dict[str, Statistic]:
    occurring = labelled.occurring
    if len(occurring) < 2:
        raise ValueError(f"the rows have {len(occurring)} different labels, expected at least 2")
    among = occurring[labelled.scores[:, occurring].argmax(axis=1)] == labelled.truth
    statistics = {
        ACCURACY: mean_of(labelled.right.astype(np.float64)),
        BALANCED: balanced_accuracy_of(labelled.right, labelled.truth),
        AMONG_OCCURRING: mean_of(among.astype(np.float64)),
        AUROC: mean_statistic([auroc_of(labelled.scores[:, i], labelled.truth == i) for i in occurring]),
        ECE: calibration_error_of(labelled.confidence, labelled.right, BINS),
    }
    if len(occurring) == len(labelled.names):
        del statistics[AMONG_OCCURRING]  # the same as the accuracy
    return statistics


@dataclass(frozen=True)
class FindingScores:
    """Scores of independent findings: `scores` [N, labels] 0 to 1, and `truth` [N, labels] flags."""

    names: tuple[str, ...]
    scores: Floats
    truth: Bools
    groups: tuple[str, ...]

    @property
    def judged(self) -> list[int]:
        """The indices of the findings that have scores and are both present and absent in the rows."""
        present = self.truth.sum(axis=0)
        scored = np.isfinite(self.scores)  # a finding that could not be calibrated has no scores
        return [i for i in range(len(self.names)) if 0 < present[i] < len(self.truth) and scored[:, i].all()]


def judge_findings(findings: FindingScores) -> Judgement:
    """The mean over the findings that can be evaluated. There is no accuracy, because 0.5 is not a threshold."""
    floor = float(np.mean([calibration_floor(findings.scores[:, i], BINS) for i in findings.judged]))
    return Judgement(findings.groups, findings_statistics(findings), {AUROC: 0.5, ECE: floor})


def findings_statistics(findings: FindingScores) -> dict[str, Statistic]:
    """The macro AUROC, and the ECE of the scores against the presence of the findings."""
    if not findings.judged:
        raise ValueError("no finding is both present and absent in the rows")
    scores, truth = findings.scores, findings.truth
    return {
        AUROC: mean_statistic([auroc_of(scores[:, i], truth[:, i]) for i in findings.judged]),
        ECE: mean_statistic([calibration_error_of(scores[:, i], truth[:, i], BINS) for i in findings.judged]),
    }


def finding_figures(findings: FindingScores, *, resamples: int = 2000) -> list[LabelFigures]:
    """The AUROC of each finding. Recall and precision would need a threshold, so they are NaN."""
    areas = Judgement(
        findings.groups,
        {str(i): auroc_of(findings.scores[:, i], findings.truth[:, i]) for i in findings.judged},
        {str(i): 0.5 for i in findings.judged},
    ).estimates(resamples=resamples)
    nan = float("nan")
    return [
        LabelFigures(name, int(findings.truth[:, i].sum()), None, nan, nan, areas.get(str(i)))
        for i, name in enumerate(findings.names)
    ]


def label_figures(labelled: ExclusiveScores, *, resamples: int = 2000) -> list[LabelFigures]:
    occurs = [i for i in range(len(labelled.names)) if 0 < int((labelled.truth == i).sum()) < len(labelled.truth)]
    areas = Judgement(
        labelled.groups,
        {str(i): auroc_of(labelled.scores[:, i], labelled.truth == i) for i in occurs},
        {str(i): 0.5 for i in occurs},
    ).estimates(resamples=resamples)
    out = []
    for i, name in enumerate(labelled.names):
        mine, said = labelled.truth == i, labelled.answer == i
        hit = int((mine & said).sum())
        out.append(
            LabelFigures(
                name,
                int(mine.sum()),
                int(said.sum()),
                hit / mine.sum() if mine.any() else float("nan"),
                hit / said.sum() if said.any() else float("nan"),
                areas.get(str(i)),
            )
        )
    return out


def confusion(labelled: ExclusiveScores) -> Ints:
    """The confusion matrix: counts [truth, answer]."""
    n = len(labelled.names)
    counts: Ints = np.bincount(labelled.truth * n + labelled.answer, minlength=n * n).reshape(n, n).astype(np.int64)
    return counts


@dataclass(frozen=True)
class ZeroShotFigures:
    """The share of right answers over the rows with a known label. `majority` is the share of the commonest label."""

    label_set: str
    rows: int
    accuracy: Estimate
    balanced_accuracy: float
    majority: float


def evaluate_zero_shot(
    label_set: str,
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
) -> ZeroShotFigures | None:
    """The figures of a label set for a model card. `scores` is [N, labels], `labels` [N] with -1 for unknown.

    Only labels that occur are possible answers, as in the question "CT or MR?". None if fewer than two labels occur.
    """
    present = np.unique(labels[labels >= 0])
    if len(present) < 2:
        return None
    recoded = np.where(labels >= 0, np.searchsorted(present, labels), -1)
    labelled = ExclusiveScores.known([str(i) for i in present], scores[:, present], recoded, groups)
    right = labelled.right.astype(np.float64)
    counts = np.bincount(labelled.truth)
    return ZeroShotFigures(
        label_set=label_set,
        rows=len(right),
        accuracy=estimate(right, labelled.groups, 1 / len(present), resamples=resamples),
        balanced_accuracy=float(np.mean([right[labelled.truth == i].mean() for i in range(len(present))])),
        majority=float(counts.max() / len(right)),
    )
