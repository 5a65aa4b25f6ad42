"""Splits reports into sentences for retrieval, in time linear in the length of the text."""

from __future__ import annotations

import re

MIN_LETTERS = 6  # the letters of the shortest sentence: "No mass."
MAX_SENTENCE = 400  # characters; a longer sentence is cut at a clause, since text encoders read 77 to 256 tokens

_SECTIONS = (
    "addendum|assessment|clinical (?:history|information|data|indication)|comparison|conclusions?|diagnosis|"
    "examination|exam|findings?|history|impressions?|indications?|interpretation|opinion|procedure|reason for "
    "(?:exam(?:ination)?|study)|recommendations?|report|results?|summary|technique|befund|beurteilung|indikation|technik"
)
SECTION = re.compile(rf"\s*(?:{_SECTIONS})\s*", re.IGNORECASE)
_ABBREVIATED = """
    al approx bzw ca cf dr e.g eg ev etc fig figs frau ggf hr i.e ie incl mme mr mrs ms nr no p.o prof resp sog st str
    u.a vs z.b d.h s.o a.m p.m dept hx sra sr jr temp vol
"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_BULLET = re.compile(r"^\s*(?:[•●▪◦‣·*–—-]|\(?\d{1,2}[.)]|\(?[a-h]\))\s+")
_INLINE_BULLET = re.compile(r"\s[•●▪◦‣]\s*|(?<=[.;:])\s+\(?\d{1,2}[.)]\s+(?=[^\W\d_])|^\s*[•●▪◦‣]\s*")
_INLINE_HEADING = re.compile(rf"(?:^|(?<=[.\s]))(?:{_SECTIONS})\s*:(?=\s|$)", re.IGNORECASE)
_END = re.compile(r"(?<![.!?])[.!?]+[\"')\]]*(?=\s|$)|[。！？]|(?<=[a-z]{2})\.(?=[A-Z][a-z])|;(?=\s*\n)")
_HEADING_LINE = re.compile(r"[^\W\d_a-z][\w /&-]{0,40}:")
_NOT_BLANK = re.compile(r"\S")
_LONG_LINE = 60


def sentences(text: str) -> list[str]:
    """Split a report into sentences: in order, each once (regardless of case), with single spaces.

    Handles abbreviations (Dr., e.g., vs.), initials, decimals, list markers, bullets and wrapped lines, and removes
    section headings. A sentence has at least MIN_LETTERS letters. A sentence of more than MAX_SENTENCE characters is
    cut at a clause.
    """
    found: dict[str, str] = {}
    for block in _blocks(text):
        for part in _INLINE_BULLET.split(_INLINE_HEADING.sub("\n", block)):
            for line in part.split("\n"):
                for sentence in _split(_BULLET.sub("", line, count=1)):
                    for piece in _bounded(" ".join(sentence.split()).strip(" -–—•*")):
                        if sum(c.isalpha() for c in piece) >= MIN_LETTERS:
                            found.setdefault(piece.casefold().rstrip(".!?;: "), piece)
    return list(found.values())


def _blocks(text: str) -> list[str]:
    """The lines of a text, with wrapped lines joined.

    A line continues on the next line if it does not end a sentence, and is long or followed by a small letter.
    """
    blocks: list[list[str]] = []
    open_line = ""
    for raw in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        marker = _BULLET.match(raw)
        line = (raw[marker.end() :] if marker else raw).strip()
        if not line or _HEADING_LINE.fullmatch(line) or SECTION.fullmatch(line.rstrip(":")):
            open_line = ""
            continue
        goes_on = (
            open_line
            and not marker
            and open_line[-1] not in ".!?:;。"
            and (len(open_line) >= _LONG_LINE or line[0].islower())
        )
        if goes_on:
            blocks[-1].append(line)
        else:
            blocks.append([line])
        open_line = line
    return [" ".join(lines) for lines in blocks]


def _split(line: str) -> list[str]:
    parts: list[str] = []
    start = 0
    for match in _END.finditer(line):
        if match[0] == "." and _is_abbreviation(line, match.start(), match.end()):
            continue
        parts.append(line[start : match.end()])
        start = match.end()
    parts.append(line[start:])
    return parts


def _is_abbreviation(line: str, dot: int, end: int) -> bool:
    word = line[max(0, dot - 12) : dot].split(" ")[-1].lstrip("([\"'").lower()
    if word == "no":  # "No. 5" is an abbreviation, "Effusion? No." is not
        return _first_letter(line, end).isdigit()
    if word in ("temp", "vol", "a.m", "p.m", "etc"):
        return not _first_letter(line, end).isupper()
    # Initials and enumerations (J. Smith, "a. b. c. d."); a number at the start of a line is a list marker.
    return (
        word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or (word.isdigit() and len(word) < 3 and dot < 4)
    )


def _first_letter(line: str, at: int) -> str:
    """The first character from `at` on that is not a blank; "" if there is none."""
    found = _NOT_BLANK.search(line, at)
    return found[0] if found else ""


def _bounded(sentence: str) -> list[str]:
    """A sentence with single blanks, cut into pieces of at most MAX_SENTENCE characters."""
    pieces: list[str] = []
    start = 0
    while len(sentence) - start > MAX_SENTENCE:
        window = sentence[start : start + MAX_SENTENCE]
        cut = max(window.rfind("; "), window.rfind(", "), window.rfind(": "))
        if cut < MAX_SENTENCE // 4:
            cut = window.rfind(" ")
        if cut < MAX_SENTENCE // 4:
            cut = MAX_SENTENCE - 1
        pieces.append(window[: cut + 1].rstrip(" ,;"))
        start += cut + 1
        if sentence[start] == " ":
            start += 1
    return [*pieces, sentence[start:]]
