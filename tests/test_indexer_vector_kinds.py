"""What holds for every kind of index, whatever it runs on; exact kinds equal brute force, others reach their recall."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import only
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_indexer_vectors import FakeCatalog

from indexer.vectors import gpu
from indexer.vectors.choose import optimize
from indexer.vectors.compressed import Tuning, default_nlist
from indexer.vectors.index import CatalogIndex
from indexer.vectors.opening import IndexFile, open_index
from indexer.vectors.parts import Part
from retrieval.errors import StoreError
from retrieval.types import VectorIndex

DIM = 32
ROWS = 3000
EXACT = ("flat", "rough device", "cuda")  # the others promise a recall


def clustered(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(9).normal(size=(40, dim))
    rows = means[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Rough:
    """Searches as a GPU does, with the query rounded to float16, and knows neither deletions nor filters."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors.astype(np.float32)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries.astype(np.float16).astype(np.float32) @ self.vectors.T
        rows = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, rows, axis=1), rows


def flat(index: CatalogIndex) -> None:
    pass


def ivf_rabitq(index: CatalogIndex) -> None:
    index.compress(nlist=32)
    index.tune(Tuning(nprobe=8, per_answer=16))


def rough_device(index: CatalogIndex) -> None:
    index.move_to(lambda part: gpu.FlatGpuSearch(Rough(part.codes()), most=256))


def lists_device(index: CatalogIndex) -> None:
    """As where the rows don't fit on a GPU: an inverted file of FAISS's that has the same functions on the CPU."""

    def no_room() -> None:
        raise RuntimeError("CUDA memory allocation error")

    index.move_to(lambda part: gpu.fitting(part, no_room, lambda: cpu_lists(part)))


def cpu_lists(part: Part) -> Any:
    import faiss

    lists = faiss.index_factory(DIM, f"IVF{default_nlist(len(part.ids))},SQ8", faiss.METRIC_INNER_PRODUCT)
    lists.train(part.codes().astype(np.float32))
    lists.add(part.codes().astype(np.float32))
    return lists


def cuda_lists(index: CatalogIndex) -> None:
    def no_room() -> None:
        raise RuntimeError("CUDA memory allocation error")

    index.move_to(lambda part: gpu.fitting(part, no_room, lambda: gpu.ivf_on_gpus(part, gpu.gpu_numbers("cuda"))))


def cuda(index: CatalogIndex) -> None:
    gpu.move_to_gpu(index, "cuda")


KINDS: dict[str, Callable[[CatalogIndex], None]] = {
    "flat": flat,
    "ivf-rabitq": ivf_rabitq,
    "rough device": rough_device,
    "lists device": lists_device,
    "cuda": cuda,
    "cuda lists": cuda_lists,
}
EVERY = pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=[pytest.mark.gpu] if name.startswith("cuda") else []) for name in KINDS]
)


@pytest.fixture(autouse=True)
def _only_where_it_runs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        faiss = pytest.importorskip("faiss")
        if not getattr(faiss, "get_num_gpus", lambda: 0)():
            pytest.skip("FAISS does not find a GPU")


def made(kind: str, tmp_path: Path, rows: int = ROWS) -> tuple[CatalogIndex, FakeCatalog]:
    """An index from a file, as searches use it, and its catalog."""
    catalog = FakeCatalog()
    catalog.insert(clustered(rows))
    index = CatalogIndex(DIM, "frame", "s")
    index.catch_up(catalog)
    index.save(tmp_path / "frames.faiss")
    index = CatalogIndex.load(tmp_path / "frames.faiss")
    KINDS[kind](index)
    return index, catalog


def judged(catalog: FakeCatalog, query: np.ndarray, k: int, ids: set[int] | None = None) -> list[tuple[int, float]]:
    kept = np.array(sorted(catalog.rows if ids is None else ids & catalog.rows.keys()), dtype=np.int64)
    if not len(kept):
        return []
    stored = np.stack([catalog.rows[i] for i in kept.tolist()]).astype(np.float64)
    scores = (stored * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return [(int(kept[i]), float(scores[i])) for i in np.lexsort((kept, -scores))[:k]]


def recall(index: CatalogIndex, catalog: FakeCatalog, queries: np.ndarray, k: int = 10) -> float:
    shares = []
    for query, found in zip(queries, index.search(queries, k), strict=True):
        truth = {i for i, _ in judged(catalog, query, k)}
        shares.append(len(truth & {i for i, _ in found}) / len(truth))
    return float(np.mean(shares))


@EVERY
def test_every_kind_is_a_vector_index_with_exact_scores(kind: str, tmp_path: Path) -> None:
    index, catalog = made(kind, tmp_path)
    assert isinstance(index, VectorIndex)
    queries = clustered(20, 5)
    stored = {i: row.astype(np.float64) for i, row in catalog.rows.items()}
    for query, found in zip(queries, index.search(queries, 10), strict=True):
        assert len(found) == 10
        assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))
        for i, score in found:
            assert score == pytest.approx(float(stored[i] @ query.astype(np.float64)), abs=1e-6)
        if kind in EXACT:
            assert [i for i, _ in found] == [i for i, _ in judged(catalog, query, 10)]
    assert recall(index, catalog, clustered(200, 5)) >= 0.99


