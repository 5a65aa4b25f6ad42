"""Finds the words of a query that name what a DICOM header knows, such as "chest x-ray", "axial" or "women over 60".

`data/terms/header.json` has the terms of each attribute: their words in five languages (English first), the values of
the header that agree with them, and the findings that occur in one part of the body only. Regions that contain one
another agree: a CT of chest and abdomen agrees with "chest" as well as with "liver".

A header contradicts a term only with a value that belongs to another term of the same attribute. A value that no term
has contradicts nothing, and neither does a missing value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from retrieval.language.letters import without_accents
from retrieval.resources import data_folder
from retrieval.types import SearchFilter

_WORD = re.compile(r"[^\W_]+(?:[-/'][^\W_]+)*")
_BODY_PART = "BodyPartExamined"
_DESCRIPTION = "SeriesDescription"
_UNIT = r"(?!\s*(?:mm|cm|ml|kg|hu|%|degrees?|percent|slices?|images?|mhz|kv)|[.,]\d)"
_OLDER = re.compile(rf"\b(?:over|above|older than|aged over|at least)\s+(\d{{1,3}})\b{_UNIT}")
_YOUNGER = re.compile(rf"\b(?:under|below|younger than|aged under)\s+(\d{{1,3}})\b{_UNIT}")
_YEARS_OLD = re.compile(r"\b(\d{1,3})[\s-]*(?:year[\s-]*old|y[./]?o\b|yrs?\b)")
AGE_GROUPS = {  # words for an age group: from and below which age
    "newborn": ("0", "28 days"),
    "neonate": ("0", "28 days"),
    "infant": ("0", "2 years"),
    "infants": ("0", "2 years"),
    "child": ("0", "18 years"),
    "children": ("0", "18 years"),
    "pediatric": ("0", "18 years"),
    "paediatric": ("0", "18 years"),
    "adolescent": ("10", "20 years"),
    "adult": ("18", "200 years"),
    "adults": ("18", "200 years"),
    "elderly": ("65", "200 years"),
}
_AROUND = 5  # years: "60-year-old" takes 55 to 65
_YEAR = re.compile(rf"\b(?:(since|after|before|until) )?(19[89]\d|20[0-4]\d)\b(?![-/]\d){_UNIT}")
_DESCRIBED = {  # what descriptions of series call planes and sequences; those of one group exclude one another
    "plane": {
        "axial": ("axial", "transvers", "transax"),
        "coronal": ("coronal", "cor "),
        "sagittal": ("sagittal", "sag "),
    },
    "sequence": {
        "T1": ("t1",),
        "T2": ("t2",),
        "FLAIR": ("flair",),
        "DWI": ("dwi", "diffusion", "adc"),
        "STIR": ("stir", "tirm"),
    },
}
_DESCRIBING = {  # words of a query for them
    "axial": "axial",
    "transverse": "axial",
    "transaxial": "axial",
    "coronal": "coronal",
    "sagittal": "sagittal",
    "t1": "T1",
    "t1-weighted": "T1",
    "t1w": "T1",
    "t2": "T2",
    "t2-weighted": "T2",
    "t2w": "T2",
    "flair": "FLAIR",
    "dwi": "DWI",
    "diffusion-weighted": "DWI",
    "stir": "STIR",
}
_ALSO = {"FLAIR": ("T2",), "STIR": ("T2",), "T2": ("FLAIR", "STIR")}  # a FLAIR is a T2 without the fluid
_GROUP_OF = {name: group for group, names in _DESCRIBED.items() for name in names}


@dataclass(frozen=True)
class HeaderTerms:
    """The terms of a query: their names, those of parts of the body among them, and for each attribute a filter for the
    frames whose header contradicts them.
    """

    names: tuple[str, ...] = ()
    contradictions: tuple[SearchFilter, ...] = ()
    body_parts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True)
class _Table:
    by_words: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]]  # words: (attribute, name) of each term
    by_finding: Mapping[tuple[str, ...], str]  # words: name of the part of the body
    values: Mapping[tuple[str, str], frozenset[str]]  # (attribute, name): values that agree
    all_values: Mapping[str, frozenset[str]]  # attribute: values of all its terms
    longest: int = field(default=1)  # the number of words of the longest term


def header_terms(texts: Iterable[str]) -> HeaderTerms:
    """The terms that the texts of a query name. A finding names its part of the body where no text names one.

    Time is linear in the texts: at each word only as many words are looked up as the longest term has.
    """
    table = _table()
    wanted: dict[str, list[str]] = {}
    implied: list[str] = []
    described: list[str] = []
    filters: list[SearchFilter] = []
    names: list[str] = []
    for text in texts:
        folded = _folded(text)
        for words in _longest_terms(folded, table):
            for attribute, name in table.by_words.get(words, ()):
                wanted.setdefault(attribute, []).append(name)
            if words in table.by_finding:
                implied.append(table.by_finding[words])
            described += [_DESCRIBING[word] for word in words if word in _DESCRIBING]
        for name, where in (*_ages(folded), *_years(folded)):
            names.append(name)
            filters.append(SearchFilter(where=where))
    if implied and _BODY_PART not in wanted:
        wanted[_BODY_PART] = implied
    by_header: list[str] = []
    for attribute, terms in wanted.items():
        terms = list(dict.fromkeys(terms))
        agreeing = frozenset[str]().union(*(table.values[attribute, name] for name in terms))
        others = tuple(sorted(table.all_values[attribute] - agreeing))
        if others:
            filters.append(SearchFilter({_column(attribute): others}))
            by_header += terms
    described = list(dict.fromkeys(described))
    filters += _described_otherwise(described)
    body_parts = tuple(dict.fromkeys(wanted.get(_BODY_PART, ())))
    return HeaderTerms(tuple(dict.fromkeys((*by_header, *described, *names))), tuple(filters), body_parts)


def _longest_terms(folded: str, table: _Table) -> Iterator[tuple[str, ...]]:
    """The longest known run of words at each place, left to right; a word that belongs to none stands alone."""
    words = [match.group() for match in _WORD.finditer(folded)]
    at = 0
    while at < len(words):
        for length in range(min(table.longest, len(words) - at), 0, -1):
            run = tuple(words[at : at + length])
            if length == 1 or run in table.by_words or run in table.by_finding:
                yield run
                at += length
                break


def _described_otherwise(names: Sequence[str]) -> list[SearchFilter]:
    """Filters for series whose description names another plane or sequence than the query, and not that one."""
    filters = []
    for group, described in _DESCRIBED.items():
        own = [name for name in names if _GROUP_OF[name] == group]
        if not own:
            continue
        agreeing = {name for wanted in own for name in (wanted, *_ALSO.get(wanted, ()))}
        others = [f'{_DESCRIPTION} contains "{word}"' for n in described if n not in agreeing for word in described[n]]
        same = [f'{_DESCRIPTION} contains "{word}"' for n in agreeing for word in described[n]]
        filters.append(SearchFilter(where=f"({' or '.join(others)}) and not ({' or '.join(sorted(same))})"))
    return filters


def _ages(folded: str) -> Iterator[tuple[str, str]]:
    for match in _OLDER.finditer(folded):
        yield f"age over {int(match[1])}", f"PatientAge < {int(match[1])}"
    for match in _YOUNGER.finditer(folded):
        yield f"age under {int(match[1])}", f"PatientAge > {int(match[1])}"
    for match in _YEARS_OLD.finditer(folded):
        low, high = max(int(match[1]) - _AROUND, 0), int(match[1]) + _AROUND
        yield f"age {low} to {high}", f"PatientAge < {low} or PatientAge > {high}"
    for word in dict.fromkeys(match.group() for match in _WORD.finditer(folded)):
        if word in AGE_GROUPS:
            first, below = AGE_GROUPS[word]
            yield word, f"PatientAge < {first} or PatientAge >= {below}"


def _years(folded: str) -> Iterator[tuple[str, str]]:
    for match in _YEAR.finditer(folded):
        bound, year = match[1], int(match[2])
        if bound in ("since", "after"):
            first = year + (bound == "after")
            yield f"from {first}", f"StudyDate < {first}-01-01"
        elif bound in ("before", "until"):
            last = year - (bound == "before")
            yield f"until {last}", f"StudyDate > {last}-12-31"
        else:
            yield str(year), f"StudyDate < {year}-01-01 or StudyDate > {year}-12-31"


@cache
def header_words() -> frozenset[str]:
    """All single words of the terms, in every language, lower-case and without accents."""
    table = _table()
    return frozenset(word for words in (*table.by_words, *table.by_finding) for word in words)


@cache
def _table() -> _Table:
    document = json.loads((data_folder() / "terms" / "header.json").read_text(encoding="utf-8"))
    by_words: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    by_finding: dict[tuple[str, ...], str] = {}
    values = {}
    for attribute, terms in document.items():
        for name, term in terms.items():
            values[attribute, name] = frozenset(term["values"])
            for words in term["words"].values():
                for word in words:
                    by_words.setdefault(_split(word), []).append((attribute, name))
            for words in term.get("findings", {}).values():
                by_finding |= {_split(word): name for word in words}
    all_values = {
        attribute: frozenset[str]().union(*(v for (of, _), v in values.items() if of == attribute))
        for attribute in document
    }
    unique = {words: tuple(dict.fromkeys(terms)) for words, terms in by_words.items()}
    longest = max(map(len, (*unique, *by_finding)))
    return _Table(unique, by_finding, values, all_values, longest)


def _split(term: str) -> tuple[str, ...]:
    return tuple(match.group() for match in _WORD.finditer(_folded(term)))


def _folded(text: str) -> str:
    return " ".join(without_accents(text).lower().split())


def _column(attribute: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", attribute).lower()
