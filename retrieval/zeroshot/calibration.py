"""A calibration: what turns one model's logits over one label set into probabilities, thresholds and honest doubt.

It is fitted on labelled rows by `retrieval.zeroshot.fitting` and kept as JSON. It holds for the model, the label set
and a population like the rows it was fitted on, and says which they were; for another model or another wording it is
refused. Using it needs NumPy alone.

- A choice: one temperature (Guo et al. 2017) and an offset per label, drawn towards 1 and 0. A finding: Platt's slope
  and offset (Platt 1999), with another slope below a knot where the rows call for it.
- Thresholds are read from cross-fitted probabilities of the labelled rows, on the careful side.
- Prediction sets are split conformal (Vovk et al. 2005; the scores of Sadinle et al. 2019): with rows like the labelled
  ones, the set holds the truth with the coverage that was asked for. A finding gets one answer per label: present,
  absent, or uncertain, with the coverage held for present and absent rows each (label-conditional).
- An image is unknown if its nearest labelled neighbour is farther than all but a few labelled images are from their
  nearest neighbour of another patient.
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

_MOST_BYTES = 256 << 20  # of a calibration's file: most of it are the reference vectors
_ROUNDED = 1e-3  # distance of a vector to itself as float16, and encoded in another batch
UNKNOWN_SHARE = 0.05  # of images like the labelled ones that are called unknown by mistake


class Figure(BaseModel):
    """A held-out figure with its 95 % interval over patients; no interval where most resamples allow none."""

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

    `label` is None for a whole choice. `ece` is the expected calibration error in 10 bins; `ece_before` that of the
    scores; `ece_floor` what perfect probabilities would show on so few rows. `coverage` and `set_size` are of
    prediction sets asked for 0.9; `sensitivity` that of thresholds asked for 0.9.
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
    reliability: tuple[tuple[float, float, int], ...]  # mean probability, share that is right, rows; per bin


class LabelFit(BaseModel):
    """One label. `slope` is over 0, or None where the rows could not calibrate it; `bend` is added to it below `knot`
    (see `calibrated`). `present` and `absent` are quantiles of the cross-fitted probabilities of rows where it holds
    and where it does not, ascending."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    slope: float | None
    offset: float = 0.0
    bend: float = 0.0
    knot: float = 0.0
    present: tuple[float, ...] = ()
    absent: tuple[float, ...] = ()


def calibrated(logits: Floats, slope: Any, offset: Any, bend: Any, knot: Any) -> Floats:
    """Logits on calibrated scale, ascending as they were: a straight line, or one with a bend at `knot`. What describes
    the lines is float32, of one label or of all."""
    out: Floats = logits * slope + offset + bend * np.minimum(logits - knot, np.float32(0))
    return out


