"""Patterns that identify a person, whoever it is: dates, numbers, names beside a title.

Years alone, ages, times of day and measurements are kept. Everything is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from indexer.privacy.dates import asian_date_spans, date_spans
from indexer.privacy.letters import plain
from indexer.privacy.numbers import email_spans, number_spans
from indexer.privacy.people import people_spans

_DIGIT = re.compile(r"[0-9]")


def pattern_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of everything in `text` (`letters.normalized`) that matches an identifying pattern.

    Spans may overlap.
    """
    in_ascii = plain(text)
    if _DIGIT.search(in_ascii):
        yield from date_spans(in_ascii)
        yield from number_spans(in_ascii)
    else:
        yield from asian_date_spans(in_ascii)
    yield from email_spans(text)
    yield from people_spans(text)
