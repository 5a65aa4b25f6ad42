"""Filters as SQL conditions over the keyword table. What a user wrote reaches the database only as bound parameters.

A comparison with a missing value is unknown, and so is its `not`: a row matches only if the filter is known to hold. So
`Modality != CT` and `not Modality = CT` mean the same, and neither matches a row without the value; `Modality is
missing` does. This is the logic of SQL, unchanged.

Texts are compared without regard to case (`values.folded`), in the same way in SQLite and PostgreSQL and in any locale:
ASCII letters by lower(), other letters by replacing the spellings of the letters in the filter. An attribute with
several values matches `=`, `in`, `contains`, `starts with` and `ends with` if any value does (PS3.4 C.2.2.2); `!=`
means that no value is equal. UIDs and pseudonyms have no case: `=` and `in` compare them exactly, using the database's
index. Words for values, such as "X-ray", are read as the values they stand for (`filters.reading`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from indexer import burned_in
from indexer.catalog.filters import values as meaning
from indexer.catalog.filters.dates import UnclearDate, days
from indexer.catalog.filters.language import (
    MAX_CONDITIONS,
    MAX_LENGTH,
    All,
    AnyOf,
    Condition,
    Field,
    Node,
    Not,
    Span,
    Value,
    parse_filter,
    pointed,
    require_sound,
)
from indexer.catalog.filters.reading import read_words
from indexer.catalog.labels import label_score
from indexer.catalog.schema import OWN_COLUMNS, frame_attributes, instances, of_frame
from indexer.keywords import COLUMNS, KEYWORDS, ValueKind
from retrieval.errors import QueryError, UnknownFilterKeyword
from retrieval.types import SearchFilter

T = TypeVar("T")

_SEPARATOR = "\\"
_WILDCARDS = {"*": "%", "?": "_", "%": "/%", "_": "/_", "/": "//"}  # of DICOM (PS3.4 C.2.2.2.4) and of SQL
_KINDS = {
    ValueKind.TEXT: "text",
    ValueKind.INTEGER: "a whole number",
    ValueKind.NUMBER: "a number",
    ValueKind.DATE: "a date",
    ValueKind.AGE: "an age",
    ValueKind.FLAG: "yes or no",
}
_BY_NAME = {name: name for name in (*COLUMNS, *OWN_COLUMNS)} | {k.name.lower(): k.column for k in KEYWORDS}
_KEYWORD_NAMES = {k.name.lower(): k.name for k in KEYWORDS}
_KEYWORD_OF = {k.column: k.name for k in KEYWORDS}
_CLOSED: Mapping[str, Sequence[str]] = {"kind": ("image", "report", "other"), "burned_in_text": burned_in.VALUES}
_EMPTY_HINT = "To find frames without a value, write: {} is missing"
_IDENTITY = (
    "patientname",
    "patientid",
    "patientbirthdate",
    "accessionnumber",
    "referringphysicianname",
    "institutionname",
)
_ORDERED = ("=", "in", "<", "<=", ">", ">=", "between", "missing")
_TAKES: dict[ValueKind, tuple[str, ...]] = {
    ValueKind.INTEGER: _ORDERED,
    ValueKind.NUMBER: _ORDERED,
    ValueKind.AGE: _ORDERED,
    ValueKind.DATE: _ORDERED,
    ValueKind.FLAG: ("=", "in", "missing"),
    ValueKind.TEXT: ("=", "in", "contains", "starts with", "ends with", "like", "missing"),
}
_NAMED = {"missing": "is missing, is present", "=": "=, !="}


@dataclass(frozen=True)
class Operand:
    """The column that a field of a filter refers to."""

    name: str
    column: sa.ColumnElement[Any]
    kind: ValueKind
    multi_valued: bool = False  # values joined with a backslash
    identifier: bool = False  # has no case


@dataclass(frozen=True)
class ReadFilter:
    """A filter whose words are read, as parts that must all hold, each with the text it was written in ("" if none)."""

    parts: tuple[tuple[str, Node], ...]
    notes: tuple[str, ...] = ()  # what its words were read as


def conditions(connection: sa.Connection, where: SearchFilter) -> list[sa.ColumnElement[bool]]:
    """Return conditions on `instances`, all of which must hold. An instance whose frames differ matches by any of them.

    Raises UnknownFilterKeyword, and QueryError for a filter that can't be read or a value that the column does not
    accept.
    """
    return instance_conditions_of(connection, read_filter(connection, where))


def frame_conditions(connection: sa.Connection, where: SearchFilter) -> list[sa.ColumnElement[bool]]:
    """Return the same conditions for single frames, on `schema.FRAMES_IN_FULL`."""
    return frame_conditions_of(connection, read_filter(connection, where))


def read_filter(connection: sa.Connection, where: SearchFilter) -> ReadFilter:
    """Return a filter with its words read. `equals` has values, not words. Raises QueryError as `conditions` does."""
    parts = _parts(where)
    if not where.where:
        return ReadFilter(parts)
    tree, notes = read_words(parts[-1][1], lambda column, text: _is_stored(connection, column, text))
    return ReadFilter((*parts[:-1], (where.where, tree)), notes)


def instance_conditions_of(connection: sa.Connection, read: ReadFilter) -> list[sa.ColumnElement[bool]]:
    """`conditions` of a filter that is read already."""
    own = _compiled(read, connection)
    by_frame = _compiled(read, connection, by_frame=True)
    if all(mine.compare(other) for mine, other in zip(own, by_frame, strict=True)):
        return own  # None of these differs from frame to frame
    rows = sa.select(frame_attributes.c.instance_id).where(frame_attributes.c.instance_id == instances.c.id)
    differing, passing = (query.correlate(instances).exists() for query in (rows, rows.where(*by_frame)))
    return [sa.or_(sa.and_(*own, ~differing), passing)]


def frame_conditions_of(connection: sa.Connection, read: ReadFilter) -> list[sa.ColumnElement[bool]]:
    """`frame_conditions` of a filter that is read already."""
    return _compiled(read, connection, by_frame=True)


def operand_of(connection: sa.Connection, field: Field, *, by_frame: bool) -> Operand:
    """Return the column that a field refers to. Raises UnknownFilterKeyword."""
    return _Compiler("", connection, by_frame).operand(field)


def require_valid(where: SearchFilter) -> None:
    """Raise what `conditions` would raise, before a database or a model is opened.

    Saved labels can't be checked here.
    """
    _compiled(ReadFilter(_parts(where)), None)


def labels_named(where: SearchFilter) -> list[tuple[str, ...]]:
    """What stands behind each `label.` in a filter: (NAME,) or (SET, NAME). QueryError for one that can't be read."""
    nodes, found = [parse_filter(where.where)] if where.where else [], []
    while nodes:
        node = nodes.pop()
        if isinstance(node, Not):
            nodes.append(node.part)
        elif isinstance(node, All | AnyOf):
            nodes += node.parts
        elif _is_label(node.field):
            found.append(tuple(node.field.path[1:]))
    return found


