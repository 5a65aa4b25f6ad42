"""Notes on a filter: what its words were read as and, if nothing passes, which condition excludes everything.

Conditions that nothing passes are named one by one. If each of them passes something, the first one that leaves nothing
over is named, with those of the others that this takes. Beside it stands what the store has instead: the most frequent
values, or the range of numbers and dates. UIDs and pseudonyms are never listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from typing import Any

import sqlalchemy as sa

from indexer.catalog.conditions import (
    Operand,
    ReadFilter,
    frame_conditions_of,
    instance_conditions_of,
    operand_of,
    read_filter,
)
from indexer.catalog.filters.language import All, AnyOf, Condition, Node, Not
from indexer.catalog.schema import FRAMES_IN_FULL, frames, instances
from indexer.keywords import COLUMNS, ValueKind
from retrieval.neutral import neutral
from retrieval.types import SearchFilter

_MOST_NOTES = 3
_MOST_CONDITIONS = 12  # of a conjunction, that are tried one by one
_MOST_VALUES = 10
_MOST_ROWS = 200  # values of an attribute with several values, counted before they are taken apart
_MOST_WRITTEN = 4  # values of a condition
_MOST_LETTERS = 40
_DAYS_PER_YEAR = 365.25
_NEGATED = {"=": "!=", "in": "not in", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_UNLISTED = ("image_orientation_patient", "image_position_patient")  # hardly any two are equal

Part = tuple[str, Node]


def filter_notes(connection: sa.Connection, where: SearchFilter, *, empty: bool, by_frame: bool) -> tuple[str, ...]:
    """Return the notes on a filter, and why nothing passes if it is `empty`.

    `by_frame` is for filters of frames; otherwise instances pass or not, reports among them.
    """
    if not where:
        return ()
    read = read_filter(connection, where)
    why = _Emptiness(connection, by_frame).explained(read.parts) if empty else ()
    return (*read.notes, *islice(why, _MOST_NOTES))


class _Emptiness:
    """Explains why nothing in the catalog passes some conditions."""

    def __init__(self, connection: sa.Connection, by_frame: bool) -> None:
        self._connection = connection
        self._by_frame = by_frame
        self._unit = "frame" if by_frame else "file"

    def explained(self, parts: Sequence[Part], given: Sequence[Part] = ()) -> Iterator[str]:
        """Yield notes on parts that must all hold, among what passes `given`."""
        if not self._passes(given):
            yield f"the store has no {self._unit}s"
            return
        all_parts = [part for text, node in parts for part in _conjuncts(text, _pushed(node))]
        tried = all_parts[:_MOST_CONDITIONS]
        alone = [part for part in tried if not self._passes([*given, part])]
        for part in alone:
            yield from self._on_part(part, given)
        if alone:
            return
        for count in range(2, len(tried) + 1):
            if not self._passes([*given, *tried[:count]]):
                yield from self._on_part(tried[count - 1], [*given, *self._needed(tried[:count], given)])
                return
        yield f"no {self._unit} passes all {len(all_parts)} conditions of the filter"

    def _needed(self, parts: Sequence[Part], given: Sequence[Part]) -> list[Part]:
        """Those of the parts before the last one without which the last one would pass something."""
        needed = list(parts[:-1])
        for part in parts[:-1]:
            rest = [other for other in needed if other is not part]
            if not self._passes([*given, *rest, parts[-1]]):
                needed = rest
        return needed

    def _on_part(self, part: Part, given: Sequence[Part]) -> Iterator[str]:
        text, node = part
        if isinstance(node, AnyOf):
            for alternative in node.parts:
                yield from self.explained([(text, alternative)], given)
        elif isinstance(node, All):
            yield from self.explained([part], given)
        else:
            which = f" with {' and '.join(_written(node) for _, node in given)}" if given else ""
            condition, negated = (node.part, True) if isinstance(node, Not) else (node, False)
            assert isinstance(condition, Condition)
            yield f"no {self._unit}{which} {_says(condition, negated)}{self._instead(condition, negated, given)}"

    def _instead(self, condition: Condition, negated: bool, given: Sequence[Part]) -> str:
        """What there is instead: `; the store has CR, CT, MR`."""
        if condition.operator == "missing" and not negated:
            return ""
        operand = operand_of(self._connection, condition.field, by_frame=self._by_frame)
        if operand.identifier or operand.name in _UNLISTED:
            return ""
        values = self._values(operand, given)
        if not values:
            return f"; none of them says {_name(condition)}" if given else f"; the store has no {_name(condition)}"
        return f"; {'those have' if given else 'the store has'} {values}"

    def _values(self, operand: Operand, given: Sequence[Part]) -> str:
        if operand.kind in (ValueKind.TEXT, ValueKind.FLAG):
            shown = [_shown(value) for value in self._most_frequent(operand, given)]
            return ", ".join(shown[:_MOST_VALUES]) + (" and others" if len(shown) > _MOST_VALUES else "")
        query = self._among(sa.select(sa.func.min(operand.column), sa.func.max(operand.column)), given)
        low, high = self._connection.execute(query).one()
        return "" if low is None else _range(operand.kind, low, high)

    def _most_frequent(self, operand: Operand, given: Sequence[Part]) -> list[Any]:
        """The most frequent values, one more than are shown."""
        count = sa.func.count()
        query = self._among(sa.select(operand.column, count), given).where(operand.column.is_not(None))
        query = query.group_by(operand.column).order_by(count.desc(), operand.column)
        rows = self._connection.execute(query.limit(_MOST_ROWS if operand.multi_valued else _MOST_VALUES + 1)).all()
        if not operand.multi_valued:
            return [value for value, _ in rows]
        times: Counter[str] = Counter()
        for joined, n in rows:
            times.update(dict.fromkeys(filter(None, joined.split("\\")), n))
        return [value for value, _ in times.most_common(_MOST_VALUES + 1)]

    def _passes(self, parts: Sequence[Part]) -> bool:
        """Whether anything passes all of these parts."""
        query = self._among(sa.select(frames.c.id if self._by_frame else instances.c.id), parts)
        return self._connection.execute(query.limit(1)).first() is not None

    def _among(self, query: sa.Select[Any], parts: Sequence[Part]) -> sa.Select[Any]:
        read = ReadFilter(tuple(parts))
        if self._by_frame:
            return query.select_from(FRAMES_IN_FULL).where(*frame_conditions_of(self._connection, read))
        return query.select_from(instances).where(*(instance_conditions_of(self._connection, read) if parts else ()))


def _pushed(node: Node, negated: bool = False) -> Node:
    """The same filter with its negations around single conditions (De Morgan's laws, which hold with unknowns, too)."""
    if isinstance(node, Not):
        return _pushed(node.part, not negated)
    if isinstance(node, All | AnyOf):
        kind = type(node) if not negated else AnyOf if isinstance(node, All) else All
        return kind(tuple(_pushed(part, negated) for part in node.parts))
    return Not(node) if negated else node


def _conjuncts(text: str, node: Node) -> list[Part]:
    if isinstance(node, All):
        return [part for inner in node.parts for part in _conjuncts(text, inner)]
    return [(text, node)]


# -- in words


def _name(condition: Condition) -> str:
    name = condition.field.name
    column = next((c for c, k in COLUMNS.items() if name.lower() in (c, k.name.lower())), None)
    return COLUMNS[column].name if column else name


def _says(condition: Condition, negated: bool) -> str:
    name = _name(condition)
    if condition.operator == "missing":
        return f"says {name}" if negated else f"lacks {name}"
    if condition.operator in ("=", "in"):
        return f"says {name} other than {_values_of(condition)}" if negated else f"says {name} {_values_of(condition)}"
    return f"has {_test(condition, negated)}"


def _written(node: Node) -> str:
    """A condition of a filter, as it may be written."""
    if isinstance(node, Not):
        assert isinstance(node.part, Condition)
        return _test(node.part, negated=True)
    if isinstance(node, Condition):
        return _test(node, negated=False)
    joint = " and " if isinstance(node, All) else " or "
    return f"({joint.join(map(_written, node.parts))})"


def _test(condition: Condition, negated: bool) -> str:
    name, operator = _name(condition), condition.operator
    if operator == "missing":
        return f"{name} is {'present' if negated else 'missing'}"
    several = len(condition.values) > 1
    operator = {"=": "in", "in": "in"}.get(operator, operator) if several else {"in": "="}.get(operator, operator)
    sign = _NEGATED.get(operator, f"not {operator}") if negated else operator
    if operator == "between":
        return f"{name} {sign} {' and '.join(_shown(value.text) for value in condition.values)}"
    return f"{name} {sign} ({_values_of(condition)})" if operator == "in" else f"{name} {sign} {_values_of(condition)}"


def _values_of(condition: Condition) -> str:
    shown = [_shown(value.text) for value in condition.values[:_MOST_WRITTEN]]
    more = len(condition.values) - len(shown)
    if more:
        return f"{', '.join(shown)} or {more} others"
    return f"{', '.join(shown[:-1])} or {shown[-1]}" if len(shown) > 1 else shown[0]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = neutral(" ".join(str(value).split()))
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."


def _range(kind: ValueKind, low: Any, high: Any) -> str:
    low_text, high_text = (_number(kind, value) for value in (low, high))
    if low_text == high_text:
        return low_text
    number, _, unit = low_text.partition(" ")
    return f"{number if high_text.endswith(unit) else low_text} to {high_text}"  # 34 to 71 years


def _number(kind: ValueKind, value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if kind is not ValueKind.AGE:
        return f"{value:g}" if kind is ValueKind.NUMBER else str(value)
    if value < 2 / 12:
        return f"{round(value * _DAYS_PER_YEAR)} days"
    return f"{round(value * 12)} months" if value < 2 else f"{round(value, 1):g} years"
