"""A name under another character set than it was written in.

A GBK name read as Latin-1 is ÁÖÐ¡Óê; read as Big5, Shift-JIS or UTF-8 it is something else again, and each of them can
be turned back into the name. Which of the two was read wrongly, the name's attribute or the text, can't be known either.
So both are compared as bytes: the name in every character set that can write it, with the text in every one that could
have been taken for its own. Latin names with accents are compared by their ASCII letters besides: M?ller, MÃ¼ller.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import permutations

from indexer.privacy.letters import Words

# What PS3.3 C.12.1.1.2 has, and what writers use in its place.
_CHARACTER_SETS = (
    "utf-8", "latin-1", "cp1252", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "iso8859_5",
    "iso8859_7", "cp1253", "cp1256", "iso8859_6", "cp1255", "iso8859_8", "cp874", "iso8859_2", "cp1250", "iso8859_9",
    "cp1258", "cp437", "cp850", "mac_roman",
)  # fmt: skip
_WITH_ESCAPES = ("iso2022_jp", "iso2022_kr")
_BLANKED = ("latin-1", "cp1252")  # read so, bytes 7F to A0 are control characters, which reading turns into blanks
_BLANKS = bytes(0x20 if c < 0x21 or 0x7F <= c <= 0xA0 else c for c in range(256))

_START = 4  # bytes by which a name is looked up
_PARTS = 3  # of a name: family, given, middle
_BETWEEN = (b"", b" ", b"^", b", ")

_FOREIGN = re.compile(r"[\x21-\x7e]{0,3}[^\x00-\x7f](?:[\x00-\x7f]{0,3}[^\x00-\x7f])*[\x21-\x7e]{0,3}")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff\ufffd]+")
_WORD = re.compile(r"(?:[A-Za-z]++|[^\x00-\x7f]++|\?++)++")
_LOST = re.compile(r"[^\x00-\x7f?]+|\?+")
_HOLE = "\0"
_WITH_LOSS = re.compile(r"[^\s\ufffd]{0,12}\ufffd(?:[^\s\ufffd]{0,12}\ufffd)+[^\s\ufffd]{0,12}")
_SURVIVES = re.compile(r"[^\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffd^,=?]")

Patterns = dict[bytes, tuple[tuple[int, ...], frozenset[bytes]]]  # by their first bytes, with their lengths


def misread_spans(text: str, names: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Start and end of what is one of `names`, or a part of one, under a wrong character set. Linear in the text."""
    if not names:
        return
    if not text.isascii() or "?" in text:
        shapes = _shapes(names)
        if shapes:
            for match in _WORD.finditer(text):
                if _LOST.sub(_HOLE, match[0].lower()) in shapes:
                    yield match.span()
    if "$" in text:
        for escaped in _escaped(names):
            start = text.find(escaped)
            while start >= 0:
                yield start, start + len(escaped)
                start = text.find(escaped, start + len(escaped))
    yield from _lossy(text, _variants(names))
    if "\ufffd" in text:
        yield from _damaged(text)
    if text.isascii():
        return
    exact, blanked = _patterns(names)
    for match in _FOREIGN.finditer(text):
        piece = match[0]
        seen: set[bytes] = set()
        for charset in _CHARACTER_SETS:
            try:
                data = piece.encode(charset)
            except UnicodeEncodeError:
                continue
            if data in seen:
                continue
            seen.add(data)
            offsets: list[int] | None = None
            for start, end in _found(data, exact):
                offsets = offsets or _offsets(piece, charset)
                yield match.start() + offsets[start], match.start() + offsets[end - 1] + 1
            if charset in _BLANKED:
                for start, end in _found(data.translate(_BLANKS), blanked):
                    yield match.start() + start, match.start() + end


def _found(data: bytes, patterns: Patterns) -> Iterator[tuple[int, int]]:
    for i in range(len(data) - _START + 1):
        if found := patterns.get(data[i : i + _START]):
            for length in found[0]:
                if (word := data[i : i + length]) in found[1]:
                    yield i, i + len(word)


def _offsets(piece: str, charset: str) -> list[int]:
    """For each byte of the encoded piece, its character."""
    return [i for i, c in enumerate(piece) for _ in c.encode(charset)]


@lru_cache(maxsize=64)
def _patterns(names: tuple[str, ...]) -> tuple[Patterns, Patterns]:
    exact: dict[bytes, set[bytes]] = defaultdict(set)
    blanked: dict[bytes, set[bytes]] = defaultdict(set)
    for name in names:
        for data in _written(name):
            if _telling(data):
                exact[data[:_START]].add(data)
            blank = re.sub(b" +", b" ", data.translate(_BLANKS)).strip()
            if blank != data and _telling(blank):
                blanked[blank[:_START]].add(blank)
    return _frozen(exact), _frozen(blanked)


