"""One label set, judged on rows whose fields say the truth: by its prompts, by single ones, and as peers do it."""

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
    """An encoder that knows its learned inverse temperature."""

    @property
    def logit_scale(self) -> float: ...


@dataclass(frozen=True)
class ZeroShot:
    """One label set, judged against what the rows' field `truth` says.

    `plain` is the softmax over the labels' bare names that is commonly done; `phrasings` the figures when each label is
    said in one way, and `changed` the mean share of answers that then differ. Findings, of which any number may hold,
    have no single answer: `changed` and `confusion` are None.
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
    """The rows of patients of whom the calibration has no image: figures of its probabilities, of the scores and of the
    plain softmax, by who says them. None are told of rows that leave nothing to tell apart."""

    calibrated_on: str
    rows: int
    estimates: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class _Method:
    """How one kind of label set is judged. `known`: the rows [n] whose truth is said, and what makes the judged of some
    of those and their scores."""

    known: Ints
    made: Callable[[Floats, Ints], Any]
    judge: Callable[[Any], Judgement]
    statistics: Callable[[Any], Mapping[str, Statistic]]
    figures: Callable[..., list[LabelFigures]]
    reliability: Callable[[Any], list[ReliabilityBin]]
    lacking: Callable[[Any], str]  # what leaves nothing to tell apart, or nothing
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
    """`images` are vectors of the rows [N, D]; `calibration` is of this model and label set. Raises EvaluationError
    where fewer than two labels occur."""
    method = (_findings if labels.independent else _choice)(rows, labels, field)
    mine, all_rows = images[method.known], np.arange(len(method.known))
    settings = {"resamples": resamples, "seed": seed}

    def scores(said: LabelSet) -> Floats:
        return ZeroShotClassifier(said, encoder, encoder.logit_scale).scores(mine)

    by = {OWN: scores(labels), PLAIN: scores(plain_softmax(labels))}
    own, plain = (method.made(of, all_rows) for of in by.values())
    if what := method.lacking(own):
        raise EvaluationError(
            f"the field {field!r} says {what} of {labels.name!r} ({len(method.known)} of {len(rows)} rows say one that "
            "it knows), which leaves nothing to tell apart",
            hint=f"`medlens labels show {labels.name}` lists what its labels are called; another field is named with "
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
    fitted = np.isfinite(by[CALIBRATED]).all(axis=0)  # all judge the labels that could be calibrated
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
        lambda own: "" if own.judged else "0 of the findings both present and absent",
        (AUROC, ECE),
    )


def _spreads(told: Sequence[Mapping[str, Statistic]], rows: int, names: Sequence[str]) -> dict[str, Spread]:
    """The figures over all rows, each phrasing alone, spread out."""
    whole = np.ones((1, rows))
    return {name: Spread.of([float(one[name](whole)[0]) for one in told]) for name in names}


def _pooled(findings: FindingScores) -> list[ReliabilityBin]:
    """All findings that can be judged in one diagram."""
    judged = findings.judged
    return reliability(findings.scores[:, judged].ravel(), findings.truth[:, judged].ravel(), BINS)
