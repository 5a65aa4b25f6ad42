"""Several processes at one index file, and one that is killed while it writes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, vectors

from indexer.store.store import Store
from indexer.vectors import file
from indexer.vectors.choose import optimize
from indexer.vectors.index import CatalogIndex
from retrieval.types import SearchFilter

FRAMES, KEPT, ROUNDS = 20, 60, 15
SPAWN = multiprocessing.get_context("spawn")  # FAISS's threads don't survive a fork


def put(store: Store, generation: int) -> None:
    """Twenty rows in one transaction. One process writes, so their ids are 20 g + 1 to 20 g + 20."""
    archive = store.catalog.files.archive_id("/a")
    store.catalog.files.commit(archive, [indexed(f"{generation}.dcm", f"1.{generation}", frames=FRAMES)])


def stored(ids: np.ndarray) -> np.ndarray:
    generations = {g: vectors(f"1.{g}/", FRAMES).astype(np.float16) for g in np.unique((ids - 1) // FRAMES).tolist()}
    return np.array([generations[(i - 1) // FRAMES][(i - 1) % FRAMES] for i in ids.tolist()], dtype=np.float64)


def write(place: Path, done: Event) -> None:
    """Generations come, others go, and the file is written anew each time."""
    with Store.open(place) as store:
        for new in range(KEPT, KEPT + ROUNDS):
            put(store, new)
            store.catalog.instances.delete_matching(
                SearchFilter({"study_instance_uid": (f"1.{new - KEPT}.study",)}), None
            )
            store.refresh()
    done.set()


def read(place: Path, done: Event, number: int, reports: Any) -> None:
    """Search until the writer is done; what was seen that can't have been, and how many searches it took."""
    wrong: list[str] = []
    searches = changes = 0
    before: set[int] = set()
    query = vectors(f"query {number}", 1)[0]
    with Store.open(place) as store:
        last = False
        while not last and not wrong:
            last = done.is_set()
            _, gone = store.catalog.vectors.deleted_since("frame", 0)
            newest = store.catalog.vectors.count("frame") + len(gone)  # each id was given once
            if searches % 2:
                store.derived.forget()
            index = store.index("frame")
            for k in (5000, 10):
                hits = index.search(query, k)[0]
                ids = np.array([i for i, _ in hits], dtype=np.int64)
                if set(ids.tolist()) & set(gone.tolist()):
                    wrong.append(f"{k}: what was deleted before the search was found")
                if len(set(ids.tolist())) != len(ids) or len(ids) < 10:
                    wrong.append(f"{k}: {len(ids)} answers, {len(set(ids.tolist()))} different")
                scores = stored(ids) @ query.astype(np.float64)
                if not np.allclose(scores, [score for _, score in hits], atol=1e-6):
                    wrong.append(f"{k}: a score that is not its vector's")
                if k == 5000:
                    generations = np.bincount((ids - 1) // FRAMES)
                    if set(generations.tolist()) - {0, FRAMES}:
                        wrong.append("half a transaction was seen")
                    if ids.max() < newest:
                        wrong.append("what was committed before the search was not found")
                    changes += set(ids.tolist()) != before
                    before = set(ids.tolist())
            searches += 1
    reports.put((wrong, searches, changes, sorted(before)))


def test_two_read_while_one_writes(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with Store.create(place, SPEC) as store:
        for generation in range(KEPT):
            put(store, generation)
        outcome = optimize(
            store.derived.index_file_of("frame"),
            store.catalog.vectors,
            np.empty((0, DIM), np.float16),
            kind="ivf-rabitq",
        )
        assert outcome is not None and outcome[0].tuning is not None
    done, reports = SPAWN.Event(), SPAWN.SimpleQueue()
    readers = [SPAWN.Process(target=read, args=(place, done, number, reports), daemon=True) for number in range(2)]
    writer = SPAWN.Process(target=write, args=(place, done), daemon=True)
    for process in (*readers, writer):
        process.start()
    writer.join(300)
    assert writer.exitcode == 0
    for process in readers:
        process.join(300)
        assert process.exitcode == 0
    alive = list(range(ROUNDS * FRAMES + 1, (KEPT + ROUNDS) * FRAMES + 1))
    for _ in readers:
        wrong, searches, changes, last = reports.get()
        assert wrong == []
        assert searches >= changes >= 1
        assert last == alive
    with Store.open(place) as store:
        written = CatalogIndex.load(store.derived.index_file_of("frame").path)
        assert written.ids.tolist() == alive
        assert written.tuning is not None, "the compressed index went along"
        assert [path.name for path in (place / "vectors").glob(".*")] == []


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str) -> None:
    """Have this process killed at a moment of the next writing of an index file."""
    if moment == "half the vectors":
        whole = file.write_flat

        def half(target: Any, dim: int, ids: Any, batches: Any) -> None:
            rows = np.concatenate(list(batches))
            whole(target, dim, ids[: len(rows) // 2], iter([rows[: len(rows) // 2]]))
            target._file.flush()
            die()

        import indexer.vectors.index as user

        user.write_flat = half  # type: ignore[assignment]
    elif moment == "not synced":
        os.fsync = die
    elif moment == "not renamed":
        Path.replace = die  # type: ignore[assignment,method-assign]
    else:
        rename: Callable[..., Any] = Path.replace
        Path.replace = lambda *args: die(rename(*args))  # type: ignore[assignment,method-assign]


def killed(place: Path, moment: str) -> None:
    with Store.open(place) as store:
        put(store, 1)
        store.catalog.instances.delete_matching(SearchFilter({"study_instance_uid": ("1.0.study",)}), None)
        die_at(moment)
        store.refresh()


@pytest.mark.parametrize("moment", ["half the vectors", "not synced", "not renamed", "renamed"])
def test_killed_while_it_writes_the_old_file_stays(moment: str, tmp_path: Path) -> None:
    place = tmp_path / "s"
    with Store.create(place, SPEC) as store:
        put(store, 0)
        path = store.derived.index_file_of("frame").path
        store.refresh()
        before = path.read_bytes()
    process = SPAWN.Process(target=killed, args=(place, moment), daemon=True)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    unfinished = list(path.parent.glob(".*.tmp"))
    if moment == "renamed":
        assert CatalogIndex.load(path).ids.tolist() == list(range(21, 41))
    else:
        assert path.read_bytes() == before
        assert len(unfinished) == 1
        assert CatalogIndex.load(path).ids.tolist() == list(range(1, 21))
    with Store.open(place) as store:
        assert store.index("frame").ids.tolist() == list(range(21, 41))
    assert CatalogIndex.load(path).ids.tolist() == list(range(21, 41))
    assert list(path.parent.glob(".*.tmp")) == [], "what the killed process left went with the next writing"
    secret = vectors("1.0/", FRAMES).astype("<f2").tobytes()
    assert secret not in path.read_bytes()