def _frozen(patterns: dict[bytes, set[bytes]]) -> Patterns:
    return {start: (tuple({len(word) for word in words}), frozenset(words)) for start, words in patterns.items()}


def _telling(data: bytes) -> bool:
    return len(data) >= _START and sum(c > 0x7F for c in data) >= 2


def _written(name: str) -> set[bytes]:
    """The parts of a name, and two of them together, in every character set that can write them."""
    found: set[bytes] = set()
    in_utf8: set[bytes] = set()
    for charset in _CHARACTER_SETS:
        for written in {name, name.upper(), name.lower(), name.title()}:
            try:
                parts = [part.encode(charset) for part in written.split("^") if part.strip()][:_PARTS]
            except UnicodeEncodeError:
                continue
            found.update(parts)
            if min(map(len, parts), default=_START) < _START:  # a family name of one character: only with the rest
                found |= {one + between + other for one, other in permutations(parts, 2) for between in _BETWEEN}
        if charset == "utf-8":
            in_utf8 = set(found)
    for data in in_utf8:  # taken for Latin-1, and written as UTF-8 again
        for charset in _BLANKED:
            try:
                found.add(data.decode(charset).encode("utf-8"))
            except UnicodeDecodeError:
                continue
    return found


def _lossy(text: str, variants: Words) -> Iterator[tuple[int, int]]:
    """Names whose bytes did not all survive: what is left of them, whatever stands in the place of the rest."""
    if not variants:
        return
    places = [match.start() for match in _SURVIVES.finditer(text)]
    left = "".join([text[place] for place in places])
    for at in range(len(left)):
        for variant in variants.at(left, at):
            yield places[at], places[at + len(variant) - 1] + 1


def _damaged(text: str) -> Iterator[tuple[int, int]]:
    """Words of which more was lost than is left: nobody can read them, and nobody can tell that they are no name."""
    for match in _WITH_LOSS.finditer(text):
        if 2 * sum(c.isascii() and c.isalpha() for c in match[0]) <= len(match[0]):
            yield match.span()


@lru_cache(maxsize=64)
def _variants(names: tuple[str, ...]) -> Words:
    found: set[str] = set()
    for name in names:
        for written in {name, name.upper(), name.lower(), name.title()}:
            parts = [part for part in written.split("^") if part.strip()][:_PARTS]
            whole = ["".join(pair) for pair in permutations(parts, 2)] if min(map(len, parts), default=2) < 2 else []
            for part in (*parts, *whole):
                found.update(_misread(part))
    return Words(found, 2)


def _misread(part: str) -> Iterator[str]:
    seen: set[bytes] = set()
    for charset in _CHARACTER_SETS:
        try:
            data = part.encode(charset)
        except UnicodeEncodeError:
            continue
        if data in seen:
            continue
        seen.add(data)
        for other in _CHARACTER_SETS:
            text = data.decode(other, "replace")
            left = "".join(_SURVIVES.findall(text))
            if text != part and left != part and _identifies(left):
                yield left


def _identifies(left: str) -> bool:
    """Whether what is left of a name can be found in a text without taking other things for it."""
    foreign = [c for c in left if c > "\x7f"]
    if not foreign:
        punctuation = sum(not c.isalnum() for c in left)
        return len(left) > 4 or (len(left) > 2 and punctuation > 1)
    return len(left) > 2 or (len(foreign) > 1 and min(foreign) > "\u2e7f")


@lru_cache(maxsize=64)
def _escaped(names: tuple[str, ...]) -> frozenset[str]:
    """Names in ISO 2022 whose escape sequences were taken for text: the escape character itself is gone by then."""
    found: set[str] = set()
    for name in names:
        for part in name.split("^"):
            for charset in _WITH_ESCAPES:
                try:
                    written = part.strip().encode(charset).decode("ascii")
                except (UnicodeEncodeError, UnicodeDecodeError):
                    continue
                pieces = [piece for piece in re.split(r"[\x00-\x1f]", written) if "$" in piece and len(piece) > 4]
                found.update(pieces)
    return frozenset(found)


@lru_cache(maxsize=64)
def _shapes(names: tuple[str, ...]) -> frozenset[str]:
    """Latin names with a hole for each accented letter; those with three ASCII letters or more."""
    shapes: set[str] = set()
    for name in names:
        for word in _LATIN.findall(name.lower()):
            shape = _LOST.sub(_HOLE, word)
            if _HOLE in shape and len(shape) - shape.count(_HOLE) >= 3:
                shapes.add(shape)
    return frozenset(shapes)
