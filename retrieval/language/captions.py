"""Captions with their sides exchanged or a finding negated: pure functions on English report text.

Image-text models hardly distinguish "left" from "right" or "no effusion" from "effusion" unless they are trained to
(Yuksekgonul et al. 2023). These functions write a caption that is almost the same and wrong. They look at words, not
at grammar. Where a text makes no clear statement (a suspicion, a comparison, a finding mentioned before), they return
None. The time is linear in the length of the text, up to a logarithmic factor.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from retrieval.language.negation import NEGATING, polarity
from retrieval.language.sides import BOTH_SIDES, LOBES_AND_LIMBS, NO_SIDE_BEFORE

_OTHER = {"left": "right", "lt": "rt", "l": "r"} | {f"l{rest}": f"r{rest}" for rest in LOBES_AND_LIMBS}
_OTHER |= {other: side for side, other in _OTHER.items()}
_CAPITALS = "|".join(LOBES_AND_LIMBS).upper()
# A single L or R needs a word after it: L4 is a vertebra.
_SIDE = re.compile(
    rf"\b(?:(?i:left|right)(?=\b|ward|sided)(?!(?i:{NO_SIDE_BEFORE}))|(?i:lt|rt)\b|[LR](?:{_CAPITALS})\b|[LR](?=\s[a-z]))"
)
_BOTH = re.compile(rf"(?i){BOTH_SIDES}|\bbilateral(?:ly)?\b")
_ONE_SIDED = re.compile(  # organs and vessels that a mirrored image shows on the wrong side
    r"(?i)\b(?:hearts?|cardiac|ventric\w+|atri(?:al|um|a)|aort\w+|liver|hepat\w+|spleen|splen\w+|stomach|gastric"
    r"|gall ?bladder|biliary|append\w+|c(?:a)?ecum|sigmoid|duoden\w+|pancrea\w+|dextro\w+|levo\w+|situs|clockwise"
    r"|o'?clock)\b|\b(?:LV|RV|LA|RA|LAD|RCA|IVC|SVC)\b"
)

_FINDING = re.compile(
    r"(?i)\b(?:mass effect|midline shift|(?:hydro|pneumo|h(?:a)?emo)thorax|pneumothoraces|effusions?|consolidations?"
    r"|pneumonias?|opacit(?:y|ies)|infiltrates?|atelectasis|o?edema|cardiomegaly|mass(?:es)?|nodules?|lesions?|tumou?rs?"
    r"|carcinomas?|lymphomas?|meningiomas?|gliomas?|metastas[ei]s|cysts?|abscess(?:es)?|fractures?|dislocations?"
    r"|h(?:a)?emorrhages?|h(?:a)?ematomas?|infarct(?:s|ions?)?|isch(?:a)?emia|aneurysms?|stenos[ei]s|thromb(?:us|osis)"
    r"|embol(?:us|i|ism)|calcifications?|(?:lymph)?adenopathy|hydronephrosis|hydrocephalus|ascites|pneumoperitoneum"
    r"|pneumomediastinum|hernias?|scoliosis|osteophytes?|bronchiectasis|fibrosis|emphysema|cavitations?|calcul(?:us|i)"
    r"|collapse|granulomas?|polyps?|diverticul(?:um|a)|dissections?|perforations?)\b"
)
# Inflections and spellings of a word end like this, once "haem-" and "oede-" are "hem-" and "ede-".
_ENDING = re.compile(r"(?:ions?|ism|ies|aces|ax|es|is|us|um|as?|i|y|e|(?<!s)s)$")
_ALIKE = (  # stems of findings that readers use for the same thing
    {"consolidat", "pneumoni", "opacit", "infiltrat", "atelectas", "collaps"},
    {"mass", "nodul", "les", "tumor", "carcinom", "lymphom", "meningiom", "gliom", "metastas", "granulom"},
    {"cyst", "les"},
    {"hemorrhag", "hematom"},
    {"infarct", "ischemi"},
    {"thromb", "thrombos", "embol"},
    {"calcificat", "calcul", "granulom"},
)
_END = re.compile(  # words that can't be part of the adjectives before a finding
    r"(?i)(?:an?|the|this|that|these|those|its|their|his|her|there|any|no|not|nor|neither|never|without|of|in|on|at|with"
    r"|within|to|from|by|for|and|or|but|is|are|was|were|be|been|being|has|have|had|as|into|through|over|under|near|like"
    r"|show(?:s|ed|ing|n)?|demonstrat(?:es?|ed|ing)|reveal(?:s|ed|ing)?|seen|noted|suggest(?:s|ing)?|represent(?:s|ing)?"
    r"|confirm(?:s|ed)?|which|who|than|images?|views?|ct|mri?|x-ray|radiographs?|film|scan|denies|contains|develop(?:s|ed)?)"
)
_POINTED = re.compile(r"(?i)the|this|that|these|those|its|their|his|her")  # the text mentioned the finding before
_DENIAL = re.compile(
    r"(?i)\b(?:there (?:is|are|was|were) )?(?:(?P<no>no(?: (?:definite|radiographic|obvious|acute|clear))?"
    r"(?: (?:evidence|signs?|indication|suggestion) of)?)|(?P<out>without(?: (?:evidence|signs?) of)?)"
    r"|(?P<neg>negative for)|(?P<abs>absence of)|(?P<free>free of))(?: (?:any|an?))? $"
)
_POSITIVE = {"no": "", "out": "with ", "neg": "positive for ", "abs": "presence of ", "free": "with "}
_LONGEST_DENIAL = 80  # characters
_NEGATION = re.compile(f"(?i){NEGATING}")
_CLAUSE_END = re.compile(r"[.;:,]")
_DOUBT = re.compile(
    r"(?i)\?|\b(?:rule[ds]? out|r/o|exclude[ds]?|possib\w+|suspect\w*|suspicio\w+|question\w*|probabl[ey]|likely|may"
    r"|might|versus|vs|histor(?:y|ies)|evaluat\w+|concern\w*|prior|previous\w*|resol(?:ved|ution|ving)|unlikely)\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+(?=[A-Z0-9(\[•-])|(?<!\s)\s+•\s+")
_SHORTEST = 3  # words that a sentence needs to be used as a query


def exchanged(text: str) -> str | None:
    """The text with left and right exchanged; None if it names no side. "Left and right" is not changed."""
    held = _Places(_BOTH, text)
    found = 0

    def other(match: re.Match[str]) -> str:
        nonlocal found
        if held.covers(match.start()):
            return match.group()
        found += 1
        word = match.group()
        new = _OTHER[word.lower()]
        return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new

    out = _SIDE.sub(other, text)
    return out if found else None


def mirrored(text: str) -> str | None:
    """The text that describes the mirrored image; None if the text names an organ that lies on one side (the heart, the
    liver ...)."""
    if _ONE_SIDED.search(text):
        return None
    return exchanged(text) or text


def negated(text: str) -> str | None:
    """The text with its first clear finding negated, or affirmed if it was negated; None without such a finding."""
    doubts, negations, ends = _Places(_DOUBT, text), _Places(_NEGATION, text), _Places(_CLAUSE_END, text)
    for match in _FINDING.finditer(text):
        start = _phrase_start(text, match.start())
        clause_start, clause_end = ends.last_end_before(start), ends.first_start_from(match.end(), len(text))
        if doubts.any_within(clause_start, clause_end) or negations.any_within(match.end(), clause_end):
            continue
        if denial := _DENIAL.search(text, max(clause_start, start - _LONGEST_DENIAL), start):
            if not negations.any_within(clause_start, denial.start()):
                return text[: denial.start()] + _POSITIVE[denial.lastgroup or "no"] + text[start:]
            continue
        if negations.any_within(clause_start, start):
            continue
        word_start, word_end = _word_before(text, start)
        word = text[max(word_start, clause_start) : word_end]
        if _POINTED.fullmatch(word):
            continue
        if word.casefold() in ("a", "an"):
            return f"{text[: word_end - len(word)]}no {text[start:]}"
        return f"{text[:start]}no {text[start:]}"
    return None


def sides_and_negations(text: str) -> tuple[tuple[str, ...], int]:
    """The sides that a text names, in order, and the number of its negations.

    Two texts that differ in this make different statements, however similar their words are.
    """
    sides = tuple(match.group().lower()[0] for match in _SIDE.finditer(text))
    return sides, len(_NEGATION.findall(text))


def findings(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Stems ("effus") of the findings that a text calls present, and of those it calls absent.

    A doubtful finding counts as present.
    """
    said = polarity(text)
    return _stems(said.present), _stems(" ".join(f"{part}." for part in said.absent))


