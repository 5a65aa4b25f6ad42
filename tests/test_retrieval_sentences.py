"""A report's sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.language.sentences import MAX_SENTENCE, MIN_LETTERS, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small effusion. No pneumothorax.", ["Small effusion.", "No pneumothorax."]),
        ("A 1.5 cm nodule, i.e. a cyst, seen by Dr. Who vs. the prior. Stable disease.",
         ["A 1.5 cm nodule, i.e. a cyst, seen by Dr. Who vs. the prior.", "Stable disease."]),
        ("lungs are clear. heart is normal", ["lungs are clear.", "heart is normal"]),
        ("Effusion on the left.The heart is normal.", ["Effusion on the left.", "The heart is normal."]),
        ("FINDINGS:\nLungs clear.\nIMPRESSION: Normal chest.", ["Lungs clear.", "Normal chest."]),
        ("Findings: Lungs clear. Impression: Normal chest.", ["Lungs clear.", "Normal chest."]),
        ("1. Left effusion.\n2. Right nodule\n3) Old fracture", ["Left effusion.", "Right nodule", "Old fracture"]),
        ("Impression: 1. Left effusion. 2. Right nodule.", ["Left effusion.", "Right nodule."]),
        ("• PA radiograph shows volume loss. • Lateral view shows shift.",
         ["PA radiograph shows volume loss.", "Lateral view shows shift."]),
        ("- left effusion\n- right nodule", ["left effusion", "right nodule"]),
        ("There is a large effusion with compressive atelectasis of the\nleft lower lobe and shift.\nNo pneumothorax",
         ["There is a large effusion with compressive atelectasis of the left lower lobe and shift.",
          "No pneumothorax"]),
        ("No effusion\nNo pneumothorax\nCardiomegaly", ["No effusion", "No pneumothorax", "Cardiomegaly"]),
        ("Is it malignant? Probably not! (See fig. 3.)", ["Is it malignant?", "Probably not!", "(See fig. 3.)"]),
        ("Effusion. EFFUSION. effusion; effusion", ["Effusion.", "effusion; effusion"]),
        ("OK. 12 x 4. Effusion.", ["Effusion."]),
        ("胸水を認める。両側の肺門部に腫大。", ["胸水を認める。", "両側の肺門部に腫大。"]),
        ("", []),
        ("FINDINGS:\n\n", []),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_long_sentence_is_cut_at_clauses_and_nothing_is_lost() -> None:
    text = ", ".join(f"a nodule of {i} mm in segment {i % 10}" for i in range(60))
    pieces = sentences(text)
    assert all(100 <= len(piece) <= MAX_SENTENCE for piece in pieces[:-1]) and len(pieces) > 2
    assert ", ".join(pieces) == text


@given(st.text(alphabet=st.sampled_from("abcdefgh .,;:!?\n•-1234567890)(DrX。é^")))
def test_sentences_keep_their_bounds_and_add_nothing(text: str) -> None:
    found = sentences(text)
    assert len({s.casefold() for s in found}) == len(found)
    for sentence in found:
        assert len(sentence) <= MAX_SENTENCE
        assert sum(map(str.isalpha, sentence)) >= MIN_LETTERS
        assert set(sentence) <= set(text) | {" "}


PLAIN = ("Small left effusion", "No pneumothorax", "A 3.5 cm cyst", "Heart is normal", "No mass")


@given(st.lists(st.sampled_from(PLAIN), unique=True))
def test_plain_sentences_come_back_whole(parts: list[str]) -> None:
    assert sentences(". ".join(parts) + ("." if parts else "")) == [f"{part}." for part in parts]
