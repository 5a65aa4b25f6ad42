"""Shapes that identify whoever they belong to: dates, telephone numbers, record numbers, names after a title.

Years alone, ages, times of day and measurements stay. Each pattern is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from indexer.privacy.words import NO_NAMES, ORDINARY_WORDS

RUN = re.compile(r"[^\W\d_]+|\d+")  # a run of letters of any script, or of digits

_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
# A month is written with a capital: "may 12 mm" is no date.
_MONTH_NAME = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?|JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?"
    r"|SEPT?(?:EMBER)?|OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?)\b(?:\.(?=\s?-?\d))?"
)
_NAME = r"[^\W\d_a-z][^\W\d_]+(?:['’-][^\W\d_]+)*"

_WHOLE = [
    # 2020-01-31, 2020/1/31, 2020.01.31, 20200131
    rf"(?<![\d.]){_YEAR}([-/.]){_MONTH}\1{_DAY}(?!\d|\.\d)",
    rf"(?<![\d.]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{6}}(?:\.\d+)?)?(?!\d)",
    # 31.1.2020, 1/31/2020, 31-01-2020; with two digits of the year only where no measurement looks like it
    rf"(?<![\d.])\d{{1,2}}\s?([-/.])\s?\d{{1,2}}\s?\1\s?{_YEAR}(?!\d)",
    rf"(?<![\d./])(?:{_DAY}/{_MONTH}|{_MONTH}/{_DAY})/\d\d(?![\d/]|\.\d)",
    rf"(?<![\d.]){_DAY}\.{_MONTH}\.\d\d(?![\d.])",
    # 31 January 2020, 31-Jan-20, January 31st, 2020, Jan 2020, January 31
    rf"(?<!\d)(?:{_DAY}(?:st|nd|rd|th)?(?:\s+of)?[\s-]?){_MONTH_NAME}(?:,?[\s-]?(?:{_YEAR}|\d\d\b))?(?!\d)",
    rf"\b{_MONTH_NAME},?[\s-]?(?:{_DAY}(?:st|nd|rd|th)?\b(?!\s?[.x×]?\d*\s?(?:mm|cm|ml|%)))(?:,?\s+{_YEAR})?(?!\d)",
    rf"\b{_MONTH_NAME},?[\s-]?{_YEAR}(?!\d)",
    # e-mail, UID, telephone (North American, and any with a leading + or 00), US social security number
    r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+",
    r"(?<![\d.])\d+(?:\.\d+){4,}",
    r"(?<![\d.])(?:\+?1[-. ])?(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}(?!\d)",
    r"(?<![\w.])(?:\+|00)[1-9]\d{0,2}(?:[ ./()-]{0,2}\d){7,13}(?!\d)",
    r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])",
    # a long number, with up to four letters before it: A1234567, MPX1009 has its own file's tags
    r"(?<![^\W_])(?<!\d[.,])[A-Za-z]{0,4}-?\d{6,}(?![^\W_])(?!\.\d)",
]
# Only what follows the label is cut.
_AFTER_LABEL = [
    r"(?i:\b(?:mrn|pid|patient[ -]?(?:id|no|number|nr)|acc(?:ession)?(?:[ -]?(?:no|number|nr|id))?|record (?:no|number)"
    r"|nhs(?: (?:no|number))?|ssn|id)\b\.?\s?[:#=]?\s?#?)([A-Za-z]{0,6}[-/]?\d[\w/-]{2,})",
    r"(?i:\b(?:tel|telephone|phone|fax|pager|mobile)\b\.?\s?[:#]?\s?)(\+?\d(?:[ ./()-]{0,2}\d){3,})",
    r"(?i:\b(?:born(?: on| in)?|dob|d\.o\.b\.|date of birth|birth ?date)\s?[:=]?\s?)"
    r"(\d[\d./-]{1,9}\d|\d{1,2} [^\W\d_]{3,9} \d{2,4})",
    rf"(?i:\b(?:dictated|signed|transcribed|reported|read|verified|approved|referred|reviewed|performed) by\b\s?:?\s?)"
    rf"((?:(?:[A-Z]\.|Dr\.?|{_NAME})[ ,]{{1,2}}){{0,3}}{_NAME})",
    rf"(?i:\b(?:patient(?:'s)? name|name of (?:the )?patient|(?:referring|attending|requesting|ordering) doctor"
    rf"|radiologist|physician)\s?[:=]\s?)((?:(?:[A-Z]\.|Dr\.?|{_NAME})[ ,]{{1,2}}){{0,3}}{_NAME})",
]
# Mixed case alone: MR and DR are modalities.
_TITLED = (
    rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Frau|Herr|Mme|Sra?)\b\.?\s+((?:[A-Z]\.\s?){{0,2}}{_NAME}(?:\s{_NAME})?)"
)

_WHOLE_RE = [re.compile(pattern) for pattern in _WHOLE]
_LABEL_RE = [re.compile(pattern) for pattern in _AFTER_LABEL]
_TITLE_RE = re.compile(_TITLED)


def pattern_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of everything in `text` (NFC) that has an identifying shape. Spans may overlap."""
    for pattern in _WHOLE_RE:
        yield from (match.span() for match in pattern.finditer(text))
    for pattern in _LABEL_RE:
        for match in pattern.finditer(text):
            if not NO_NAMES.issuperset(RUN.findall(match[1].lower())):  # "read by CT"
                yield match.span(1)
    for match in _TITLE_RE.finditer(text):
        start, end = match.span(1)
        first, _, second = match[1].rpartition(" ")
        if first and not first.endswith(".") and (second.lower() in ORDINARY_WORDS or second.isupper()):
            end = start + len(first)  # "Dr. Smith Chest CT": the second word is no name
        yield start, end
