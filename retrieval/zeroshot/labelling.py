"""What is said about images: scores or probabilities, the label or the findings, and where nothing can be said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval.errors import CalibrationError, QueryError
from retrieval.types import Embeddings
from retrieval.zeroshot.calibration import Calibration, model_fingerprint
from retrieval.zeroshot.classify import Floats, ZeroShotClassifier, activated

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Wishes:
    """What is asked beyond the scores; each needs a calibration.

    `goal` and `share`: thresholds of findings for a sensitivity or a specificity. `coverage`: prediction sets.
    `unknown`: say so of images like none that were labelled, wrongly for that share of those that are.
    """

    goal: Literal["sensitivity", "specificity"] | None = None
    share: float = 0.0
    coverage: float | None = None
    unknown: float | None = None

    def __bool__(self) -> bool:
        return self.goal is not None or self.coverage is not None or self.unknown is not None


@dataclass(frozen=True)
class Said:
    """What is said about N images. `values` [N, labels] are probabilities if `calibrated`, else scores; NaN for a label
    without a calibration. `best` [N] is a choice's label, -1 for none. `found` [N, labels]: over the threshold.
    `possible`: [N, labels] a choice's prediction set, or [N, labels, 2] whether absent and present are possible."""

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

    @property
    def word(self) -> str:
        return "probability" if self.calibrated else "score"

    @property
    def words(self) -> str:
        return "probabilities" if self.calibrated else "scores"

    def row(self, i: int) -> dict[str, Any]:
        """Image i as plain values: what is decided, then all labels, the best first."""
        values = {name: round(v, 6) for name, v in zip(self.names, self.values[i].tolist(), strict=True) if v == v}
        return self._decided(i) | {self.words: dict(sorted(values.items(), key=lambda item: -item[1]))}

    def flat_row(self, i: int) -> dict[str, Any]:
        """The same with a column for each label, in the set's order, as tables have them."""
        values = {
            f"{self.word}.{name}": round(v, 6) if v == v else None
            for name, v in zip(self.names, self.values[i].tolist(), strict=True)
        }
        return self._decided(i) | values

    def short_row(self, i: int, top: int = 3) -> dict[str, Any]:
        """For people: what is decided, and the highest values."""
        values = sorted(
            ((v, n) for n, v in zip(self.names, self.values[i].tolist(), strict=True) if v == v), key=lambda x: -x[0]
        )
        shown = values[1:top] if self.best is not None else values[:top]
        return self._decided(i) | {"then" if self.best is not None else "highest": [f"{n} {v:.2f}" for v, n in shown]}

    def _decided(self, i: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        known = self.unknown is None or not self.unknown[i]
        if self.best is not None:
            best = int(self.best[i])
            row["label"] = self.names[best] if known else UNKNOWN
            row[self.word] = round(float(self.values[i, best]), 6) if known else None
        if self.found is not None:
            row["found"] = [n for n, f in zip(self.names, self.found[i], strict=True) if f and known]
        if self.possible is not None and self.independent:
            both = self.possible[i]
            row["present"] = [n for n, (no, yes) in zip(self.names, both, strict=True) if yes and not no and known]
            row["uncertain"] = [n for n, (no, yes) in zip(self.names, both, strict=True) if yes == no and known]
        elif self.possible is not None:
            row["possible"] = [n for n, p in zip(self.names, self.possible[i], strict=True) if p and known]
        if self.unknown is not None:
            row["unknown"] = not known
        return row


class Labeller:
    """One label set by one model, with a calibration if there is one. Raises CalibrationError if it is of others."""

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        model: Mapping[str, Any],
        calibration: Calibration | None = None,
        wishes: Wishes = Wishes(),
    ) -> None:
        """`model` is `EncoderSpec.to_json()` of the model that the classifier was made with."""
        self.labels = classifier.labels
        self.calibration = calibration
        self._classifier = classifier
        self._wishes = wishes
        self._model = model
        if calibration is None:
            if wishes:
                raise CalibrationError(
                    f"thresholds, coverage and unknown images need a calibration; {self.labels.name!r} has none here",
                    hint=f"Make one: medlens calibrate --labels {self.labels.name} --truth FILE",
                )
        else:
            calibration.require(self.labels, model)
        self._thresholds = calibration.thresholds(wishes.goal, wishes.share) if calibration and wishes.goal else None

    @property
    def made_by(self) -> str:
        """Digest of all that makes a value: the model, the set's wording, the calibration."""
        parts = [model_fingerprint(self._model), self.labels.fingerprint]
        parts.append(self.calibration.fingerprint if self.calibration else "")
        return hashlib.sha256("/".join(parts).encode()).hexdigest()

    def values(self, images: Embeddings) -> Floats:
        """[N, labels] probabilities if there is a calibration, else scores. `images`: [N, embed_dim], unit norm."""
        logits = self._classifier.logits(images)
        if self.calibration is None:
            return activated(logits, independent=self.labels.independent)
        return self.calibration.probabilities(logits)

    def unknown(self, images: Embeddings) -> npt.NDArray[np.bool_] | None:
        """[N] images like none that were labelled, None if nobody asked."""
        if self.calibration is None or self._wishes.unknown is None:
            return None
        return self.calibration.unknown(images, self._wishes.unknown)

    def label(self, images: Embeddings) -> Said:
        return self.say(self.values(images), self.unknown(images))

    def say(self, values: Floats, unknown: npt.NDArray[np.bool_] | None = None) -> Said:
        """What follows from values [N, labels] that `values` gave, or that were pooled from such."""
        coverage = self._wishes.coverage
        possible = self.calibration.sets(values, coverage) if self.calibration and coverage is not None else None
        found = None if self._thresholds is None else values >= self._thresholds
        best = None if self.labels.independent else values.argmax(axis=1)
        return Said(
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
    """Frames' values gathered by study: the highest of a finding, the mean of a choice. Holds one row per study."""

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
            room = max(more, len(self._frames) // 2)  # grows by half, so that many small batches stay cheap
            self._values = np.concatenate([self._values, np.zeros((room, self._labels))])
            self._frames = np.concatenate([self._frames, np.zeros(room, np.int64)])
            self._unknown = np.concatenate([self._unknown, np.zeros(room, np.int64)])
        (np.maximum if self._independent else np.add).at(self._values, number, values)
        np.add.at(self._frames, number, 1)
        if unknown is not None:
            np.add.at(self._unknown, number, unknown)

    def pooled(self) -> tuple[list[str], npt.NDArray[np.int64], Floats, npt.NDArray[np.bool_]]:
        """Studies [m] in the order met, their numbers of frames, values [m, labels], and whether all are unknown."""
        m = len(self._rows)
        values = self._values[:m] if self._independent else self._values[:m] / np.maximum(self._frames[:m, None], 1)
        return list(self._rows), self._frames[:m], values.astype(np.float32), self._unknown[:m] == self._frames[:m]


def wishes_from(
    sensitivity: float | None, specificity: float | None, coverage: float | None, unknown: float | None
) -> Wishes:
    """Raises QueryError for a sensitivity and a specificity at once."""
    if sensitivity is not None and specificity is not None:
        raise QueryError("a sensitivity and a specificity were asked for; a threshold can hold one of them")
    if sensitivity is not None:
        return Wishes("sensitivity", sensitivity, coverage, unknown)
    if specificity is not None:
        return Wishes("specificity", specificity, coverage, unknown)
    return Wishes(coverage=coverage, unknown=unknown)
