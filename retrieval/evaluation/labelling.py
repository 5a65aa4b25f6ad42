"""One label set, judged on rows whose fields say the truth: by its prompts, by single ones, and as peers do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluation.metrics import Estimate, Ints, Judgement, Spread, Statistic
from retrieval.evaluation.rows import LEAST, EvaluationRows, findings_of, of_rows
from retrieval.evaluation.zero_shot import (
    ACCURACY,
    AUROC,
    ECE,
    Findings,
    LabelFigures,
    Labelled,
    ReliabilityBin,
    confusion,
    exclusive_statistics,
    finding_figures,
    findings_statistics,
    judge_exclusive,
    judge_findings,
    label_figures,
    reliability,
)
from retrieval.types import Embeddings, Encoder
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labels import LabelSet, plain_softmax, single_phrasings


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


def judge_labels(
    rows: EvaluationRows,
    encoder: ScaledEncoder,
    images: Embeddings,
    labels: LabelSet,
    field: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ZeroShot:
    """`images` are vectors of the rows [N, D]. Raises EvaluationError where fewer than two labels occur."""
    judge = _findings if labels.independent else _choice
    return judge(rows, encoder, images, labels, field, resamples, seed)


def _choice(
    rows: EvaluationRows,
    encoder: ScaledEncoder,
    images: Embeddings,
    labels: LabelSet,
    field: str,
    resamples: int,
    seed: int,
) -> ZeroShot:
    truth = rows.truth(labels, field)
    known = np.flatnonzero(truth >= 0)
    occurring = len(np.unique(truth[known]))
    if occurring < LEAST:
        raise _undecided(labels, field, f"{occurring} of the labels", len(known), len(rows))
    groups = of_rows(rows.groups, known)

    def labelled(said: LabelSet) -> Labelled:
        scores = ZeroShotClassifier(said, encoder, encoder.logit_scale).scores(images[known])
        return Labelled.known(labels.names, scores, truth[known], groups)

    own, plain = labelled(labels), labelled(plain_softmax(labels))
    judged, judged_plain = judge_exclusive(own), judge_exclusive(plain)
    single = [labelled(phrasing) for phrasing in single_phrasings(labels)]
    return ZeroShot(
        labels=labels,
        truth=field,
        rows=len(known),
        judgement=judged,
        estimates=judged.estimates(resamples=resamples, seed=seed),
        plain=judged_plain,
        plain_estimates=judged_plain.estimates(resamples=resamples, seed=seed),
        phrasings=_spreads([exclusive_statistics(one) for one in single], len(known), (ACCURACY, AUROC, ECE)),
        changed=float(np.mean([(one.answer != own.answer).mean() for one in single])),
        per_label=label_figures(own, resamples=resamples),
        confusion=confusion(own),
        reliability=reliability(own.confidence, own.right),
        plain_reliability=reliability(plain.confidence, plain.right),
    )


def _findings(
    rows: EvaluationRows,
    encoder: ScaledEncoder,
    images: Embeddings,
    labels: LabelSet,
    field: str,
    resamples: int,
    seed: int,
) -> ZeroShot:
    named = [findings_of(labels, value) for value in rows.fields[field]]
    known = np.array([i for i, found in enumerate(named) if found is not None], np.int64)
    truth = np.zeros((len(known), len(labels.names)), bool)
    for row, i in enumerate(known):
        truth[row, named[int(i)] or []] = True
    groups = tuple(of_rows(rows.groups, known))

    def found(said: LabelSet) -> Findings:
        scores = ZeroShotClassifier(said, encoder, encoder.logit_scale).scores(images[known])
        return Findings(labels.names, scores.astype(np.float64), truth, groups)

    own = found(labels)
    if not own.judged:
        raise _undecided(labels, field, "0 of the findings both present and absent", len(known), len(rows))
    plain = found(plain_softmax(labels))
    judged, judged_plain = judge_findings(own), judge_findings(plain)
    told = [findings_statistics(found(phrasing)) for phrasing in single_phrasings(labels)]
    return ZeroShot(
        labels=labels,
        truth=field,
        rows=len(known),
        judgement=judged,
        estimates=judged.estimates(resamples=resamples, seed=seed),
        plain=judged_plain,
        plain_estimates=judged_plain.estimates(resamples=resamples, seed=seed),
        phrasings=_spreads(told, len(known), (AUROC, ECE)),
        changed=None,
        per_label=finding_figures(own, resamples=resamples),
        confusion=None,
        reliability=_pooled(own),
        plain_reliability=_pooled(plain),
    )


def _spreads(told: Sequence[Mapping[str, Statistic]], rows: int, names: Sequence[str]) -> dict[str, Spread]:
    """The figures over all rows, each phrasing alone, spread out."""
    whole = np.ones((1, rows))
    return {name: Spread.of([float(one[name](whole)[0]) for one in told]) for name in names}


def _pooled(findings: Findings) -> list[ReliabilityBin]:
    """All findings that can be judged in one diagram."""
    return reliability(findings.scores[:, findings.judged].ravel(), findings.truth[:, findings.judged].ravel())


def _undecided(labels: LabelSet, field: str, what: str, known: int, rows: int) -> EvaluationError:
    return EvaluationError(
        f"the field {field!r} says {what} of {labels.name!r} ({known} of {rows} rows say one that it knows), which "
        "leaves nothing to tell apart",
        hint=f"`medlens labels show {labels.name}` lists what its labels are called; another field is named with "
        f"--labels {labels.name}=FIELD.",
    )
