"""What the words of a filter mean for an attribute of some kind. Knows no SQL."""

from __future__ import annotations

import math
import re
from functools import cache

from indexer.keywords import ValueKind
from retrieval.language.header_terms import AGE_GROUPS

EXPECTED: dict[ValueKind, str] = {
    ValueKind.INTEGER: "a whole number",
    ValueKind.NUMBER: "a number",
    ValueKind.DATE: "a date like 2020, 2020-01, 2020-01-31, January 2020 or 31 January 2020",
    ValueKind.AGE: "years like 60, or 018M, or 18 months, or one of newborn, infant, child, adolescent, adult, elderly",
    ValueKind.FLAG: "yes or no",
    ValueKind.TEXT: "a text",
}
_FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # PS3.5 6.2, AS; as the reader converts ages
_AGE = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:([ymwd])|(years?|yrs?|months?|mos?|weeks?|wks?|days?)(?:\s+old)?)?", re.IGNORECASE | re.ASCII
)


def integer(text: str) -> int:
    """A whole number of 64 bits, as a database keeps it. ValueError for another."""
    number = int(text) if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII) else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def number(text: str) -> float:
    """A finite number. ValueError for another."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def about(value: float) -> tuple[float, float]:
    """What equals a number but for rounding on its way from decimal text: 0.7, or 5 weeks in years."""
    margin = 1e-9 * max(1.0, abs(value))
    return value - margin, value + margin


def years(text: str) -> float:
    """An age in years, from years or with a unit. ValueError for another text."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    unit = (found[2] or found[3] or "y")[0].lower()
    return float(found[1]) / _PER_YEAR[unit]


def ages(text: str) -> tuple[float, float]:
    """The lowest and the highest age, in years, of an age or of a word for an age group. ValueError for another."""
    group = age_group(text)
    if group is None:
        return about(years(text))
    low, below = map(years, group)
    return low, math.nextafter(below, 0)


def age_group(text: str) -> tuple[str, str] | None:
    """From and below which age a word for an age group means; None for another text."""
    return AGE_GROUPS.get(text.strip().lower())


def flag(text: str) -> bool:
    """Yes or no. ValueError for another text."""
    if text.lower() not in _FLAGS:
        raise ValueError(text)
    return _FLAGS[text.lower()]


def folded(text: str) -> str:
    """The text without regard to case, letter by letter: one letter stays one letter.

    By Unicode's simple case folding (CaseFolding.txt, C and S), except that a letter outside ASCII never becomes one
    inside: SQL's lower() over ASCII, which every database has, is then right about ASCII letters in any text.
    """
    return text.lower() if text.isascii() else "".join(map(_folded_letter, text))


def spellings(letters: str) -> dict[str, tuple[str, ...]]:
    """The letters outside ASCII that fold to each of these, other than itself."""
    table = _spellings()
    return {letter: table[letter] for letter in dict.fromkeys(letters) if letter in table}


def _folded_letter(letter: str) -> str:
    for other in (letter.casefold(), letter.lower()):
        if len(other) == 1 and (letter.isascii() or not other.isascii()):
            return other
    return letter


@cache
def _spellings() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for code in range(0x80, 0x1F000):  # no letter beyond has a case
        letter = chr(code)
        if (fold := _folded_letter(letter)) != letter:
            table.setdefault(fold, []).append(letter)
    return {fold: tuple(letters) for fold, letters in table.items()}
