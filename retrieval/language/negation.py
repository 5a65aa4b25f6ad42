"""Negation: which findings a text calls present and which absent, as in "cardiomegaly, no pleural effusion".

Image-text models hardly respond to a "no": the embedding of "no pleural effusion" lies close to that of "pleural
effusion", so a search for it finds effusions (published AUROC 0.39 to 0.49; benchmarks/zero_shot.py measures medlens).
medlens therefore separates present and absent findings before it embeds them, after NegEx (Chapman et al. 2001): a
trigger such as "no", "without" or "negative for" negates the words after it, up to the end of its scope. An absent
finding is searched for as a difference: towards NEUTRAL and away from the finding.

Reports and queries come from strangers, so the time is linear in their length: each clause is scanned once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NEUTRAL = "normal"  # the word that stands for the absence of a finding
ABSENT_WEIGHT = 0.25  # weight of absent findings beside a present one; with 0.5, one caption in 31 loses its image

# Any negating word: for code that compares texts and does not separate their findings.
NEGATING = r"\b(?:no|not|nor|neither|never|without|absen(?:t|ce)|negative|free of|denies|lacks?)\b"
# Phrases that look like a negation of a finding and are not: technique, comparison, doubt.
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
_OR_RE = re.compile(r"\b(?:or|nor)\b", _FLAGS)
_SENTENCE_END_RE = re.compile(r"(?<=[.;!?])\s+")
_BLANKS_BEFORE_MARK_RE = re.compile(r"(?<!\s)\s+([,.;])")
# Words and marks that are removed from the ends of a phrase.
_LEAD_RE = re.compile(r"(?:[\s,.;:]|and\b|or\b|nor\b|with\b|an?\s|the\s|any\s|there (?:is|are|was|were)\b)+", _FLAGS)
_TAIL_MARKS = ",.;:"
_TAIL_WORDS = ("there is", "there are", "there was", "there were", "is", "are", "and", "or", "with")
_LONGEST_TAIL = max(map(len, _TAIL_WORDS))
_HELD = "\u0001"  # takes the place of a pseudo-negation, so that no trigger matches in it
_HELD_RE = re.compile(f"{_HELD}{{2}}(.){_HELD}")


@dataclass(frozen=True)
class Polarity:
    """A text by polarity: the words about what is present ("" if there are none), and the absent findings."""

    present: str
    absent: tuple[str, ...] = ()


def polarity(text: str) -> Polarity:
    """Separate the present and absent findings of a query or caption.

    A text without a negation is returned unchanged, except for its blanks.
    """
    text = " ".join(text.split())
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match.group())
        return _HELD * 2 + chr(0xE000 + len(held) - 1) + _HELD

    def released(part: str) -> str:
        return _HELD_RE.sub(lambda m: held[ord(m.group(1)) - 0xE000], part)

    rest = _PSEUDO_RE.sub(hold, text) if text.isprintable() else text
    absent: list[str] = []
    kept: list[str] = []
    for clause in _SENTENCE_END_RE.split(rest):
        present, found = _clause(clause)
        kept.append(present)
        absent += found
    if not absent:
        return Polarity(text)
    sentences = " ".join(part if part[-1] in ".,;" else f"{part}." for part in kept if part)
    present = _BLANKS_BEFORE_MARK_RE.sub(r"\1", sentences)
    return Polarity(_trimmed(released(present)), tuple(dict.fromkeys(released(part) for part in absent)))


def weighted_texts(text: str) -> tuple[tuple[str, float], ...]:
    """The texts to embed in place of a query, with their weights in a sum of unit vectors. Negative weights push away.

    A text without a negation stands for itself, with weight 1.
    """
    return weighted(polarity(text))


def weighted(found: Polarity) -> tuple[tuple[str, float], ...]:
    """As `weighted_texts`, for a text that was separated by `polarity`."""
    if not found.absent:
        return ((found.present, 1.0),)
    if not found.present:
        share = 1 / len(found.absent)
        return ((NEUTRAL, 1.0), *((part, -share) for part in found.absent))
    return ((found.present, 1.0), *((part, -ABSENT_WEIGHT / len(found.absent)) for part in found.absent))


def affirmed(report: str) -> str:
    """A report without its negated findings, so that "no effusion" does not count as a mention of an effusion.

    Returns NEUTRAL for a report that only excludes findings, and "" for a blank report.
    """
    if not report.strip():
        return ""
    lines = (polarity(line).present for line in report.splitlines())
    return " ".join(line for line in lines if line) or NEUTRAL


def _clause(clause: str) -> tuple[str, list[str]]:
    """The rest of one sentence, and its absent findings."""
    absent: list[str] = []
    if match := _AFTER_RE.search(clause):
        start = max(clause.rfind(sign, 0, match.start()) for sign in (",", ";", ":")) + 1
        found = _findings(clause[start : match.start()])
        if found and not _BEFORE_RE.search(clause, start, match.start()):
            absent += found
            clause = clause[:start] + clause[match.end() :]
    kept: list[str] = []
    at = 0  # the clause is processed up to here
    scope_end = -1  # the first end of a scope after the trigger; searched for again once the trigger has passed it
    while trigger := _BEFORE_RE.search(clause, at):
        if scope_end < trigger.end():
            found_end = _END_RE.search(clause, trigger.end())
            scope_end = found_end.start() if found_end else len(clause)
        again = _BEFORE_RE.search(clause, trigger.end(), scope_end)  # "no mass and no effusion"
        scope = clause[trigger.end() : again.start() if again else scope_end]
        negated = _negated_part(scope)
        found = _findings(negated)
        kept.append(clause[at : trigger.start()])
        at = trigger.end() + len(negated)
        if found:
            absent += found
        else:
            kept.append(trigger.group())  # a "not" without a finding after it negates no finding
            if not negated:
                break
    kept.append(clause[at:])
    return _trimmed("".join(kept)), absent


def _negated_part(scope: str) -> str:
    """The negated part of a scope: a whole list if "or" or "nor" closes it, else the text before the first comma."""
    last = max((match.end() for match in _OR_RE.finditer(scope)), default=0)
    comma = scope.find(",", last)
    return scope if comma < 0 else scope[:comma]


def _findings(listed: str) -> list[str]:
    parts = (" ".join(_SEEN_RE.sub(" ", part).split()) for part in _LIST_RE.split(listed))
    return [finding for part in parts if (finding := _trimmed(part))]


def _trimmed(part: str) -> str:
    """The phrase without marks, articles and conjunctions at its ends."""
    lead = _LEAD_RE.match(part)
    start, end = lead.end() if lead else 0, len(part)
    while end > start:
        if part[end - 1] in _TAIL_MARKS or part[end - 1].isspace():
            end -= 1
            continue
        tail = part[max(start, end - _LONGEST_TAIL - 1) : end].lower()
        word = next((w for w in _TAIL_WORDS if tail.endswith(w) and _begins_word(tail, len(tail) - len(w))), None)
        if word is None:
            break
        end -= len(word)
    return part[start:end]


def _begins_word(text: str, at: int) -> bool:
    return not at or not (text[at - 1].isalnum() or text[at - 1] == "_")
