"""Which vectors a catalog holds: those of its first model, or those that a change of the model put in their place.

A process that opened a catalog before such a change must not mix what it read then with what is there now. Whoever
writes vectors, or what was worked out from them, requires in its transaction that they are still the same.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from contextlib import suppress

import sqlalchemy as sa

from indexer.catalog.database import Database
from indexer.catalog.schema import manifest
from retrieval.errors import StoreError, StoreIncompatible

KEY = "vectors_id"  # in the manifest, once the model was changed


class VectorsInUse:
    """The mark of one catalog's vectors: None at first, another text after each change of the model."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._read: tuple[Hashable, str | None] | None = None
        self._expected: str | None = None
        with suppress(StoreError):  # a damaged catalog is described by whoever reads more of it
            self.expect()

    def now(self) -> str | None:
        """The mark as it is now. Read again only after something was committed."""
        with self._lock:
            state = self._database.state()
            if self._read is None or self._read[0] != state:
                with self._database.reading() as connection:
                    self._read = state, _mark(connection)
            return self._read[1]

    def expect(self) -> None:
        """From now on `require` wants the vectors that are there now."""
        self._expected = self.now()

    def require(self, connection: sa.Connection) -> None:
        """StoreIncompatible, in a transaction that is open, if the model was changed since `expect`."""
        if _mark(connection) != self._expected:
            raise StoreIncompatible(
                f"another process has changed the model of {self._database.label} meanwhile",
                hint="Run the command again: it uses the new model.",
            )


def _mark(connection: sa.Connection) -> str | None:
    value = connection.execute(sa.select(manifest.c.value).where(manifest.c.key == KEY)).scalar_one_or_none()
    return None if value is None else str(value)
