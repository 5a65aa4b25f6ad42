"""Zero-shot classification, judged by plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.types import Embeddings, Encoder, Uint8Image
from retrieval.zeroshot.classify import ZeroShotClassifier, ensemble
from retrieval.zeroshot.labels import Label, LabelSet
from tests.reference.retrieval_metrics import softmax

DIM = 8


def unit(rows: np.ndarray) -> Embeddings:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class FixedEncoder:
    """Texts by a table of vectors."""

    embed_dim, name = DIM, "fixed"

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table = table

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return np.stack([self.table[text] for text in texts])

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        raise NotImplementedError


def label_set(prompts: int = 2, labels: int = 3) -> LabelSet:
    return LabelSet(
        name="s",
        labels=tuple(
            Label(name=f"l{i}", prompts=tuple(f"l{i} prompt {j}" for j in range(prompts))) for i in range(labels)
        ),
    )


def classifier(seed: int = 0, labels: int = 3, prompts: int = 2, logit_scale: float = 30.0) -> ZeroShotClassifier:
    chosen = label_set(prompts, labels)
    rng = np.random.default_rng(seed)
    table = {p: unit(rng.normal(size=(1, DIM)))[0] for label in chosen.labels for p in label.prompts}
    encoder = FixedEncoder(table)
    assert isinstance(encoder, Encoder)
    return ZeroShotClassifier(chosen, encoder, logit_scale)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    labels=st.integers(2, 7),
    prompts=st.integers(1, 4),
    logit_scale=st.floats(0.1, 100),
    images=st.integers(0, 5),
)
def test_scores_equal_the_naive_softmax(seed: int, labels: int, prompts: int, logit_scale: float, images: int) -> None:
    made = classifier(seed, labels, prompts, logit_scale)
    vectors = unit(np.random.default_rng(seed + 1).normal(size=(images, DIM)))
    scores = made.scores(vectors)
    assert scores.shape == (images, labels)
    assert scores.dtype == np.float32
    for row, vector in zip(scores, vectors, strict=True):
        expected = []
        for label in made.labels.labels:
            said = np.mean([made_vector.astype(float) for made_vector in _prompts_of(seed, made, label)], axis=0)
            expected.append(logit_scale * float(vector.astype(float) @ (said / np.sqrt((said**2).sum()))))
        np.testing.assert_allclose(row, softmax(expected), rtol=0, atol=2e-5)
        assert row.sum() == pytest.approx(1, abs=1e-5)


def _prompts_of(seed: int, made: ZeroShotClassifier, label: Label) -> list[np.ndarray]:
    """The vectors of a label's prompts, drawn again as `classifier` draws them."""
    rng = np.random.default_rng(seed)
    table = {p: unit(rng.normal(size=(1, DIM)))[0] for each in made.labels.labels for p in each.prompts}
    return [table[prompt] for prompt in label.prompts]


def test_labels_come_best_first_with_their_cosine() -> None:
    made = classifier()
    image = made.label_vectors[[2]]
    (answers,) = made.classify(image)
    assert answers[0].label == "l2"
    assert answers[0].similarity == pytest.approx(1, abs=1e-6)
    assert [a.similarity for a in answers] == sorted((a.similarity for a in answers), reverse=True)
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
    assert sum(a.score for a in answers) == pytest.approx(1, abs=1e-5)


def test_far_behind_the_winner_the_order_is_still_that_of_the_cosine() -> None:
    chosen = label_set(1)
    axis, other = np.eye(DIM, dtype=np.float32)[:2]
    table = {
        "l0 prompt 0": -axis,  # cosine -1
        "l1 prompt 0": unit((-0.6 * axis + 0.8 * other)[None])[0],  # cosine -0.6
        "l2 prompt 0": axis,
    }
    (answers,) = ZeroShotClassifier(chosen, FixedEncoder(table), 100.0).classify(axis[None])
    assert answers[1].score == answers[2].score == 0  # both underflow
    assert [a.label for a in answers] == ["l2", "l1", "l0"]


def test_equal_labels_keep_the_sets_order() -> None:
    chosen = label_set(1)
    axis, other = np.eye(DIM, dtype=np.float32)[:2]
    table = dict.fromkeys(["l0 prompt 0", "l1 prompt 0", "l2 prompt 0"], other)
    (answers,) = ZeroShotClassifier(chosen, FixedEncoder(table), 10.0).classify(axis[None])
    assert [a.label for a in answers] == ["l0", "l1", "l2"]
    assert [a.score for a in answers] == pytest.approx([1 / 3] * 3)


def test_no_images_no_answers() -> None:
    assert classifier().classify(np.zeros((0, DIM), np.float32)) == []


def test_an_ensemble_is_the_mean_direction() -> None:
    vector = ensemble(np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(vector, [2**-0.5, 2**-0.5], atol=1e-7)


@pytest.mark.parametrize("logit_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(logit_scale: float) -> None:
    with pytest.raises(ValueError, match="logit_scale"):
        classifier(logit_scale=logit_scale)
