"""Fits a calibration to labelled rows and evaluates it on patients that the fit has not seen.

Folds are made of patients. Thresholds and prediction sets come from cross-fitted probabilities: the probability of each
row comes from a fit without its patient. The held-out figures go one level further: the whole procedure, including
thresholds and prediction sets, is repeated without the patient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.errors import CalibrationError
from retrieval.optional import require_optional
from retrieval.statistics.bootstrap import Judgement
from retrieval.statistics.measures import Statistic, auroc_of, mean_of, mean_statistic, mean_where
from retrieval.statistics.reliability import calibration_error_of, calibration_floor, reliability
from retrieval.types import Embeddings
from retrieval.zeroshot.calibration import (
    Calibration,
    Figure,
    HeldOut,
    LabelFit,
    calibrated,
    conformal_bound,
    encoded_reference,
    model_fingerprint,
)
from retrieval.zeroshot.classify import Floats, ZeroShotClassifier, activated

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LEAST_PATIENTS = 10  # for exclusive labels; a finding needs half as many patients with it and without it
FOLDS = 5
BINS = 10
GOAL = 0.9  # the coverage and the sensitivity of the held-out figures
MOST_KEPT = 2000  # quantiles that a calibration stores
MOST_REFERENCE = 512  # labelled images that new images are compared with
RESAMPLES = 1000
SLOPE_PRIOR = 10.0  # strength, in rows, of the normal prior on the log slope of exclusive labels (variance 1/10)
OFFSET_PRIOR = 5.0  # the same for the offsets


@dataclass(frozen=True)
class LabelledRows:
    """Images with their ground truth.

    `truth` of exclusive labels is [N] int64, the indices of the labels. `truth` of findings is [N, labels] float: 1
    present, 0 absent, NaN unknown. `groups` are patients. `data` and `data_sha256` identify the source of the truth.
    """

    images: Embeddings
    truth: npt.NDArray[Any]
    groups: Sequence[str]
    data: str
    data_sha256: str


def fit_calibration(
    classifier: ZeroShotClassifier, rows: LabelledRows, model: dict[str, Any], *, seed: int = 0
) -> Calibration:
    """Fit a calibration to labelled rows.

    Raises CalibrationError if there are too few rows, patients or labels, or if a package is missing
    (`require_fitting`).
    """
    require_fitting()
    labels = classifier.labels
    logits = classifier.logits(rows.images)
    groups = np.asarray(rows.groups, dtype=str)
    patients = len(np.unique(groups))
    if patients < LEAST_PATIENTS:
        raise CalibrationError(
            f"the {len(logits)} labelled rows are of {patients} patients, expected at least {LEAST_PATIENTS} patients",
            hint="Label the images of more patients. Without a calibration, scores are not probabilities.",
        )
    shares: tuple[float, ...] = ()
    if labels.independent:
        fits, held_out = _findings(labels.names, logits, rows.truth, groups, seed)
    else:
        choice = _Choice(logits, rows.truth.astype(np.int64), groups, seed)
        everyone = np.arange(len(logits))
        slope, *offsets = choice.fitted(everyone).tolist()
        fits = [LabelFit(name=n, slope=slope, offset=o) for n, o in zip(labels.names, offsets, strict=True)]
        shares = _kept(_true_share(choice.crossed(everyone), choice.truth))
        held_out = [choice.held_out()]
    reference, distances = _reference(rows.images, groups, seed)
    return Calibration(
        label_set=labels.name,
        labels_sha256=labels.fingerprint,
        kind=labels.kind,
        model=str(model.get("name")),
        model_sha256=model_fingerprint(model),
        data=rows.data,
        data_sha256=rows.data_sha256,
        rows=len(logits),
        patients=patients,
        labels=tuple(fits),
        true_shares=shares,
        reference=encoded_reference(reference),
        reference_rows=len(reference),
        distances=distances,
        held_out=tuple(held_out),
    )


def require_fitting() -> None:
    """Raise CalibrationError unless the packages that fit a calibration are installed."""
    for module in ("scipy", "sklearn"):
        require_optional(module, "a calibration", CalibrationError)


class _Choice:
    """Exclusive labels: one temperature and an offset per label.

    A temperature alone can't correct a model that favours one label. SLOPE_PRIOR and OFFSET_PRIOR regularize both
    towards no change, which matters with few rows.
    """

    def __init__(self, logits: Floats, truth: Ints, groups: npt.NDArray[np.str_], seed: int) -> None:
        if len(np.unique(truth)) < 2:
            raise CalibrationError(
                "all labelled rows have the same label; a calibration needs at least two labels",
                hint="Add rows with another label of the set.",
            )
        self.logits, self.truth, self.groups, self.seed = logits, truth, groups, seed

    def crossed(self, rows: Ints) -> Floats:
        """Probabilities [rows, labels], each from a fit without its patient."""
        out = np.empty((len(rows), self.logits.shape[1]), np.float32)
        for train, test in folds(self.truth[rows], self.groups[rows], self.seed):
            out[test] = self.probabilities(rows[test], self.fitted(rows[train]))
        return out

    def fitted(self, rows: Ints) -> Doubles:
        """[1 + labels]: the slope (inverse temperature) and the offsets."""
        from scipy.optimize import minimize

        logits, truth = self.logits[rows].astype(np.float64), self.truth[rows]
        n = len(rows)
        wanted = np.eye(logits.shape[1])[truth]
        prior = np.array([SLOPE_PRIOR, *[OFFSET_PRIOR] * logits.shape[1]]) / n

        def loss(x: Doubles) -> tuple[float, Doubles]:
            scaled = logits * math.exp(x[0]) + x[1:]
            scaled -= scaled.max(axis=1, keepdims=True)
            log_share = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
            miss = (np.exp(log_share) - wanted) / n
            slope = np.array([(miss * logits).sum() * math.exp(x[0])])
            value = -log_share[np.arange(n), truth].mean() + 0.5 * float(prior @ x**2)
            return float(value), np.concatenate([slope, miss.sum(axis=0)]) + prior * x

        bounds = [(-6.0, 4.0), *[(-20.0, 20.0)] * logits.shape[1]]
        found: Doubles = minimize(loss, np.zeros(1 + logits.shape[1]), jac=True, bounds=bounds).x
        found[0] = math.exp(found[0])
        return found

    def held_out(self) -> HeldOut:
        n = len(self.truth)
        probabilities = np.empty_like(self.logits)
        in_set = np.zeros(self.logits.shape, np.bool_)
        for train, test in folds(self.truth, self.groups, self.seed + 1):
            probabilities[test] = self.probabilities(test, self.fitted(train))
            bound = conformal_bound(_kept(_true_share(self.crossed(train), self.truth[train])), GOAL)
            in_set[test] = probabilities[test] >= bound
        before = activated(self.logits, independent=False)
        sure = probabilities.max(axis=1).astype(np.float64)
        right = probabilities.argmax(axis=1) == self.truth
        covered = in_set[np.arange(n), self.truth]
        areas = [auroc_of(probabilities[:, i].astype(np.float64), self.truth == i) for i in np.unique(self.truth)]
        return HeldOut(
            label=None,
            rows=n,
            ece=_figure(calibration_error_of(sure, right, BINS), self.groups),
            ece_before=_ece(before.max(axis=1), before.argmax(axis=1) == self.truth),
            ece_floor=calibration_floor(sure, BINS),
            auroc=_figure(mean_statistic(areas), self.groups),
            accuracy=_figure(mean_of(right.astype(np.float64)), self.groups),
            coverage=_figure(mean_of(covered.astype(np.float64)), self.groups),
            set_size=float(in_set.sum(axis=1).mean()),
            reliability=_bins(sure, right),
        )

    def probabilities(self, rows: Ints, fit: Doubles) -> Floats:
        return activated((self.logits[rows] * fit[0] + fit[1:]).astype(np.float32), independent=False)


class CalibrationCurve(NamedTuple):
    """The parameters of `calibrated` for one label."""

    slope: float
    offset: float
    bend: float = 0.0
    knot: float = 0.0


class _Finding:
    """One independent label: Platt's slope and offset, with Platt's smoothed targets.

    A second slope, below the mean of the logits, is used if it lowers the cross-fitted log loss by more than twice the
    standard error over patients: very low logits may carry less information than their distance suggests.
    """

    def __init__(self, name: str, logits: Floats, truth: Bools, groups: npt.NDArray[np.str_], seed: int) -> None:
        self.name, self.logits, self.truth, self.groups, self.seed = name, logits, truth, groups, seed

    def fitted(self, rows: Ints) -> tuple[CalibrationCurve, Floats]:
        """The line of these rows, and their probabilities, each from a fit without its patient."""
        straight, bent = (self._crossed(rows, bent=bent) for bent in (False, True))
        gain = np.log(self._true(bent, rows)) - np.log(self._true(straight, rows))
        _, patient = np.unique(self.groups[rows], return_inverse=True)
        each = np.bincount(patient, gain) / np.bincount(patient)
        useful = bool(each.mean() > 2 * each.std() / math.sqrt(len(each)))
        return self._curve(rows, bent=useful), bent if useful else straight

    def _curve(self, rows: Ints, *, bent: bool) -> CalibrationCurve:
        from sklearn.linear_model import LogisticRegression

        x, y = self.logits[rows].astype(np.float64), self.truth[rows]
        positives, negatives = int(y.sum()), int((~y).sum())
        # Smoothed targets (Platt 1999, section 2.2): no label is fully certain.
        target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
        center, spread = x.mean(), x.std() or 1.0
        scaled = (x - center) / spread
        columns = np.column_stack([scaled, np.minimum(scaled, 0)] if bent else [scaled])
        model = LogisticRegression(C=1e6).fit(
            np.tile(columns, (2, 1)),
            np.repeat([1, 0], len(x)),
            sample_weight=np.concatenate([target, 1 - target]),
        )
        slope = float(model.coef_[0, 0]) / spread
        offset = float(model.intercept_[0]) - slope * center
        if not bent:
            return CalibrationCurve(slope, offset)
        bend = float(model.coef_[0, 1]) / spread
        if slope <= 0 or slope + bend <= 0:  # the probability must rise with the score
            return self._curve(rows, bent=False)
        return CalibrationCurve(slope, offset, bend, float(center))

    def _crossed(self, rows: Ints, *, bent: bool) -> Floats:
        out = np.empty(len(rows), np.float32)
        for train, test in folds(self.truth[rows].astype(np.int64), self.groups[rows], self.seed):
            out[test] = self._probabilities(rows[test], self._curve(rows[train], bent=bent))
        return out

    def _true(self, probabilities: Floats, rows: Ints) -> Floats:
        return np.maximum(np.where(self.truth[rows], probabilities, 1 - probabilities), np.float32(1e-9))

    def fit(self) -> LabelFit:
        curve, crossed = self.fitted(np.arange(len(self.truth)))
        return LabelFit(
            name=self.name,
            **curve._asdict(),
            present=_kept(crossed[self.truth]),
            absent=_kept(crossed[~self.truth]),
        )

    def held_out(self) -> HeldOut:
        truth = self.truth
        p = np.empty(len(truth), np.float32)
        in_set = np.zeros((len(truth), 2), np.bool_)
        found = np.zeros(len(truth), np.bool_)
        for train, test in folds(truth.astype(np.int64), self.groups, self.seed + 1):
            curve, crossed = self.fitted(train)
            known = truth[train]
            p[test] = self._probabilities(test, curve)
            in_set[test, 1] = p[test] >= conformal_bound(_kept(crossed[known]), GOAL)
            in_set[test, 0] = 1 - p[test] >= conformal_bound(_kept(1 - crossed[~known]), GOAL)
            found[test] = p[test] >= np.quantile(crossed[known], 1 - GOAL, method="lower")
        covered = in_set[np.arange(len(truth)), truth.astype(np.int64)]
        sure = p.astype(np.float64)
        return HeldOut(
            label=self.name,
            rows=len(truth),
            positives=int(truth.sum()),
            ece=_figure(calibration_error_of(sure, truth, BINS), self.groups),
            ece_before=_ece(activated(self.logits, independent=True), truth),
            ece_floor=calibration_floor(sure, BINS),
            auroc=_figure(auroc_of(sure, truth), self.groups),
            coverage=_figure(mean_of(covered.astype(np.float64)), self.groups),
            set_size=float(in_set.sum(axis=1).mean()),
            sensitivity=_figure(mean_where(found.astype(np.float64), truth), self.groups),
            reliability=_bins(sure, truth),
        )

    def _probabilities(self, rows: Ints, curve: CalibrationCurve) -> Floats:
        return activated(calibrated(self.logits[rows], *(np.float32(number) for number in curve)), independent=True)


def _findings(
    names: Sequence[str], logits: Floats, truth: npt.NDArray[Any], groups: npt.NDArray[np.str_], seed: int
) -> tuple[list[LabelFit], list[HeldOut]]:
    fits, held_out = [], []
    for i, name in enumerate(names):
        said = np.flatnonzero(~np.isnan(truth[:, i]))
        holds = truth[said, i] > 0.5
        mine = groups[said]
        least = min(len(np.unique(mine[holds])), len(np.unique(mine[~holds])))
        finding = _Finding(name, logits[said, i], holds, mine, seed)
        if least < LEAST_PATIENTS // 2 or (fit := finding.fit()).slope is None or fit.slope <= 0:
            fits.append(
                LabelFit(name=name, slope=None)
            )  # too few patients, or a lower score where the finding is present
            continue
        fits.append(fit)
        held_out.append(finding.held_out())
    if not held_out:
        raise CalibrationError(
            f"none of the {len(names)} findings can be calibrated: a finding needs {LEAST_PATIENTS // 2} patients with "
            f"it and {LEAST_PATIENTS // 2} without it, and higher scores where it is present",
            hint="Write 0 in the truth file where a finding is absent. An empty cell means that nobody looked.",
        )
    return fits, held_out


def folds(truth: Ints, groups: npt.NDArray[np.str_], seed: int) -> Iterator[tuple[Ints, Ints]]:
    """(train, test) row numbers. No patient is on both sides; the labels are spread as evenly as possible."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    count = min(FOLDS, len(np.unique(groups)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(truth, truth, groups)


