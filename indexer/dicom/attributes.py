"""Values of attributes in the form that the catalog stores, by their kind in `indexer.keywords`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from indexer.dicom.values import READ_ERRORS, MalformedValue, as_text, read_value
from indexer.keywords import ValueKind
from indexer.records import AttributeValue

MAX_TEXT = 1024  # characters of one attribute; the longest VR of the table allows 64 per value

_AGE = re.compile(r"(\d{1,3})([DWMY])", re.IGNORECASE)
_DATE = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})")  # with dots in ACR-NEMA, PS3.5 6.2
_DAYS_PER_YEAR = 365.25
_PER_YEAR = {"D": _DAYS_PER_YEAR, "W": _DAYS_PER_YEAR / 7, "M": 12.0, "Y": 1.0}
_EXPECTED = {
    ValueKind.TEXT: "text",
    ValueKind.INTEGER: "an integer",
    ValueKind.NUMBER: "a finite number",
    ValueKind.DATE: "YYYYMMDD",
    ValueKind.AGE: "nnnD, nnnW, nnnM or nnnY",
    ValueKind.FLAG: "YES or NO",
}


def read_attribute(ds: Dataset, tag: int, kind: ValueKind, label: str, warn: Callable[[str], None]) -> AttributeValue:
    """One attribute of `ds` as the catalog stores it, or None if it is absent, empty or malformed (with a warning).

    `label` names the attribute in the warning.
    """
    try:
        value = read_value(ds, tag)
        if value is None:
            return None
        if isinstance(value, MultiValue) and kind is not ValueKind.TEXT:
            warn(f"{label} has {len(value)} values, expected one; the first one is kept")
            value = value[0]
        converted = _CONVERTERS[kind](value)
        if kind is ValueKind.INTEGER and "." in as_text(value):
            warn(f"{label} is written as a decimal number; its whole number is kept")
    except READ_ERRORS:
        warn(f"{label} is malformed, expected {_EXPECTED[kind]}; it is left out")
        return None
    if isinstance(converted, str) and len(converted) > MAX_TEXT:
        warn(f"{label} has {len(converted)} characters; the first {MAX_TEXT} are kept")
        return converted[:MAX_TEXT]
    return converted


def _to_text(value: Any) -> str | None:
    return " ".join(as_text(value).split()) or None


def _to_integer(value: Any) -> int | None:
    text = as_text(value)
    if not text:
        return None
    number = _whole(text)
    if not -(2**31) <= number < 2**32:  # IS and UL, PS3.5 6.2
        raise MalformedValue
    return number


def _whole(text: str) -> int:
    """Return the whole number in an IS; some writers write "3.0" for 3."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _to_number(value: Any) -> float | None:
    text = as_text(value)
    if not text:
        return None
    number = float(text)
    if not math.isfinite(number):
        raise MalformedValue
    return number


def _to_date(value: Any) -> date | None:
    text = as_text(value)
    if not text:
        return None
    match = _DATE.fullmatch(text)
    if not match:
        raise MalformedValue
    return date(int(match[1]), int(match[3]), int(match[4]))


def _to_age(value: Any) -> float | None:
    text = as_text(value)
    if not text:
        return None
    match = _AGE.fullmatch(text)
    if not match:
        raise MalformedValue
    return int(match[1]) / _PER_YEAR[match[2].upper()]


def _to_flag(value: Any) -> bool | None:
    text = as_text(value).upper()
    if text not in ("", "YES", "NO"):
        raise MalformedValue
    return {"YES": True, "NO": False}.get(text)


_CONVERTERS: dict[ValueKind, Callable[[Any], AttributeValue]] = {
    ValueKind.TEXT: _to_text,
    ValueKind.INTEGER: _to_integer,
    ValueKind.NUMBER: _to_number,
    ValueKind.DATE: _to_date,
    ValueKind.AGE: _to_age,
    ValueKind.FLAG: _to_flag,
}
