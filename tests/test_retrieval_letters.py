"""Unicode normalization of what strangers wrote."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.language.letters import MOST_MARKS, normalized, with_few_marks, without_accents


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@given(text=st.text())
def test_texts_are_normalized_as_unicode_says(form: str, text: str) -> None:
    assert normalized(form, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", ["\u0300", "\u0315", "\u0f73", "\u0344"])
def test_no_letter_carries_more_marks_than_any_language_writes(mark: str) -> None:
    assert with_few_marks(f"a{mark * 1000}b{mark}") == f"a{mark * MOST_MARKS}b{mark}"
    text = normalized("NFKD", "a" + f"\u0315{mark}" * 100_000 + "b")
    assert len(text) < 3 * MOST_MARKS and text[-1] == "b"


def test_accents_go_and_letters_stay() -> None:
    assert without_accents("Lésion hépatique, Größe ﬁ ½") == "Lesion hepatique, Große fi 1⁄2"
