"""Evaluates one label set on rows with a ground truth: with all prompts, single prompts, and the plain softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.errors import EvaluationError
from retrieval.evaluation.rows import LEAST, EvaluationRows, findings_of, of_rows
from retrieval.evaluation.zero_shot import (
    ACCURACY,
    AUROC,
    BINS,
    ECE,
    ExclusiveScores,
    FindingScores,
    LabelFigures,
    confusion,
    exclusive_statistics,
    finding_figures,
    findings_statistics,
    judge_exclusive,
    judge_findings,
    label_figures,
)
from retrieval.statistics.bootstrap import Estimate, Judgement, Spread
from retrieval.statistics.measures import Ints, Statistic
from retrieval.statistics.reliability import ReliabilityBin, reliability
from retrieval.types import Embeddings, Encoder
from retrieval.zeroshot.calibration import Calibration
from retrieval.zeroshot.classify import Floats, ZeroShotClassifier
from retrieval.zeroshot.labels import LabelSet, plain_softmax, single_phrasings

OWN, PLAIN, CALIBRATED = "medlens", "plain softmax", "calibrated"


class ScaledEncoder(Encoder, Protocol):
    """An encoder with its learned inverse temperature."""

    @property
    def logit_scale(self) -> float: ...


@dataclass(frozen=True)
class ZeroShot:
    """The figures of one label set. `truth` is the field of the rows with the ground truth.

    `plain` has the figures of the softmax over the labels' bare names, which is common practice. `phrasings` has the
    spread of the figures with one prompt per label, and `changed` the mean share of answers that change with it.
    Independent findings have no single answer, so `changed` and `confusion` are None.
    """

    labels: LabelSet
    truth: str
    rows: int
    judgement: Judgement
    estimates: dict[str, Estimate]
    plain: Judgement
    plain_estimates: dict[str, Estimate]
    phrasings: dict[str, Spread]
    changed: float | None
    per_label: list[LabelFigures]
    confusion: Ints | None
    reliability: list[ReliabilityBin]
    plain_reliability: list[ReliabilityBin]
    calibrated: CalibratedFigures | None


@dataclass(frozen=True)
class CalibratedFigures:
    """Figures on the rows of patients that the calibration has not seen.

    `estimates` has the figures of the calibrated probabilities, the scores and the plain softmax, by method. It is
    empty if the rows do not have at least two different labels.
    """

    calibrated_on: str
    rows: int
    estimates: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class _Method:
    """The functions that evaluate one kind of label set.

    `known` are the rows [n] with a ground truth. `made` combines some of these rows with their scores.
    """

    known: Ints
    made: Callable[[Floats, Ints], Any]
    judge: Callable[[Any], Judgement]
    statistics: Callable[[Any], Mapping[str, Statistic]]
    figures: Callable[..., list[LabelFigures]]
    reliability: Callable[[Any], list[ReliabilityBin]]
    lacking: Callable[[Any], str]  # why the rows can't be evaluated; "" if they can
    spread: tuple[str, ...]


def judge_labels(
    rows: EvaluationRows,
    encoder: ScaledEncoder,
    images: Embeddings,
    labels: LabelSet,
    field: str,
    *,
    calibration: Calibration | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> ZeroShot:
    """Evaluate a label set. `images` are the vectors of the rows [N, D].

    `calibration` must belong to this model and label set. Raises EvaluationError if fewer than two labels occur.
    """
    method = (_findings if labels.independent else _choice)(rows, labels, field)
    mine, all_rows = images[method.known], np.arange(len(method.known))
    settings = {"resamples": resamples, "seed": seed}

    def scores(variant: LabelSet) -> Floats:
        return ZeroShotClassifier(variant, encoder, encoder.logit_scale).scores(mine)

    by = {OWN: scores(labels), PLAIN: scores(plain_softmax(labels))}
    own, plain = (method.made(of, all_rows) for of in by.values())
    if what := method.lacking(own):
        raise EvaluationError(
            f"the field {field!r} has {what} of {labels.name!r} ({len(method.known)} of {len(rows)} rows have a label "
            "of the set); an evaluation needs two different ones",
            hint=f"`medlens labels show {labels.name}` lists the labels and their values. Name another field with "
            f"--labels {labels.name}=FIELD.",
        )
    judged, judged_plain = method.judge(own), method.judge(plain)
    single = [method.made(scores(phrasing), all_rows) for phrasing in single_phrasings(labels)]
    calibrated = None
    if calibration is not None:
        logits = ZeroShotClassifier(labels, encoder, encoder.logit_scale).logits(mine)
        groups = np.asarray(of_rows(rows.groups, method.known))
        by = {CALIBRATED: calibration.probabilities(logits)} | by
        calibrated = _calibrated(method, by, groups, mine, calibration, settings)
    return ZeroShot(
        labels=labels,
        truth=field,
        rows=len(method.known),
        judgement=judged,
        estimates=judged.estimates(**settings),
        plain=judged_plain,
        plain_estimates=judged_plain.estimates(**settings),
        phrasings=_spreads([method.statistics(one) for one in single], len(method.known), method.spread),
        changed=None if labels.independent else float(np.mean([(one.answer != own.answer).mean() for one in single])),
        per_label=method.figures(own, resamples=resamples),
        confusion=None if labels.independent else confusion(own),
        reliability=method.reliability(own),
        plain_reliability=method.reliability(plain),
        calibrated=calibrated,
    )


def _calibrated(
    method: _Method,
    by: Mapping[str, Floats],
    groups: npt.NDArray[np.str_],
    images: Embeddings,
    calibration: Calibration,
    settings: Mapping[str, int],
) -> CalibratedFigures:
    held = np.flatnonzero(~np.isin(groups, groups[calibration.fitted_on(images)]))
    fitted = np.isfinite(by[CALIBRATED]).all(axis=0)  # every method is evaluated on the labels that could be calibrated
    estimates: dict[str, dict[str, Estimate]] = {}
    if fitted.all() or (calibration.independent and fitted.any()):
        judged = {name: method.made(np.where(fitted, scores, np.nan)[held], held) for name, scores in by.items()}
        if not any(method.lacking(one) for one in judged.values()):
            estimates = {name: method.judge(one).estimates(**settings) for name, one in judged.items()}
    return CalibratedFigures(calibration.calibrated_on, len(held), estimates)


def _choice(rows: EvaluationRows, labels: LabelSet, field: str) -> _Method:
    truth = rows.truth(labels, field)
    known = np.flatnonzero(truth >= 0)

    def labelled(scores: Floats, some: Ints) -> ExclusiveScores:
        return ExclusiveScores.known(labels.names, scores, truth[known[some]], of_rows(rows.groups, known[some]))

    return _Method(
        known,
        labelled,
        judge_exclusive,
        exclusive_statistics,
        label_figures,
        lambda own: reliability(own.confidence, own.right, BINS),
        lambda own: "" if len(own.occurring) >= LEAST else f"{len(own.occurring)} of the labels",
        (ACCURACY, AUROC, ECE),
    )


def _findings(rows: EvaluationRows, labels: LabelSet, field: str) -> _Method:
    named = [findings_of(labels, value) for value in rows.fields[field]]
    known = np.array([i for i, found in enumerate(named) if found is not None], np.int64)
    truth = np.zeros((len(known), len(labels.names)), bool)
    for row, i in enumerate(known):
        truth[row, named[int(i)] or []] = True

    def found(scores: Floats, some: Ints) -> FindingScores:
        groups = tuple(of_rows(rows.groups, known[some]))
        return FindingScores(labels.names, scores.astype(np.float64), truth[some], groups)

    return _Method(
        known,
        found,
        judge_findings,
        findings_statistics,
        finding_figures,
        _pooled,
        lambda own: "" if own.judged else "none of the findings as both present and absent",
        (AUROC, ECE),
    )


def _spreads(phrasings: Sequence[Mapping[str, Statistic]], rows: int, names: Sequence[str]) -> dict[str, Spread]:
    """The spread of each figure over the phrasings, on all rows."""
    whole = np.ones((1, rows))
    return {name: Spread.of([float(one[name](whole)[0]) for one in phrasings]) for name in names}


def _pooled(findings: FindingScores) -> list[ReliabilityBin]:
    """The bins of one reliability diagram for all findings that can be evaluated."""
    judged = findings.judged
    return reliability(findings.scores[:, judged].ravel(), findings.truth[:, judged].ravel(), BINS)
