"""Keep patients' identity out of free text.

`scrub` cuts two things out of a text and leaves `MARK` in their place:

1. what the same file says about people and places (`identity.Identity`), in the forms of `identity` and under wrong
   character sets (`misread`);
2. what looks like identity whoever it belongs to (`patterns`): full dates, telephone numbers, e-mail addresses, UIDs,
   long numbers, numbers after MRN/accession/ID, names after titles or "dictated by".

What it can't do: names of people who are in no tag of the file and stand beside no title; a name that is also an
ordinary word, standing alone ("Rose was seen"); nicknames, misspellings, most inflected forms, transliterations; a bare
year or age. docs/privacy.md has the table. What is left is much less likely to identify; it is not proven anonymous.
`read_record(..., keep_descriptions=False)` keeps descriptions out altogether.

Everything here is linear in the text's length, whatever a stranger wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from indexer.privacy.identity import JOINED_START, NOTHING_KNOWN, Forms, Phrases, is_ordinary
from indexer.privacy.letters import UNSPACED, Words, fold, key, normalized, run_pattern
from indexer.privacy.misread import misread_spans
from indexer.privacy.patterns import pattern_spans
from indexer.privacy.words import DOTTED, NO_NAMES, PICTURED, POLARITY_WORDS

MARK = "[…]"

_LONGEST_GAP = 3  # characters between two parts of one name or number: ", " or " - "
_GAP = re.compile(r"[\s,.;:^_/\\'’`()=+*#·・‧‐-―-]*")
# Between two removed parts, these are removed too: Jane M. Doe
_MERGED = re.compile(r"[ ,^\u3000・-]*(?:[A-Z]\.[ ,^-]*)?")

_TITLES = {"mr", "mrs", "ms", "miss", "mx", "dr", "prof", "herr", "frau", "mme", "sra", "dra"}
_MODALITIES = {"mr", "dr", "ms"}
_UNIT = re.compile(
    r"\s?(?:mm|cm|ml|HU|µm|um|kV|mA|mAs|ms|sec|min|Hz|mGy|mSv|kg|%|x|×)(?![^\W\d_])|[.,]\d", re.IGNORECASE
)
_SHORT_NUMBER = 5  # digits: a number with a unit after it is a measurement
_CLITICS = frozenset("وفبكلهسמוהבלשכ")  # prefixes that Arabic and Hebrew write without a space
_INFLECTION = 3  # letters that may follow a stem

_HANGUL, _HAN = ("\uac00", "\ud7af"), re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_SKIPPED_BETWEEN = re.compile(r"[^\s^,=・‧·\uff9e\uff9f\u200c\u200d]")
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")


def scrub(text: str, known: Forms = NOTHING_KNOWN) -> str:
    """Return `text` with everything that `known` searches for, and everything with an identifying pattern, replaced by
    MARK.
    """
    text = normalized(text)
    spans: list[list[int]] = []  # merged if they touch, or if only a comma or the like is between them
    for start, end in sorted([*pattern_spans(text), *_identity_spans(text, known)]):
        if spans and (start <= spans[-1][1] or _MERGED.fullmatch(text, spans[-1][1], start)):
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([start, end])
    if not spans:
        return text
    out, position = [], 0
    for start, end in spans:
        out += [text[position:start], MARK]
        position = end
    return "".join(out) + text[position:]


def _identity_spans(text: str, known: Forms) -> Iterator[tuple[int, int]]:
    if not known:
        return
    folded = fold(text)
    matches = list(run_pattern(folded).finditer(folded))
    found = [key(match[0]) for match in matches]
    for i, match in enumerate(matches):
        run = found[i]
        start, end = match.span()
        if run in known.tokens or match[0] in known.tokens:
            if not (run.isdecimal() and end - start <= _SHORT_NUMBER and _is_measured(text, start, end)):
                yield start, end
        elif run in known.short:
            if _is_written_as_a_name(text, start, end, run):
                yield start, end
        elif run in known.ordinary:
            if i and _is_titled(text, matches[i - 1], match, found[i + 1] if i + 1 < len(found) else ""):
                yield start, end
        elif len(run) >= JOINED_START:
            yield from _inside(text, folded, start, end, known)
        if not run.isascii():
            yield from _inflected(run, start, end, known)
        if run in known.phrases:
            yield from _phrases(text, found, matches, i, known.phrases[run])
        if len(run) == 1 and known.initials and text[start].isupper():
            yield from _initials(text, found, matches, i, known.initials)
    if known.unspaced and not text.isascii():
        yield from _unspaced(folded, known.unspaced)
    yield from misread_spans(text, known.foreign)


def _is_written_as_a_name(text: str, start: int, end: int, run: str) -> bool:
    if is_ordinary(run):
        return text[start:end].istitle()
    return text[start].isupper() or text.islower()


def _is_measured(text: str, start: int, end: int) -> bool:
    return bool(_UNIT.match(text, end)) or (start > 1 and text[start - 1] in ".," and text[start - 2].isdigit())


def _is_titled(text: str, title: re.Match[str], name: re.Match[str], following: str) -> bool:
    """Match MRS HEAD; not MR HEAD, which is a picture, nor MR SMALL BOWEL. `people` handles titles in small letters."""
    if title[0] not in _TITLES or text[title.end() : name.start()].strip(" ."):
        return False
    if not text[title.start() : title.end()].isupper():
        return text[title.start()].isupper() and text[name.start()].isupper()
    return title[0] not in _MODALITIES or not (name[0] in PICTURED | NO_NAMES or is_ordinary(following))


def _inside(text: str, folded: str, start: int, end: int, known: Forms) -> Iterator[tuple[int, int]]:
    """Return names written into a longer word: JaneDoeChest, CTDoe, Smiths."""
    if folded[end - 1] == "s" and folded[start : end - 1] in known.tokens:
        yield start, end
    for at in range(start, end - JOINED_START + 1):
        for word in known.joined.at(folded, at):
            if at + len(word) <= end:
                yield at, at + len(word)
    written = text[start:end]
    if not (written.islower() or written.isupper() or written.istitle()):
        for first, last in pairwise(_humps(written)):
            if folded[start + first : start + last] in known.tokens:
                yield start + first, start + last


def _humps(word: str) -> list[int]:
    """Return where the parts of a word in camel case begin and where the last one ends: CTJaneDoe at 0, 2, 6 and 9."""
    upper = [c.isupper() for c in word] + [True]
    inner = [i for i in range(1, len(word)) if upper[i] and (not upper[i - 1] or not upper[i + 1])]
    return [0, *inner, len(word)]


def _inflected(run: str, start: int, end: int, known: Forms) -> Iterator[tuple[int, int]]:
    if known.stems and any(run[: len(run) - n] in known.stems for n in range(min(_INFLECTION + 1, len(run)))):
        yield start, end
    elif run[0] in _CLITICS:
        for n in (1, 2, 3):
            if set(run[:n]) <= _CLITICS | {"א", "ا"} and len(run) - n > 2 and run[n:] in known.tokens:
                yield start, end
                return


def _phrases(
    text: str, found: list[str], matches: list[re.Match[str]], i: int, phrases: Phrases
) -> Iterator[tuple[int, int]]:
    for length in phrases.lengths:
        phrase = tuple(found[i : i + length])
        sure = phrases.sure.get(phrase)
        if sure is None or len(phrase) < length or not _in_a_row(text, matches[i : i + length]):
            continue
        start, end = matches[i].start(), matches[i + length - 1].end()
        written = [text[match.start() : match.end()] for match in matches[i : i + length]]
        if sure and not POLARITY_WORDS.isdisjoint(phrase):
            sure = all(run[0].isupper() for run in written)
        if sure or _is_name_like(text[start : end + 1], written, phrase):
            yield start, end


def _in_a_row(text: str, matches: list[re.Match[str]]) -> bool:
    gaps = [text[one.end() : other.start()] for one, other in pairwise(matches)]
    if len(gaps) == 2 and gaps[0] != gaps[1] and all(match[0].isdecimal() for match in matches):
        return False  # a date is written with one separator: 1950-03-07 12 mm
    return all(len(gap) <= _LONGEST_GAP and _GAP.fullmatch(gap) for gap in gaps)


def _is_name_like(written: str, runs: list[str], phrase: tuple[str, ...]) -> bool:
    """Whether ordinary words are written as a name: SMALL, LONG; Small^Long; J.

    Small. A negation or a side needs the caret.
    """
    if all(run.isdecimal() for run in phrase):
        return True
    if not all(run[0].isupper() for run in runs) or all(run in NO_NAMES for run in phrase):
        return False
    if not POLARITY_WORDS.isdisjoint(phrase):
        return "^" in written
    return "^" in written or "," in written or any(len(run) == 1 and f"{run}." in written for run in runs)


def _initials(
    text: str, found: list[str], matches: list[re.Match[str]], i: int, initials: frozenset[tuple[str, ...]]
) -> Iterator[tuple[int, int]]:
    """Match J.D.; not A.P., which is a view, nor letters within a longer row of letters."""
    for length in (3, 2):
        row = tuple(found[i : i + length])
        last = i + length - 1
        if len(row) < length or row not in initials or "".join(row) in DOTTED:
            continue
        start, end = matches[i].start(), matches[last].end()
        written = text[start:end].replace(" ", "")
        alone = start == 0 or not (text[start - 1].isalnum() or text[start - 1] == ".")
        if (
            alone
            and written.isupper()
            and fold(written) == ".".join(row)
            and not text[end : end + 2].lstrip(".")[:1].isalnum()
        ):
            yield start, end + text.startswith(".", end)
            return


def _unspaced(folded: str, words: Words) -> Iterator[tuple[int, int]]:
    """Return names in scripts without spaces, with or without characters between their parts."""
    places = [match.start() for match in _SKIPPED_BETWEEN.finditer(folded)]
    text = "".join([folded[place] for place in places])
    for match in _UNSPACED_CHARACTER.finditer(text):
        at = match.start()
        for word in words.at(text, at):
            if _stands_alone(word, text, places, at):
                yield places[at], places[at + len(word) - 1] + 1


def _stands_alone(word: str, text: str, places: list[int], at: int) -> bool:
    """Whether the characters are a name anywhere in a text: two Han characters are; two kana, or a short Thai word, are
    part of many words.
    """
    if _HAN.search(word):
        return True
    after = at + len(word)
    begins = at == 0 or not text[at - 1].isalnum() or places[at - 1] != places[at] - 1
    ends = after == len(text) or not _UNSPACED_CHARACTER.match(text[after]) or places[after] != places[after - 1] + 1
    if _HANGUL[0] <= word[0] <= _HANGUL[1]:
        return len(word) > 2 or begins
    if _KANA.match(word):
        return len(word) > 2 or (begins and ends)
    return len(word) > 3 or (begins and ends)