def with_synonyms(found: frozenset[str]) -> frozenset[str]:
    """The findings with the other names that readers use for them: a mass may be called a tumour."""
    return found.union(*(group for group in _ALIKE if found & group))


def _stems(text: str) -> frozenset[str]:
    words = (match.group().lower().replace("haem", "hem").replace("oed", "ed") for match in _FINDING.finditer(text))
    return frozenset(_ENDING.sub("", word.replace("our", "or").replace("lymphadeno", "adeno")) for word in words)


def sentences_of(text: str) -> list[str]:
    """The different sentences of a text that have at least three words; empty if the text is a single sentence."""
    parts = list(dict.fromkeys(part.strip(" •-") for part in _SENTENCE_END.split(text)))
    found = [part for part in parts if len(part.split()) >= _SHORTEST]
    return found if len(parts) > 1 else []


def _phrase_start(text: str, at: int) -> int:
    """The position where the adjectives before the word at `at` begin. Looks at five words at most."""
    for _ in range(5):
        start, end = _word_before(text, at, others="-/")
        if start > 1 and text[start - 1] == "." and text[start:end][:1].isdecimal() and _is_word(text[start:end]):
            digits = start - 1  # the digits before the decimal point, as in 2.9
            while digits and text[digits - 1].isdecimal():
                digits -= 1
            if digits < start - 1:
                start = digits
        if start == end or _END.fullmatch(text, start, end):
            break
        at = start
    return at


