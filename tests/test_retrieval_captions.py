"""Captions exchanged, mirrored, negated and cut into sentences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.language.captions import exchanged, mirrored, negated, sentences_of, sides_and_negations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left pleural effusion", "right pleural effusion"),
        ("Right-sided mass, LEFT kidney normal", "Left-sided mass, RIGHT kidney normal"),
        ("diverticulum on the rightward aspect", "diverticulum on the leftward aspect"),
        ("resultant LUL collapse", "resultant RUL collapse"),
        ("pain in the RLQ; Lt. hydronephrosis", "pain in the LLQ; Rt. hydronephrosis"),
        ("demonstrates a R occipital condyle fracture", "demonstrates a L occipital condyle fracture"),
        ("more extensive in the left than the right lung", "more extensive in the right than the left lung"),
        ("left and right lungs, left hilum", "left and right lungs, right hilum"),
        ("fracture of L4 and L5", None),
        ("bilateral infiltrates", None),
        ("in both the left and right lungs", None),
        ("the catheter was left in place", None),
        ("he left the hospital, a right-handed man, right now", None),
        ("the cleft and a bright spot, all upright", None),
        ("", None),
    ],
)
def test_sides_are_exchanged(text: str, expected: str | None) -> None:
    assert exchanged(text) == expected
    if expected is not None:
        assert exchanged(expected) == text


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(["left", "right", "LLL", "RUL", "Rt", "lt.", "R", "lung", "the", "and", ",", "handed", "L4"])
    )
)
def test_exchanging_twice_changes_nothing(words: list[str]) -> None:
    text = " ".join(words)
    once = exchanged(text)
    if once is not None:
        assert exchanged(once) == text
        assert len(once.split()) == len(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left pneumothorax", "right pneumothorax"),
        ("pneumonia", "pneumonia"),
        ("left ventricular hypertrophy", None),
        ("abutting the right cardiac border", None),
        ("cyst in the liver", None),
        ("dilated LV", None),
    ],
)
def test_a_mirror_is_not_held_up_to_what_lies_on_one_side(text: str, expected: str | None) -> None:
    assert mirrored(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pneumonia", "no pneumonia"),
        ("There is a large right pleural effusion.", "There is no large right pleural effusion."),
        ("CT of the chest reveals an obstructing mass.", "CT of the chest reveals no obstructing mass."),
        ("chest radiograph of a child, pneumonia", "chest radiograph of a child, no pneumonia"),
        ("shows an enhancing 2.9 cm mass", "shows no enhancing 2.9 cm mass"),
        ("MR shows multiple cysts and edema", "MR shows no multiple cysts and edema"),
        ("no pneumonia", "pneumonia"),
        ("No acute fracture or dislocation", "acute fracture or dislocation"),
        ("There is no evidence of pleural effusion.", "pleural effusion."),
        ("abutting the incus without mass effect", "abutting the incus with mass effect"),
        ("Negative for pneumothorax", "positive for pneumothorax"),
        ("posterior to the fracture there is a hematoma", "posterior to the fracture there is no hematoma"),
        # What is not plainly claimed stays alone.
        ("no lobar or segmental embolism", None),
        ("rule out pneumonia", None),
        ("possible small effusion", None),
        ("history of lymphoma", None),
        ("the mass is not seen", None),
        ("a fracture is absent", None),
        ("effusion versus pneumonia", None),
        ("resolution of consolidation", None),
        ("axial CT of the head", None),
        ("", None),
    ],
)
def test_findings_are_negated(text: str, expected: str | None) -> None:
    assert negated(text) == expected


@pytest.mark.parametrize(
    "text", ["pneumonia", "CT shows large mass", "two nodules in the lung", "edema, otherwise normal"]
)
def test_negating_twice_affirms_again(text: str) -> None:
    once = negated(text)
    assert once is not None
    assert negated(once) == text


def test_texts_that_differ_in_side_or_negation_claim_otherwise() -> None:
    assert sides_and_negations("left effusion") == sides_and_negations("effusion on the LEFT side")
    assert sides_and_negations("left effusion") != sides_and_negations("right effusion")
    assert sides_and_negations("effusion") != sides_and_negations("no effusion")
    assert sides_and_negations("without effusion") == sides_and_negations("no effusion")
    assert sides_and_negations("left mass, right cyst") != sides_and_negations("right mass, left cyst")


def test_sentences() -> None:
    text = "The heart is normal. No effusion. A 2.5 cm mass is seen in the LUL; It enhances after contrast."
    assert sentences_of(text) == [
        "The heart is normal.",
        "A 2.5 cm mass is seen in the LUL;",
        "It enhances after contrast.",
    ]
    assert sentences_of("• PA film shows a mass • Lateral film shows a sign") == [
        "PA film shows a mass",
        "Lateral film shows a sign",
    ]
    assert sentences_of("One sentence alone is the whole text.") == []
    assert sentences_of("") == []
