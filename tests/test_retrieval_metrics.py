"""Metrics against naive judges, counting and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.metrics import Estimate, bootstrap, chance_recall_at_k, estimate, recall_at_k
from tests.reference import retrieval_metrics as naive


@settings(max_examples=150, deadline=None)
@given(
    queries=st.integers(1, 8),
    gallery=st.integers(1, 9),
    k=st.integers(1, 12),
    levels=st.integers(1, 4),  # few levels: many ties
    seed=st.integers(0, 10_000),
)
def test_recall_equals_the_naive_judge(queries: int, gallery: int, k: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = (rng.integers(0, levels, (queries, gallery)) / 3 - 0.5).astype(np.float32)
    relevant = rng.random((queries, gallery)) < 0.3
    relevant[np.arange(queries), rng.integers(0, gallery, queries)] = True
    got = recall_at_k(similarity, relevant, k)
    assert got.tolist() == naive.recall_at_k(similarity.tolist(), relevant.tolist(), k)


def test_recall_by_hand() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2]], np.float32)
    relevant = np.array([[False, True, False], [False, True, False]])
    assert recall_at_k(similarity, relevant, 1).tolist() == [0, 0]  # the tie goes to column 0
    assert recall_at_k(similarity, relevant, 2).tolist() == [1, 1]


def test_a_model_that_gives_one_vector_for_all_is_at_chance() -> None:
    n = 50
    similarity, relevant = np.ones((n, n), np.float32), np.eye(n, dtype=bool)
    for k in (1, 5, 10):
        assert recall_at_k(similarity, relevant, k).mean() == pytest.approx(chance_recall_at_k(relevant, k))


@settings(max_examples=60, deadline=None)
@given(gallery=st.integers(1, 8), k=st.integers(1, 10), data=st.data())
def test_chance_equals_counting_every_subset(gallery: int, k: int, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, gallery), min_size=1, max_size=4))
    relevant = np.array([[i < count for i in range(gallery)] for count in counts])
    expected = np.mean([naive.chance_of_one_query(gallery, count, k) for count in counts])
    assert chance_recall_at_k(relevant, k) == pytest.approx(expected, abs=1e-12)


def test_chance_equals_a_simulation() -> None:
    rng = np.random.default_rng(5)
    relevant = rng.random((40, 30)) < 0.1
    relevant[:, 0] = True
    simulated = np.mean([recall_at_k(rng.random(relevant.shape, np.float32), relevant, 5).mean() for _ in range(400)])
    assert chance_recall_at_k(relevant, 5) == pytest.approx(simulated, abs=0.01)


def test_the_bootstrap_covers_the_truth_where_items_of_a_group_agree() -> None:
    """Twenty groups of ten equal items: an interval over items would be far too narrow, one over groups holds."""
    rng = np.random.default_rng(0)
    truth, held, held_by_items = 0.5, 0, 0
    groups = [f"g{i // 10}" for i in range(200)]
    for trial in range(60):
        items = np.repeat(rng.random(20) < truth, 10).astype(np.float64)
        low, high = bootstrap(lambda rows, items=items: float(items[rows].mean()), groups, resamples=100, seed=trial)
        held += low <= truth <= high
        singles = [str(i) for i in range(200)]
        low, high = bootstrap(lambda rows, items=items: float(items[rows].mean()), singles, resamples=60, seed=trial)
        held_by_items += low <= truth <= high
    assert held / 60 > 0.8
    assert held_by_items / 60 < 0.75


def test_resampling_takes_whole_groups() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    members = {g: [i for i, x in enumerate(groups) if x == g] for g in "abc"}
    seen: list[int] = []

    def check(rows: np.ndarray) -> float:
        counts = np.bincount(rows, minlength=6)
        for rows_of in members.values():
            assert len({int(counts[i]) for i in rows_of}) == 1
        drawn = sum(int(counts[rows_of[0]]) for rows_of in members.values())
        assert drawn == 3
        seen.append(len(rows))
        return 0.0

    assert bootstrap(check, groups, resamples=50) == (0, 0)
    assert len(seen) == 50


def test_one_group_gives_no_width_and_equal_seeds_agree() -> None:
    items = np.array([0.0, 1.0, 1.0])
    alone = estimate(items, ["p"] * 3, 0.25)
    assert alone == Estimate(pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 0.25)
    groups = ["p", "q", "r"]
    assert estimate(items, groups, 0.1) == estimate(items, groups, 0.1)
    wide = estimate(items, groups, 0.1)
    assert wide.low <= wide.value <= wide.high


def test_an_estimate_says_all_of_it() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 0.1)) == "50.0 % (25.0 to 75.0; chance 10.0)"


@pytest.mark.parametrize(
    ("similarity", "relevant", "k", "said"),
    [
        (np.zeros((2, 3), np.float32), np.ones((3, 2), bool), 1, r"\(2, 3\), relevant \(3, 2\)"),
        (np.zeros(3, np.float32), np.ones(3, bool), 1, "queries, gallery"),
        (np.zeros((2, 3), np.float32), np.ones((2, 3), bool), 0, "k is 0"),
        (np.zeros((2, 3), np.float32), np.eye(2, 3, dtype=bool) & [[True], [False]], 1, "1 queries have no relevant"),
    ],
)
def test_wrong_shapes_are_refused(similarity: np.ndarray, relevant: np.ndarray, k: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recall_at_k(similarity, relevant, k)


@pytest.mark.parametrize(("items", "groups"), [(2, 3), (3, 2), (0, 0)])
def test_items_and_groups_must_agree(items: int, groups: int) -> None:
    with pytest.raises(ValueError, match=f"{items} items and {groups} groups"):
        estimate(np.ones(items), ["g"] * groups, 0.5)
