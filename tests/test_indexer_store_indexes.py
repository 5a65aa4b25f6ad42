"""The indexes of a store: each with a lock of its own, and one for each device that it is searched on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, vectors
from fake_encoder import FakeEncoder
from test_indexer_vector_kinds import Rough

from indexer.store import report_index
from indexer.store.own_model import StoreEncoder
from indexer.store.store import Store
from indexer.vectors import gpu, opening
from indexer.vectors.index import CatalogIndex
from indexer.vectors.parts import Part
from indexer.vectors.port import StoreIndex
from retrieval.encoders.clip import Device
from retrieval.errors import StoreError
from retrieval.search.query import Query, Ranker
from retrieval.types import SearchFilter

HANGS = 30.0  # seconds after which a thread that should go on counts as stuck


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SPEC) as made:
        fill(made, 20)
        yield made


def fill(store: Store, count: int, start: int = 0) -> None:
    numbers = range(start, start + count)
    files = [indexed(f"{n}", f"1.{n}", sentences=("Clear.", f"Number {n}.")) for n in numbers]
    store.catalog.files.commit(store.catalog.files.archive_id("/a"), files)


class Held:
    """Stands in for a function: who calls it for `kind` waits there until `go` is set."""

    def __init__(self, function: Callable[..., Any], kind: str | None = None) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self._function, self._kind = function, kind

    def __call__(self, place: Any, *more: Any) -> Any:
        if self._kind is None or place.kind == self._kind:
            self.entered.set()
            assert self.go.wait(HANGS)
        return self._function(place, *more)


def while_held(held: Held, slow: Callable[[], object], quick: Callable[[], Any]) -> Any:
    """What `quick` gives in another thread while `slow` waits in `held`."""
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(slow)
        try:
            assert held.entered.wait(HANGS), "the slow one has not begun"
            found = threads.submit(quick).result(HANGS)
            assert not waiting.done()
        finally:
            held.go.set()
        waiting.result(HANGS)
    return found


def nearest(index: StoreIndex) -> int:
    return index.search(vectors("1.7/", 1), 1)[0][0][0]


@pytest.mark.parametrize(("held", "asked"), [("sentence", "frame"), ("frame", "sentence")])
def test_opening_an_index_keeps_nobody_from_searching_another(
    store: Store, monkeypatch: pytest.MonkeyPatch, held: Any, asked: Any
) -> None:
    opening_one = Held(opening.open_index, held)
    monkeypatch.setattr(opening, "open_index", opening_one)
    found = while_held(opening_one, lambda: store.index(held), lambda: nearest(store.index(asked)))
    assert found == nearest(store.index(asked))
    assert len(store.index(held)) == 40


def test_opening_the_reports_keeps_nobody_from_searching_pictures(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Held(report_index.open_report_index)
    monkeypatch.setattr(report_index, "open_report_index", reading)
    assert while_held(reading, store.reports_index, lambda: len(store.frames_index())) == 40


def test_who_searches_an_index_goes_on_while_its_file_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.sentences_index()
    fill(store, 5, start=100)
    refreshing = Held(opening.refreshed, "sentence")
    monkeypatch.setattr(opening, "refreshed", refreshing)

    def search() -> tuple[int, int]:
        return len(store.frames_index()), len(store.sentences_index())

    assert while_held(refreshing, store.refresh, search) == (50, 50)
    assert store.sentences_index() is not before and len(store.sentences_index()) == 50


def test_what_is_committed_while_a_file_is_written_is_not_missed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = opening.refreshed

    def overtaken(place: Any, catalog: Any) -> CatalogIndex:
        index = plain(place, catalog)
        if place.kind == "frame":
            store.catalog.instances.delete_matching(SearchFilter({"sop_instance_uid": ("1.3",)}))
        return index

    monkeypatch.setattr(opening, "refreshed", overtaken)
    store.refresh()
    assert len(store.frames_index()) == 38


class Devices:
    """GPUs that are not there: what was copied to each, and how often it was asked."""

    def __init__(self) -> None:
        self.copies: list[tuple[list[int], Rough]] = []
        self.asked = 0

    def flat_on_gpus(self, part: Part, numbers: list[int]) -> Rough:
        copied = Counted(part.codes(), self)
        self.copies.append((numbers, copied))
        return copied


class Counted(Rough):
    def __init__(self, rows: np.ndarray, devices: Devices) -> None:
        super().__init__(rows)
        self._devices = devices

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self._devices.asked += 1
        return super().search(queries, k)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    made = Devices()
    numbers = {"cuda": [0, 1], "cuda:0": [0], "cuda:1": [1]}
    monkeypatch.setattr(gpu, "gpu_numbers", numbers.__getitem__)
    monkeypatch.setattr(gpu, "flat_on_gpus", made.flat_on_gpus)
    return made


def test_an_index_is_searched_on_the_device_that_is_named_and_on_no_other(store: Store, devices: Devices) -> None:
    store.refresh()
    on_gpu, on_cpu = store.frames_index("cuda"), store.frames_index()
    assert nearest(on_gpu) == nearest(on_cpu)
    assert devices.asked == 1, "the processor answers for cpu, also once a GPU has the vectors"
    assert store.frames_index("auto") is on_cpu
    assert store.frames_index("cuda") is on_gpu
    store.frames_index("cuda:1")
    store.sentences_index("cuda")
    assert [numbers for numbers, _ in devices.copies] == [[0, 1], [1], [0, 1]]


def test_what_is_committed_reaches_the_index_of_every_device(store: Store, devices: Devices) -> None:
    store.refresh()
    assert [len(store.frames_index(device)) for device in ("cpu", "cuda")] == [40, 40]
    fill(store, 1, start=100)
    store.catalog.instances.delete_matching(SearchFilter({"sop_instance_uid": ("1.7",)}))
    for device in ("cpu", "cuda"):
        index = store.frames_index(device)
        assert len(index) == 40
        assert index.ids.tolist() == store.catalog.frames.ids_matching(SearchFilter()).tolist()
        assert index.search(vectors("1.100/", 1), 1)[0][0][1] == pytest.approx(1, abs=1e-3)


def test_what_is_erased_leaves_the_devices(store: Store, devices: Devices) -> None:
    store.refresh()
    store.frames_index("cuda")
    assert store.erase(SearchFilter({"sop_instance_uid": ("1.7",)})) == 1
    store.frames_index("cuda")
    assert [len(copied.vectors) for _, copied in devices.copies] == [40, 38]


class Placed(FakeEncoder):
    """An encoder that says where it runs, as a `ClipEncoder` does."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = Device(device, "fp32", "as asked")

    embed_dim = DIM  # type: ignore[assignment]

    def encode_text(self, texts: Any) -> Any:
        return vectors(" ".join(texts), len(texts))

    def encode_images(self, images: Any) -> Any:
        return vectors("image", len(images))


