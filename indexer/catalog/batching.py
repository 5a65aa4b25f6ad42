"""Queries with any number of values. Databases accept only a limited number of parameters per statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

CHUNK = 10_000  # values per statement; SQLite takes 32,766 parameters, PostgreSQL 65,535


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """The values in order, `size` at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def rows_where_in(
    connection: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[Any], values: Sequence[Any]
) -> Iterator[Any]:
    """The rows of `query` whose column has one of the values. Ordered, if at all, within each chunk of the values."""
    for chunk in chunks(values):
        yield from connection.execute(query.where(column.in_(chunk)))


def delete_where_in(
    connection: sa.Connection, table: sa.Table, column: sa.ColumnElement[Any], values: Sequence[Any]
) -> None:
    """Delete the rows of `table` whose column has one of the values."""
    for chunk in chunks(values):
        connection.execute(sa.delete(table).where(column.in_(chunk)))
