"""The store's settings: JSON values by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import sqlalchemy as sa

from indexer.catalog.database import Database
from indexer.catalog.schema import manifest
from retrieval.errors import StoreCorrupt


class Manifest(MutableMapping[str, Any]):
    """The settings of one catalog. Each assignment is a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, key: str) -> Any:
        try:
            with self._database.reading() as connection:
                row = connection.execute(sa.select(manifest.c.value).where(manifest.c.key == key)).one_or_none()
        except (ValueError, RecursionError) as exc:
            raise StoreCorrupt(
                f"the setting {key!r} of {self._database.label} is not valid JSON",
                hint="Restore the store from a backup, or index the archive into a new store.",
            ) from exc
        if row is None:
            raise KeyError(key)
        return row.value

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, values: Any = (), /, **more: Any) -> None:
        """Set all of these values in one transaction."""
        new = dict(values, **more)
        with self._database.writing() as connection:
            write_settings(connection, new)

    def __delitem__(self, key: str) -> None:
        with self._database.writing() as connection:
            if not connection.execute(sa.delete(manifest).where(manifest.c.key == key)).rowcount:
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        with self._database.reading() as connection:
            return iter(connection.execute(sa.select(manifest.c.key).order_by(manifest.c.key)).scalars().all())

    def __len__(self) -> int:
        return len(list(iter(self)))


def write_settings(connection: sa.Connection, values: Mapping[str, Any]) -> None:
    """Set these values within an open transaction."""
    if values:
        connection.execute(sa.delete(manifest).where(manifest.c.key.in_(values)))
        connection.execute(sa.insert(manifest), [{"key": key, "value": value} for key, value in values.items()])
