"""What a query says is there, and what it says is not: "cardiomegaly, no pleural effusion".

Image-text models hardly hear a "no": the embedding of "no pleural effusion" lies close to that of "pleural effusion",
and a search for it finds effusions (published AUROC 0.39 to 0.49; benchmarks/zero_shot.py has ours). So the words are
taken apart before they are embedded, after NegEx (Chapman et al. 2001): a trigger such as "no", "without" or "negative
for" negates what follows, up to the end of its scope. What is absent is then searched as a difference: towards NEUTRAL,
away from the finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from retrieval.search.query import Part, Query, TextPart

NEUTRAL = "normal"  # the word that the absence of a finding is said by
ABSENT_WEIGHT = 0.25  # of the absent findings beside something present; 0.5 costs one caption in 31 its image

# What looks like a negation and is none: of technique, of comparison, of doubt.
_PSEUDO = (
    r"(?:with(?:out)?|no|non)[ -](?:and without )?(?:(?:iv|intravenous|oral|gadolinium)[ -])*contrast",
    r"without (?:and with )?contrast",
    r"no (?:significant |interval |acute |definite )*(?:change|increase|decrease|difference|improvement)",
    r"without (?:difficulty|change|increase|decrease|improvement)",
    r"not (?:only|necessarily|just|needed|clearly|well|obvious)",
    r"(?:can ?not|could not|can't) be (?:excluded|ruled out)",
    r"not (?:excluded|ruled out)",
    r"no (?:prior|previous|other|further|history|longer|known|iv|film)\b",
    r"no\.? ?\d+",
)
_BEFORE = (
    r"(?:with )?no(?: (?:radiographic|radiological|imaging|acute|definite|convincing|significant|focal|visible))*"
    r" (?:evidence|sign|signs|indication|suggestion|findings?|features?) (?:of|for)(?: an?\b| the\b| any\b)?",
    r"(?:with )?(?:an? |the )?absence of(?: an?\b| the\b| any\b)?",
    r"negative for",
    r"free (?:of|from)(?! (?:air|fluid))",
    r"(?:does|do|did) not (?:show|demonstrate|reveal|have|contain)(?: an?\b| the\b| any\b)?",
    r"not (?:showing|demonstrating|having)(?: an?\b| the\b| any\b)?",
    r"without(?: (?:any|an?|evidence of|signs? of|associated))*",
    r"lacks|lacking",
    r"neither",
    r"(?:with )?no(?: (?:obvious|definite|appreciable|discrete|visible|acute))*",
)
_AFTER = (
    r"(?:is|are|was|were|has been|have been) (?:absent|not (?:seen|present|identified|visible|evident|detected|found))",
    r"(?:is|are|was|were|has been|have been) (?:excluded|ruled out)",
    r"not (?:seen|present|identified|visible|evident|detected|found)",
    r"absent",
)
_ENDS = (
    r"but|however|although|though|except|apart from|aside from|yet|which|who|that|because|since|with|where|while"
    r"|there (?:is|are|was|were)|showing|shows|and (?:with|there|a|an|the)\b"
)

_FLAGS = re.IGNORECASE
_PSEUDO_RE = re.compile("|".join(rf"\b(?:{p})" for p in _PSEUDO), _FLAGS)
_BEFORE_RE = re.compile(rf"\b(?:there (?:is|are|was|were) )?(?:{'|'.join(_BEFORE)})\b", _FLAGS)
_AFTER_RE = re.compile(r"\s*\b(?:" + "|".join(_AFTER) + r")\b", _FLAGS)
_END_RE = re.compile(rf"[.;:!?()]|\s-\s|\b(?:{_ENDS})\b", _FLAGS)
_LIST_RE = re.compile(r"\s*,\s*(?:and |or |nor )?|\s+(?:or|nor|and)\s+|\s*/\s*", _FLAGS)
_SEEN_RE = re.compile(  # "no mass is seen in the liver": the finding is the mass in the liver
    r"\b(?:(?:is|are|was|were) )?(?:seen|identified|visible|evident|detected|found|noted|present|demonstrated)\b",
    _FLAGS,
)
_HELD = "\u0001"  # stands for a pseudo-negation, so that no trigger is seen in it


@dataclass(frozen=True)
class Polarity:
    """A text taken apart: the words of what is present, "" if nothing is; the findings that are absent."""

    present: str
    absent: tuple[str, ...] = ()


def polarity(text: str) -> Polarity:
    """Take a query or a caption apart. A text without a negation comes back as it is, blanks apart."""
    text = " ".join(text.split())
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match.group())
        return _HELD * 2 + chr(0xE000 + len(held) - 1) + _HELD

    def released(part: str) -> str:
        return re.sub(f"{_HELD}{{2}}(.){_HELD}", lambda m: held[ord(m.group(1)) - 0xE000], part)

    rest = _PSEUDO_RE.sub(hold, text) if text.isprintable() else text
    absent: list[str] = []
    kept: list[str] = []
    for clause in re.split(r"(?<=[.;!?])\s+", rest):
        present, found = _clause(clause)
        kept.append(present)
        absent += found
    if not absent:
        return Polarity(text)
    present = re.sub(r"\s+([,.;])", r"\1", " ".join(part if part[-1] in ".,;" else f"{part}." for part in kept if part))
    return Polarity(_trimmed(released(present)), tuple(dict.fromkeys(released(part) for part in absent)))


def weighted_texts(text: str) -> tuple[tuple[str, float], ...]:
    """The texts to embed in place of one, with their weights in a sum of unit vectors; negative ones are avoided.

    A text without a negation is itself with weight 1.
    """
    return _weighted(polarity(text))


def _weighted(found: Polarity) -> tuple[tuple[str, float], ...]:
    if not found.absent:
        return ((found.present, 1.0),)
    if not found.present:
        share = 1 / len(found.absent)
        return ((NEUTRAL, 1.0), *((part, -share) for part in found.absent))
    return ((found.present, 1.0), *((part, -ABSENT_WEIGHT / len(found.absent)) for part in found.absent))


def affirmed(report: str) -> str:
    """What a report says is there: without its negated findings, so that "no effusion" is no mention of an effusion.

    A report that only rules out says NEUTRAL; a blank one stays blank.
    """
    if not report.strip():
        return ""
    lines = (polarity(line).present for line in report.splitlines())
    return " ".join(line for line in lines if line) or NEUTRAL


def heard(query: Query) -> Query:
    """The query with the negations of its words as parts of their own. One without any comes back as it is."""
    if query.literal:
        return query
    parts: list[Part] = []
    for part in query.parts:
        if not isinstance(part, TextPart) or part.weight < 0:
            parts.append(part)
            continue
        found = polarity(part.text)
        for text, weight in _weighted(found):
            # Reports are asked for what the query names, not for the word that stands for an absence.
            named = weight < 0 or bool(found.present)
            parts.append(TextPart(text, part.weight * weight, part.in_reports and named))
    return query if tuple(parts) == query.parts else replace(query, ask=parts)


def _clause(clause: str) -> tuple[str, list[str]]:
    """One sentence: what is left of it, and its absent findings."""
    absent: list[str] = []
    kept = ""
    rest = clause
    if match := _AFTER_RE.search(rest):
        start = max(rest.rfind(sign, 0, match.start()) for sign in (",", ";", ":")) + 1
        found = [part for part in map(_finding, _LIST_RE.split(rest[start : match.start()])) if part]
        if found and not _BEFORE_RE.search(rest[start : match.start()]):
            absent += found
            rest = rest[:start] + rest[match.end() :]
    while match := _BEFORE_RE.search(rest):
        after = rest[match.end() :]
        end = _END_RE.search(after)
        scope = after[: end.start()] if end else after
        tail = after[end.start() :] if end else ""
        if again := _BEFORE_RE.search(scope):  # "no mass and no effusion"
            scope, tail = scope[: again.start()], scope[again.start() :] + tail
        scope, more = _listed(scope)
        found = [part for part in map(_finding, _LIST_RE.split(scope)) if part]
        kept += rest[: match.start()]
        if found:
            absent += found
        else:
            kept += match.group()  # "not" before nothing is no negation of a finding
        rest = f"{more}{tail}"
        if not found and rest == after:
            break
    kept += rest
    return _trimmed(kept), absent


def _listed(scope: str) -> tuple[str, str]:
    """What of a scope is negated: all of a list that "or" or "nor" closes, else up to its first comma."""
    parts = scope.split(",")
    closed = [i for i, part in enumerate(parts) if re.search(r"\b(?:or|nor)\b", part, _FLAGS)]
    last = max(closed, default=0)
    return ",".join(parts[: last + 1]), "".join("," + part for part in parts[last + 1 :])


def _finding(part: str) -> str:
    return _trimmed(" ".join(_SEEN_RE.sub(" ", part).split()))


def _trimmed(part: str) -> str:
    part = re.sub(
        r"^(?:[\s,.;:]|and\b|or\b|nor\b|with\b|an?\s|the\s|any\s|there (?:is|are|was|were)\b)+", "", part, flags=_FLAGS
    )
    return re.sub(r"(?:[\s,.;:]|\bis|\bare|\band|\bor|\bwith|\bthere (?:is|are|was|were))+$", "", part, flags=_FLAGS)