def column_named(name: str) -> str:
    """The column for a column name or a DICOM keyword. Raises UnknownFilterKeyword, which suggests the nearest."""
    found = _BY_NAME.get(name.lower())
    if found is None:
        raise UnknownFilterKeyword(_unknown(name), hint=_hint(name))
    return found


def _parts(where: SearchFilter) -> tuple[tuple[str, Node], ...]:
    parts: list[tuple[str, Node]] = []
    for name, texts in where.equals.items():
        for text in texts:
            require_sound(str(text))
        parts.append(("", Condition(Field((name,)), "in", tuple(Value(str(text)) for text in texts))))
    if where.where:
        parts.append((where.where, parse_filter(where.where)))
    return tuple(parts)


def _is_stored(connection: sa.Connection, column: str, text: str) -> bool:
    found = conditions(connection, SearchFilter({column: (text,)}))
    return connection.execute(sa.select(instances.c.id).where(*found).limit(1)).first() is not None


def _compiled(
    read: ReadFilter, connection: sa.Connection | None, *, by_frame: bool = False
) -> list[sa.ColumnElement[bool]]:
    return [_Compiler(text, connection, by_frame).sql(tree) for text, tree in read.parts]


class _Compiler:
    """Turns the syntax tree of one filter into SQL. `text` is what the user wrote, for messages; it may be empty."""

    def __init__(self, text: str, connection: sa.Connection | None, by_frame: bool) -> None:
        self.text = text
        self.by_frame = by_frame
        self.connection = connection
        self.is_postgresql = connection is not None and connection.dialect.name == "postgresql"
        self.ranges = 0

    def sql(self, node: Node) -> sa.ColumnElement[bool]:
        if isinstance(node, Not):
            return sa.not_(self.sql(node.part))
        if isinstance(node, All):
            return sa.and_(*map(self.sql, node.parts))
        if isinstance(node, AnyOf):
            return sa.or_(*map(self.sql, node.parts))
        return self._condition(node)

    def _condition(self, node: Condition) -> sa.ColumnElement[bool]:
        operand = self.operand(node.field)
        if node.operator not in _TAKES[operand.kind]:
            takes = ", ".join(_NAMED.get(o, o) for o in _TAKES[operand.kind])
            raise self._error(f"{operand.name} is {_KINDS[operand.kind]}; expected one of {takes}", node.operator_span)
        if node.operator == "missing":
            return operand.column.is_(None)
        for value in node.values:
            if len(value.text) > MAX_LENGTH:
                raise self._error(
                    f"a value in the filter has {len(value.text)} characters; expected at most {MAX_LENGTH}", value.span
                )
        if operand.kind is ValueKind.TEXT:
            if node.operator in ("=", "in"):
                self._require_possible(operand, node.values)
                return self._text_equals(operand, [value.text for value in node.values])
            return self._pattern(operand, node)
        if operand.kind is ValueKind.FLAG:
            return operand.column.in_([self._meant(operand, value, meaning.flag) for value in node.values])
        return self._ordered(operand, node)

    def _label(self, field: Field) -> Operand:
        """Compile `label.NAME` or `label.SET.NAME`: the highest score of an instance's frames."""
        if self.connection is None:
            return Operand(field.name, sa.null(), ValueKind.NUMBER)
        try:
            return Operand(field.name, label_score(self.connection, field.path[1:]), ValueKind.NUMBER)
        except UnknownFilterKeyword as exc:
            raise self._error(str(exc), field.span, hint=exc.hint, kind=UnknownFilterKeyword) from exc

    def operand(self, field: Field) -> Operand:
        if _is_label(field):
            return self._label(field)
        column = _BY_NAME.get(field.name.lower())
        if column is None:
            raise self._error(_unknown(field.name), field.span, hint=_hint(field.name), kind=UnknownFilterKeyword)
        keyword = COLUMNS.get(column)
        return Operand(
            name=column,
            column=of_frame(column) if self.by_frame else instances.c[column],
            kind=keyword.kind if keyword else ValueKind.TEXT,
            multi_valued=keyword is not None and keyword.vm != "1",
            identifier=column.endswith("_uid") or column == "patient_pseudonym",
        )

    # -- numbers, dates, ages: every value is a range [low, high]; a whole number's range contains only itself

    def _ordered(self, operand: Operand, node: Condition) -> sa.ColumnElement[bool]:
        ranges = [self._range(operand, value) for value in node.values]
        column, (low, high) = operand.column, ranges[0] if ranges else (None, None)
        if node.operator == "<":
            return column < low
        if node.operator == "<=":
            return column <= high
        if node.operator == ">":
            return column > high
        if node.operator == ">=":
            return column >= low
        if node.operator == "between":
            if ranges[1][1] < low:
                first, second = (value.text for value in node.values)
                raise self._error(
                    f"no value is between {first} and {second}; write the smaller value first", node.values[0].span
                )
            return column.between(low, ranges[1][1])
        single = [low for low, high in ranges if low == high]
        wide = [column.between(low, high) for low, high in ranges if low != high]
        self.ranges += len(wide)
        if self.ranges > MAX_CONDITIONS:
            raise self._error(f"the filter has more than {MAX_CONDITIONS} numbers or dates", node.field.span)
        return sa.or_(*([column.in_(single)] if single or not wide else []), *wide)

    def _range(self, operand: Operand, value: Value) -> tuple[Any, Any]:
        if operand.kind is ValueKind.DATE:
            return self._meant(operand, value, days)
        if operand.kind is ValueKind.INTEGER:
            number = self._meant(operand, value, meaning.integer)
            return number, number
        if operand.kind is ValueKind.AGE:
            return self._meant(operand, value, meaning.ages)
        return meaning.about(self._meant(operand, value, meaning.number))

    def _meant(self, operand: Operand, value: Value, parse: Callable[[str], T]) -> T:
        try:
            return parse(value.text.strip())
        except UnclearDate as exc:
            message = f"{operand.name} is compared with {value.text!r}, {exc}"
            raise self._error(message, value.span, hint=exc.hint) from exc
        except ValueError as exc:
            message = f"{operand.name} is compared with {value.text!r}; expected {meaning.EXPECTED[operand.kind]}"
            raise self._error(message, value.span) from exc

    # -- texts

    def _require_possible(self, operand: Operand, values: Sequence[Value]) -> None:
        """Raise QueryError for a value that no row can have; the search would only return nothing."""
        for value in values:
            if not value.text.strip():
                message, hint = f"{operand.name} is compared with an empty text; expected a value", _EMPTY_HINT
                raise self._error(message, value.span, hint=hint.format(_KEYWORD_OF.get(operand.name, operand.name)))
            allowed = _CLOSED.get(operand.name)
            if allowed is not None and value.text.lower() not in allowed:
                message = f"{operand.name} is compared with {value.text!r}; expected {', '.join(allowed)}"
                raise self._error(message, value.span)

    def _text_equals(self, operand: Operand, texts: list[str]) -> sa.ColumnElement[bool]:
        if operand.identifier:
            return operand.column.in_(texts)
        texts = [meaning.folded(text) for text in texts]
        column = self._folded(operand, texts)
        if not operand.multi_valued:
            return column.in_(texts)
        wrapped = _SEPARATOR + column + _SEPARATOR
        parts = [text for text in texts if _SEPARATOR not in text]
        self.ranges += len(parts)
        if self.ranges > MAX_CONDITIONS:
            raise self._error(f"the filter has more than {MAX_CONDITIONS} values of {operand.name}", None)
        inside = [wrapped.contains(_SEPARATOR + part + _SEPARATOR, autoescape=True) for part in parts]
        return sa.or_(column.in_(texts), *inside)

    def _pattern(self, operand: Operand, node: Condition) -> sa.ColumnElement[bool]:
        (value,) = node.values
        if not value.text:
            raise self._error(f"the value after {operand.name} {node.operator} is empty; expected a text", value.span)
        text = meaning.folded(value.text)
        column = self._folded(operand, [text])
        if node.operator == "like":
            if operand.multi_valued:
                message = (
                    f"{operand.name} has several values: it takes =, contains, starts with and ends with, not like"
                )
                raise self._error(message, node.operator_span)
            pattern = "".join(_WILDCARDS.get(c, c) for c in text)
            return column.like(pattern, escape="/")
        if operand.multi_valued and _SEPARATOR not in text and node.operator != "contains":
            column = _SEPARATOR + column + _SEPARATOR
            text = _SEPARATOR + text if node.operator == "starts with" else text + _SEPARATOR
            return column.contains(text, autoescape=True)
        if node.operator == "contains":
            return column.contains(text, autoescape=True)
        if node.operator == "starts with":
            return column.startswith(text, autoescape=True)
        return column.endswith(text, autoescape=True)

    def _folded(self, operand: Operand, texts: list[str]) -> sa.ColumnElement[str]:
        """Return the column, ignoring the case of ASCII letters and of the letters in the folded `texts`."""
        column = operand.column
        # PostgreSQL's lower() would follow the locale, where Turkish has another i.
        folded: sa.ColumnElement[str] = sa.func.lower(sa.collate(column, "C") if self.is_postgresql else column)
        letters = "".join(c for c in "".join(texts) if not c.isascii())
        for letter, others in (meaning.spellings(letters) if letters else {}).items():
            for other in others:
                folded = sa.func.replace(folded, other, letter)
        return folded

    def _error(
        self, message: str, span: Span | None, *, hint: str = "", kind: type[QueryError] = QueryError
    ) -> QueryError:
        return kind(pointed(message, self.text, span), hint=hint)


def _is_label(field: Field) -> bool:
    return len(field.path) in (2, 3) and field.path[0].lower() == "label"


def _unknown(name: str) -> str:
    return f"the catalog has no attribute {name!r}"


def _hint(name: str) -> str:
    plain = name.lower().replace("_", "")
    if plain in _IDENTITY:
        return "The catalog does not store identifying attributes. Use patient_pseudonym to select a patient."
    near = difflib.get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.5)
    if not near:
        return f"The attributes are: {', '.join([*COLUMNS, *OWN_COLUMNS])}."
    return f"Did you mean {near[0] if name.islower() else _KEYWORD_NAMES.get(near[0], near[0])!r}?"
