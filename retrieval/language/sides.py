"""Left and right: which words of a text name a side, and which other words belong to that side.

As a bag of words, "opacity on the right; the left lung is clear" matches the query "left opacity" as well as a report
that means it. Each word therefore gets a second form with its side ("left_opacity"), in reports and in queries, and
reports that name the right side rank first.

The rule looks at words, not at grammar. Within a clause, a side applies to the words after it, up to the next side;
words before the first side belong to that side. "Left and right" and "bilateral" are both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LEFT, RIGHT = "left", "right"
_SIDE_OF = {
    "left": LEFT,
    "lt": LEFT,
    "leftward": LEFT,
    "leftsided": LEFT,
    "right": RIGHT,
    "rt": RIGHT,
    "rightward": RIGHT,
    "rightsided": RIGHT,
}
LOBES_AND_LIMBS = ("ul", "ll", "uq", "lq", "ue", "le")  # preceded by L or R: LUL is the left upper lobe
_LETTERS = {f"{side[0]}{rest}": side for side in (LEFT, RIGHT) for rest in LOBES_AND_LIMBS} | {"rml": RIGHT}
_BOTH = {"bilateral", "bilaterally", "both"}
# Words after a "left" or "right" that does not name a side: "left untreated", "right now", "right-handed".
NO_SIDE_BEFORE = (
    r"(?:\s+(?:the|untreated|alone|behind|without|against|home|in (?:place|situ)|now|away|before|after)\b"
    r"|[-\s]+handed)"
)
BOTH_SIDES = r"\b(?:left|right)\s*(?:and|or|&|/)\s*(?:the\s+)?(?:left|right)\b"
_WORD = re.compile(r"[^\W_]+")
_CLAUSE_END = re.compile(r"(?<![.;:!?\n,])[.;:!?\n,]+(?=\s|$)|\b(?:but|while|whereas|although|however)\b")
_JOINED = re.compile(BOTH_SIDES)
_NO_SIDE = re.compile(rf"\b(?:left|right)(?={NO_SIDE_BEFORE})")


def clauses(text: str) -> list[str]:
    """The clauses of a lower-case text, without words that only look like a side."""
    text = _NO_SIDE.sub(" ", text.replace("-sided", "sided"))
    return [part for part in _CLAUSE_END.split(_JOINED.sub("bilateral", text)) if part.strip()]


def sided(words: list[str]) -> list[tuple[str, str]]:
    """(side, word) for each word of a clause and each side that the word belongs to. Words without a side are left
    out."""
    at = [side_of(word) for word in words]
    first = next((found for found in at if found), ())
    out: list[tuple[str, str]] = []
    current = first
    for word, found in zip(words, at, strict=True):
        if found:
            current = found
            if word in _LETTERS:  # "RUL" names a side and a lobe
                out += [(side, word[1:]) for side in found]
        else:
            out += [(side, word) for side in current]
    return out


def side_of(word: str) -> tuple[str, ...]:
    """The sides that a word names; empty for most words."""
    if word in _BOTH:
        return (LEFT, RIGHT)
    side = _SIDE_OF.get(word) or _LETTERS.get(word)
    return (side,) if side else ()


def only_side(texts: Iterable[str]) -> str | None:
    """The one side that the texts name; None if they name no side or both."""
    words = (word for text in texts for clause in clauses(text.casefold()) for word in _WORD.findall(clause))
    found = {side for word in words for side in side_of(word)}
    return found.pop() if len(found) == 1 else None
