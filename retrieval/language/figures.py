"""Captions of figures in publications, cut to what they say of the picture: pure functions, linear in a text's length.

A caption points at its figure ("the mass (arrow)", "A: axial view") and tells one panel from another. A model that
sees the picture at a hundred pixels, without its letters, learns nothing from that.
"""

from __future__ import annotations

import re

from retrieval.language.captions import sentences_of

_POINTER = (
    r"(?:arrow\s?-?\s?heads?|arrows?|asterisk\w*|asterix|stars?|circles?|circled|encircled|crosses|calipers?|callipers?"
    r"|(?:dotted|dashed|white|black|red|yellow|green|blue) (?:lines?|box(?:es)?|dots?|squares?))"
)
_BRACKETS = re.compile(rf"(?i)\s*[(\[][^()\[\]]{{0,160}}?\b{_POINTER}\b[^()\[\]]{{0,160}}[)\]]")
_PANEL = re.compile(
    r"(?:\(\s*[A-Ha-h](?:\s*(?:[,&–-]|and|to)\s*[A-Ha-h]){0,7}\s*\)|(?:(?<=\s)|^)[A-H](?:\s*[,&-]\s*[A-H]){0,7}\s*[:.)](?=\s))"
)
_FIGURE = re.compile(r"(?i)^\s*(?:supplementary\s+)?fig(?:ure|\.)?\s*\d{1,3}\s*[A-Ha-h]?\s*[.:)-]?\s*")
_CLAUSE = re.compile(r"(?<=[;,:])\s+")
_POINTS = re.compile(rf"(?i)\b{_POINTER}\b")
_TRAILING = re.compile(
    rf"(?i)[\s,]{{1,3}}(?:as\s+)?(?:is\s+|are\s+|was\s+|were\s+)?(?:indicated|shown|marked|denoted|depicted|pointed|delineated|see)"
    rf"(?:\s+(?:out|by|with|at|using|in))*(?:\s+(?:the|an?|two|three|long|short|small|large|white|black|red|yellow|solid|"
    rf"open|thick|thin|curved|straight))*\s+{_POINTER}(?=\W|$)"
)
_BLANKS = re.compile(r"\s+([.,;:])|\s{2,}")
_SHORTEST = 2  # words that say something of a picture


def plain_caption(text: str) -> str:
    """The caption without its figure's number, panels, and what points at something. Empty if nothing is left."""
    rest = _BRACKETS.sub("", _FIGURE.sub("", " ".join(text.split())))
    rest = _TRAILING.sub("", " ".join(_PANEL.sub("", rest).split()))
    parts = [_without_pointing(part) for part in sentences_of(rest) or [rest]]
    return _tidy(" ".join(part for part in parts if len(part.split()) >= _SHORTEST))


def shares_of_caption(text: str) -> list[tuple[str, float]]:
    """What may stand for the caption, with shares that add up to 1: all of it first, which is half, then its sentences.

    None if nothing is left of it."""
    whole = plain_caption(text)
    if not whole:
        return []
    parts = sentences_of(whole)
    if not parts:
        return [(whole, 1.0)]
    return [(whole, 0.5), *((part, 0.5 / len(parts)) for part in parts)]


def _without_pointing(sentence: str) -> str:
    if not _POINTS.search(sentence):
        return sentence
    clauses = [clause for clause in _CLAUSE.split(sentence) if not _POINTS.search(clause)]
    rest = _tidy(" ".join(clauses)).rstrip(",;: ")
    return f"{rest[:1].upper()}{rest[1:]}." if rest and rest[-1] != "." else rest


def _tidy(text: str) -> str:
    return _BLANKS.sub(lambda match: match.group(1) or " ", text).strip(" ,;:")
