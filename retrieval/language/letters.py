"""Unicode normalization in time linear in the text."""

from __future__ import annotations

import unicodedata
from typing import Literal

MOST_MARKS = 30  # combining marks in a row (Stream-Safe Text Format, UAX #15, section 13); no language uses as many
_MARKS_OF_CLASS_0 = frozenset("\u0f73\u0f75\u0f81")  # Tibetan vowel signs that decompose into marks


def with_few_marks(text: str) -> str:
    """The text with at most MOST_MARKS combining marks in a row; further marks are removed.

    Normalization sorts the marks of a letter, and Python does that in quadratic time: 40,000 marks took 6 s.
    """
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for c in text:
        marks = marks + 1 if unicodedata.combining(c) or c in _MARKS_OF_CLASS_0 else 0
        if marks <= MOST_MARKS:
            kept.append(c)
    return "".join(kept)


def normalized(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """The text in a normalization form, after `with_few_marks`."""
    return unicodedata.normalize(form, with_few_marks(text))


def without_accents(text: str) -> str:
    """The text in compatibility form (NFKD) without its combining marks."""
    return "".join(c for c in normalized("NFKD", text) if not unicodedata.combining(c))
