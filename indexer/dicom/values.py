"""Read single values from datasets that may be broken anywhere. Values never appear in a message."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

# What pydicom raises when a value is converted on first access (it parses lazily): seen over mutants of its test files.
CONVERSION_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

# NUL breaks PostgreSQL, lone surrogates break every database's UTF-8, other controls break terminals and tables.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence Python's warnings and these loggers: pydicom and pypdf quote the values that they warn about.

    Both are settings of the whole process and are restored at the end, so two threads must not do this at the same
    time.
    """
    before = {name: logging.getLogger(name).level for name in loggers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in loggers:
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


class MalformedValue(Exception):
    """The value violates its VR. Internal: becomes a warning that names the attribute, never the value."""


READ_ERRORS: tuple[type[Exception], ...] = (MalformedValue, *CONVERSION_ERRORS)


def read_value(ds: Dataset, tag: int | str) -> Any:
    """The value of a tag or keyword, None if absent or empty. Raises MalformedValue if pydicom can't convert it."""
    try:
        if tag not in ds:
            return None
        value = ds[tag].value
    except CONVERSION_ERRORS as exc:
        raise MalformedValue from exc
    if value is None or value == "" or (isinstance(value, MultiValue) and not value):
        return None
    return value


def read_text(ds: Dataset, tag: int | str) -> str:
    """Return the value as clean text, several values joined with a backslash; "" if absent, empty or malformed."""
    try:
        return as_text(read_value(ds, tag))
    except MalformedValue:
        return ""


def as_text(value: Any) -> str:
    """Any value as text that a database accepts: several values joined with a backslash, no controls but newline."""
    if value is None:
        return ""
    try:
        if isinstance(value, (MultiValue, list, tuple)):
            text = "\\".join("" if v is None else str(v) for v in value)
        else:
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    except CONVERSION_ERRORS as exc:
        raise MalformedValue from exc
    return clean(text)


def clean(text: str) -> str:
    text = _SURROGATES.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROLS.sub(" ", text).strip()


def item_at(ds: Dataset, tag: int | str, place: int) -> Dataset | None:
    """Return one item of a sequence, from 0, without reading the others; None if it is absent or broken."""
    try:
        value = read_value(ds, tag)
        item = value[place] if isinstance(value, Sequence) and 0 <= place < len(value) else None
    except READ_ERRORS:
        return None
    return item if isinstance(item, Dataset) else None


def first_item(ds: Dataset, tag: int | str) -> Dataset | None:
    """Return the first item of a sequence, as `item_at` does."""
    return item_at(ds, tag, 0)


def read_items(ds: Dataset, tag: int | str) -> list[Dataset]:
    """Return the items of a sequence; empty if absent or not a sequence. Raises MalformedValue."""
    value = read_value(ds, tag)
    if not isinstance(value, (MultiValue, list)) and not hasattr(value, "__iter__"):
        return []
    return [item for item in value if isinstance(item, Dataset)]