def _word_before(text: str, at: int, others: str = "-") -> tuple[int, int]:
    """Start and end of the last word before `at`, with only blanks in between; an empty range if there is no such word.

    A word is made of letters, digits, "_" and `others`.
    """
    end = at
    while end and text[end - 1].isspace():
        end -= 1
    start = end
    while start and end < at and (_is_word(text[start - 1]) or text[start - 1] in others):
        start -= 1
    return start, end


def _is_word(text: str) -> bool:
    return text.replace("_", "a").isalnum()


class _Places:
    """The matches of a pattern in a text, found by position in logarithmic time."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        spans = [match.span() for match in pattern.finditer(text)]
        self._starts: Sequence[int] = [start for start, _ in spans]
        self._ends: Sequence[int] = [end for _, end in spans]

    def covers(self, at: int) -> bool:
        """Whether `at` lies inside a match."""
        number = bisect_right(self._starts, at) - 1
        return number >= 0 and at < self._ends[number]

    def any_within(self, start: int, end: int) -> bool:
        """Whether a whole match lies between `start` and `end`."""
        number = bisect_left(self._starts, start)
        return number < len(self._starts) and self._ends[number] <= end

    def last_end_before(self, at: int) -> int:
        """The end of the last match that starts before `at`; 0 if there is none."""
        number = bisect_left(self._starts, at)
        return self._ends[number - 1] if number else 0

    def first_start_from(self, at: int, otherwise: int) -> int:
        number = bisect_left(self._starts, at)
        return self._starts[number] if number < len(self._starts) else otherwise
