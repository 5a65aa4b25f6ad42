"""Values are kept until the state changes, worked out once, and forgotten oldest first."""

from __future__ import annotations

from indexer.catalog.cache import CatalogCache


def test_values_are_worked_out_once_until_something_is_committed() -> None:
    state, asked = [0], []

    def work(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        return {key: len(key) + state[0] for key in keys}

    kept: CatalogCache[str, int] = CatalogCache(lambda: state[0], 2)
    assert kept.get(["a", "bb", "a"], work) == {"a": 1, "bb": 2}
    assert kept.get(["bb"], work) == {"bb": 2}
    assert asked == [["a", "bb"]]
    state[0] = 10
    assert kept.get(["a", "ccc"], work) == {"a": 11, "ccc": 13}
    assert kept.get(["bb"], work) == {"bb": 12}, "what was known before the commit is not"
    assert kept.get(["a"], work) == {"a": 11}
    assert asked[1:] == [["a", "ccc"], ["bb"], ["a"]], "of two that are kept, the oldest went"


def test_more_keys_than_are_kept_are_all_answered() -> None:
    kept: CatalogCache[int, int] = CatalogCache(lambda: 0, 2)
    assert kept.get(range(5), lambda keys: {key: key * key for key in keys}) == {i: i * i for i in range(5)}
