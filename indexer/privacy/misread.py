"""A name under another character set than it was written in.

A GBK name read as Latin-1 is ÁÖÐ¡Óê; read as Big5, Shift-JIS or UTF-8 it is something else again, and each of them can
be turned back into the name. Which of the two was read wrongly, the name's attribute or the text, can't be known. So
a name is written in every character set that can write it and read in every other one, and what survives of that
reading is looked for among what survives in the text: letters that were lost (U+FFFD) and control characters, which
reading turns into blanks, count for nothing on either side. A neighbour that is read together with a name's first or
last byte is allowed for. Latin names are compared by their ASCII letters besides: M?ller, MÃ¼ller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import permutations

from indexer.privacy.letters import Words, normalized
from indexer.privacy.words import ORDINARY_WORDS

# What PS3.3 C.12.1.1.2 has, and what writers use in its place.
_CHARACTER_SETS = (
    "utf-8", "latin-1", "cp1252", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "iso8859_5",
    "iso8859_7", "cp1253", "iso8859_6", "cp1256", "iso8859_8", "cp1255", "cp874", "iso8859_2", "cp1250", "iso8859_9",
)  # fmt: skip
_OF_TWO_BYTES = frozenset({"gb18030", "big5", "cp932", "euc_jp", "cp949"})
_WITH_ESCAPES = ("iso2022_jp", "iso2022_kr")

_PARTS = 3  # of a name: family, given, middle
_START = 2  # characters by which a reading is looked up

_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff\ufffd]+")
_WORD = re.compile(r"(?:[A-Za-z]++|[^\x00-\x7f]++|\?++)++")
_LOST = re.compile(r"[^\x00-\x7f?]+|\?+")
_HOLE = "\0"
_WITH_LOSS = re.compile(r"[^\s\ufffd]{0,12}\ufffd(?:[^\s\ufffd]{0,12}\ufffd)*[^\s\ufffd]{0,12}")
_SURVIVES = re.compile(r"[^\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffd^,=?]")


def misread_spans(text: str, names: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Return start and end of every text that is one of `names`, or a part of one, in a wrong character set.

    Linear in the text.
    """
    if not names:
        return
    if not text.isascii() or "?" in text:
        shapes = _shapes(names)
        for match in _WORD.finditer(text) if shapes else ():
            if _LOST.sub(_HOLE, match[0].lower()) in shapes:
                yield match.span()
    if "$" in text:
        for escaped in _escaped(names):
            yield from (match.span() for match in re.finditer(re.escape(escaped), text))
    if text.isascii():
        return
    readings = _readings(names)
    places = [match.start() for match in _SURVIVES.finditer(text)]
    left = "".join([text[place] for place in places])
    for at in range(len(left)):
        for reading in readings.at(left, at):
            yield places[at], places[at + len(reading) - 1] + 1
    if "\ufffd" in text:
        yield from _damaged(text)


def _damaged(text: str) -> Iterator[tuple[int, int]]:
    """Return words without a number of which little is left: they can't be read, and could be a name."""
    for match in _WITH_LOSS.finditer(text):
        plain = [c for c in match[0] if c.isascii() and c.isalnum()]
        if 2 * len(plain) <= len(match[0]) and not any(map(str.isdigit, plain)):
            yield match.span()


@lru_cache(maxsize=64)
def _readings(names: tuple[str, ...]) -> Words:
    return Words({left for name in names for part in _parts(name) for left in _misread(part)}, _START)


def _parts(name: str) -> set[str]:
    """Return the parts of a name that are not ASCII, also in capitals, and two of them together."""
    parts = [part for part in name.split("^") if not part.isascii()][:_PARTS]
    return {*parts, *(part.upper() for part in parts), *("".join(pair) for pair in permutations(parts, 2))}


def _misread(part: str) -> Iterator[str]:
    own = _surviving(part)
    if _is_misread(own):
        yield own
    for data in _encoded(part):
        for charset in _CHARACTER_SETS:
            pieces = {data}
            if charset in _OF_TWO_BYTES:
                pieces |= {data[1:], data[:-1], data[1:-1]}
            for piece in pieces:
                left = _surviving(piece.decode(charset, "replace"))
                if left not in own and _identifies(left):
                    yield left


def _is_misread(own: str) -> bool:
    """Whether a name has Latin letters as no Latin name has them: more accents than plain letters."""
    foreign = [c for c in own if c > "\x7f"]
    return len(own) > 2 and 2 * len(foreign) > len(own) and max(foreign) < "\u0250"


def _surviving(text: str) -> str:
    return "".join(_SURVIVES.findall(normalized(text)))


def _encoded(part: str) -> set[bytes]:
    found: set[bytes] = set()
    for charset in _CHARACTER_SETS:
        try:
            found.add(part.encode(charset))
        except UnicodeEncodeError:
            continue
    for charset in ("latin-1", "cp1252"):  # UTF-8 taken for Latin-1, and written as UTF-8 again
        found.add(part.encode("utf-8", "replace").decode(charset, "replace").encode("utf-8"))
    return found


def _identifies(left: str) -> bool:
    """Whether the rest of a name can be found in a text without matching other words."""
    foreign = [c for c in left if c > "\x7f"]
    if not foreign:
        punctuation = sum(not c.isalnum() for c in left)
        return (len(left) > 4 and left.lower() not in ORDINARY_WORDS) or (len(left) > 2 and punctuation > 1)
    return len(left) > 2 or (len(foreign) > 1 and min(foreign) > "\u2e7f")


@lru_cache(maxsize=64)
def _escaped(names: tuple[str, ...]) -> frozenset[str]:
    """Names in ISO 2022 whose escape sequences were read as text; the escape character itself is gone by then."""
    found: set[str] = set()
    for name in names:
        for part in name.split("^"):
            for charset in _WITH_ESCAPES:
                try:
                    written = part.strip().encode(charset).decode("ascii")
                except (UnicodeEncodeError, UnicodeDecodeError):
                    continue
                found.update(piece for piece in re.split(r"[\x00-\x1f]", written) if "$" in piece and len(piece) > 4)
    return frozenset(found)


@lru_cache(maxsize=64)
def _shapes(names: tuple[str, ...]) -> frozenset[str]:
    """Return Latin names with a gap for each accented letter, if they have three ASCII letters or more."""
    shapes: set[str] = set()
    for name in names:
        for word in _LATIN.findall(name.lower()):
            shape = _LOST.sub(_HOLE, word)
            if _HOLE in shape and len(shape) - shape.count(_HOLE) >= 3:
                shapes.add(shape)
    return frozenset(shapes)
