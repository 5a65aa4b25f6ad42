"""What a killed process leaves: each job is done or not done, and the next run clears up."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import SPEC, indexed

from indexer.catalog import labels as catalog_labels
from indexer.catalog.database import Database, parse_url
from indexer.catalog.labels import SavedSet
from indexer.output_formats import json_lines
from indexer.outputs import Output
from indexer.run.lease import Lease
from indexer.store.store import Store
from indexer.tasks.exchange import ImportResult, export_frames, import_frames
from indexer.tasks.optimizing import MANIFEST_KEY, index_facts, optimize_store
from indexer.tasks.verifying import verify_store
from retrieval.errors import StoreCorrupt, StoreError
from retrieval.on_disk import folder_written_whole, written_whole

REFERENCE = Path(__file__).parent / "reference" / "store-0.1.0"
LEFT = "0123456789abcdef.tmp"  # how a name ends that a killed process has left


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(work: Callable[[], object]) -> None:
    """Do it in a child that is killed; `work` does so itself."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SPEC) as made:
        archive = made.catalog.files.archive_id("/archive")
        made.catalog.files.commit(archive, [indexed(f"{n}.dcm", f"1.2.{n}") for n in range(20)])
        made.refresh()
        yield made


@pytest.mark.parametrize("write", [written_whole, folder_written_whole])
def test_what_a_killed_process_was_writing_goes_when_it_is_next_written(
    write: Callable[..., object], tmp_path: Path
) -> None:
    def half() -> None:
        with write(tmp_path / "made"):  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    killed(half)
    [left] = names(tmp_path)
    with write(tmp_path / "other"):  # type: ignore[attr-defined]
        assert left in names(tmp_path), "it is not the other's to remove"
    with write(tmp_path / "made") as first:  # type: ignore[attr-defined]
        with write(tmp_path / "made") as second:  # type: ignore[attr-defined]
            assert first.exists() and second.exists()
        assert first.exists(), "it is being written"
    assert names(tmp_path) == ["made", "other"]


def test_a_folder_that_was_to_be_replaced_is_kept_until_another_has_replaced_it(tmp_path: Path) -> None:
    made, old = tmp_path / f".store.{LEFT}", tmp_path / f".store.{LEFT.removesuffix('.tmp')}.old.tmp"
    for folder in (made, old):
        folder.mkdir()
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "store"):
        raise RuntimeError
    assert names(tmp_path) == [old.name, made.name]
    with folder_written_whole(tmp_path / "store", replace=False):
        pass
    assert names(tmp_path) == [old.name, "store"]
    with folder_written_whole(tmp_path / "store"):
        assert old.name in names(tmp_path)
    assert names(tmp_path) == ["store"]


def test_an_output_clears_up_what_a_killed_command_has_left(tmp_path: Path) -> None:
    for name in (f".hits.jsonl.{LEFT}", ".hits.jsonl.backup.tmp", f".other.jsonl.{LEFT}"):
        (tmp_path / name).write_text("half")
    Output(tmp_path / "hits.jsonl", json_lines("hits", ("a",))).write_text('{"a": 1}\n')
    assert names(tmp_path) == [".hits.jsonl.backup.tmp", f".other.jsonl.{LEFT}", "hits.jsonl"]


def test_a_store_that_was_half_made_goes_when_it_is_made(tmp_path: Path) -> None:
    half = tmp_path / f".store.{LEFT}"
    half.mkdir()
    (half / "pseudonym.key").write_bytes(bytes(32))
    Store.create(tmp_path / "store", SPEC).close()
    assert names(tmp_path) == ["store"]


def test_an_import_that_finds_nothing_to_do_clears_up_after_one_that_was_killed(store: Store, tmp_path: Path) -> None:
    export_frames(store, tmp_path / "vectors.npz")
    left = store.derived.index_file_of("frame").path.with_name(f".frames.faiss.{LEFT}")
    left.write_bytes(b"half")
    assert import_frames(store, tmp_path / "vectors.npz") == ImportResult(0, 40)
    assert not left.exists()


def test_a_backup_that_was_half_made_goes_with_the_migration(tmp_path: Path) -> None:
    place = Path(shutil.copytree(REFERENCE, tmp_path / "store"))
    (place / f".catalog.sqlite.schema-0003.backup.{LEFT}").write_bytes(b"half")
    assert Store.upgrade(place)
    assert names(place) == ["catalog.sqlite", "catalog.sqlite.schema-0003.backup", "pseudonym.key", "vectors"]
    with closing(sqlite3.connect(place / "catalog.sqlite.schema-0003.backup")) as backup:
        assert backup.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]


