"""What a filter means, said naively: one row at a time, letter by letter, with None for unknown.

Shares nothing with the code it judges. A filter is a tuple: ("and", parts), ("or", parts), ("not", part), or
(operator, column, values) with the values as texts. A row is a dict of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from fractions import Fraction
from typing import Any

Truth = bool | None
NUMBERS = ("series_number", "slice_thickness", "rows")
UNITS = {"y": Fraction(1), "m": Fraction(1, 12), "w": Fraction(7 * 4, 1461), "d": Fraction(4, 1461)}


def holds(filter_: tuple[Any, ...], row: Mapping[str, Any]) -> Truth:
    operator = filter_[0]
    if operator == "not":
        inner = holds(filter_[1], row)
        return None if inner is None else not inner
    if operator in ("and", "or"):
        truths = [holds(part, row) for part in filter_[1]]
        decisive = operator == "or"
        return decisive if decisive in truths else None if None in truths else not decisive
    _, column, values = filter_
    value = row[column]
    if operator == "is missing":
        return value is None
    if operator == "is present":
        return value is not None
    if value is None:
        return None
    if operator == "!=":
        return not _test("=", column, value, values)
    if operator.startswith("not "):
        return not _test(operator[4:], column, value, values)
    return _test(operator, column, value, values)


def _test(operator: str, column: str, value: Any, texts: list[str]) -> bool:
    if operator == "in":
        return any(_test("=", column, value, [text]) for text in texts)
    if operator == "between":
        low, high = texts
        return _test(">=", column, value, [low]) and _test("<=", column, value, [high])
    (text,) = texts
    if isinstance(value, bool):
        return value == (text.lower() in ("yes", "true", "1"))
    if isinstance(value, date):
        wanted = text if "-" in text or len(text) == 4 else f"{text[:4]}-{text[4:6]}-{text[6:]}"
        return _ordered(operator, value.isoformat()[: len(wanted)], wanted)
    if column == "patient_age":
        return _compared(operator, Fraction(value), _years(text))
    if column in NUMBERS:
        return _compared(operator, Fraction(value), Fraction(text))
    if column.endswith("_uid") and operator == "=":
        return bool(value == text)
    test = TEXTS[operator]
    if column == "image_type" and "\\" not in text:
        return any(test(part, text) for part in value.split("\\"))
    return test(value, text)


def _years(text: str) -> Fraction:
    text = text.strip().lower()
    for unit in ("years", "year", "months", "month", "weeks", "week", "days", "day", "y", "m", "w", "d"):
        if text.endswith(unit):
            return Fraction(text.removesuffix(unit).strip()) * UNITS[unit[0]]
    return Fraction(text)


def _compared(operator: str, value: Fraction, wanted: Fraction) -> bool:
    """Numbers closer than a ten-millionth are the same but for rounding."""
    return _ordered(operator, *((wanted, wanted) if abs(value - wanted) < Fraction(1, 10**7) else (value, wanted)))


def _ordered(operator: str, value: Any, wanted: Any) -> bool:
    if operator == "=":
        return bool(value == wanted)
    if operator in ("<", "<="):
        return bool(value < wanted or (operator == "<=" and value == wanted))
    return bool(value > wanted or (operator == ">=" and value == wanted))


def same_letter(a: str, b: str) -> bool:
    if a == b:
        return True
    return a.isascii() == b.isascii() and (a.casefold() == b.casefold() or a.lower() == b.lower())


def _same(a: str, b: str) -> bool:
    return len(a) == len(b) and all(map(same_letter, a, b))


def _like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_like(text[i:], pattern[1:]) for i in range(len(text) + 1))
    return bool(text) and (pattern[0] == "?" or same_letter(text[0], pattern[0])) and _like(text[1:], pattern[1:])


TEXTS: dict[str, Callable[[str, str], bool]] = {
    "=": _same,
    "contains": lambda text, part: any(_same(text[i : i + len(part)], part) for i in range(len(text))),
    "starts with": lambda text, part: _same(text[: len(part)], part),
    "ends with": lambda text, part: len(part) <= len(text) and _same(text[len(text) - len(part) :], part),
    "like": _like,
}
