"""The exact index against brute force in NumPy, and its file against everything that can happen to a file."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import only, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexer.vectors import flat
from indexer.vectors.flat import Flat
from indexer.vectors.index import CatalogIndex
from indexer.vectors.opening import IndexFile, open_index
from indexer.vectors.parts import Mark
from indexer.vectors.port import StoreIndex
from retrieval.errors import StoreCorrupt, StoreError
from retrieval.types import VectorIndex

DIM = 6
SCAN = Flat.scan


@pytest.fixture(scope="module", autouse=True)
def numpy_and_faiss_take_turns() -> Iterator[None]:
    turns = itertools.count()

    def every_other(self: Flat, queries: np.ndarray) -> np.ndarray | None:
        return SCAN(self, queries) if next(turns) % 2 else None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Flat, "scan", every_other)
        yield


def brute_force(
    rows: dict[int, np.ndarray], query: np.ndarray, k: int, ids: np.ndarray | None = None
) -> list[tuple[int, float]]:
    """The judge: every inner product one by one in float64 over the float16 vectors, sorted by score, then id."""
    allowed = rows.keys() if ids is None else rows.keys() & {int(i) for i in ids}
    scored = []
    for i in allowed:
        stored = rows[i].astype(np.float16).astype(np.float64)
        total = np.float64(0)
        for a, b in zip(stored, query.astype(np.float64), strict=True):
            total += a * b
        scored.append((i, float(np.float32(total))))
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:k]


def same_hits(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [i for i, _ in found] == [i for i, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-6)


def grid_vectors(count: int, seed: int) -> np.ndarray:
    """Vectors from a coarse grid: equal ones, and so ties, are many."""
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, size=(count, DIM)).astype(np.float32) / 4


class FakeCatalog:
    """Rows and deletions in memory, by the rules of the real one: ids ascend and are never used twice."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}
        self.log: list[int] = []
        self.next_id = 1
        self.reads = 0

    def insert(self, new: np.ndarray) -> None:
        for row in new:
            self.rows[self.next_id] = row.astype(np.float16)
            self.next_id += 1

    def delete(self, ids: list[int]) -> None:
        for i in ids:
            if self.rows.pop(i, None) is not None:
                self.log.append(i)

    def iter_vectors(self, kind: str, after_id: int = 0, batch: int = 7) -> Iterator[tuple[Any, Any]]:
        ids = sorted(i for i in self.rows if i > after_id)
        self.reads += len(ids)
        for start in range(0, len(ids), batch):
            chunk = ids[start : start + batch]
            yield np.array(chunk, dtype=np.int64), np.stack([self.rows[i] for i in chunk])

    def vectors_of(self, ids: Any, kind: str = "frame") -> tuple[Any, Any]:
        found = sorted({int(i) for i in ids} & self.rows.keys())
        stacked = np.stack([self.rows[i] for i in found]) if found else np.empty((0, DIM), np.float16)
        return np.array(found, dtype=np.int64), stacked

    def deleted_since(self, kind: str, seq: int) -> tuple[int, Any]:
        return len(self.log), np.array(self.log[seq:], dtype=np.int64)


def test_is_a_vector_index() -> None:
    assert isinstance(CatalogIndex(DIM), VectorIndex)
    assert isinstance(CatalogIndex(DIM), StoreIndex)


