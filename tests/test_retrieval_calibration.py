"""Calibration on made-up rows whose probabilities are known, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.medlens_output.labels import Layout, label_row
from retrieval.encoders.spec import as_older
from retrieval.errors import CalibrationError, QueryError
from retrieval.zeroshot.calibration import (
    Calibration,
    calibration_from,
    conformal_bound,
    model_fingerprint,
    read_calibration,
)
from retrieval.zeroshot.classify import ZeroShotClassifier, activated
from retrieval.zeroshot.fitting import LabelledRows, fit_calibration
from retrieval.zeroshot.labeller import Labeller, LabelOutcome, LabelRequest, StudyPool
from retrieval.zeroshot.labels import Label, LabelSet
from tests.fake_encoder import DIM, FakeEncoder

pytest.importorskip("sklearn")
ENCODER = FakeEncoder()
MODEL = ENCODER.spec.to_json()
SCALE = 8.0


def label_set(kind: str = "exclusive", names: tuple[str, ...] = ("CT", "MR", "US"), wording: str = "a {}") -> LabelSet:
    labels = tuple(Label(name=n, prompts=(wording.format(n),)) for n in names)
    return LabelSet(name="made", kind=kind, labels=labels)  # type: ignore[arg-type]


def images(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(kind: str, n: int = 600, seed: int = 0, per_patient: int = 2) -> tuple[ZeroShotClassifier, LabelledRows]:
    """Rows whose truth is drawn from a known temperature (3 times the logits) and, for findings, an offset of 1."""
    labels = label_set(kind)
    classifier = ZeroShotClassifier(labels, ENCODER, SCALE)
    vectors = images(n, seed)
    rng = np.random.default_rng(seed + 1)
    logits = classifier.logits(vectors)
    if kind == "independent":
        truth: Any = (rng.random(logits.shape) < activated(0.5 * logits + 1, independent=True)).astype(float)
    else:
        truth = np.array(
            [rng.choice(3, p=p / p.sum()) for p in activated(0.5 * logits, independent=False).astype(float)]
        )
    groups = [f"p{i // per_patient}" for i in range(n)]
    return classifier, LabelledRows(vectors, truth, groups, "truth.csv", "ab" * 32)


def row_of(outcome: LabelOutcome, i: int, layout: Layout = "nested") -> dict[str, Any]:
    return label_row(outcome.image(i), layout)


@pytest.fixture(scope="module")
def choice() -> Calibration:
    return fit_calibration(*made("exclusive"), MODEL)


@pytest.fixture(scope="module")
def findings() -> Calibration:
    return fit_calibration(*made("independent"), MODEL)


def test_the_temperature_that_made_the_rows_is_found(choice: Calibration) -> None:
    assert choice.labels[0].slope == pytest.approx(0.5, abs=0.12)
    assert all(abs(fit.offset) < 0.3 for fit in choice.labels)
    (held,) = choice.held_out
    assert held.ece.value < held.ece_before
    assert held.ece.value < 0.06
    assert held.coverage.value == pytest.approx(0.9, abs=0.04)


def test_platts_slope_and_offset_are_found(findings: Calibration) -> None:
    for fit in findings.labels:
        assert fit.slope == pytest.approx(0.5, abs=0.2)
        assert fit.offset == pytest.approx(1, abs=0.5)
        assert fit.bend == 0, "a straight line needs none"
    for held in findings.held_out:
        assert held.ece.value < 0.08
        assert held.coverage.value == pytest.approx(0.9, abs=0.05)
        assert held.sensitivity is not None
        assert held.sensitivity.value == pytest.approx(0.9, abs=0.06)


def test_a_label_that_is_favoured_is_held_back() -> None:
    classifier, rows = made("exclusive")
    logits = classifier.logits(rows.images) + np.array([2.0, 0.0, 0.0])
    rng = np.random.default_rng(3)
    truth = [
        rng.choice(3, p=p / p.sum()) for p in activated(logits.astype(np.float32), independent=False).astype(float)
    ]
    offsets = [fit.offset for fit in fit_calibration(classifier, replace(rows, truth=np.array(truth)), MODEL).labels]
    assert offsets[0] - (offsets[1] + offsets[2]) / 2 == pytest.approx(2, abs=0.5)


def test_logits_that_tell_less_on_one_side_get_a_bend() -> None:
    classifier, rows = made("independent", n=3000)
    logits = classifier.logits(rows.images)
    chance = activated(2 * np.maximum(logits, 0) + 0.2 * np.minimum(logits, 0), independent=True)
    truth = (np.random.default_rng(3).random(logits.shape) < chance).astype(float)
    kept = fit_calibration(classifier, replace(rows, truth=truth), MODEL)
    for fit, held in zip(kept.labels, kept.held_out, strict=True):
        assert fit.slope == pytest.approx(2, abs=0.6)
        assert fit.slope + fit.bend == pytest.approx(0.2, abs=0.2)
        assert fit.slope + fit.bend > 0
        assert held.ece.value < 0.04
    probabilities = kept.probabilities(logits)
    assert probabilities == pytest.approx(chance, abs=0.12)
    for i in range(logits.shape[1]):
        assert (np.diff(probabilities[np.argsort(logits[:, i]), i]) >= 0).all(), "the order stays"


def test_new_rows_get_true_probabilities_and_covering_sets(choice: Calibration) -> None:
    classifier, rows = made("exclusive", n=4000, seed=7)
    p = choice.probabilities(classifier.logits(rows.images))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    own = p[np.arange(len(p)), rows.truth]
    for coverage in (0.8, 0.9, 0.95):
        inside = choice.sets(p, coverage)[np.arange(len(p)), rows.truth]
        assert inside.mean() == pytest.approx(coverage, abs=0.04)
    assert np.log(own).mean() > np.log(classifier.scores(rows.images)[np.arange(len(p)), rows.truth]).mean()


def test_thresholds_keep_what_was_asked_on_new_rows(findings: Calibration) -> None:
    classifier, rows = made("independent", n=4000, seed=7)
    p = findings.probabilities(classifier.logits(rows.images))
    holds = rows.truth > 0.5
    for goal, chosen in (("sensitivity", holds), ("specificity", ~holds)):
        found = p >= findings.thresholds(goal, 0.9)  # type: ignore[arg-type]
        right = found if goal == "sensitivity" else ~found
        for label in range(3):
            assert right[chosen[:, label], label].mean() == pytest.approx(0.9, abs=0.06)


def test_a_conformal_bound_promises_nothing_from_too_few_rows() -> None:
    assert conformal_bound((0.5, 0.6, 0.7), 0.9) == 0  # three rows can't promise 0.9: everything is in the set
    assert conformal_bound(tuple(i / 9 for i in range(9)), 0.9) == 0
    assert conformal_bound(tuple((i + 1) / 19 for i in range(19)), 0.9) == pytest.approx(2 / 19)


def test_images_far_from_all_labelled_ones_are_unknown() -> None:
    labels = label_set()
    classifier = ZeroShotClassifier(labels, ENCODER, SCALE)
    rng = np.random.default_rng(0)
    near = np.eye(DIM)[0] + 0.05 * rng.normal(size=(200, DIM))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    truth = np.arange(200) % 3
    kept = fit_calibration(classifier, LabelledRows(near, truth, [str(i) for i in range(200)], "t", "0" * 64), MODEL)
    assert kept.unknown(images(500, 3)).mean() > 0.95
    assert kept.unknown(near).mean() <= 0.05
    said = Labeller(classifier, MODEL, kept, LabelRequest(unknown=0.05)).label(np.concatenate([near[:1], images(1, 4)]))
    assert row_of(said, 1)["label"] == "unknown" and row_of(said, 1)["probability"] is None
    assert row_of(said, 0)["label"] in labels.names


def test_json_and_back(choice: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(choice.model_dump_json())
    back = read_calibration(path)
    assert back == choice and back.fingerprint == choice.fingerprint
    logits = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(back.probabilities(logits), choice.probabilities(logits))
    assert calibration_from(json.loads(choice.model_dump_json()), "it") == choice


def test_scores_are_called_scores_until_calibrated(choice: Calibration) -> None:
    classifier, rows = made("exclusive", n=2)
    plain = Labeller(classifier, MODEL).label(rows.images)
    assert {"label", "score", "scores"} == row_of(plain, 0).keys()
    calibrated = Labeller(classifier, MODEL, choice).label(rows.images)
    assert {"label", "probability", "probabilities"} == row_of(calibrated, 0).keys()
    assert "score" not in json.dumps(
        [row_of(calibrated, 0), row_of(calibrated, 0, "flat"), row_of(calibrated, 0, "short")]
    )
    assert Labeller(classifier, MODEL).made_by != Labeller(classifier, MODEL, choice).made_by


def test_findings_say_which_are_found_and_which_are_uncertain(findings: Calibration) -> None:
    classifier, rows = made("independent", n=300, seed=9)
    said = Labeller(classifier, MODEL, findings, LabelRequest(sensitivity=0.95, coverage=0.9)).label(rows.images)
    row = row_of(said, 0)
    assert set(row["present"]) <= set(row["found"]) | set(row["uncertain"]) | set(row["present"])
    assert not set(row["present"]) & set(row["uncertain"])
    assert "label" not in row and row["probabilities"].keys() == {"CT", "MR", "US"}
    assert row_of(said, 0, "flat")["probability.CT"] == row["probabilities"]["CT"]


def test_a_calibration_that_0_1_0_made_holds_for_the_same_weights(choice: Calibration) -> None:
    """That version's digest of a model knew neither its configuration nor its tokenizer."""
    old = choice.model_copy(update={"model_sha256": model_fingerprint(as_older(MODEL))})
    assert old.model_sha256 != choice.model_sha256
    Labeller(ZeroShotClassifier(label_set(), ENCODER, SCALE), MODEL, old)
    other = FakeEncoder("other", seed=5)
    with pytest.raises(CalibrationError, match="other weights"):
        Labeller(ZeroShotClassifier(label_set(), other, SCALE), other.spec.to_json(), old)


