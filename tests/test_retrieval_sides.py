"""Which words of a report belong to which side, and that the ranking of reports hears it."""

from __future__ import annotations

import pytest

from retrieval.language.captions import exchanged
from retrieval.language.sides import clauses, only_side, sided
from retrieval.search.bm25 import build_report_index, terms


def pairs(text: str) -> set[str]:
    return {f"{side} {word}" for clause in clauses(text.casefold()) for side, word in sided(clause.split())}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left pleural effusion", {"left pleural", "left effusion"}),
        ("opacity on the right", {"right opacity", "right on", "right the"}),
        ("opacity on the right; the left lung is clear", {
            "right opacity", "right on", "right the", "left the", "left lung", "left is", "left clear",
        }),
        ("left apical nodule and right effusion", {"left apical", "left nodule", "left and", "right effusion"}),
        ("bilateral infiltrates", {"left infiltrates", "right infiltrates"}),
        ("left and right effusions", {"left effusions", "right effusions"}),
        ("Right-sided mass", {"right mass"}),
        ("rul nodule", {"right ul", "right nodule"}),
        ("no side is named", set()),
        ("he left the hospital", set()),
        ("a right-handed man", set()),
        ("", set()),
    ],
)  # fmt: skip
def test_words_go_to_the_side_that_is_said_of_them(text: str, expected: set[str]) -> None:
    assert pairs(text) == expected


def test_terms_are_the_words_their_pairs_and_those_of_sides_once_more() -> None:
    assert terms("Effusion on the LEFT.") == ["effus", "left", "effus left", "left_effus"]
    assert terms("no side here") == ["no", "side", "here", "no side", "side here"]


def test_the_report_that_says_it_of_the_side_asked_for_comes_first() -> None:
    reports = {
        "1": "Pleural effusion on the right. The left lung is clear, its hilum normal.",
        "2": "Pleural effusion on the left. The right lung is clear, its hilum normal.",
        "3": "Bilateral pleural effusion. Both lungs are clear, their hila normal.",
        "4": "Fracture of the femur.",
    }
    index = build_report_index(reports)
    for asked, order in (("left pleural effusion", "231"), ("right pleural effusion", "132")):
        scores = dict(zip(index.studies, index.scores(asked), strict=True))
        assert scores[order[0]] > scores[order[2]] > scores["4"], asked
        assert scores["3"] > scores[order[2]], "both sides are that side too"
    alike = index.scores("pleural effusion")
    assert alike[0] == alike[1], "who names no side gets both"


def test_one_list_of_where_left_and_right_name_no_side() -> None:
    """The same for reports and captions: "right before" is a time, "left at the base" is a side."""
    for said in ("right before the scan", "left the ward", "right-handed", "left in place"):
        assert only_side([said]) is None, said
        assert exchanged(said) is None, said
    assert only_side(["opacity on the left at the base"]) == "left"
    assert exchanged("opacity on the left at the base") == "opacity on the right at the base"
    assert only_side(["swelling of the LLE"]) == "left"
