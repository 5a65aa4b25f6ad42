"""Search filters as SQL conditions over the keyword table."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from retrieval.errors import QueryError, UnknownFilterKeyword
from retrieval.types import SearchFilter

from .keywords import COLUMNS, KEYWORDS, Kind
from .schema import instances

_OWN = ("patient_pseudonym", "kind")  # columns that are no DICOM keyword
_BY_NAME = {name.lower(): name for name in (*COLUMNS, *_OWN)} | {k.name.lower(): k.column for k in KEYWORDS}
_MULTI_VALUED = frozenset(k.column for k in KEYWORDS if k.vm != "1")
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}  # PS3.5 6.2, AS; as the reader has them


def column_named(name: str) -> str:
    """The column for a column's name or a DICOM keyword. UnknownFilterKeyword, with the nearest suggested."""
    found = _BY_NAME.get(name.lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.5)
    hint = f"Did you mean {_BY_NAME[near[0]]!r}?" if near else f"There are: {', '.join([*COLUMNS, *_OWN])}."
    raise UnknownFilterKeyword(f"the catalog keeps no attribute {name!r}", hint=hint)


def conditions(connection: sa.Connection, where: SearchFilter) -> list[sa.ColumnElement[bool]]:
    """One condition per attribute; all must hold. Texts are compared without regard to case."""
    out: list[sa.ColumnElement[bool]] = []
    for name, values in where.equals.items():
        column = column_named(name)
        keyword = COLUMNS.get(column)
        if keyword is None or keyword.kind is Kind.TEXT:
            out.append(_text_equals(connection, column, values))
        else:
            parse, expected = _PARSERS[keyword.kind]
            wanted = [_parsed(column, value, parse, expected) for value in values]
            out.append(_number_equals(column, wanted) if parse in (_number, _age) else instances.c[column].in_(wanted))
    return out


def _number_equals(name: str, values: list[float]) -> sa.ColumnElement[bool]:
    """Equal but for rounding on the way from decimal text: 0.7, or 5 weeks in years."""
    column = instances.c[name]
    margins = [(value, 1e-9 * max(1.0, abs(value))) for value in values]
    return sa.or_(sa.false(), *(column.between(value - margin, value + margin) for value, margin in margins))


def _text_equals(connection: sa.Connection, name: str, values: tuple[str, ...]) -> sa.ColumnElement[bool]:
    column = instances.c[name]
    if name.endswith("_uid") or name == "patient_pseudonym":
        return column.in_(values)  # digits and dots, or a hash: no case, and the index is used
    lowered = [value.lower() for value in values]
    if all(value.isascii() for value in lowered) and name not in _MULTI_VALUED:
        return sa.func.lower(column).in_(lowered)
    # SQLite's lower() knows ASCII only, PostgreSQL's depends on the locale: compare the distinct values here.
    wanted = set(lowered)
    stored = connection.execute(sa.select(column).distinct().where(column.is_not(None))).scalars()
    split = "\\" if name in _MULTI_VALUED else None  # any one value of several matches, as in PS3.4 C.2.2.2
    matching = [
        text
        for text in stored
        if text.lower() in wanted or (split and not wanted.isdisjoint(text.lower().split(split)))
    ]
    return sa.or_(sa.false(), *(column.in_(matching[i : i + 5000]) for i in range(0, len(matching), 5000)))


def _parsed(column: str, value: str, parse: Callable[[str], Any], expected: str) -> Any:
    try:
        return parse(str(value).strip())
    except ValueError as exc:
        raise QueryError(f"{column} is compared with {value!r}; expected {expected}") from exc


def _integer(value: str) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(value)
    return number


def _number(value: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _age(value: str) -> float:
    unit = value[-1:].upper()
    return _number(value[:-1]) / _PER_YEAR[unit] if unit in _PER_YEAR else _number(value)


def _date(value: str) -> date:
    return datetime.strptime(value, "%Y%m%d" if value.isdigit() else "%Y-%m-%d").date()


def _flag(value: str) -> bool:
    if value.lower() not in _YES + _NO:
        raise ValueError(value)
    return value.lower() in _YES


_PARSERS: dict[Kind, tuple[Callable[[str], Any], str]] = {
    Kind.INTEGER: (_integer, "a whole number"),
    Kind.NUMBER: (_number, "a number"),
    Kind.DATE: (_date, "a date like 2020-01-31 or 20200131"),
    Kind.AGE: (_age, "years like 60, or 018M"),
    Kind.FLAG: (_flag, "yes or no"),
}