def test_another_model_or_label_set_is_refused(choice: Calibration) -> None:
    other = FakeEncoder("other", seed=5)
    with pytest.raises(CalibrationError, match="other weights"):
        Labeller(ZeroShotClassifier(label_set(), other, SCALE), other.spec.to_json(), choice)
    Labeller(ZeroShotClassifier(label_set(), ENCODER, SCALE), MODEL | {"name": "renamed", "source": "x"}, choice)
    with pytest.raises(CalibrationError, match="with prompts that have changed since"):
        Labeller(ZeroShotClassifier(label_set(wording="the {}"), ENCODER, SCALE), MODEL, choice)
    renamed = label_set(names=("CT", "MR")).model_copy(update={"name": "two"})
    with pytest.raises(CalibrationError, match="not to 'two'"):
        Labeller(ZeroShotClassifier(renamed, ENCODER, SCALE), MODEL, choice)


def test_requests_without_a_calibration_are_refused(choice: Calibration) -> None:
    classifier, _ = made("exclusive", n=2)
    for request in (LabelRequest(coverage=0.9), LabelRequest(unknown=0.05), LabelRequest(sensitivity=0.9)):
        with pytest.raises(CalibrationError, match="need a calibration") as caught:
            Labeller(classifier, MODEL, None, request)
        assert "medlens calibrate" in caught.value.hint
    with pytest.raises(CalibrationError, match="are exclusive"):
        Labeller(classifier, MODEL, choice, LabelRequest(sensitivity=0.9))
    with pytest.raises(CalibrationError, match=r"1\.5"):
        Labeller(classifier, MODEL, choice, LabelRequest(coverage=1.5)).label(images(1))
    with pytest.raises(QueryError, match="one of them"):
        LabelRequest(sensitivity=0.9, specificity=0.9)


