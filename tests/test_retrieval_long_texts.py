"""Texts longer than a model's context: which words are not read, sentences that are pooled, and who says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from tiny_models import write_biomedclip, write_clip

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.numpy_text.encoder import LightEncoder, open_encoder
from retrieval.encoders.unread import shown, unread, words_unread
from retrieval.evaluation.evaluate import TextVectors
from retrieval.search.long_texts import encode_whole
from retrieval.types import Embeddings
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labels import Label, LabelSet

CONTEXT = 8  # with a start and an end


def by_word(text: str) -> list[int]:
    """A tokenizer of a token a word; full stops are none."""
    words = [word for word in (w.strip(".") for w in text.split()) if word]
    return [1, *(hash(word) for word in words[: CONTEXT - 2]), 2]


def by_letter(text: str) -> list[int]:
    return [1, *map(ord, text.replace(" ", "")[: CONTEXT - 2]), 2]


class Short(FakeEncoder):
    """Reads six words of a text."""

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_text([" ".join(text.split()[: CONTEXT - 2]) for text in texts])

    def unread(self, texts: Sequence[str]) -> list[str]:
        return [words_unread(text, by_word, CONTEXT) for text in texts]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", ""),
        ("one", ""),
        ("one two three four five six", ""),
        ("one two three four five six.", ""),
        ("one two three four five six seven", "seven"),
        ("one two three four five six seven eight nine ten", "seven eight nine ten"),
        (". . . . . . . . . . .", ""),
        ("one two three . . . . . . . . . . . four five six . seven", ". seven"),
    ],
)
def test_the_words_behind_the_context(text: str, rest: str) -> None:
    assert words_unread(text, by_word, CONTEXT) == rest


def test_a_word_that_is_read_in_part_counts_as_read() -> None:
    assert words_unread("ab cdefghij kl", by_letter, CONTEXT) == "kl"
    assert words_unread("abcdefghijkl", by_letter, CONTEXT) == ""


def test_an_encoder_that_does_not_say_is_taken_to_read_all() -> None:
    assert unread(FakeEncoder(), ["one two three four five six seven"]) == [""]


def test_words_for_a_message() -> None:
    assert shown("seven eight") == "'seven eight'"
    assert (
        shown("word " * 40 + "end") == "'word word word word word word ' to 'd word word word word word end' (41 words)"
    )


def test_a_long_text_is_the_mean_of_its_sentences() -> None:
    encoder = Short()
    long = "The heart is enlarged. There is no effusion at all."
    vectors, notes = encode_whole(encoder, ["chest", long])
    first, second = encoder.encode_text(["The heart is enlarged.", "There is no effusion at all."])
    expected = (first + second) / np.linalg.norm(first + second)
    assert np.allclose(vectors[1], expected, atol=1e-6)
    assert np.array_equal(vectors[0], encoder.encode_text(["chest"])[0])
    assert notes == (
        "a text of 10 words is longer than fake reads at once: its 2 sentences were read one by one, and the mean of "
        "their vectors was taken",
    )


def test_the_end_of_one_long_sentence_is_said_to_be_unread() -> None:
    encoder = Short()
    vectors, notes = encode_whole(encoder, ["one two three four five six seven eight"])
    assert np.array_equal(vectors, encoder.encode_text(["one two three four five six"]))
    assert notes == ("fake reads no text that long: it did not read 'seven eight'",)


def test_labels_whose_prompts_are_too_long_are_named(caplog: pytest.LogCaptureFixture) -> None:
    labels = LabelSet(
        name="long",
        kind="exclusive",
        labels=(Label(name="CT", prompts=("a b c d e f g h",)), Label(name="MR", prompts=("an MR",))),
    )
    with caplog.at_level(logging.WARNING):
        ZeroShotClassifier(labels, Short(), 10.0)
    assert caplog.messages == ["a prompt of the label 'CT' in 'long' is longer than fake reads: it did not read 'g h'"]


def test_an_evaluation_notes_texts_that_were_not_read_to_their_end() -> None:
    vectors = TextVectors(Short(), {})
    vectors.of(["a b c", "a b c d e f g h", "1 2 3 4 5 6 7"])
    assert vectors.notes() == ["2 texts are longer than fake reads: of the first it did not read 'g h'"]


@pytest.fixture(scope="module", params=["byte pairs", "word pieces"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "model"
    if request.param == "byte pairs":
        return write_clip(made)  # reads 24 tokens
    write_biomedclip(made, made.parent / "scratch", vision="vit_tiny_patch16_224", hidden=128, layers=1)
    return made


def test_both_encoders_agree_on_what_is_not_read(folder: Path) -> None:
    quick, whole = open_encoder(str(folder)), ClipEncoder.load(str(folder), "cpu", "fp32")
    assert isinstance(quick, LightEncoder)
    length = 300
    texts = [
        "a chest",
        "chest " * length + "end",
        f"{'pneumonia ' * length}left — right. &amp; so",
        "x" * 2000 + " end",
    ]
    rests = quick.unread(texts)
    assert rests == whole.unread(texts)
    assert rests[0] == "" and rests[1].endswith("chest end") and rests[2].endswith("left — right. &amp; so")
    for text, rest in zip(texts, rests, strict=True):
        read = text.removesuffix(rest).rstrip()
        assert np.allclose(quick.encode_text([read]), quick.encode_text([text]), atol=1e-5)
        assert quick.unread([read]) == [""]
