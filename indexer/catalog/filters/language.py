"""The language of filters: `Modality in (CT, MR) and PatientAge > 60`, read into a syntax tree. Knows no SQL.

    filter     = all {"or" all}
    all        = one {"and" one}
    one        = ["not"] ( "(" filter ")" | field test )
    test       = ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | ["not"] "in" "(" value {"," value} ")"
               | ["not"] "between" value "and" value
               | ["not"] ("contains" | "starts with" | "ends with" | "like") value
               | "is" ["not"] ("missing" | "present")
    field      = name {"." name}, a name with blanks in quotes
    value      = a word, or a text in '...' or "..." with the quote doubled inside; 18 months and 5 May 2023 are one
                 value each, too

Words of the grammar are known in any case; `and` binds before `or`, `not` before both. The parser is parsy's
combinators: 2 ms to import, where lark takes 80 and another 50 to build its tables, of the one second that a cold
search has.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Generator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import parsy

from indexer.catalog.filters.dates import MONTH_STARTS
from retrieval.errors import QueryError

MAX_DEPTH = 30  # nested brackets; each costs the parser ten Python calls of the thousand that Python allows
MAX_CONDITIONS = 400  # SQLite's expressions are at most 1,000 deep
MAX_VALUES = 30_000  # SQLite takes 32,766 parameters
MAX_LENGTH = 1024  # of one value; the longest attribute kept (LO) has 64 characters

_WORD = r"""[^\s()=<>!,"']+"""
_RESERVED = ("and", "or", "not", "in", "between", "contains", "like", "is")
_COMPARISONS = {"==": "=", "<>": "!="} | {sign: sign for sign in ("!=", "<=", ">=", "=", "<", ">")}
_TESTS = "=, !=, <, <=, >, >=, in, between, contains, starts with, ends with, like, is missing, is present"
_QUOTED_OR_BRACKET = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]""")


@dataclass(frozen=True)
class Span:
    """A part of the filter's text: [start, end), counted from 0."""

    start: int
    end: int


@dataclass(frozen=True)
class Field:
    """The left side of a comparison: a DICOM keyword, a column, or a dotted path such as ("label", "pneumothorax")."""

    path: tuple[str, ...]
    span: Span | None = None  # None if it was not written in a filter's text

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class Value:
    """A value as written, without its quotes. What it means depends on the field."""

    text: str
    span: Span | None = None


@dataclass(frozen=True)
class Condition:
    """A field and a test. `!=`, `not in` and others are a Not around one; `is present` is a Not around "missing"."""

    field: Field
    operator: str  # =, <, <=, >, >=, in, between, contains, starts with, ends with, like, missing
    values: tuple[Value, ...] = ()
    operator_span: Span | None = None


@dataclass(frozen=True)
class Not:
    part: Node


@dataclass(frozen=True)
class All:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Node, ...]


Node = Condition | Not | All | AnyOf


@lru_cache(maxsize=64)
def parse_filter(text: str) -> Node:
    """The syntax tree of a filter. Raises QueryError with the column of the error and what was expected there."""
    require_sound(text)
    try:
        tree: Node = _FILTER.parse(text)
    except parsy.ParseError as exc:
        raise _syntax_error(text, exc.index, exc.expected) from exc
    conditions = _conditions(tree)
    if len(conditions) > MAX_CONDITIONS:
        span = conditions[MAX_CONDITIONS].field.span
        raise QueryError(
            pointed(f"the filter has {len(conditions)} conditions; expected at most {MAX_CONDITIONS}", text, span),
            hint="Write several values of one attribute as one condition: Modality in (CT, MR).",
        )
    if (count := sum(len(c.values) for c in conditions)) > MAX_VALUES:
        raise QueryError(f"the filter has {count} values; expected at most {MAX_VALUES}")
    return tree


def pointed(message: str, text: str, span: Span | None) -> str:
    """The message with the filter up to the place and a caret under it.

    What follows the place is left out: a filter can name a person.
    """
    if span is None:
        return message
    end = span.start + max(1, len(text[span.start : span.end].rstrip()))
    start = max(0, span.start - 50)
    before, there = _one_line(text[start : span.start]), _one_line(text[span.start : end][:60])
    before = "..." + before if start else before
    rest = " ..." if text[end:].strip() else ""
    carets = "^" * max(1, _width(there))
    return f"{message} (column {span.start + 1})\n    {before}{there}{rest}\n    {' ' * _width(before)}{carets}"


