"""What one file says about people and places, and the forms in which that may stand in a text.

A name is taken apart into runs of letters. A run is *telling* if it is a name and nothing else; it is *ordinary* if
reports need the word (`words.ORDINARY_WORDS`: Small, Head, No, CT) or if it has one or two letters.

- A telling run is cut wherever it stands, and so is a name of several runs that has one, in any usual order.
- A family name of two letters is cut where it has a capital (Wu, WU; but of Ng, which is a tube as well, Ng alone).
- An ordinary run is cut in name order alone: beside another part of the name that is not ordinary, or, if all are,
  with a comma or a caret between them and capitals (SMALL, LONG); after a title `indexer.privacy.people` cuts it.
- Initials are cut with their dots (J.D.), and beside the family name (J. Doe, Doe J).
- Of a number or a place, one run alone is cut if it has four letters or digits or more and is not ordinary.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations

from indexer.privacy.letters import Words, compact, is_unspaced, key, keys, normalized, runs
from indexer.privacy.words import FUNCTION_WORDS, NO_NAMES, ORDINARY_WORDS, POLARITY_WORDS

LONGEST_PHRASE = 10  # runs; of a longer value (an address) its first ones
JOINED_START = 5  # letters by which a name written as one word is found inside a longer one
LONGEST_NAME = 64  # characters of one group (PS3.5 6.2)
LONGEST_JOINED = 40  # letters of a name written as one word
LONGEST_REMARK = 40  # runs

_TRANSLITERATION = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "oe", "Ø": "Oe", "å": "aa",
     "Å": "Aa", "æ": "ae", "Æ": "Ae"}
)  # fmt: skip
_FROM_RIGHT = ("\u0590", "\u08ff")  # Hebrew and Arabic
_BUDDHIST = 543  # years before the common era
_ERAS = (1867, 1911, 1925, 1988, 2018)  # Meiji, Taisho and the Republic of China, Showa, Heisei, Reiwa: their year 0


_WITHOUT_CARET = (3, 4)  # characters of a Chinese or Korean name that is not divided
_IN_ONE = re.compile("[\u3400-\u9fff]+|[\uac00-\ud7af]+")


@dataclass(frozen=True)
class Identity:
    """The identifying values of one file, as they were read. Its repr reveals nothing of the contents."""

    names: tuple[str, ...] = field(default=(), repr=False)  # as VR PN: groups by '=', parts by '^', family first
    numbers: tuple[str, ...] = field(default=(), repr=False)  # of the patient, the visit, the order; telephones
    places: tuple[str, ...] = field(default=(), repr=False)  # institutions, addresses, devices
    dates: tuple[str, ...] = field(default=(), repr=False)  # YYYYMMDD
    remarks: tuple[str, ...] = field(default=(), repr=False)  # free text about the patient


@dataclass(frozen=True)
class Phrases:
    """Sequences of runs that begin with the same run. A phrase is sure if one of its runs is not an ordinary word."""

    lengths: tuple[int, ...] = field(repr=False)
    sure: dict[tuple[str, ...], bool] = field(repr=False)


_NONE = Words((), 1)


@dataclass(frozen=True)
class Forms:
    """What to search for in a text, folded; made by `forms_of`. Its repr reveals nothing of the contents."""

    tokens: frozenset[str] = field(default=frozenset(), repr=False)  # runs that are cut wherever they stand
    short: frozenset[str] = field(default=frozenset(), repr=False)  # with a capital alone
    ordinary: frozenset[str] = field(default=frozenset(), repr=False)  # after a title alone
    stems: frozenset[str] = field(default=frozenset(), repr=False)  # Cyrillic and Greek: up to three letters may follow
    initials: frozenset[tuple[str, ...]] = field(default=frozenset(), repr=False)
    phrases: dict[str, Phrases] = field(default_factory=dict, repr=False)  # by first run
    joined: Words = field(default=_NONE, repr=False)  # whole names as one word, for inside of longer ones
    unspaced: Words = field(default=_NONE, repr=False)  # of scripts without spaces
    foreign: tuple[str, ...] = field(default=(), repr=False)  # names beyond ASCII, as read: for `misread`

    def __bool__(self) -> bool:
        return bool(self.tokens or self.short or self.ordinary or self.phrases or self.unspaced or self.foreign)


NOTHING_KNOWN = Forms()


@lru_cache(maxsize=64)
def forms_of(identity: Identity) -> Forms:
    """Every form of the values to search for. The result is cached, because files of a study have the same values."""
    collector = _Collector()
    for name in identity.names:
        collector.add_name(name)
    for value in (*identity.numbers, *identity.places):
        collector.add_value(value)
    for date in identity.dates:
        collector.add_date(date)
    for remark in identity.remarks:
        collector.add_remark(remark)
    return collector.forms()


def is_ordinary(run: str) -> bool:
    return run in ORDINARY_WORDS or run in NO_NAMES


class _Collector:
    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.short: set[str] = set()
        self.ordinary: set[str] = set()
        self.stems: set[str] = set()
        self.initials: set[tuple[str, ...]] = set()
        self.phrases: dict[str, dict[tuple[str, ...], bool]] = defaultdict(dict)
        self.joined: set[str] = set()
        self.unspaced: set[str] = set()
        self.foreign: dict[str, None] = {}

    def forms(self) -> Forms:
        return Forms(
            frozenset(self.tokens),
            frozenset(self.short),
            frozenset(self.ordinary),
            frozenset(self.stems),
            frozenset(self.initials),
            {run: Phrases(tuple({len(one) for one in sure}), sure) for run, sure in self.phrases.items()},
            Words(self.joined, JOINED_START),
            Words(self.unspaced, 2),
            tuple(self.foreign),
        )

    def add_name(self, name: str) -> None:
        for group in name.split("="):
            group = group[:LONGEST_NAME]
            self._add_group(group)
            if not group.isascii():
                self.foreign.update({group: None, normalized(group): None})
                if (german := group.translate(_TRANSLITERATION)) != group:
                    self._add_group(german)

    def _add_group(self, group: str) -> None:
        parts = [runs for part in group.split("^") if (runs := keys(part))]
        if len(parts) == 1:  # no carets: "John Smith", "Smith, John"
            parts = [(run,) for run in parts[0]]
        parts = parts[:5]
        if any(is_unspaced(run) for part in parts for run in part):
            self._add_unspaced([normalized(part) for part in group.replace(" ", "^").split("^") if part.strip()])
            return
        if all(run in NO_NAMES or run.isdecimal() for part in parts for run in part):
            return  # a label, not a person: CT^CHEST
        for part in parts:
            for run in part:
                self._add_run(run)
            self._add_phrase(part)
        family = parts[0]
        if len(family) == 1 and len(family[0]) == 2 and family[0] not in FUNCTION_WORDS | NO_NAMES:
            self.short.add(family[0])
        for size in (2, 3):
            for order in permutations(parts[:4], size):
                self._add_phrase(tuple(run for part in order for run in part))
        for one, other in permutations(parts[:3], 2):
            if len(other[0]) > 1 and not other[0].isdecimal():
                initial = other[0][0]
                self._add_phrase((initial, *one))
                self._add_phrase((*one, initial))
                if one[-1] in self.tokens:
                    self._add_token(initial + "".join(one), 4)  # a login name: jsmith
            self.initials.add((one[0][0], other[0][0]))
            if len(other) > 1:
                self._add_initials(one, tuple(run[0] for run in other))  # H.-P. Schmidt, Schmidt HP
        for three in permutations(parts[:3], 3):
            self.initials.add(tuple(part[0][0] for part in three))
            self._add_initials(three[0], (three[1][0][0], three[2][0][0]))  # J. Q. Doe

    def _add_initials(self, name: tuple[str, ...], initials: tuple[str, ...]) -> None:
        for written in (initials, ("".join(initials),)):
            self._add_phrase((*written, *name))
            self._add_phrase((*name, *written))

    def _add_run(self, run: str) -> None:
        if run.isdecimal():
            return
        if is_ordinary(run):
            if run not in POLARITY_WORDS and len(run) > 1:
                self.ordinary.add(run)
            return
        self._add_token(run, 3)
        if len(run) >= 5 and run.isascii():
            plain = run.replace("ae", "a").replace("oe", "o").replace("ue", "u")  # Mueller, in a text Müller
            self._add_token(plain, 4)
        if len(run) >= (3 if _FROM_RIGHT[0] <= run[0] <= _FROM_RIGHT[1] else 5):
            self._add_token(run[::-1], 3)  # visual order of Hebrew and Arabic, and mirrored
        if len(run) >= 4 and "\u0370" <= run[0] <= "\u052f":
            self.stems.add(run[:-1] if len(run) > 4 and run[-1] in "аяойьеыуюαηοςσ" else run)

    def _add_unspaced(self, parts: list[str]) -> None:
        words = [compact(part) for part in parts]
        words = [word for word in words if word][:5]
        if len(words) == 1 and len(words[0]) in _WITHOUT_CARET and _IN_ONE.fullmatch(words[0]):
            words = [words[0][:1], words[0][1:]]  # the family name of three or four characters has one
            self._add_literal("".join(words))
        for word in words:
            self._add_literal(word)
        for size in (2, 3):
            for order in permutations(words[:4], size):
                self._add_literal("".join(order))

    def _add_literal(self, word: str) -> None:
        word = word[:LONGEST_JOINED]
        if len(word) > 1 and not is_ordinary(word):
            self.unspaced.add(word)

    def add_value(self, value: str) -> None:
        written = runs(value)
        found = tuple(map(key, written))
        for run, as_written in zip(found, written, strict=True):
            if is_unspaced(run):
                self._add_literal(compact(run))
            elif len(as_written) >= 4:
                self._add_token(as_written, 4)
                self._add_token(run, 4)
        if any(map(is_unspaced, found)):
            self._add_literal(compact(value))
        if sum(map(len, written)) >= 4 and not NO_NAMES.intersection(found):
            self._add_phrase(found)

    def add_date(self, value: str) -> None:
        """Add a DA in the orders in which people write it, also in other calendars.

        Dates with month names are found by patterns.
        """
        digits = "".join(runs(value))
        if len(digits) != 8 or not digits.isdecimal():
            self.add_value(value)
            return
        year, month, day = digits[:4], digits[4:6], digits[6:]
        self.tokens |= {year + month + day, day + month + year, month + day + year}
        for written in (year, year[2:], str(int(year) + _BUDDHIST)):
            for order in ((written, month, day), (day, month, written), (month, day, written)):
                self._add_phrase(tuple(map(key, order)))
        for first in _ERAS:
            if int(year) > first:
                self._add_phrase(tuple(map(key, (str(int(year) - first), month, day))))

    def add_remark(self, remark: str) -> None:
        """Add free text about the patient: the whole text, its words that look like names, and its numbers."""
        whole = keys(remark)[:LONGEST_REMARK]
        if len(whole) > 1 and not all(map(is_ordinary, whole)):
            self.phrases[whole[0]][whole] = True
        for word in remark.split()[:LONGEST_REMARK]:
            for run in keys(word):
                if is_unspaced(run):
                    self._add_literal(compact(run))
                elif run.isdecimal() or word[:1].isupper():
                    self._add_token(run, 4)

    def _add_token(self, run: str, least: int) -> None:
        if len(run) >= least and not is_ordinary(run):
            self.tokens.add(run)

    def _add_phrase(self, phrase: tuple[str, ...]) -> None:
        """Add a phrase. It is sure if one run is not an ordinary word; others must look like a name in the text."""
        phrase = phrase[:LONGEST_PHRASE]
        if len(phrase) < 2 or all(run in NO_NAMES for run in phrase):
            return
        sure = any(not is_ordinary(run) and len(run) > 1 for run in phrase)
        if sure or not all(len(run) == 1 for run in phrase):
            self.phrases[phrase[0]][phrase] = sure
        joined = "".join(phrase)  # JaneDoe; 12-34-56 as 123456
        if len(joined) < 5 or len(joined) > LONGEST_JOINED:
            return
        if joined.isdecimal() or not any(run.isdecimal() for run in phrase):
            self._add_token(joined, 5)
        if sure and len(joined) >= 6 and joined.isalpha() and min(map(len, phrase)) > 1 and not is_ordinary(joined):
            self.joined.add(joined)
