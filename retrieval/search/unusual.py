"""Tells whether the words of a query belong to radiology. Neither images nor reports can answer other words.

An image-text model finds the nearest images for any words, also for "the train to Lisbon", and their scores hardly
differ from those of a good query. The words differ: `data/terms/words.txt` says in how many of some 23,000 captions and
reports each occurs (`benchmarks/radiology_words.py` makes it). A query is unusual if its words are rare there on
average and no report of the store has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from retrieval.language.header_terms import header_words
from retrieval.language.letters import without_accents
from retrieval.resources import data_folder
from retrieval.search.bm25 import tokens

UNUSUAL = -3.0  # mean log10 of the words' frequency; fewer than one in twenty texts of training are below
COVERAGE_GAIN = 4.0  # of the part of the query that one report has
_RARE = -2.9  # what a known word counts for at least: a query of known words alone is never unusual
_NEVER = 0.1  # how many texts a word counts for that none has
_MOST_NAMED = 8
_MARKS = ".,;:()?!\"'"


@dataclass(frozen=True)
class Familiarity:
    """`score`: the mean of log10 of the share of texts that have a word, -6 to 0. `unknown`: words that no text has."""

    score: float
    unknown: tuple[str, ...]


def familiarity(texts: Iterable[str], known: Callable[[str], bool] = lambda word: False) -> Familiarity:
    """How usual the words of some texts are. `known` recognizes further words, in the form that the report index has.

    Words of the table of header terms are usual in any of its languages. Texts without words score 0.
    """
    count, table = _words()
    usual, never = header_words(), math.log10(_NEVER / count)
    logs: dict[str, float] = {}
    unknown: dict[str, None] = {}
    for surface in (word for text in texts for word in text.split()):
        stems = [word for word in tokens(surface) if not word.isdigit()]
        if not stems and not surface.isascii():
            unknown[surface] = None
        for word in stems:
            if word in table:
                logs[word] = max(math.log10(table[word] / count), _RARE)
            elif without_accents(surface).lower().strip(_MARKS) in usual or known(word):
                logs[word] = _RARE
            else:
                logs[word] = never
                unknown[surface] = None
    score = sum(logs.values()) / len(logs) if logs else never if unknown else 0.0
    return Familiarity(score, tuple(unknown)[:_MOST_NAMED])


def is_unusual(familiar: Familiarity, coverage: float) -> bool:
    """Whether a query has no good match. `coverage` is the part of its information that the best report has, 0 to 1."""
    return familiar.score + COVERAGE_GAIN * coverage < UNUSUAL


@cache
def _words() -> tuple[int, dict[str, int]]:
    """The number of texts, and how many of them have each word."""
    first, *lines = (data_folder() / "terms" / "words.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.rpartition(" ") for line in lines)
    return int(first.split()[1]), {word: int(count) for word, _, count in pairs}
