"""Dates as people write them: 2023, 2023-05, 20230505, May 2023, 5 May 2023, 05.05.2023. Knows no SQL.

A year or a month is its whole span. With dots the day comes first. With a slash or a hyphen before the year, the order
of day and month differs between countries, so a date that could be two days is refused.
"""

from __future__ import annotations

import calendar
import re
from datetime import date

from retrieval.language.letters import without_accents

_ENGLISH = "January February March April May June July August September October November December"
ENGLISH = tuple(_ENGLISH.split(" "))
_OTHERS = (
    "januar februar marz april mai juni juli august september oktober november dezember",
    "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
)
_MONTHS = {name[:letters].lower(): n for n, name in enumerate(ENGLISH, 1) for letters in (3, len(name))}
_MONTHS |= {name: n for names in _OTHERS for n, name in enumerate(names.split(), 1)} | {"sept": 9}
MONTH_STARTS = tuple(sorted({name[:3] for name in _MONTHS} | {"mär", "fév", "aoû", "déc"}))
"""The first three letters of the months, in lower case, with and without accents."""

_TH = r"(?:st|nd|rd|th)?"
_YEAR_FIRST = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})(?:\2(\d{1,2}))?)?", re.ASCII)
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_YEAR_LAST = re.compile(r"(?:(\d{1,2})([-/.]))?(\d{1,2})([-/.])(\d{4})", re.ASCII)
_NAMED = re.compile(
    rf"(?:(\d{{1,2}}){_TH}\.? (?:of |de )?)?([a-z]+)\.?,? (?:(\d{{1,2}}){_TH},? )?(?:of |de )?(\d{{4}})", re.ASCII
)


class UnclearDate(ValueError):
    """A date that can't be understood: what is wrong with it, and what to write instead."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


def days(text: str) -> tuple[date, date]:
    """The first and the last day of a year, a month or a day.

    Raises ValueError for another text, UnclearDate for one that could be two days.
    """
    written = " ".join(without_accents(text).lower().split())
    if found := _YEAR_FIRST.fullmatch(written):
        return _span(found[1], found[3], found[4])
    if found := _DIGITS.fullmatch(written):
        return _span(*found.groups())
    if found := _YEAR_LAST.fullmatch(written):
        if found[1] is None:
            return _span(found[5], found[3])
        if found[2] != found[4]:
            raise ValueError(text)
        return _day_and_month(int(found[1]), int(found[3]), int(found[5]), dots=found[2] == ".")
    found = _NAMED.fullmatch(written)
    if found is None or found[2] not in _MONTHS or (found[1] and found[3]):
        raise ValueError(text)
    return _span(found[4], _MONTHS[found[2]], found[1] or found[3])


def said_of(text: str) -> str:
    """What a date is read as, if its writing does not say so for every reader: `5 May 2023 (day first)`, else ""."""
    found = _YEAR_LAST.fullmatch(text.strip())
    return f"{in_words(days(text)[0])} (day first)" if found and found[1] and found[2] == found[4] == "." else ""


def in_words(day: date) -> str:
    return f"{day.day} {ENGLISH[day.month - 1]} {day.year}"


def _day_and_month(first: int, second: int, year: int, *, dots: bool) -> tuple[date, date]:
    if dots and second > 12 >= first:
        raise UnclearDate(
            f"which has no month {second}: in a date with dots the day comes first",
            hint=f"Write the year first: {date(year, first, second)}.",
        )
    if dots or first > 12 or first == second:
        return _span(year, second, first)
    if second > 12:
        return _span(year, first, second)
    one, other = date(year, second, first), date(year, first, second)
    raise UnclearDate(
        f"which can be {in_words(one)} or {in_words(other)}", hint=f"Write the year first: {one} or {other}."
    )


def _span(year: str | int, month: str | int | None = None, day: str | int | None = None) -> tuple[date, date]:
    of_year = int(year)
    if month is None:
        return date(of_year, 1, 1), date(of_year, 12, 31)
    first = date(of_year, int(month), int(day or 1))
    return first, first if day else first.replace(day=calendar.monthrange(of_year, first.month)[1])