def _figure(statistic: Statistic, groups: npt.NDArray[np.str_]) -> Figure:
    judged = Judgement([str(group) for group in groups], {"figure": statistic}, {"figure": math.nan})
    found = judged.estimates(resamples=RESAMPLES)["figure"]
    low, high = (None if math.isnan(end) else end for end in (found.low, found.high))
    return Figure(value=found.value, low=low, high=high)


def _ece(probability: Floats, right: Bools) -> float:
    return float(calibration_error_of(probability.astype(np.float64), right, BINS)(np.ones((1, len(right))))[0])


def _bins(probability: Doubles, right: Bools) -> tuple[tuple[float, float, int], ...]:
    return tuple((b.confidence, b.right, b.rows) for b in reliability(probability, right, BINS))


def _true_share(probabilities: Floats, truth: Ints) -> Floats:
    share: Floats = probabilities[np.arange(len(truth)), truth]
    return share


def _kept(values: Floats) -> tuple[float, ...]:
    """The ascending values, or MOST_KEPT quantiles if there are more."""
    ordered = np.sort(values)
    if len(ordered) > MOST_KEPT:
        ordered = np.quantile(ordered, np.linspace(0, 1, MOST_KEPT), method="lower")
    return tuple(float(v) for v in ordered)


def _reference(images: Embeddings, groups: npt.NDArray[np.str_], seed: int) -> tuple[Embeddings, tuple[float, ...]]:
    """A sample of the labelled images, and the distance of each to the nearest image of another patient."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(images))[:MOST_REFERENCE])
    reference = images[chosen]
    similarity = reference @ reference.T
    similarity[groups[chosen][:, None] == groups[chosen][None, :]] = -1
    return reference, _kept((1 - similarity.max(axis=1)).astype(np.float32))
