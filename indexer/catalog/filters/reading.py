"""What a filter's words for values are read as: Modality "X-ray" as CR, DX, RG, RF. Knows no SQL.

Only `=`, `!=`, `in` and `not in` read words, and only where the store has no value that is spelled like the word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from indexer.catalog.filters.dates import said_of
from indexer.catalog.filters.language import All, AnyOf, Condition, Node, Not, Value
from indexer.catalog.filters.values import age_group, folded
from indexer.keywords import KEYWORDS, Keyword, ValueKind
from retrieval.language.value_words import values_called
from retrieval.neutral import neutral

IsStored = Callable[[str, str], bool]  # whether a column has a text as one of its values, in any case
_MOST_WORDS = 100  # in a longer list, values are values
_KEYWORDS = {name: keyword for keyword in KEYWORDS for name in (keyword.name.lower(), keyword.column)}


def read_words(node: Node, is_stored: IsStored) -> tuple[Node, tuple[str, ...]]:
    """The filter with the values that its words stand for, and a note on each word that was read otherwise than
    spelled.
    """
    notes: dict[str, None] = {}  # in order, each once
    return _read(node, is_stored, notes), tuple(notes)


def _read(node: Node, is_stored: IsStored, notes: dict[str, None]) -> Node:
    if isinstance(node, Not):
        return Not(_read(node.part, is_stored, notes))
    if isinstance(node, All | AnyOf):
        return replace(node, parts=tuple(_read(part, is_stored, notes) for part in node.parts))
    keyword = _KEYWORDS.get(node.field.name.lower())
    if keyword is None or len(node.values) > _MOST_WORDS:
        return node
    if keyword.kind is ValueKind.TEXT and node.operator in ("=", "in"):
        values = tuple(v for value in node.values for v in _values(keyword, value, is_stored, notes))
        return replace(node, values=values)
    notes.update(dict.fromkeys(f"{keyword.name} {note}" for note in _said(node, keyword.kind)))
    return node


def _values(keyword: Keyword, value: Value, is_stored: IsStored, notes: dict[str, None]) -> tuple[Value, ...]:
    called = values_called(keyword.name, value.text)
    if not called or [folded(value.text)] == list(map(folded, called)) or is_stored(keyword.column, value.text):
        return (value,)
    notes[f"{keyword.name} {neutral(value.text)} is read as {', '.join(called)}"] = None
    return tuple(Value(text, value.span) for text in called)


def _said(node: Condition, kind: ValueKind) -> Iterator[str]:
    for value in node.values:
        if kind is ValueKind.DATE and (said := said_of(value.text)):
            yield f"{value.text.strip()} is read as {said}"
        if kind is ValueKind.AGE and (group := age_group(value.text)):
            low, below = group
            ages = f"under {below}" if low == "0" else f"{low} years and over" if below == "200 years" else None
            yield f"{value.text.strip()} is read as {ages or f'{low} to under {below}'}"