@pytest.mark.parametrize("count", [1, 50, 3000])  # 3000: filters too wide for scoring row by row
@pytest.mark.parametrize("k", [1, 10, 5000])
def test_search_is_brute_force(count: int, k: int) -> None:
    data = vectors("rows", count, DIM)
    ids = np.arange(count, dtype=np.int64) * 3 + 5
    index = CatalogIndex(DIM)
    index.add(ids, data)
    queries = vectors("queries", 3, DIM)
    rows = dict(zip(ids.tolist(), data, strict=True))
    for allowed in (None, ids[::2], ids[: count // 10], np.array([4, 6], dtype=np.int64), ids[:0], ids[10:]):
        for query, found in zip(queries, index.search(queries, k, only(allowed)), strict=True):
            same_hits(found, brute_force(rows, query, k, allowed))


@pytest.mark.parametrize("k", [1, 5, 40, 2999])
def test_ties_go_by_ascending_id_however_many_there_are(k: int) -> None:
    data = np.repeat(vectors("few", 4, DIM), 750, axis=0)
    ids = np.random.default_rng(0).permutation(3000).astype(np.int64)
    index = CatalogIndex(DIM)
    index.add(ids, data)
    rows = dict(zip(ids.tolist(), data, strict=True))
    query = vectors("q", 1, DIM)
    same_hits(index.search(query, k)[0], brute_force(rows, query[0], k))
    scores = {score for _, score in index.search(query, 3000)[0]}
    assert len(scores) == 4, "equal vectors must have equal scores"


class IndexMachine(RuleBasedStateMachine):
    """Adds, deletes, catch-ups, saves and reopenings in any order; the index is always what brute force says."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "frames.faiss"
        self.catalog = FakeCatalog()
        self.index = CatalogIndex(DIM, store_id="s")

    @rule(count=st.integers(1, 20), seed=st.integers(0, 99))
    def commit(self, count: int, seed: int) -> None:
        self.catalog.insert(grid_vectors(count, seed))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.catalog.delete(data.draw(st.lists(st.integers(1, max(1, self.catalog.next_id - 1)), max_size=8)))

    @rule()
    def catch_up(self) -> None:
        self.index.catch_up(self.catalog)

    @rule()
    def save(self) -> None:
        self.index.save(self.path)

    @rule()
    def reopen(self) -> None:
        self.index = open_index(IndexFile(self.path, DIM, "frame", "s"), self.catalog)
        assert self.index.ids.tolist() == sorted(self.catalog.rows)

    @rule(seed=st.integers(0, 9), k=st.integers(0, 60), data=st.data())
    def search(self, seed: int, k: int, data: st.DataObject) -> None:
        self.index.catch_up(self.catalog)
        query = grid_vectors(1, seed)
        chosen = data.draw(st.none() | st.lists(st.integers(0, self.catalog.next_id + 2)))
        ids = None if chosen is None else np.array(chosen, dtype=np.int64)
        same_hits(self.index.search(query, k, only(ids))[0], brute_force(self.catalog.rows, query[0], k, ids))

    @invariant()
    def no_stranger(self) -> None:
        if hasattr(self, "index"):
            ids = self.index.ids
            assert len(ids) == len(self.index) == len(set(ids.tolist()))
            assert np.all(ids[1:] > ids[:-1])

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), unique=True, min_size=1), max_size=6), st.integers(0, 9))
def test_ids_may_be_added_in_any_order(batches: list[list[int]], seed: int) -> None:
    index, rows = CatalogIndex(DIM), {}
    for n, batch in enumerate(batches):
        new = [i for i in batch if i not in rows]
        data = grid_vectors(len(new), n)
        index.add(np.array(new, dtype=np.int64), data)
        rows.update(zip(new, data, strict=True))
    query = grid_vectors(1, seed)
    same_hits(index.search(query, 100)[0], brute_force(rows, query[0], 100))


def test_empty_index_and_no_answers() -> None:
    index = CatalogIndex(DIM)
    query = vectors("q", 2, DIM)
    assert index.search(query, 5) == [[], []]
    assert index.search(query[:0], 5) == []
    index.add(np.array([7], dtype=np.int64), vectors("a", 1, DIM))
    assert index.search(query, 0) == [[], []]
    assert index.search(query, 5, only(np.array([8], dtype=np.int64))) == [[], []]
    assert index.remove(np.array([7, 8], dtype=np.int64)) == 1
    assert index.search(query, 5) == [[], []]
    assert len(index) == 0


def test_bad_calls_name_both_numbers() -> None:
    index = CatalogIndex(DIM)
    one = vectors("a", 1, DIM)
    index.add(np.array([1], dtype=np.int64), one)
    with pytest.raises(ValueError, match=r"\(1, 7\); expected \(N, 6\)"):
        index.search(vectors("q", 1, 7), 1)
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full((1, DIM), np.nan, np.float32), 1)
    with pytest.raises(ValueError, match="NaN"):
        index.add(np.array([2], dtype=np.int64), np.full((1, DIM), np.inf, np.float32))
    with pytest.raises(ValueError, match="1 rows of the vectors as float16 contain NaN or infinity"):
        index.add(np.array([2], dtype=np.int64), np.full((1, DIM), 1e6, np.float32))
    with pytest.raises(ValueError, match="id 1 is in the index already"):
        index.add(np.array([1], dtype=np.int64), one)
    with pytest.raises(ValueError, match="the id 3 occurs twice"):
        index.add(np.array([3, 3], dtype=np.int64), vectors("b", 2, DIM))
    with pytest.raises(ValueError, match="2 ids for 1 vectors"):
        index.add(np.array([3, 4], dtype=np.int64), one)
    with pytest.raises(ValueError, match="k is -1"):
        index.search(one, -1)
    assert index.ids.tolist() == [1]


def test_saved_file_is_mapped_and_faiss_reads_it(tmp_path: Path) -> None:
    import faiss

    index = CatalogIndex(DIM, "sentence", "abc")
    index.add(np.arange(100, dtype=np.int64), vectors("a", 100, DIM))
    index.remove(np.array([3], dtype=np.int64))
    index.save(tmp_path / "x.faiss")
    loaded = CatalogIndex.load(tmp_path / "x.faiss")
    assert (loaded.kind, loaded.store_id, loaded.mark, len(loaded)) == ("sentence", "abc", Mark(99, 0), 99)
    query = vectors("q", 1, DIM)
    assert loaded.search(query, 5) == index.search(query, 5)
    assert faiss.read_index(str(tmp_path / "x.faiss")).ntotal == 99
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "x.faiss" in maps.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["x.faiss"]


def test_removed_vectors_are_not_in_the_file(tmp_path: Path) -> None:
    data = vectors("a", 10, DIM)
    index = CatalogIndex(DIM)
    index.add(np.arange(10, dtype=np.int64), data)
    secret = data[4].astype("<f2").tobytes()
    index.save(tmp_path / "x")
    assert secret in (tmp_path / "x").read_bytes()
    index.remove(np.array([4], dtype=np.int64))
    index.save(tmp_path / "x")
    assert secret not in (tmp_path / "x").read_bytes()


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "zeros", "header", "trailer", "folder"])
def test_a_damaged_file_is_rebuilt_with_a_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = FakeCatalog()
    catalog.insert(vectors("a", 2000, DIM))
    path = tmp_path / "frames.faiss"
    open_index(IndexFile(path, DIM, "frame", "s"), catalog)
    good = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        changed = {
            "empty": b"",
            "short": b"abc",
            "cut": good[: len(good) // 2],
            "zeros": bytes(len(good)),
            "header": b"\xff" * 64 + good[64:],
            "trailer": good[:-40] + b"#" + good[-39:],
        }[damage]
        path.write_bytes(changed)
        with pytest.raises(StoreCorrupt, match=r"frames\.faiss is damaged") as caught:
            CatalogIndex.load(path)
        assert str(tmp_path) not in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="indexer.vectors.opening"):
        index = open_index(IndexFile(path, DIM, "frame", "s"), catalog)
    assert index.ids.tolist() == sorted(catalog.rows)
    assert any("it is rebuilt from the catalog" in record.message for record in caplog.records)
    if damage != "folder":
        assert len(CatalogIndex.load(path)) == 2000


@pytest.mark.parametrize("other", ["store", "dim", "restored backup", "emptied"])
def test_a_file_of_another_state_is_rebuilt(other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = FakeCatalog()
    catalog.insert(vectors("a", 1500, DIM))
    path = tmp_path / "frames.faiss"
    open_index(IndexFile(path, DIM, "frame", "s"), catalog)
    dim, store_id = DIM, "s"
    if other == "store":
        store_id = "t"
    elif other == "dim":
        dim, catalog = DIM + 1, FakeCatalog()
        catalog.insert(vectors("b", 10, dim))
    elif other == "restored backup":  # ids 1401 to 1600 were given again to other pictures
        catalog = FakeCatalog()
        catalog.insert(vectors("a", 1400, DIM))
        catalog.insert(vectors("c", 200, DIM))
    else:
        catalog = FakeCatalog()
    index = open_index(IndexFile(path, dim, "frame", store_id), catalog)
    assert index.ids.tolist() == sorted(catalog.rows)
    assert np.array_equal(index.vectors_of(index.ids), catalog.vectors_of(index.ids)[1].reshape(-1, dim))
    assert any("it is rebuilt from the catalog" in record.message for record in caplog.records)


def test_what_goes_while_a_file_is_opened_is_no_other_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Busy(FakeCatalog):
        goes: tuple[int, ...] = (2000, 1, 1999)

        def vectors_of(self, ids: Any, kind: str = "frame") -> tuple[Any, Any]:
            self.delete([*self.goes[:1]])  # by another process, since the index caught up
            self.goes = self.goes[1:]
            return super().vectors_of(ids, kind)

    catalog = Busy()
    catalog.insert(vectors("a", 2000, DIM))
    place = IndexFile(tmp_path / "frames.faiss", DIM, "frame", "s")
    index = CatalogIndex(DIM, store_id="s")
    index.catch_up(catalog)
    index.save(place.path)
    catalog.reads = 0
    assert open_index(place, catalog).ids.tolist() == list(range(2, 1999))
    assert (catalog.reads, caplog.records) == (0, [])


def test_catching_up_reads_only_what_changed(tmp_path: Path) -> None:
    catalog = FakeCatalog()
    catalog.insert(vectors("a", 5000, DIM))
    path = tmp_path / "frames.faiss"
    open_index(IndexFile(path, DIM, "frame", "s"), catalog)
    catalog.insert(vectors("b", 10, DIM))
    catalog.delete([1, 2, 5001])
    catalog.reads = 0
    index = open_index(IndexFile(path, DIM, "frame", "s"), catalog)
    assert catalog.reads == 9
    assert index.ids.tolist() == sorted(catalog.rows)
    assert not index.catch_up(catalog)
    assert catalog.reads == 9


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    index = CatalogIndex(DIM)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"x\.faiss can't be written"):
        index.save(tmp_path / "file" / "x.faiss")


def test_readers_see_whole_states_while_one_writes() -> None:
    """Rows come and go in pairs; a search that sees one of a pair without the other saw a half-made state."""
    index = CatalogIndex(DIM)
    data = vectors("a", 2, DIM)
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            hits = index.search(data[:1], 10_000)[0]
            if len({i for i, _ in hits}) != len(hits) or len(hits) % 2:
                torn.append(len(hits))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(150):
        index.add(np.array([2 * n, 2 * n + 1], dtype=np.int64), data)
        if n % 3 == 0:
            index.remove(np.array([n, n + 1] if n % 2 == 0 else [n - 1, n], dtype=np.int64))
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


@pytest.mark.parametrize("dim", [1, 3, 512])
def test_numpy_and_faiss_give_the_same(tmp_path: Path, dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(3000, dim)) / np.sqrt(dim)
    rows[::7] = rows[0]  # ties
    rows[5] = 0
    queries = np.stack([rows[0] * 1e-3, rng.normal(size=dim), rows[1] * 1e3, np.zeros(dim)]).astype(np.float32)
    gone, chosen = np.arange(0, 3000, 5), np.arange(50, 2950)
    found = []
    for allowed in (0, 2**28):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Flat, "scan", SCAN)
            patched.setattr(flat, "FEW", allowed)
            index = CatalogIndex(dim)
            index.add(np.arange(3000), rows)
            index.save(tmp_path / "x.faiss")
            index = CatalogIndex.load(tmp_path / "x.faiss")
            asked = [index.search(queries, 450)]
            index.remove(gone)
            asked += [index.search(queries, 20), index.search(queries, 20, only(chosen))]
            asked += [index.search(queries[:1], 5000)]
            found.append(asked)
    assert found[0] == found[1]
    assert len(found[0][-1][0]) == 2400


def test_faiss_is_asked_once_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Flat(np.eye(4, 8, dtype=np.float16))
    monkeypatch.setattr(flat, "FEW", 100)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Flat, "scan", SCAN)
        asked = [rows.scan(np.eye(1, 8, dtype=np.float32)) for _ in range(5)]
        assert rows.scan(np.ones((1, 8), np.float32)) is None
    assert [scores is None for scores in asked] == [False, False, False, True, True]
    assert asked[0] is not None
    assert asked[0].tolist() == [[1, 0, 0, 0]]


def test_a_header_that_is_not_ours_is_damage(tmp_path: Path) -> None:
    index = CatalogIndex(DIM)
    index.add(np.arange(4), grid_vectors(4, 0))
    index.save(tmp_path / "x.faiss")
    whole = (tmp_path / "x.faiss").read_bytes()
    for place in (0, 5, 60, 100):
        (tmp_path / "x.faiss").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreCorrupt, match="checksum is wrong"):
            CatalogIndex.load(tmp_path / "x.faiss")