def test_a_backup_makes_no_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(shutil.copytree(REFERENCE, tmp_path / "store"))
    seen: list[str] = []

    class Watched(sqlite3.Connection):
        def backup(self, target: sqlite3.Connection, **_: object) -> None:  # type: ignore[override]
            super().backup(target, pages=1, progress=lambda *_: seen.extend(names(place)))

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **({"factory": Watched} | k)))
    Database(parse_url(place / "catalog.sqlite")).migrate()
    assert seen and not [name for name in seen if name.endswith("-journal")]


def test_labels_of_another_wording_take_the_place_of_the_old_ones_in_one_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = store.index("frame").ids
    old, new = (SavedSet("chest", ("effusion",), made_by * 64, is_probability=False) for made_by in "ab")
    store.catalog.labels.save(old, [(ids, np.full((40, 1), 0.5, np.float32))])

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(catalog_labels, "_still_there", stopped)
        store.catalog.labels.save(new, [(ids, np.full((40, 1), 0.9, np.float32))])
    assert store.catalog.labels.saved_sets() == [SavedSet("chest", ("effusion",), "a" * 64, False, 40)]
    store.catalog.labels.save(new, [(ids, np.full((40, 1), 0.9, np.float32))])
    assert store.catalog.labels.saved_sets() == [SavedSet("chest", ("effusion",), "b" * 64, False, 40)]


def test_a_compressed_index_tells_its_recall_before_the_manifest_does(store: Store) -> None:
    measured = optimize_store(store, kind="ivf-rabitq")["frame"]
    facts = index_facts(store)["frame"]
    assert (facts["kind"], facts["recall_at_10"], facts["rows_measured"]) == ("ivf-rabitq", 1.0, 40)
    assert facts["measured_at"] == measured["measured_at"]
    for manifest in ({}, {"frame": {"kind": "flat", "recall_at_10": 1.0}}, {"frame": measured | {"nprobe": 7}}):
        store.manifest[MANIFEST_KEY] = manifest
        found = index_facts(store)["frame"]
        assert found == {name: value for name, value in facts.items() if name != "measured_at"}
    with Store.open(store.place.folder) as again:  # rows that come later leave the figures as they are
        archive = again.catalog.files.archive_id("/archive")
        again.catalog.files.commit(archive, [indexed("more.dcm", "1.2.77")])
        again.refresh()
        facts = index_facts(again)["frame"]
        assert (facts["rows"], facts["rows_measured"], facts["recall_at_10"]) == (42, 40, 1.0)


def test_a_run_that_fails_with_its_database_says_so_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise StoreError("the database 'x' can't be reached")

    monkeypatch.setattr(store.catalog.claims, "end_lease", gone)
    with pytest.raises(StoreError), Lease(store.catalog):
        gone()
    assert caplog.messages == []
    with Lease(store.catalog):
        pass
    assert caplog.messages == [
        "this process could not release its claims; they expire with its lease: the database 'x' can't be reached"
    ]


@pytest.mark.parametrize("vector", ["'text'", "17", "zeroblob(3)"])
def test_what_is_no_vector_is_a_damaged_store(vector: str, store: Store) -> None:
    with closing(sqlite3.connect(store.place.folder / "catalog.sqlite")) as connection:
        connection.execute(f"UPDATE frames SET vector = {vector} WHERE id = 7")  # SQLite keeps what it is given
        connection.commit()
    with pytest.raises(StoreCorrupt, match="the frame rows 6 to 7 of the catalog have vectors of different sizes"):
        store.catalog.vectors.vectors_of([6, 7], "frame")
    found = {check.name: (check.wrong, check.repaired) for check in verify_store(store, repair=True)}
    assert found["frame vectors"] == (1, True)
    assert all(check.sound for check in verify_store(store))


def test_a_repair_makes_the_files_that_one_before_it_had_thrown_away(store: Store) -> None:
    store.index("frame")
    for path in (store.place.vectors_folder / "frames.faiss", store.place.vectors_folder / "sentences.faiss"):
        path.unlink()
    assert all(not check.wrong for check in verify_store(store, repair=True))
    assert names(store.place.vectors_folder) == ["frames.faiss", "reports", "sentences.faiss"]
