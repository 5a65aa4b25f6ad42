"""Strangers' text as it is shown: it can't act on a terminal, a spreadsheet or a reader's eye.

Whatever writes for people or for other programs takes its texts through `neutral`: tables, CSV, JSON, HTML, Parquet,
messages and logs. A file name or a description may hold terminal escapes, bidirectional controls that make a text read
otherwise than it is stored (Unicode TR36), characters that can't be seen, or a formula. Numbers are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import islice
from typing import Any

_MOST_LISTED, _LONGEST_LISTED = 20, 60  # names, characters
SHOWN_INSTEAD = "\ufffd"
_SIGNS = "=+-@|"  # a spreadsheet takes a cell that begins with one for a formula or a command
# C0 without tab and line feed, DEL, C1; then what has no width or turns the direction of writing.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_FIGURE = r"[+-]?\d+\.\d+(?: %)?"
_SIGNED_FIGURE = re.compile(rf"{_FIGURE}(?: \({_FIGURE} to {_FIGURE}\))?")  # `+1.2 % (0.3 % to 2.1 %)`


def neutral(text: str) -> str:
    """The text without what could act: characters that can't be seen are shown as U+FFFD, and what begins like a
    formula, also in full-width or small forms and after blanks, gets an apostrophe before it."""
    if text.isascii() and text.isprintable():
        seen = text
    else:
        seen = _UNSEEN.sub(SHOWN_INSTEAD, text.replace("\r\n", "\n").replace("\r", "\n"))
    if seen[:1] in ("\t", "\n") or _is_formula(seen.lstrip()):
        return f"'{seen}"
    return seen


def neutral_message(text: str) -> str:
    """A message or a log record, of one line or several. It is not a cell: nothing is taken for a formula."""
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(SHOWN_INSTEAD, text)


def shortened(names: Iterable[object]) -> str:
    """Names out of a stranger's file for a message: the first of them, none of them long."""
    shown = [str(name) for name in islice(names, _MOST_LISTED + 1)]
    short = [name if len(name) <= _LONGEST_LISTED else f"{name[:_LONGEST_LISTED]}..." for name in shown[:_MOST_LISTED]]
    return ", ".join(short) + (" ..." if len(shown) > _MOST_LISTED else "")


def neutral_values(value: Any) -> Any:
    """A value with every text in it neutral: of lists, and of mappings' names, too. Dates become text."""
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, Mapping):
        return {neutral_values(name): neutral_values(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [neutral_values(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def _is_formula(text: str) -> bool:
    first = text[:1]
    if not first or first.isalnum():
        return False
    return unicodedata.normalize("NFKC", first)[:1] in _SIGNS and not _SIGNED_FIGURE.fullmatch(text)