def test_too_little_to_calibrate_is_refused() -> None:
    classifier, rows = made("exclusive", n=12)
    with pytest.raises(CalibrationError, match="12 labelled rows are of 6 patients"):
        fit_calibration(classifier, rows, MODEL)
    classifier, rows = made("exclusive", n=60)
    one_label = LabelledRows(rows.images, np.zeros(60, np.int64), rows.groups, "t", "0")
    with pytest.raises(CalibrationError, match="the same label"):
        fit_calibration(classifier, one_label, MODEL)
    classifier, rows = made("independent", n=60)
    nothing = LabelledRows(rows.images, np.full((60, 3), math.nan), rows.groups, "t", "0")
    with pytest.raises(CalibrationError, match="none of the 3 findings"):
        fit_calibration(classifier, nothing, MODEL)


def test_a_finding_that_nobody_labelled_has_no_probability() -> None:
    classifier, rows = made("independent", n=300)
    rows.truth[:, 2] = math.nan
    kept = fit_calibration(classifier, rows, MODEL)
    assert [fit.slope is None for fit in kept.labels] == [False, False, True]
    said = Labeller(classifier, MODEL, kept, LabelRequest(specificity=0.9)).label(rows.images[:1])
    assert row_of(said, 0)["probabilities"].keys() == {"CT", "MR"}
    assert row_of(said, 0, "flat")["probability.US"] is None
    assert "US" not in row_of(said, 0)["found"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": "medlens calibration 2"}', b"\xff"])
def test_a_file_that_is_no_calibration(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"'c\.json' is not a file that `medlens calibrate` writes"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="can't be read"):
        read_calibration(tmp_path / "missing.json")


@pytest.mark.parametrize("independent", [False, True])
def test_studies_are_pooled_as_a_loop_would(independent: bool) -> None:
    rng = np.random.default_rng(0)
    studies = [f"s{i}" for i in rng.integers(0, 7, 100)]
    values = rng.random((100, 3)).astype(np.float32)
    unknown = rng.random(100) < 0.5
    pool = StudyPool(3, independent=independent)
    for start in range(0, 100, 9):
        pool.add(studies[start : start + 9], values[start : start + 9], unknown[start : start + 9])
    names, counts, pooled, lost = pool.pooled()
    assert names == list(dict.fromkeys(studies))
    for i, name in enumerate(names):
        mine = np.array([study == name for study in studies])
        expected = values[mine].max(axis=0) if independent else values[mine].mean(axis=0)
        np.testing.assert_allclose(pooled[i], expected, atol=1e-6)
        assert counts[i] == mine.sum() and lost[i] == unknown[mine].all()