class Calibration(BaseModel):
    """See the module. `model_sha256` is `model_fingerprint` of the model, `labels_sha256` that of the label set."""

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
    true_shares: tuple[float, ...] = ()  # a choice: quantiles of the true label's probability, ascending
    reference: str  # base64 of float16 [n, embed_dim]
    reference_rows: int
    distances: tuple[float, ...]  # quantiles of labelled images' distances to another patient's nearest, ascending
    held_out: tuple[HeldOut, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it: which calibration made a probability."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def calibrated_on(self) -> str:
        """What a probability was calibrated on, in a few words."""
        return f"{self.rows} rows of {self.patients} patients in {self.data} ({self.data_sha256[:12]})"

    @property
    def independent(self) -> bool:
        return self.kind == "independent"

    def is_for(self, model: Mapping[str, Any]) -> bool:
        """Whether it was made with this model (`EncoderSpec.to_json()`), as far as the medlens that made it could tell:
        0.1.0 knew weights and preprocessing only."""
        return self.model_sha256 in (model_fingerprint(model), model_fingerprint(as_older(model)))

    def require(self, labels: LabelSet, model: Mapping[str, Any]) -> None:
        """CalibrationError unless it was made for this label set, as it is worded, and this model."""
        if self.labels_sha256 != labels.fingerprint:
            same = self.label_set == labels.name
            raise CalibrationError(
                f"the calibration is for the label set {self.label_set!r}"
                + (" in another wording than it has now" if same else f", not for {labels.name!r}"),
                hint=f"Calibrate anew: medlens calibrate --labels {labels.name} --truth FILE",
            )
        if not self.is_for(model):
            raise CalibrationError(
                f"the calibration is for the model {self.model!r} with other weights or another preprocessing than "
                f"those of {model.get('name')!r}",
                hint="Calibrate anew with this model: its scores mean something else.",
            )

    def probabilities(self, logits: Floats) -> Floats:
        """[N, labels] 0 to 1, NaN for labels that the rows could not calibrate. A choice's rows sum to 1.

        `logits` are `ZeroShotClassifier.logits`.
        """
        curves = [(math.nan if f.slope is None else f.slope, f.offset, f.bend, f.knot) for f in self.labels]
        return activated(calibrated(logits, *np.array(curves, np.float32).T), independent=self.independent)

    def thresholds(self, goal: Literal["sensitivity", "specificity"], share: float) -> Floats:
        """[labels] the probability from which a finding counts as found, NaN for labels without a calibration.

        Of the cross-fitted labelled rows at least `share` (0 to 1) lies on the right side.
        """
        if not self.independent:
            raise CalibrationError(
                f"{goal} is asked of findings, and {self.label_set!r} is a choice of one label",
                hint="Ask for a coverage: the labels that can't be excluded.",
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
        """Prediction sets. A choice: [N, labels], the labels in the set (none: no label fits).

        Findings: [N, labels, 2], whether "absent" and whether "present" is in it; both: uncertain.
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
        """[N] whether an image is like none of the labelled ones; wrong for about `share` of images that are.

        `images`: [N, embed_dim], unit norm. Costs one product with `reference_rows` vectors.
        """
        _require_share(share, "share of unknown images")
        far: npt.NDArray[np.bool_] = nearest_distance(images, self._reference) > np.quantile(
            self.distances, 1 - share, method="higher"
        )
        return far

    def fitted_on(self, images: Embeddings) -> npt.NDArray[np.bool_]:
        """[N] whether an image is one of the labelled ones, by its vector. `images`: as `unknown`."""
        same: npt.NDArray[np.bool_] = nearest_distance(images, self._reference) < _ROUNDED
        return same

    @cached_property
    def _reference(self) -> Embeddings:
        values = np.frombuffer(base64.b64decode(self.reference), "<f2").astype(np.float32)
        return values.reshape(self.reference_rows, -1)


def _require_share(value: float, what: str) -> None:
    if not 0 < value < 1:
        raise CalibrationError(f"a {what} of {value} was asked for, expected a number between 0 and 1")


def conformal_bound(ascending: tuple[float, ...], coverage: float) -> float:
    """The least share that the truth may have to be in the set, from the true labels' shares of calibration rows.

    With n rows it is the floor((n + 1) (1 - coverage))-th least of them; 0, so that all is in the set, if n is too
    small to promise that coverage.
    """
    rank = math.floor((len(ascending) + 1) * (1 - coverage) + 1e-9)
    return ascending[rank - 1] if rank >= 1 else 0.0


def nearest_distance(images: Embeddings, reference: Embeddings) -> Floats:
    """[N] 1 - cosine to the nearest of the reference vectors."""
    out = np.empty(len(images), np.float32)
    for start in range(0, len(images), 65_536):
        out[start : start + 65_536] = 1 - (images[start : start + 65_536] @ reference.T).max(axis=1)
    return out


def encoded_reference(vectors: Embeddings) -> str:
    return base64.b64encode(vectors.astype("<f2").tobytes()).decode("ascii")


def model_fingerprint(model: Mapping[str, Any]) -> str:
    """SHA-256 over all that changes an embedding. `model` is `EncoderSpec.to_json()`."""
    return fingerprint_of(model)


def read_calibration(path: Path) -> Calibration:
    """Raises CalibrationError for a file that is none."""
    try:
        content = read_bytes(path, _MOST_BYTES)
    except OSError as exc:
        raise CalibrationError(f"the calibration {path.name!r} can't be read: {exc.strerror}") from exc
    return calibration_from(content, f"the calibration {path.name!r}")


def calibration_from(content: bytes | str | Mapping[str, Any], where: str) -> Calibration:
    """From JSON, or from its values. Raises CalibrationError that begins with `where`."""
    try:
        if isinstance(content, Mapping):
            return Calibration.model_validate(content)
        return Calibration.model_validate_json(content)
    except ValidationError as exc:
        raise CalibrationError(
            f"{where} is not what `medlens calibrate` writes: {explain(exc)[:300]}", hint="Calibrate anew."
        ) from exc
