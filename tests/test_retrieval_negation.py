"""Queries taken apart into what is present and what is absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.language.negation import NEUTRAL, polarity, weighted_texts


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("no pleural effusion", "", ["pleural effusion"]),
        ("No Pleural Effusion.", "", ["Pleural Effusion"]),
        ("chest radiograph without consolidation", "chest radiograph", ["consolidation"]),
        ("chest radiograph with cardiomegaly and no effusion", "chest radiograph with cardiomegaly", ["effusion"]),
        ("no effusion, pneumothorax, or consolidation", "", ["effusion", "pneumothorax", "consolidation"]),
        ("no effusion, cardiomegaly", "cardiomegaly", ["effusion"]),
        ("no mass but with edema", "but with edema", ["mass"]),
        ("axial CT with no mass and no hemorrhage", "axial CT", ["mass", "hemorrhage"]),
        ("neither effusion nor pneumothorax", "", ["effusion", "pneumothorax"]),
        ("MR brain, no evidence of acute hemorrhage", "MR brain", ["acute hemorrhage"]),
        ("negative for pneumonia", "", ["pneumonia"]),
        ("pleural effusion is absent", "", ["pleural effusion"]),
        ("cardiomegaly, pneumothorax not seen", "cardiomegaly", ["pneumothorax"]),
        ("There is no sign of a fracture. Old scar.", "Old scar", ["fracture"]),
        ("no metastases were seen in the liver", "", ["metastases in the liver"]),
    ],
)
def test_absent_findings_are_told_from_present_ones(text: str, present: str, absent: list[str]) -> None:
    found = polarity(text)
    assert (found.present, list(found.absent)) == (present, absent)


@pytest.mark.parametrize(
    "text",
    [
        "normal chest",
        "CT without contrast showing a mass",
        "non-contrast CT of the head",
        "no change in the effusion",
        "effusion cannot be excluded",
        "not only the left lung",
        "nodule in the left lung",  # "no" within a word
        "annotation, notch, innominate artery",
        "without IV contrast",
        "no prior studies",
        "no",
        "not",
        "without",
        "",
    ],
)
def test_what_negates_no_finding_stays_as_it_is(text: str) -> None:
    assert polarity(text).absent == ()
    assert polarity(text).present == text
    assert weighted_texts(text) == ((text, 1.0),)


def test_absence_is_a_difference_and_presence_leads() -> None:
    assert weighted_texts("no effusion") == ((NEUTRAL, 1.0), ("effusion", -1.0))
    (present, one), *absent = weighted_texts("cardiomegaly, no effusion or pneumothorax")
    assert (present, one) == ("cardiomegaly", 1.0)
    assert [text for text, _ in absent] == ["effusion", "pneumothorax"]
    assert -1 < sum(weight for _, weight in absent) < 0


@given(st.text(max_size=200))
def test_any_text_is_taken_apart(text: str) -> None:
    found = polarity(text)
    assert all(part.strip() for part in found.absent)
    texts = weighted_texts(text)
    assert texts[0][1] == 1.0
    assert all(weight < 0 for _, weight in texts[1:])


@given(st.lists(st.sampled_from(["no", "without", "effusion", "mass", ",", "or", "and", "is absent", ".", "with"])))
def test_any_heap_of_negations_ends(words: list[str]) -> None:
    assert weighted_texts(" ".join(words))
