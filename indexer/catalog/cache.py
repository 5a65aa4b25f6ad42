"""Values computed from the catalog, kept until any process commits a change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class CatalogCache(Generic[K, V]):
    """Keeps at most `most` computed values by key, the latest ones.

    Thread-safe; threads do not wait for each other's work.
    """

    def __init__(self, state: Callable[[], Hashable], most: int) -> None:
        """`state` returns a value that changes with every commit, as `Database.state` does."""
        self._state = state
        self._most = most
        self._lock = threading.Lock()
        self._entries: dict[K, tuple[Hashable, V]] = {}

    def get(self, keys: Iterable[K], work: Callable[[list[K]], Mapping[K, V]]) -> dict[K, V]:
        """Return the values of these keys. `work` is called once with all unknown keys and returns a value for each."""
        state = self._state()
        wanted = list(dict.fromkeys(keys))
        with self._lock:
            found = {
                key: self._entries[key][1] for key in wanted if key in self._entries and self._entries[key][0] == state
            }
        missing = [key for key in wanted if key not in found]
        if missing:
            new = work(missing)
            found |= {key: new[key] for key in missing}
            with self._lock:
                for key in missing:
                    self._entries.pop(key, None)
                    self._entries[key] = (state, new[key])
                while len(self._entries) > self._most:
                    del self._entries[next(iter(self._entries))]
        return found
