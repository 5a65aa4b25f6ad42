"""Text in the form in which it is compared: folded, in runs of letters or digits, every character in its place."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from retrieval.language import letters as normalization

# Vowel signs and other marks that Python's \w leaves out: without them a Thai or Hindi word falls apart.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
    "\u0981-\u0983\u09bc-\u09cd\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03"
    "\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0c00-\u0c04\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3e-\u0d4d"
    "\u0dca-\u0ddf\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059"
    "\u17b4-\u17d3\u17dd\u200c\u200d\u3099\u309a"
)
RUN = re.compile(rf"(?:[^\W\d_]++[{_MARKS}]*+)++|\d+")  # a run of letters of any script, or of digits
_ASCII_RUN = re.compile(r"[A-Za-z]+|[0-9]+")

# Scripts that put no space between words, or whose particles cling to them (Hangul).
UNSPACED = (
    "\u0e01-\u0e2e\u0e30-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\u3005\U00020000-\U0003ffff"
)
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_DROPPED_IN_KEYS = re.compile("[\u0591-\u05c7\u0640\u064b-\u065f\u0670\u200c\u200d\uff9e\uff9f]")
_NO_DECOMPOSITION = {"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ı": "i", "ŧ": "t", "æ": "a", "œ": "o"}
_MOST_REMEMBERED = 20_000


class _Table(dict[int, str]):
    """A table for str.translate that is filled when characters are first met."""

    def __missing__(self, code: int) -> str:
        if len(self) > _MOST_REMEMBERED:
            self.clear()
        self[code] = value = self.convert(chr(code))
        return value

    def convert(self, c: str) -> str:
        raise NotImplementedError


class _Folded(_Table):
    def convert(self, c: str) -> str:
        if c < "\x80":
            return c.lower()
        if c.isdecimal():
            return str(unicodedata.decimal(c))
        if "\uac00" <= c <= "\ud7a3":
            return c  # a syllable: its first letter alone would be another's as well
        first = unicodedata.normalize("NFKD", c)[0].lower()
        lower = _NO_DECOMPOSITION.get(first, first)
        if "\u3041" <= lower <= "\u3096":  # hiragana as katakana
            lower = chr(ord(lower) + 0x60)
        return lower if len(lower) == 1 and lower.isalnum() == c.isalnum() else c


class _Plain(_Table):
    def convert(self, c: str) -> str:
        if c.isdecimal():
            return str(unicodedata.decimal(c))
        if "\uff01" <= c <= "\uff5e":
            return chr(ord(c) - 0xFEE0)
        return {"\u3000": " ", "\xa0": " ", "\u2010": "-", "\u2011": "-", "\u2212": "-", "\u202f": " "}.get(c, c)


_FOLDED, _PLAIN = _Folded(), _Plain()


def normalized(text: str) -> str:
    """Return composed letters without invisible characters: a zero-width space hides a name from every comparison."""
    return text if text.isascii() else _INVISIBLE.sub("", normalization.normalized("NFC", text))


def fold(text: str) -> str:
    """Lower case, no accents, ASCII digits, one kana, each character in its place: len(fold(text)) == len(text)."""
    return text.lower() if text.isascii() else text.translate(_FOLDED)


def plain(text: str) -> str:
    """ASCII digits, and ASCII where a character is a full-width form of it; each character in its place."""
    return text if text.isascii() else text.translate(_PLAIN)


def run_pattern(text: str) -> re.Pattern[str]:
    return _ASCII_RUN if text.isascii() else RUN


def key(run: str) -> str:
    """Return a folded run as it is compared: without leading zeros, vowel points and stretching."""
    if run.isascii():
        return (run.lstrip("0") or "0") if run.isdigit() else run
    return _DROPPED_IN_KEYS.sub("", run) or run


def runs(text: str) -> list[str]:
    """Return the folded runs of a text."""
    folded = fold(normalized(text))
    return run_pattern(folded).findall(folded)


def keys(text: str) -> tuple[str, ...]:
    return tuple(map(key, runs(text)))


def compact(text: str) -> str:
    """Return only the letters and digits, folded. Names in scripts without spaces are compared in this form."""
    return _DROPPED_IN_KEYS.sub("", "".join(runs(text)))


def is_unspaced(run: str) -> bool:
    """Whether the script has no spaces between words, or joins particles to them: Han, kana, Hangul, Thai, Lao, Khmer,
    Burmese.
    """
    return not run.isascii() and _UNSPACED_CHARACTER.search(run) is not None


class Words:
    """A set of words that is searched for at every place of a text, in time that does not grow with the set."""

    def __init__(self, words: Iterable[str], start: int) -> None:
        by_start: dict[str, set[str]] = defaultdict(set)
        for word in words:
            by_start[word[:start]].add(word)
        self._start = start
        self._words = {first: (sorted({len(word) for word in found}), found) for first, found in by_start.items()}

    def __bool__(self) -> bool:
        return bool(self._words)

    def at(self, text: str, place: int) -> Iterator[str]:
        lengths, words = self._words.get(text[place : place + self._start], _NO_WORDS)
        for length in lengths:
            if (word := text[place : place + length]) in words:
                yield word


_NO_WORDS: tuple[list[int], set[str]] = ([], set())
