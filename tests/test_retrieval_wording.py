"""One changed word: models that hear it, and one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.evaluation.rows import EvaluationRows
from retrieval.evaluation.wording import AS_WRITTEN, DENIAL, LEAST, SIDES, TAKEN_APART, judge_wordings
from retrieval.types import Embeddings

N = 24


def rows(texts: list[str]) -> EvaluationRows:
    return EvaluationRows("made", tuple((text,) for text in texts), tuple(f"p{i // 2}" for i in range(len(texts))))


def vectors(texts: list[str], hears: tuple[str, ...]) -> Embeddings:
    """A text points along the words of `hears` that it has; one that has none along an axis of its own."""
    out = np.zeros((len(texts), len(hears) + 1), np.float32)
    for vector, text in zip(out, texts, strict=True):
        said = text.casefold().replace(".", "").split()
        vector[:-1] = [word in said for word in hears]
        vector[-1] = 0.1
    return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.mark.parametrize(("hears", "expected"), [(("left", "right"), 1.0), (("effusion",), 0.5)])
def test_sides_are_told_by_who_hears_them(hears: tuple[str, ...], expected: float) -> None:
    made = rows([f"Effusion on the {('left', 'right')[i % 2]}." for i in range(N)])
    images = vectors([own[0] for own in made.texts], hears)
    found = judge_wordings(made, images, lambda texts: vectors(texts, hears), resamples=50)[0]
    assert (found.name, found.sentences) == (SIDES, N)
    assert found.estimates[AS_WRITTEN].value == expected
    assert found.estimates[AS_WRITTEN].chance == 0.5


def test_a_denial_is_heard_once_it_is_taken_apart() -> None:
    made = rows([("There is an effusion.", "There is no effusion.")[i % 2] for i in range(N)])
    images = vectors(["effusion" if i % 2 == 0 else "normal" for i in range(N)], ("effusion", "normal"))
    [found] = judge_wordings(made, images, lambda texts: vectors(texts, ("effusion", "normal")), resamples=50)
    assert (found.name, found.sentences) == (DENIAL, N)
    assert found.estimates[AS_WRITTEN].value == 0.5, "with and without the word no, the vector is the same"
    assert found.estimates[TAKEN_APART].value == 1.0


def test_few_sentences_prove_nothing() -> None:
    made = rows(["Effusion on the left.", *["A normal chest."] * N, *["Effusion on the right."] * (LEAST - 2)])
    images = vectors([own[0] for own in made.texts], ("left", "right"))
    assert SIDES not in {one.name for one in judge_wordings(made, images, lambda texts: vectors(texts, ("left",)))}
