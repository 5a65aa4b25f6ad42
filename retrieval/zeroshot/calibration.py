"""A calibration: turns one model's logits over one label set into probabilities, thresholds and prediction sets.

`retrieval.zeroshot.fitting` fits a calibration to labelled rows; it is stored as JSON. It is valid for one model, one
label set and a population like the labelled rows, and it records all three. It is refused for another model or for
other prompts. Applying it needs NumPy alone.

- Exclusive labels: one temperature (Guo et al. 2017) and an offset per label, regularized towards 1 and 0. Findings:
  Platt's slope and offset (Platt 1999), with a second slope below a knot if the rows support it.
- Thresholds come from the cross-fitted probabilities of the labelled rows, rounded to the conservative side.
- Prediction sets are split conformal (Vovk et al. 2005; the scores of Sadinle et al. 2019): for rows like the labelled
  ones, a set contains the true label with the requested coverage. A finding is present, absent or uncertain, and the
  coverage holds for present rows and for absent rows (label-conditional).
- An image is unknown if its nearest labelled image is farther away than nearly all labelled images are from their
  nearest image of another patient.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from retrieval.bounded import read_bytes
from retrieval.encoders.spec import as_older, fingerprint_of
from retrieval.errors import CalibrationError
from retrieval.types import Embeddings
from retrieval.zeroshot.classify import Floats, activated
from retrieval.zeroshot.labels import LabelSet, explain

_MOST_BYTES = 256 << 20  # the size of a calibration file, most of which is reference vectors
_ROUNDED = 1e-3  # the greatest distance of a vector to itself after rounding to float16 and another batch
UNKNOWN_SHARE = 0.05  # of the images that are like the labelled ones, the share wrongly called unknown


class Figure(BaseModel):
    """A held-out figure with its 95 % interval over patients; without an interval if most resamples have no value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (too few patients for an interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class HeldOut(BaseModel):
    """How good the calibration is on patients that it was not fitted on (cross-validation).

    `label` is None for an exclusive label set. `ece` is the expected calibration error in 10 bins, `ece_before` that of
    the uncalibrated scores, and `ece_floor` the value that perfect probabilities would have on as many rows. `coverage`
    and `set_size` belong to prediction sets for a coverage of 0.9, `sensitivity` to thresholds for a sensitivity of
    0.9.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None
    rows: int
    positives: int | None = None
    ece: Figure
    ece_before: float
    ece_floor: float
    auroc: Figure | None = None
    accuracy: Figure | None = None
    coverage: Figure
    set_size: float
    sensitivity: Figure | None = None
    reliability: tuple[tuple[float, float, int], ...]  # per bin: mean probability, share of right answers, rows


class LabelFit(BaseModel):
    """The calibration of one label.

    `slope` is above 0, or None if the rows could not calibrate the label. `bend` is added to the slope below `knot`
    (see `calibrated`). `present` and `absent` are ascending quantiles of the cross-fitted probabilities: of the rows
    that have the label, and of the rows that do not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    slope: float | None
    offset: float = 0.0
    bend: float = 0.0
    knot: float = 0.0
    present: tuple[float, ...] = ()
    absent: tuple[float, ...] = ()


def calibrated(logits: Floats, slope: Any, offset: Any, bend: Any, knot: Any) -> Floats:
    """Calibrated logits, in the same order as the input: a straight line, or a line with a bend at `knot`.

    The line's parameters are float32, for one label or for all labels.
    """
    out: Floats = logits * slope + offset + bend * np.minimum(logits - knot, np.float32(0))
    return out


class Calibration(BaseModel):
    """See the module. `model_sha256` and `labels_sha256` are the fingerprints of the model and of the label set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["medlens calibration 1"] = "medlens calibration 1"
    label_set: str
    labels_sha256: str
    kind: Literal["exclusive", "independent"]
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    rows: int
    patients: int
    labels: tuple[LabelFit, ...]
    true_shares: tuple[float, ...] = ()  # exclusive labels: ascending quantiles of the true label's probability
    reference: str  # base64 of float16 [n, embed_dim]
    reference_rows: int
    distances: tuple[float, ...]  # ascending quantiles: labelled images' distances to the nearest other patient
    held_out: tuple[HeldOut, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole calibration. It identifies the calibration behind a probability."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def calibrated_on(self) -> str:
        """The data of the calibration, in a few words."""
        return f"{self.rows} rows of {self.patients} patients in {self.data} ({self.data_sha256[:12]})"

    @property
    def independent(self) -> bool:
        return self.kind == "independent"

    def is_for(self, model: Mapping[str, Any]) -> bool:
        """Whether the calibration belongs to this model (`EncoderSpec.to_json()`).

        A calibration of version 0.1.0 identifies a model by its weights and preprocessing alone.
        """
        return self.model_sha256 in (model_fingerprint(model), model_fingerprint(as_older(model)))

    def require(self, labels: LabelSet, model: Mapping[str, Any]) -> None:
        """Raise CalibrationError unless the calibration belongs to this label set, with these prompts, and this
        model."""
        if self.labels_sha256 != labels.fingerprint:
            same = self.label_set == labels.name
            raise CalibrationError(
                f"the calibration belongs to the label set {self.label_set!r}"
                + (" with prompts that have changed since" if same else f", not to {labels.name!r}"),
                hint=f"Calibrate again: medlens calibrate --labels {labels.name} --truth FILE",
            )
        if not self.is_for(model):
            raise CalibrationError(
                f"the calibration belongs to the model {self.model!r} with other weights or another preprocessing than "
                f"those of {model.get('name')!r}",
                hint="Calibrate again with this model.",
            )

    def probabilities(self, logits: Floats) -> Floats:
        """[N, labels] 0 to 1, NaN for labels that could not be calibrated. Rows of exclusive labels sum to 1.

        `logits` are `ZeroShotClassifier.logits`.
        """
        curves = [(math.nan if f.slope is None else f.slope, f.offset, f.bend, f.knot) for f in self.labels]
        return activated(calibrated(logits, *np.array(curves, np.float32).T), independent=self.independent)

    def thresholds(self, goal: Literal["sensitivity", "specificity"], share: float) -> Floats:
        """[labels] the probability from which a finding counts as present; NaN for labels without a calibration.

        At least `share` (0 to 1) of the cross-fitted labelled rows lie on the right side of the threshold.
        """
        if not self.independent:
            raise CalibrationError(
                f"a {goal} needs independent findings, and the labels of {self.label_set!r} are exclusive",
                hint="Use a coverage instead: it gives the labels that can't be excluded.",
            )
        _require_share(share, goal)
        out = np.full(len(self.labels), np.nan, np.float32)
        for i, fit in enumerate(self.labels):
            if fit.slope is None:
                continue
            if goal == "sensitivity":
                out[i] = np.nextafter(np.float32(np.quantile(fit.present, 1 - share, method="lower")), np.float32(0))
            else:
                out[i] = np.nextafter(np.float32(np.quantile(fit.absent, share, method="higher")), np.float32(2))
        return out

    def sets(self, probabilities: Floats, coverage: float) -> npt.NDArray[np.bool_]:
        """Prediction sets. Exclusive labels: [N, labels], whether a label is in the set. An empty set: no label fits.

        Findings: [N, labels, 2], whether "absent" and whether "present" is in the set. Both: uncertain.
        """
        _require_share(coverage, "coverage")
        if not self.independent:
            return probabilities >= conformal_bound(self.true_shares, coverage)
        out = np.ones((*probabilities.shape, 2), np.bool_)
        for i, fit in enumerate(self.labels):
            if fit.slope is not None:
                p = probabilities[:, i]
                absent = tuple(sorted(1 - x for x in fit.absent))
                out[:, i, 0] = 1 - p >= conformal_bound(absent, coverage)
                out[:, i, 1] = p >= conformal_bound(fit.present, coverage)
        return out

    def unknown(self, images: Embeddings, share: float = UNKNOWN_SHARE) -> npt.NDArray[np.bool_]:
        """[N] whether an image is unlike all labelled images. About `share` of similar images are called unknown, too.

        `images`: [N, embed_dim], unit norm. The cost is one product with `reference_rows` vectors.
        """
        _require_share(share, "share of unknown images")
        far: npt.NDArray[np.bool_] = nearest_distance(images, self._reference) > np.quantile(
            self.distances, 1 - share, method="higher"
        )
        return far

    def fitted_on(self, images: Embeddings) -> npt.NDArray[np.bool_]:
        """[N] whether an image is one of the labelled images, by its vector. `images`: as for `unknown`."""
        same: npt.NDArray[np.bool_] = nearest_distance(images, self._reference) < _ROUNDED
        return same

    @cached_property
    def _reference(self) -> Embeddings:
        values = np.frombuffer(base64.b64decode(self.reference), "<f2").astype(np.float32)
        return values.reshape(self.reference_rows, -1)


def _require_share(value: float, what: str) -> None:
    if not 0 < value < 1:
        raise CalibrationError(f"the {what} is {value}, expected a number between 0 and 1")


def conformal_bound(ascending: tuple[float, ...], coverage: float) -> float:
    """The least probability with which a label enters a prediction set.

    `ascending` has the probability of the true label for each of n calibration rows. The bound is the
    floor((n + 1) (1 - coverage))-th smallest of them. If n is too small for the coverage, the bound is 0, and every
    label enters.
    """
    rank = math.floor((len(ascending) + 1) * (1 - coverage) + 1e-9)
    return ascending[rank - 1] if rank >= 1 else 0.0


def nearest_distance(images: Embeddings, reference: Embeddings) -> Floats:
    """[N] the distance, 1 - cosine, to the nearest reference vector."""
    out = np.empty(len(images), np.float32)
    for start in range(0, len(images), 65_536):
        out[start : start + 65_536] = 1 - (images[start : start + 65_536] @ reference.T).max(axis=1)
    return out


def encoded_reference(vectors: Embeddings) -> str:
    return base64.b64encode(vectors.astype("<f2").tobytes()).decode("ascii")


def model_fingerprint(model: Mapping[str, Any]) -> str:
    """SHA-256 over everything that changes an embedding. `model` is `EncoderSpec.to_json()`."""
    return fingerprint_of(model)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises CalibrationError for a file that is not a calibration."""
    try:
        content = read_bytes(path, _MOST_BYTES)
    except OSError as exc:
        raise CalibrationError(f"the calibration {path.name!r} can't be read: {exc.strerror}") from exc
    return calibration_from(content, f"the calibration {path.name!r}")


def calibration_from(content: bytes | str | Mapping[str, Any], where: str) -> Calibration:
    """A calibration from JSON or from its values. Raises CalibrationError, whose message begins with `where`."""
    try:
        if isinstance(content, Mapping):
            return Calibration.model_validate(content)
        return Calibration.model_validate_json(content)
    except ValidationError as exc:
        raise CalibrationError(
            f"{where} is not a file that `medlens calibrate` writes: {explain(exc)[:300]}", hint="Calibrate again."
        ) from exc
