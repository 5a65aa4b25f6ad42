"""Labels images: scores or probabilities, the best label or the findings, and images that are unknown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.errors import CalibrationError, QueryError
from retrieval.types import Embeddings
from retrieval.zeroshot.calibration import Calibration, model_fingerprint
from retrieval.zeroshot.classify import Floats, ZeroShotClassifier, activated


@dataclass(frozen=True)
class LabelRequest:
    """What to compute beyond scores. Each value needs a calibration and lies between 0 and 1.

    - `sensitivity` or `specificity`, not both: find the findings, with thresholds that reach it on the labelled rows.
    - `coverage`: prediction sets that contain the true label for this share of the images.
    - `unknown`: mark images unlike all labelled images. About this share of similar images is marked, too.

    Raises QueryError for a sensitivity together with a specificity.
    """

    sensitivity: float | None = None
    specificity: float | None = None
    coverage: float | None = None
    unknown: float | None = None

    def __post_init__(self) -> None:
        if self.sensitivity is not None and self.specificity is not None:
            raise QueryError("both a sensitivity and a specificity are given; a threshold can reach only one of them")

    @property
    def needs_calibration(self) -> bool:
        return self != LabelRequest()


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """The labels of one image, or of one study.

    `values` maps each label, in the order of the set, to its probability if `calibrated`, otherwise to its score; None
    for a label without a calibration. `label` is the best label of an `exclusive` set; None for an unknown image.

    Fields that were not requested are None: `found`, the findings above their threshold; `possible`, the prediction set
    of exclusive labels; `present` and `uncertain`, the findings that the prediction sets call present or leave open;
    `unknown`, whether the image is unlike all labelled images. An unknown image has no other statements.
    """

    values: Mapping[str, float | None]
    calibrated: bool
    exclusive: bool
    label: str | None = None
    found: tuple[str, ...] | None = None
    possible: tuple[str, ...] | None = None
    present: tuple[str, ...] | None = None
    uncertain: tuple[str, ...] | None = None
    unknown: bool | None = None


@dataclass(frozen=True)
class LabelOutcome:
    """The labels of N images, as arrays.

    `values` [N, labels] are probabilities if `calibrated`, otherwise scores; NaN for a label without a calibration.
    `best` [N] is the label of an exclusive set. `found` [N, labels] says which findings are above their threshold.
    `possible` is the prediction set: [N, labels] for exclusive labels, [N, labels, 2] (absent, present) for findings.
    """

    names: tuple[str, ...]
    independent: bool
    calibrated: bool
    values: Floats
    best: npt.NDArray[np.int64] | None = None
    found: npt.NDArray[np.bool_] | None = None
    possible: npt.NDArray[np.bool_] | None = None
    unknown: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def image(self, i: int) -> ImageLabels:
        """Image i, from 0, as plain values."""
        return self._image(i, self.values[i].tolist())

    def images(self) -> Iterator[ImageLabels]:
        """All images in order, as plain values."""
        return map(self._image, range(len(self)), self.values.tolist())

    def _image(self, i: int, values: list[float]) -> ImageLabels:
        known = self.unknown is None or not self.unknown[i]
        possible = present = uncertain = None
        if self.possible is not None and self.independent:
            absent_too, present_too = self.possible[i].T
            present = self._named(present_too & ~absent_too, known)
            uncertain = self._named(present_too == absent_too, known)
        elif self.possible is not None:
            possible = self._named(self.possible[i], known)
        return ImageLabels(
            values={n: v if v == v else None for n, v in zip(self.names, values, strict=True)},
            calibrated=self.calibrated,
            exclusive=not self.independent,
            label=self.names[self.best[i]] if self.best is not None and known else None,
            found=None if self.found is None else self._named(self.found[i], known),
            possible=possible,
            present=present,
            uncertain=uncertain,
            unknown=None if self.unknown is None else not known,
        )

    def _named(self, chosen: npt.NDArray[np.bool_], known: bool) -> tuple[str, ...]:
        return tuple(n for n, c in zip(self.names, chosen.tolist(), strict=True) if c) if known else ()


class Labeller:
    """Applies one label set with one model, and with a calibration if there is one.

    Raises CalibrationError for a calibration that belongs to another model or label set.
    """

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        model: Mapping[str, Any],
        calibration: Calibration | None = None,
        request: LabelRequest = LabelRequest(),
    ) -> None:
        """`model` is `EncoderSpec.to_json()` of the model that the classifier was made with."""
        self.labels = classifier.labels
        self.calibration = calibration
        self._classifier = classifier
        self._request = request
        self._model = model
        if calibration is None:
            if request.needs_calibration:
                raise CalibrationError(
                    f"thresholds, coverage and unknown images need a calibration, and {self.labels.name!r} has none",
                    hint=f"Create one: medlens calibrate --labels {self.labels.name} --truth FILE",
                )
        else:
            calibration.require(self.labels, model)
        self._thresholds: Floats | None = None
        if calibration is not None and request.sensitivity is not None:
            self._thresholds = calibration.thresholds("sensitivity", request.sensitivity)
        elif calibration is not None and request.specificity is not None:
            self._thresholds = calibration.thresholds("specificity", request.specificity)

    @property
    def made_by(self) -> str:
        """A digest of everything that decides a value: the model, the prompts of the set, the calibration."""
        parts = [model_fingerprint(self._model), self.labels.fingerprint]
        parts.append(self.calibration.fingerprint if self.calibration else "")
        return hashlib.sha256("/".join(parts).encode()).hexdigest()

    def values(self, images: Embeddings) -> Floats:
        """[N, labels] probabilities if there is a calibration, otherwise scores. `images`: [N, embed_dim], unit
        norm."""
        logits = self._classifier.logits(images)
        if self.calibration is None:
            return activated(logits, independent=self.labels.independent)
        return self.calibration.probabilities(logits)

    def unknown(self, images: Embeddings) -> npt.NDArray[np.bool_] | None:
        """[N] whether an image is unlike all labelled images; None if that was not requested."""
        if self.calibration is None or self._request.unknown is None:
            return None
        return self.calibration.unknown(images, self._request.unknown)

    def label(self, images: Embeddings) -> LabelOutcome:
        """The labels of images [N, embed_dim] of unit norm."""
        return self.decide(self.values(images), self.unknown(images))

    def decide(self, values: Floats, unknown: npt.NDArray[np.bool_] | None = None) -> LabelOutcome:
        """The labels that follow from values [N, labels], which `values` returned or which were pooled from such
        values."""
        coverage = self._request.coverage
        possible = self.calibration.sets(values, coverage) if self.calibration and coverage is not None else None
        found = None if self._thresholds is None else values >= self._thresholds
        best = None if self.labels.independent else values.argmax(axis=1)
        return LabelOutcome(
            names=self.labels.names,
            independent=self.labels.independent,
            calibrated=self.calibration is not None,
            values=values,
            best=best,
            found=found,
            possible=possible,
            unknown=unknown,
        )


class StudyPool:
    """Pools the values of frames by study: the maximum of a finding, the mean of an exclusive label.

    The memory needed is one row per study.
    """

    def __init__(self, labels: int, *, independent: bool) -> None:
        self._independent = independent
        self._labels = labels
        self._rows: dict[str, int] = {}
        self._values = np.zeros((0, labels), np.float64)
        self._frames = np.zeros(0, np.int64)
        self._unknown = np.zeros(0, np.int64)

    def add(self, studies: list[str], values: Floats, unknown: npt.NDArray[np.bool_] | None) -> None:
        """`studies` [n], values [n, labels]."""
        number = np.array([self._rows.setdefault(study, len(self._rows)) for study in studies], np.int64)
        more = len(self._rows) - len(self._frames)
        if more:
            room = max(more, len(self._frames) // 2)  # grow by half, so that many small batches are cheap
            self._values = np.concatenate([self._values, np.zeros((room, self._labels))])
            self._frames = np.concatenate([self._frames, np.zeros(room, np.int64)])
            self._unknown = np.concatenate([self._unknown, np.zeros(room, np.int64)])
        (np.maximum if self._independent else np.add).at(self._values, number, values)
        np.add.at(self._frames, number, 1)
        if unknown is not None:
            np.add.at(self._unknown, number, unknown)

    def pooled(self) -> tuple[list[str], npt.NDArray[np.int64], Floats, npt.NDArray[np.bool_]]:
        """Studies [m] in order of appearance, their numbers of frames, values [m, labels], and whether all frames are
        unknown."""
        m = len(self._rows)
        values = self._values[:m] if self._independent else self._values[:m] / np.maximum(self._frames[:m, None], 1)
        return list(self._rows), self._frames[:m], values.astype(np.float32), self._unknown[:m] == self._frames[:m]