@EVERY
def test_filters_are_exact(kind: str, tmp_path: Path) -> None:
    index, catalog = made(kind, tmp_path)
    rng = np.random.default_rng(1)
    for share in (0.001, 0.01, 0.5, 0.9, 1.0):
        ids = rng.permutation(np.arange(1, ROWS + 1))[: max(1, int(share * ROWS))]
        for query in clustered(3, 6):
            found = index.search(query, 10, only(ids))[0]
            assert [i for i, _ in found] == [i for i, _ in judged(catalog, query, 10, set(ids.tolist()))]


@EVERY
def test_more_answers_than_rows_and_none(kind: str, tmp_path: Path) -> None:
    index, catalog = made(kind, tmp_path, rows=300)
    query = clustered(1, 3)
    assert [i for i, _ in index.search(query, 1000)[0]] == [i for i, _ in judged(catalog, query[0], 1000)]
    assert index.search(query, 0) == [[]]
    assert index.search(query, 5, only(np.empty(0, np.int64))) == [[]]
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full(DIM, np.nan, np.float32), 1)
    with pytest.raises(ValueError, match=r"expected \(N, 32\)"):
        index.search(np.zeros((1, 31), np.float32), 1)
    index.remove(index.ids)
    assert index.search(query, 5) == [[]]


@EVERY
def test_an_empty_index(kind: str, tmp_path: Path) -> None:
    index, catalog = made(kind, tmp_path, rows=0)
    assert index.search(clustered(2), 5) == [[], []]
    catalog.insert(clustered(30))
    index.catch_up(catalog)
    assert recall(index, catalog, clustered(3, 4), 5) == 1


@EVERY
def test_equal_vectors_come_in_the_order_of_their_ids(kind: str, tmp_path: Path) -> None:
    catalog = FakeCatalog()
    catalog.insert(np.repeat(clustered(8), 250, axis=0))
    index = CatalogIndex(DIM, "frame", "s")
    index.catch_up(catalog)
    index.save(tmp_path / "x")
    index = CatalogIndex.load(tmp_path / "x")
    KINDS[kind](index)
    for query in clustered(4, 2):
        found = index.search(query, 10)[0]
        assert len({score for _, score in found}) == 1
        assert [i for i, _ in found] == sorted(i for i, _ in found)
        if kind in EXACT:
            assert found[0][0] == judged(catalog, query, 1)[0][0]


@EVERY
def test_what_is_new_is_found_at_once_and_what_is_gone_never(kind: str, tmp_path: Path) -> None:
    index, catalog = made(kind, tmp_path)
    new = clustered(50, 77)
    catalog.insert(new)
    gone = [i for i, _ in judged(catalog, new[0], 6)][1:]
    catalog.delete(gone)
    index.catch_up(catalog)
    for number, row in enumerate(new):
        first = index.search(row, 20)[0]
        assert first[0][0] == ROWS + number + 1 or first[0][1] > 0.999
        assert not {i for i, _ in first} & set(gone)
    index.save(tmp_path / "frames.faiss")
    again = CatalogIndex.load(tmp_path / "frames.faiss")
    assert again.tuning == index.tuning
    if kind != "ivf-rabitq":
        KINDS[kind](again)
    assert again.ids.tolist() == sorted(catalog.rows)
    assert recall(again, catalog, clustered(20, 8)) >= 0.99
    assert not {i for hits in again.search(new, 50) for i, _ in hits} & set(gone)


