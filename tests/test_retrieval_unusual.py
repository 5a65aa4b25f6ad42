"""Which words are unusual for radiology, and what a search says of them."""

from __future__ import annotations

import pytest
from test_retrieval_query import PICTURE, REPORTS, World

from retrieval.search.query import ImagePart, Query
from retrieval.search.unusual import familiarity, is_unusual


@pytest.mark.parametrize(
    "text",
    [
        "brain MRI",
        "chest x-rays with bilateral infiltrates and cardiomegaly",
        "no pleural effusion",
        "Röntgen Thorax",
        "IRM du genou",
        "glioblastoma",
        "3.5",
        "",
    ],
)
def test_words_of_radiology_are_usual(text: str) -> None:
    assert not is_unusual(familiarity([text]), 0.0)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a brass band votes against Tuesday's paper", ("brass", "band", "votes", "Tuesday's")),
        ("asdf qwer zxcv", ("asdf", "qwer", "zxcv")),
        ("\N{GRINNING FACE}", ("\N{GRINNING FACE}",)),
        ("\u80ba\u708e", ("\u80ba\u708e",)),
        ("pnuemonia", ("pnuemonia",)),
    ],
)
def test_other_words_are_unusual_and_named(text: str, unknown: tuple[str, ...]) -> None:
    found = familiarity([text])
    assert is_unusual(found, 0.0)
    assert set(found.unknown) <= set(unknown) and found.unknown


def test_a_report_that_has_the_words_makes_them_a_good_match() -> None:
    found = familiarity(["asdf qwer zxcv"])
    assert is_unusual(found, 0.1) and not is_unusual(found, 0.8)
    assert familiarity(["asdf"], lambda word: word == "asdf").unknown == ()


def test_a_search_says_that_nothing_fits() -> None:
    world = World(3, reports=REPORTS)
    nonsense = world.search(Query("asdf qwer zxcv"))
    assert not nonsense.good_match and nonsense.hits
    assert nonsense.notes[0] == "unknown words (check their spelling): asdf, qwer, zxcv"
    assert nonsense.notes[1].startswith("no good match: these words are rare in radiology")
    assert world.search(Query("pleural effusion")).good_match
    assert world.search(Query(["asdf qwer", ImagePart(PICTURE)])).good_match
    assert world.search(Query(ImagePart(PICTURE))).notes == ()