def test_the_index_is_searched_where_the_encoder_runs(store: Store, devices: Devices) -> None:
    store.refresh()
    asked = Query("effusion", ranker=Ranker.DENSE)
    answers = store.search(asked, encoder=Placed("cpu"))
    assert not devices.copies
    found = store.search(asked, encoder=Placed("cuda:1"))
    assert [numbers for numbers, _ in devices.copies] == [[1]]
    assert [hit.key for hit in found.hits] == [hit.key for hit in answers.hits]
    before = devices.asked
    assert before > 0
    store.search(asked, encoder=Placed("cuda:1"), device="cpu")
    store.search(asked, encoder=FakeLike())
    assert devices.asked == before, "another device was asked for, or the encoder names none"
    store.search(asked, encoder=Placed("cpu"), device="cuda:0")
    assert devices.asked > before and devices.copies[-1][0] == [0]


class FakeLike(Placed):
    """Says nothing of a device."""

    def __init__(self) -> None:
        super().__init__("cuda")
        del self.device


def test_a_store_encoder_has_the_index_on_its_device(store: Store, devices: Devices) -> None:
    store.refresh()
    text = Query("number", ranker=Ranker.TEXT)  # needs no model
    store.search(text, encoder=StoreEncoder(store, device="auto"))
    store.search(text)
    assert not devices.copies
    store.search(text, encoder=StoreEncoder(store, device="cuda:0"))
    store.search(text, device="cuda:1")
    assert [numbers for numbers, _ in devices.copies] == [[0], [1]]


def test_a_device_that_is_not_there_is_an_error_and_not_another_device(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_there(device: str) -> list[int]:
        raise StoreError("FAISS does not find a GPU on this machine")

    monkeypatch.setattr(gpu, "gpu_numbers", none_there)
    with pytest.raises(StoreError, match="FAISS does not find a GPU on this machine"):
        store.search(Query("number", ranker=Ranker.TEXT), device="cuda")
    assert store.search(Query("number", ranker=Ranker.TEXT)).hits
