"""How reliable probabilities are: calibration error, its floor, and the bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.statistics.measures import Bools, Floats, Ints, Statistic


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose confidence lies in one bin: their mean confidence and their share of right answers."""

    rows: int
    confidence: float
    right: float


def calibration_error_of(confidence: Floats, right: Bools, bins: int) -> Statistic:
    """Expected calibration error (Guo et al. 2017) over `bins` equally wide bins of confidence.

    It is the mean distance between the mean confidence of a bin and the share of right answers in the bin, weighted by
    the number of answers in the bin.
    """
    member = np.eye(bins)[bin_of(confidence, bins)]  # [N, bins]
    excess = (confidence - right.astype(np.float64))[:, None] * member

    def statistic(weights: Floats) -> Floats:
        error: Floats = np.abs(weights @ excess).sum(axis=1) / weights.sum(axis=1)
        return error

    return statistic


def bin_of(confidence: Floats, bins: int) -> Ints:
    """The index of the bin, of `bins` equally wide ones from 0 to 1. A border belongs to the lower bin: (0.2, 0.3]."""
    found: Ints = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return found


def reliability(confidence: Floats, right: Bools, bins: int) -> list[ReliabilityBin]:
    """The bins that contain an answer, by confidence: the content of a reliability diagram."""
    member = bin_of(confidence, bins)
    return [
        ReliabilityBin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
        for here in (member == number for number in range(bins))
        if here.any()
    ]


def calibration_floor(confidence: Floats, bins: int, *, times: int = 200) -> float:
    """The mean ECE of perfect probabilities: each answer is right with exactly its confidence."""
    rng = np.random.default_rng(0)
    weight = np.ones((1, len(confidence)))
    drawn = (rng.random(len(confidence)) < confidence for _ in range(times))
    return float(np.mean([calibration_error_of(confidence, right, bins)(weight)[0] for right in drawn]))
