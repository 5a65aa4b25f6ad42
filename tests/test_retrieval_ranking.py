"""Figures of rankings against trec_eval (by ir-measures), scikit-learn, and every order that ties allow."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, Success
from sklearn.metrics import ndcg_score

from retrieval.evaluation.ranking import chance_median, judge
from tests.reference import retrieval_metrics as naive

KS = (1, 2, 3, 5)


def case(queries: int, gallery: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a few levels, so that many are tied; every query has a relevant item; grades of 0, 0.5 and 1."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (queries, gallery)) / 3 - 0.5
    relevant = rng.random((queries, gallery)) < 0.3
    relevant[np.arange(queries), rng.integers(0, gallery, queries)] = True
    return scores, relevant, rng.integers(0, 3, (queries, gallery)) / 2


@settings(max_examples=60, deadline=None)
@given(queries=st.integers(1, 4), gallery=st.integers(1, 6), levels=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_ties_give_the_mean_over_every_order(queries: int, gallery: int, levels: int, seed: int) -> None:
    scores, relevant, grades = case(queries, gallery, levels, seed)
    got = judge(scores, relevant, KS, grades)
    for q in range(queries):
        expected = naive.expected_figures(scores[q].tolist(), relevant[q].tolist(), grades[q].tolist())
        assert got.rank[q] == pytest.approx(expected["rank"])
        assert got.reciprocal_rank[q] == pytest.approx(expected["reciprocal rank"])
        assert got.average_precision[q] == pytest.approx(expected["average precision"])
        assert got.ndcg is not None
        assert got.ndcg[q] == pytest.approx(expected["ndcg"], nan_ok=True)
        for k in KS:
            assert got.hits[k][q] == pytest.approx(expected[f"hit {min(k, gallery)}"], abs=1e-12)


def test_without_ties_the_figures_are_those_of_trec_eval() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.random((40, 60)), rng.random((40, 60)) < 0.07
    relevant[:, 0] = True
    qrels = [ir_measures.Qrel(str(q), str(d), 1) for q, d in np.argwhere(relevant)]
    run = [ir_measures.ScoredDoc(str(q), str(d), float(s)) for (q, d), s in np.ndenumerate(scores)]
    wanted = [RR, AP, *(Success @ k for k in KS)]
    theirs = ir_measures.calc_aggregate(wanted, qrels, run)
    mine = judge(scores, relevant, KS)
    assert mine.reciprocal_rank.mean() == pytest.approx(theirs[RR])
    assert mine.average_precision.mean() == pytest.approx(theirs[AP])
    for k in KS:
        assert mine.hits[k].mean() == pytest.approx(theirs[Success @ k])


@settings(max_examples=40, deadline=None)
@given(gallery=st.integers(2, 30), levels=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_ndcg_is_that_of_scikit_learn_which_averages_ties_too(gallery: int, levels: int, seed: int) -> None:
    scores, relevant, grades = case(3, gallery, levels, seed)
    grades[:, 0] = 1
    got = judge(scores, relevant, KS, grades)
    assert got.ndcg is not None
    for q in range(3):
        assert got.ndcg[q] == pytest.approx(ndcg_score(grades[[q]], scores[[q]], k=10))


@settings(max_examples=60, deadline=None)
@given(queries=st.integers(1, 6), gallery=st.integers(1, 12), levels=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_the_order_of_the_gallery_and_the_scale_of_the_scores_change_nothing(
    queries: int, gallery: int, levels: int, seed: int
) -> None:
    scores, relevant, grades = case(queries, gallery, levels, seed)
    before = judge(scores, relevant, KS, grades).named()
    order = np.random.default_rng(seed).permutation(gallery)
    after = judge(3 * scores[:, order] + 7, relevant[:, order], KS, grades[:, order]).named()
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert after[name].tolist() == pytest.approx(values.tolist(), nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(queries=st.integers(1, 5), gallery=st.integers(1, 10), seed=st.integers(0, 10_000))
def test_a_perfect_ranking_has_perfect_figures(queries: int, gallery: int, seed: int) -> None:
    _, relevant, _ = case(queries, gallery, 1, seed)
    found = judge(relevant.astype(float), relevant, KS, relevant.astype(float))
    for name, values in found.named().items():
        assert (values[np.isfinite(values)] == pytest.approx(1)) or name == "median rank", name
    assert (judge(relevant + np.arange(gallery) / 100, relevant, KS).rank == 1).all()


@settings(max_examples=40, deadline=None)
@given(queries=st.integers(1, 5), gallery=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_raising_a_relevant_item_never_hurts(queries: int, gallery: int, seed: int) -> None:
    scores, relevant, _ = case(queries, gallery, 4, seed)
    before = judge(scores, relevant, KS)
    first = (np.arange(queries), relevant.argmax(axis=1))
    raised = scores.copy()
    raised[first] += 1 / 3
    after = judge(raised, relevant, KS)
    slack = 1e-9
    assert (after.reciprocal_rank >= before.reciprocal_rank - slack).all()
    assert (after.average_precision >= before.average_precision - slack).all()
    assert (after.rank <= before.rank + slack).all()
    assert all((after.hits[k] >= before.hits[k] - slack).all() for k in KS)


def test_scores_that_float32_cannot_tell_apart_are_tied() -> None:
    scores = np.array([[0.5, 0.5 + 3e-8, 0.5 - 3e-8]])
    assert judge(scores, np.array([[True, False, False]]), (1,)).hits[1][0] == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(gallery=st.integers(1, 8), k=st.integers(1, 10), data=st.data())
def test_chance_equals_counting_every_subset(gallery: int, k: int, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, gallery), min_size=1, max_size=4))
    relevant = np.array([[i < count for i in range(gallery)] for count in counts])
    expected = np.mean([naive.chance_of_one_query(gallery, count, k) for count in counts])
    # One vector for everything is at chance exactly.
    assert judge(np.zeros(relevant.shape), relevant, (k,)).hits[k].mean() == pytest.approx(expected, abs=1e-12)


def test_chance_equals_a_simulation() -> None:
    rng = np.random.default_rng(5)
    relevant = rng.random((40, 30)) < 0.1
    relevant[:, 0] = True
    trials = [judge(rng.random(relevant.shape), relevant, (5,)) for _ in range(300)]
    tied = judge(np.zeros(relevant.shape), relevant, (5,))
    assert tied.hits[5].mean() == pytest.approx(np.mean([t.hits[5].mean() for t in trials]), abs=0.01)
    for name in ("reciprocal_rank", "average_precision", "rank"):
        simulated = np.mean([getattr(t, name).mean() for t in trials])
        assert getattr(tied, name).mean() == pytest.approx(simulated, rel=0.03), name
    median = chance_median(30, relevant.sum(axis=1))
    assert median == pytest.approx(np.mean([np.median(t.rank) for t in trials]), abs=1)


def test_the_median_rank_of_chance_by_hand() -> None:
    assert chance_median(127, np.ones(5, np.int64)) == 64
    assert chance_median(10, np.array([10])) == 1
    assert chance_median(1, np.array([1])) == 1


@pytest.mark.parametrize(
    ("scores", "relevant", "ks", "said"),
    [
        (np.zeros((2, 3)), np.ones((3, 2), bool), (1,), r"\(2, 3\), relevant \(3, 2\)"),
        (np.zeros(3), np.ones(3, bool), (1,), "queries, gallery"),
        (np.zeros((0, 3)), np.ones((0, 3), bool), (1,), "queries, gallery"),
        (np.zeros((2, 3)), np.ones((2, 3), bool), (0,), "k is 0"),
        (np.full((2, 3), np.nan), np.ones((2, 3), bool), (1,), "6 of 6 scores are not finite"),
        (np.zeros((2, 3)), np.eye(2, 3, dtype=bool) & [[True], [False]], (1,), "1 queries have no relevant"),
    ],
)
def test_what_can_not_be_judged_is_refused(scores, relevant, ks, said) -> None:
    with pytest.raises(ValueError, match=said):
        judge(scores, relevant, ks)
    with pytest.raises(ValueError, match="below 0"):
        judge(np.zeros((1, 2)), np.ones((1, 2), bool), (1,), np.array([[1.0, -1.0]]))
