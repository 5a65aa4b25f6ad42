"""Which values of a header a word stands for in a filter: CR, DX, RG and RF for "X-ray", F for "woman".

The words are those of `data/terms/header.json`, in five languages. A filter is stricter than a preference: where the
values of a term also include regions around it and organs inside it, `data/terms/filter_values.json` has the values for
the term itself, those of one meaning together. A word that is itself such a value ("thorax") stands for the values of
its meaning; any other word of the term stands for all of them. A value that is in none of these lists ("rib") stands
for itself alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from retrieval.language.letters import without_accents
from retrieval.resources import data_folder

_MOST_LETTERS = 64
_Groups = tuple[tuple[str, ...], ...]  # values, those of one meaning together


@dataclass
class _Words:
    """The words of one attribute; words and values are the keys as `_plain` writes them."""

    meanings: dict[str, _Groups] = field(default_factory=dict)  # by word
    values: set[str] = field(default_factory=set)  # of all terms
    same: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by value: those of the same meaning


def values_called(attribute: str, word: str) -> tuple[str, ...]:
    """The values of an attribute, a DICOM keyword, that a word stands for; () if it stands for itself alone."""
    words = _table().get(attribute)
    if words is None or len(word) > _MOST_LETTERS:
        return ()
    plain = _plain(word)
    if plain in words.same:
        return words.same[plain]
    if plain in words.values:
        return ()
    return tuple(dict.fromkeys(value for group in words.meanings.get(plain, ()) for value in group))


@cache
def _table() -> Mapping[str, _Words]:
    terms = data_folder() / "terms"
    document, narrower = (
        json.loads((terms / name).read_text(encoding="utf-8")) for name in ("header.json", "filter_values.json")
    )
    table: dict[str, _Words] = {}
    for attribute, named in document.items():
        of = table.setdefault(attribute, _Words())
        for name, term in named.items():
            listed = narrower.get(attribute, {}).get(name)
            groups: _Groups = tuple(map(tuple, listed or [term["values"]]))
            of.values.update(map(_plain, term["values"]))
            of.same |= {_plain(value): group for group in groups if listed for value in group}
            for word in (word for words in term["words"].values() for word in words):
                of.meanings[_plain(word)] = (*of.meanings.get(_plain(word), ()), *groups)
    return table


def _plain(word: str) -> str:
    """Letters and digits alone, in lower case and without accents: "X-ray", "x ray" and "XRAY" are the same."""
    return re.sub(r"[\W_]+", "", without_accents(word).lower())
