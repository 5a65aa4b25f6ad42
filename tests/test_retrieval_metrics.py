"""Statistics and their intervals against scikit-learn, naive judges and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from retrieval.statistics.bootstrap import Estimate, Judgement, Resamples, differences, estimate, interval
from retrieval.statistics.measures import auroc_of, balanced_accuracy_of, mean_of, mean_statistic, mean_where, median_of
from retrieval.statistics.reliability import bin_of, calibration_error_of
from tests.reference import retrieval_metrics as naive


def weights_of(rows: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(rows, minlength=n).astype(float)[None, :]


@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 30), levels=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_a_weight_is_a_repetition(n: int, levels: int, seed: int) -> None:
    """Every weighted statistic is the plain one over the rows, each as often as its weight says."""
    rng = np.random.default_rng(seed)
    values, flags = rng.integers(0, levels, n) / 4, rng.random(n) < 0.5
    truth, right = rng.integers(0, 3, n), rng.random(n) < 0.5
    rows = rng.integers(0, n, n)
    w = weights_of(rows, n)
    assert mean_of(values)(w)[0] == pytest.approx(values[rows].mean())
    assert median_of(values)(w)[0] == pytest.approx(np.median(values[rows]))
    assert mean_where(values, flags)(w)[0] == pytest.approx(
        values[rows][flags[rows]].mean() if flags[rows].any() else math.nan, nan_ok=True
    )
    area = auroc_of(values, flags)(w)[0]
    if 0 < flags[rows].sum() < n:
        assert area == pytest.approx(roc_auc_score(flags[rows], values[rows]))
    else:
        assert math.isnan(area)
    said = np.where(right, truth, 99)
    present = np.unique(truth[rows])
    expected = np.mean([(said[rows] == truth[rows])[truth[rows] == label].mean() for label in present])
    assert balanced_accuracy_of(right, truth)(w)[0] == pytest.approx(expected)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    found = balanced_accuracy_of(said == truth, truth)(np.ones((1, 200)))[0]
    assert found == pytest.approx(balanced_accuracy_score(truth, said))


def test_macro_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random((120, 3)), rng.integers(0, 3, 120)
    scores /= scores.sum(axis=1, keepdims=True)
    found = mean_statistic([auroc_of(scores[:, i], truth == i) for i in range(3)])(np.ones((1, 120)))[0]
    assert found == pytest.approx(roc_auc_score(truth, scores, multi_class="ovr", average="macro"))


def test_calibration_error_by_hand() -> None:
    """Two bins of ten: three answers at 0.95, two of them right; one at 0.35, wrong; one at 0.3, right, a bin lower."""
    confidence, right = np.array([0.95, 0.95, 0.95, 0.35, 0.3]), np.array([True, True, False, False, True])
    error = calibration_error_of(confidence, right, 10)(np.ones((1, 5)))[0]
    assert error == pytest.approx(3 / 5 * (0.95 - 2 / 3) + 1 / 5 * 0.35 + 1 / 5 * 0.7)
    assert bin_of(np.array([0.0, 0.1, 0.100001, 1.0]), 10).tolist() == [0, 0, 1, 9]


def test_answers_that_mean_what_they_say_have_no_calibration_error_to_speak_of() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    assert calibration_error_of(confidence, right, 15)(np.ones((1, 200_000)))[0] < 0.01


def test_the_interval_is_that_of_resampling_whole_groups_by_hand() -> None:
    rng = np.random.default_rng(3)
    values, groups = rng.random(30), [f"g{i}" for i in rng.integers(0, 7, 30)]
    seen = Resamples(groups, count=200, seed=5).values({"mean": mean_of(values)})["mean"]
    draws, number = np.random.default_rng(5), len(set(groups))
    drawn = [draws.integers(0, number, number).tolist() for _ in range(200)]
    assert seen.tolist() == pytest.approx(naive.resampled_means(values.tolist(), groups, drawn))


def test_resamples_are_the_same_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"g{i % 5}" for i in range(20)]
    whole = np.concatenate(list(Resamples(groups, count=50).weights()))
    monkeypatch.setattr("retrieval.statistics.bootstrap.BATCH_CELLS", 60)
    batches = list(Resamples(groups, count=50).weights())
    assert len(batches) > 5
    assert (np.concatenate(batches) == whole).all()
    assert (whole.sum(axis=1) == 20).all()  # five groups of four: every draw has twenty items


def test_the_bootstrap_covers_the_truth_where_items_of_a_group_agree() -> None:
    """Twenty groups of ten equal items: an interval over items would be far too narrow, one over groups holds."""
    rng = np.random.default_rng(0)
    truth, held, held_by_items = 0.5, 0, 0
    groups = [f"g{i // 10}" for i in range(200)]
    for trial in range(60):
        items = np.repeat(rng.random(20) < truth, 10).astype(np.float64)
        found = estimate(items, groups, 0, resamples=100, seed=trial)
        held += found.low <= truth <= found.high
        found = estimate(items, [str(i) for i in range(200)], 0, resamples=60, seed=trial)
        held_by_items += found.low <= truth <= found.high
    assert held / 60 > 0.8
    assert held_by_items / 60 < 0.75


def test_one_group_gives_no_width_and_equal_seeds_agree() -> None:
    items = np.array([0.0, 1.0, 1.0])
    alone = estimate(items, ["p"] * 3, 0.25)
    assert alone == Estimate(pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 0.25)
    groups = ["p", "q", "r"]
    wide = estimate(items, groups, 0.1)
    assert wide == estimate(items, groups, 0.1)
    assert wide.low <= wide.value <= wide.high


def test_an_interval_needs_half_of_the_resamples() -> None:
    assert interval(np.array([1.0, 2.0, math.nan])) == pytest.approx((1.025, 1.975))
    assert all(math.isnan(v) for v in interval(np.array([1.0, math.nan, math.nan])))


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    """The second model is right wherever the first is, and on a tenth more: certain, though each alone is not."""
    rng = np.random.default_rng(0)
    first = (rng.random(300) < 0.5).astype(np.float64)
    second = np.maximum(first, rng.random(300) < 0.2)
    groups = [str(i // 3) for i in range(300)]
    a, b = (Judgement(groups, {"accuracy": mean_of(v)}, {"accuracy": 0.0}) for v in (first, second))
    found = differences(a, b)["accuracy"]
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.differs and 0 < found.low <= found.value <= found.high
    wide_a, wide_b = a.estimates()["accuracy"], b.estimates()["accuracy"]
    assert found.high - found.low < (wide_a.high - wide_a.low + wide_b.high - wide_b.low) / 2
    assert not differences(a, a)["accuracy"].differs
    with pytest.raises(ValueError, match="different items"):
        differences(a, Judgement(groups[1:], b.statistics, b.chance))


def test_an_estimate_says_all_of_it() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 0.1)) == "50.0 % (25.0 to 75.0; chance 10.0)"


@pytest.mark.parametrize(("items", "groups"), [(2, 3), (3, 2), (0, 0)])
def test_items_and_groups_must_agree(items: int, groups: int) -> None:
    with pytest.raises(ValueError, match=f"{items} items and {groups} groups"):
        estimate(np.ones(items), ["g"] * groups, 0.5)
    with pytest.raises(ValueError, match="at least"):
        Resamples(["a"], count=0)
