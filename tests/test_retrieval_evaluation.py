"""Evaluation of a whole model: retrieval both ways and zero-shot labels."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.evaluation.retrieval import RECALL_AT, evaluate_retrieval
from retrieval.evaluation.zero_shot import evaluate_zero_shot
from retrieval.types import Embeddings


def unit(rows: np.ndarray) -> Embeddings:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_rows(n: int, seed: int = 0, dim: int = 16) -> Embeddings:
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


def test_perfect_pairs_are_found_both_ways() -> None:
    vectors = random_rows(30)
    found = evaluate_retrieval(vectors, vectors, [f"t{i}" for i in range(30)], [f"p{i}" for i in range(30)])
    assert (found.images, found.texts) == (30, 30)
    assert set(found.image_to_text) == set(found.text_to_image) == set(RECALL_AT)
    for k in RECALL_AT:
        for estimate in (found.image_to_text[k], found.text_to_image[k]):
            assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)
            assert estimate.chance == pytest.approx(k / 30)


def test_unrelated_pairs_are_near_chance() -> None:
    images, texts = random_rows(400, 1), random_rows(400, 2)
    found = evaluate_retrieval(
        images, texts, [f"t{i}" for i in range(400)], [str(i) for i in range(400)], resamples=200
    )
    for figures in (found.image_to_text, found.text_to_image):
        assert figures[10].low <= figures[10].chance <= figures[10].high


def test_equal_texts_are_one_entry_and_each_of_their_images_is_right() -> None:
    texts = ["a", "b", "a", "c"]
    vectors = unit(np.eye(4))
    text_vectors = vectors[[0, 1, 0, 3]]
    images = vectors[[0, 1, 0, 3]]
    found = evaluate_retrieval(images, text_vectors, texts, list("wxyz"), resamples=10)
    assert (found.images, found.texts) == (4, 3)
    assert found.image_to_text[1].value == 1  # the third image finds "a", which stands once
    assert found.text_to_image[1].value == 1
    assert found.image_to_text[1].chance == pytest.approx(1 / 3)
    assert found.text_to_image[1].chance == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)


def test_a_swapped_pair_is_wrong_at_one_and_right_at_five() -> None:
    vectors = random_rows(6)
    swapped = vectors[[1, 0, 2, 3, 4, 5]]
    found = evaluate_retrieval(swapped, vectors, list("abcdef"), list("abcdef"), resamples=10)
    assert found.image_to_text[1].value == found.text_to_image[1].value == pytest.approx(4 / 6)
    assert found.image_to_text[10].value == 1


def test_intervals_resample_patients() -> None:
    """All rows of one patient are wrong: over two patients the interval must reach from 0 to 1."""
    images, texts = random_rows(20, 1), random_rows(20, 1)
    images[10:] = images[19:9:-1]
    groups = ["good"] * 10 + ["bad"] * 10
    found = evaluate_retrieval(images, texts, [str(i) for i in range(20)], groups, resamples=500)
    assert (found.image_to_text[1].low, found.image_to_text[1].high) == (0, 1)


def test_rows_and_texts_must_agree() -> None:
    vectors = random_rows(3)
    with pytest.raises(ValueError, match="3 images, 3 text features, 2 texts, 2 groups"):
        evaluate_retrieval(vectors, vectors, ["a", "b"], ["p", "q"])
    with pytest.raises(ValueError, match="3 texts, 2 groups"):
        evaluate_retrieval(vectors, vectors, ["a", "b", "c"], ["p", "q"])
    with pytest.raises(ValueError, match="at least one"):
        evaluate_retrieval(vectors[:0], vectors[:0], [], [])


def test_zero_shot_by_hand() -> None:
    scores = np.array([[0.9, 0.0, 0.1], [0.2, 0.9, 0.3], [0.4, 0.9, 0.5], [0.8, 0.0, 0.7], [0.0, 0.0, 1.0]], np.float32)
    labels = np.array([0, -1, 2, 2, 2], np.int64)
    found = evaluate_zero_shot("s", scores, labels, list("abcde"))
    assert found is not None
    assert (found.label_set, found.rows) == ("s", 4)
    # Label 1 does not occur and is not offered: row 2 is right, row 3 takes 0 for 2.
    assert found.accuracy.value == pytest.approx(3 / 4)
    assert found.accuracy.chance == pytest.approx(1 / 2)
    assert found.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert found.majority == pytest.approx(3 / 4)


def test_zero_shot_groups_are_those_of_the_known_rows() -> None:
    scores = np.eye(2, dtype=np.float32)[[0, 0, 1, 0, 0]]
    labels = np.array([-1, 0, 1, 1, 1], np.int64)  # wrong: the last two, both of patient q
    found = evaluate_zero_shot("s", scores, labels, ["x", "p", "p", "q", "q"], resamples=300)
    assert found is not None
    assert (found.accuracy.value, found.accuracy.low, found.accuracy.high) == (0.5, 0, 1)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, -1, 0], [2, 2, 2]])
def test_one_label_is_no_question(labels: list[int]) -> None:
    assert evaluate_zero_shot("s", np.zeros((3, 3), np.float32), np.array(labels, np.int64), list("abc")) is None