@EVERY
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_neither_deleted_nor_filtered_out_rows_appear(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    index, catalog = made(kind, tmp_path, rows=1000)
    for _ in range(3):
        catalog.delete(data.draw(st.lists(st.integers(1, catalog.next_id - 1), max_size=300)))
        catalog.insert(clustered(data.draw(st.integers(0, 20)), data.draw(st.integers(0, 99))))
        if data.draw(st.booleans()):
            index.catch_up(catalog)
            index.save(tmp_path / "frames.faiss")
            index = CatalogIndex.load(tmp_path / "frames.faiss")
            KINDS[kind](index)
        index.catch_up(catalog)
        allowed = data.draw(st.none() | st.sets(st.integers(0, catalog.next_id + 5), max_size=400))
        k = data.draw(st.integers(1, 60))
        ids = None if allowed is None else np.array(sorted(allowed), dtype=np.int64)
        possible = catalog.rows.keys() if allowed is None else catalog.rows.keys() & allowed
        for found in index.search(clustered(4, data.draw(st.integers(0, 99))), k, only(ids)):
            assert {i for i, _ in found} <= possible
            assert len(found) == min(k, len(possible))


def test_a_device_that_cannot_settle_leaves_it_to_the_cpu(tmp_path: Path) -> None:
    """Equal vectors by the hundred: no number of candidates shows that the best are among them."""
    catalog = FakeCatalog()
    catalog.insert(np.repeat(clustered(2), 600, axis=0))
    index = CatalogIndex(DIM, "frame", "s")
    index.catch_up(catalog)
    index.save(tmp_path / "x")
    index = CatalogIndex.load(tmp_path / "x")
    rough_device(index)
    query = clustered(1, 3)[0]
    assert [i for i, _ in index.search(query, 10)[0]] == [i for i, _ in judged(catalog, query, 10)]


def test_rows_that_fit_on_no_gpu_are_said_so(tmp_path: Path) -> None:
    def no_room() -> None:
        raise RuntimeError("CUDA memory allocation error")

    index, _ = made("flat", tmp_path)
    with pytest.raises(StoreError, match="do not fit on the GPU") as caught:
        index.move_to(lambda part: gpu.fitting(part, no_room, no_room))
    assert "--device cpu" in caught.value.hint
    assert not index.on_device and index.search(clustered(1, 3), 5)[0]


def test_no_gpu_is_said_so() -> None:
    faiss = pytest.importorskip("faiss")
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        with pytest.raises(StoreError, match="no device 'cuda:99'"):
            gpu.gpu_numbers("cuda:99")
    else:
        with pytest.raises(StoreError, match="FAISS does not find a GPU on this machine"):
            gpu.gpu_numbers("cuda")


def test_codes_of_what_is_gone_leave_the_file(tmp_path: Path) -> None:
    index, catalog = made("ivf-rabitq", tmp_path)
    index.save(tmp_path / "frames.faiss")
    catalog.delete(list(range(1, 2001)))
    opened = open_index(IndexFile(tmp_path / "frames.faiss", DIM, "frame", "s"), catalog)
    compressed = opened._state.mapped.compressed
    assert compressed is not None
    assert len(compressed) == len(opened) == 1000
    sizes = [compressed.faiss_index.invlists.list_size(i) for i in range(compressed.nlist)]
    assert sum(sizes) == 1000


def test_optimize_measures_and_writes(tmp_path: Path) -> None:
    catalog = FakeCatalog()
    catalog.insert(clustered(ROWS))
    place = IndexFile(tmp_path / "frames.faiss", DIM, "frame", "s")
    other = clustered(30, 44).astype(np.float16)
    outcome = optimize(place, catalog, other)
    assert outcome is not None
    assert outcome[1].kind == "flat", "three thousand rows are searched exactly in well under 20 ms"
    outcome = optimize(place, catalog, other, kind="ivf-rabitq")
    assert outcome is not None
    index, measured = outcome
    assert (measured.kind, measured.rows, measured.nlist) == ("ivf-rabitq", ROWS, index.nlist)
    assert measured.recall_at_10 >= 0.99
    assert index.tuning == Tuning(measured.nprobe or 0, measured.per_answer or 0)
    assert CatalogIndex.load(place.path).tuning == index.tuning
    with pytest.raises(StoreError, match="at most 0 MiB are allowed"):
        optimize(place, catalog, other, memory=100)
    assert CatalogIndex.load(place.path).tuning == index.tuning, "nothing was changed"
    outcome = optimize(place, catalog, other, kind="flat")
    assert outcome is not None
    assert CatalogIndex.load(place.path).tuning is None


def test_optimize_of_nothing(tmp_path: Path) -> None:
    place = IndexFile(tmp_path / "frames.faiss", DIM, "frame", "s")
    assert optimize(place, FakeCatalog(), np.empty((0, DIM), np.float16)) is None


def test_who_opened_before_keeps_the_old_file(tmp_path: Path) -> None:
    """A writer replaces the file; a reader that has it open answers from what it opened."""
    reader, catalog = made("flat", tmp_path)
    before = reader.search(clustered(1, 3), 10)
    catalog.delete([i for i, _ in before[0]])
    catalog.insert(clustered(100, 5))
    open_index(IndexFile(tmp_path / "frames.faiss", DIM, "frame", "s"), catalog)
    assert reader.search(clustered(1, 3), 10) == before
    reader.catch_up(catalog)
    assert [i for i, _ in reader.search(clustered(1, 3), 10)[0]] == [
        i for i, _ in judged(catalog, clustered(1, 3)[0], 10)
    ]