def require_sound(text: str) -> None:
    """QueryError for what no database takes, and for brackets too deep to follow."""
    for at, c in enumerate(text):
        if 0xD800 <= ord(c) <= 0xDFFF or (unicodedata.category(c) == "Cc" and c not in "\t\n\r"):
            raise QueryError(
                pointed("the filter contains a character that no attribute can contain", text[:at], Span(at, at + 1))
            )
    depth = 0
    for match in _QUOTED_OR_BRACKET.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            message = f"the filter has more than {MAX_DEPTH} nested brackets"
            raise QueryError(pointed(message, text, Span(match.start(), match.end())))


def _syntax_error(text: str, at: int, expected: Set[str]) -> QueryError:
    if not text.strip():
        return QueryError(
            "the filter is empty", hint="Write, for example: --where 'Modality = CT and PatientAge > 60'."
        )
    found = re.compile(rf"\s*({_WORD}|[=<>!]+|.)?", re.DOTALL).match(text, at)
    end = found.end() if found and found[1] else at
    start = found.start(1) if found and found[1] else at
    if "a comparison" in expected:
        expected = {f"a comparison ({_TESTS})"}
    wanted = sorted(expected, key=lambda e: (e.startswith("'"), e))
    last = f"{', '.join(wanted[:-1])} or {wanted[-1]}" if len(wanted) > 1 else wanted[0]
    if found and found[1] in ("'", '"'):
        seen, last = "a quote that is not closed", f"a second {found[1]}"
    else:
        seen = f"{found[1]!r}" if found and found[1] else "the end"
    hint = ""
    if seen.strip("'").lower() in _RESERVED and "a value" in expected:
        hint = f'To use this word as a value, write it in quotes: "{seen.strip(chr(39))}".'
    elif "the end" in expected and re.match(_WORD, seen.strip("'")):
        hint = 'A value of several words needs quotes: BodyPartExamined = "lumbar spine".'
    return QueryError(
        pointed(f"the filter can't be read: expected {last}, found {seen}", text, Span(start, end)), hint=hint
    )


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _width(text: str) -> int:
    """Columns on a terminal."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else wide.get(unicodedata.east_asian_width(c), 1) for c in text)


def _conditions(node: Node) -> list[Condition]:
    if isinstance(node, Condition):
        return [node]
    parts = (node.part,) if isinstance(node, Not) else node.parts
    return [condition for part in parts for condition in _conditions(part)]


# -- the grammar. Every rule consumes the blanks after it.


def _any_case(word: str) -> str:
    """A pattern of a word of the grammar. re.IGNORECASE would also take "İS" for "is"."""
    return "".join(f"[{letter}{letter.upper()}]" for letter in word)


_DOUBLE, _SINGLE = r'"(?:[^"]|"")*"', r"'(?:[^']|'')*'"
_NOT_RESERVED = rf"(?!(?:{'|'.join(map(_any_case, _RESERVED))})(?!{_WORD}))"
_NAME = rf"""(?:{_DOUBLE}|{_SINGLE}|[^\s()=<>!,"'.]+)"""
_UNITS = ("years", "year", "yrs", "yr", "months", "month", "mos", "mo", "weeks", "week", "wks", "wk", "days", "day")
_AGED = rf"\d+(?:\.\d+)?\s+(?:{'|'.join(map(_any_case, _UNITS))})(?:\s+{_any_case('old')})?(?!{_WORD})"
_TH = f"(?:{'|'.join(map(_any_case, ('st', 'nd', 'rd', 'th')))})?"
_OF = f"(?:(?:{_any_case('of')}|{_any_case('de')})\\s+)?"
_MONTH = rf"(?:{'|'.join(map(_any_case, MONTH_STARTS))})[^\W\d_]*\.?,?"
_DATED = rf"(?:\d{{1,2}}{_TH}\.?\s+{_OF})?{_MONTH}\s+(?:\d{{1,2}}{_TH},?\s+)?{_OF}\d{{4}}(?!{_WORD})"


def _spanned(pattern: str, name: str) -> parsy.Parser:
    """(the text, its Span without the blanks behind). One call, for lists of thousands of values."""
    compiled = re.compile(rf"({pattern})\s*")

    @parsy.Parser  # type: ignore[untyped-decorator]
    def spanned(text: str, at: int) -> parsy.Result:
        found = compiled.match(text, at)
        if found is None:
            return parsy.Result.failure(at, name)
        return parsy.Result.success(found.end(), (found[1], Span(*found.span(1))))

    return spanned


def _token(pattern: str, name: str) -> parsy.Parser:
    return _spanned(pattern, name).combine(lambda text, _: text)


def _keyword(*words: str) -> parsy.Parser:
    """Words of the grammar, as one lower-case text."""
    text = " ".join(words)
    return _token(r"\s+".join(map(_any_case, words)) + rf"(?!{_WORD})", repr(text)).result(text)


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(2 * quote, quote) if quote in "'\"" else text


def _field(text: str, span: Span) -> Field:
    return Field(tuple(_unquoted(name) for name in re.findall(_NAME, text)), span)


def _condition(field: Field, test: tuple[int, bool, str, int, Sequence[Value]]) -> Node:
    start, positive, operator, end, values = test
    condition = Condition(field, operator, tuple(values), Span(start, end))
    return condition if positive else Not(condition)


_VALUE = _spanned(rf"{_DOUBLE}|{_SINGLE}|{_AGED}|{_DATED}|{_NOT_RESERVED}{_WORD}", "a value").combine(
    lambda text, span: Value(_unquoted(text), span)
)
_FIELD = _spanned(rf"{_NOT_RESERVED}{_NAME}(?:\.{_NAME})*", "an attribute").combine(_field)
_OPEN, _CLOSE, _COMMA = _token(r"\(", "'('"), _token(r"\)", "')'"), _token(",", "','")
_AND, _OR, _NOT = _keyword("and"), _keyword("or"), _keyword("not")
_POSITIVE = _NOT.optional().map(lambda word: word is None)
_SIGN = _token("|".join(_COMPARISONS), "a comparison").map(lambda sign: _COMPARISONS[sign])
_MATCH = parsy.alt(_keyword("contains"), _keyword("starts", "with"), _keyword("ends", "with"), _keyword("like"))

_SIGNED = parsy.seq(parsy.index, _SIGN, parsy.index, _VALUE.times(1)).combine(
    lambda start, sign, end, value: (start, sign != "!=", sign.replace("!=", "="), end, value)
)
_WORDED = parsy.seq(
    parsy.index,
    _POSITIVE,
    parsy.alt(
        parsy.seq(_keyword("in"), parsy.index, _OPEN >> _VALUE.sep_by(_COMMA, min=1) << _CLOSE),
        parsy.seq(_keyword("between"), parsy.index, parsy.seq(_VALUE << _AND, _VALUE)),
        parsy.seq(_MATCH, parsy.index, _VALUE.times(1)),
    ),
).combine(lambda start, positive, rest: (start, positive, *rest))
_IS = parsy.seq(
    parsy.index,
    _keyword("is") >> _POSITIVE,
    _keyword("missing").result(True) | _keyword("present").result(False),
    parsy.index,
).combine(lambda start, positive, missing, end: (start, positive == missing, "missing", end, []))
_CONDITION = parsy.seq(_FIELD, _SIGNED | _IS | _WORDED).combine(_condition)


def _alternatives() -> Generator[parsy.Parser, Any, Node]:
    alternatives: list[list[Node]] = [[]]
    while True:
        nots = yield _NOT.many()
        if (yield _OPEN.optional()):
            node = yield _ANY
            yield _CLOSE
        else:
            node = yield _CONDITION
        alternatives[-1].append(Not(node) if len(nots) % 2 else node)
        joint = yield (_AND | _OR).optional()
        if joint is None:
            return _joined(AnyOf, [_joined(All, parts) for parts in alternatives])
        if joint == "or":
            alternatives.append([])


def _joined(kind: type[All] | type[AnyOf], parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


_ANY = parsy.generate(_alternatives)
_FILTER = parsy.regex(r"\s*") >> _ANY << parsy.eof.desc("the end")
