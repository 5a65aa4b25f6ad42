"""A store that can only be read, on media or of somebody else: everything that writes nothing is answered."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from catalog_factory import SPEC, indexed
from command_line import copied, medlens

from indexer.store.place import CATALOG_FILE, VECTORS_FOLDER
from indexer.store.store import Store
from indexer.tasks.selecting import select
from indexer.tasks.showing import show
from indexer.tasks.verifying import verify_store
from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models
from retrieval.errors import StoreError, StoreIncompatible
from retrieval.types import SearchFilter

REFERENCE = Path(__file__).parent / "reference"
CT = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
needs_model = pytest.mark.skipif(
    DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models"
)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Mounts a folder a second time, where nobody can write to it, root neither."""
    mounted: list[Path] = []

    def mount(folder: Path) -> Path:
        place = tmp_path / f"media{len(mounted)}"
        place.mkdir()
        commands = (["mount", "--bind", folder, place], ["mount", "-o", "remount,bind,ro", place])
        for command in commands:
            if subprocess.run([*map(str, command)], capture_output=True, check=False).returncode:
                pytest.skip("mounting takes root's rights")
            if not mounted or mounted[-1] != place:
                mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_store(folder: Path, count: int = 5) -> None:
    with Store.create(folder, SPEC) as store:
        archive = store.catalog.files.archive_id("/a")
        files = [indexed(f"{n}", f"1.{n}", sentences=("Clear.", f"Number {n}.")) for n in range(count)]
        store.catalog.files.commit(archive, files)
        store.refresh()


def require_answers(folder: Path, instances: int) -> None:
    """Everything that needs no model."""
    with Store.open(folder) as store:
        assert len(list(select(store, level="instance"))) == instances
        assert len(store.frames_index()) == store.catalog.counts().frames == 2 * instances
        assert len(store.sentences_index()) == 2 * instances
        assert len(store.reports_index()) == instances
        assert show(store, f"1.{instances - 1}#2").attributes["file_path"] == f"{instances - 1}"
        assert [check.name for check in verify_store(store) if not check.sound] == []
        with pytest.raises(StoreError, match="can't be written"):
            store.catalog.files.archive_id("/new")


@pytest.mark.parametrize("log", ["none", "empty", "with its index", "alone"])
def test_on_media_that_cannot_be_written(
    log: str, read_only: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a copy or a killed owner has left of the catalog's log: what was committed is there."""
    make_store(tmp_path / "made")
    with Store.open(tmp_path / "made") as owner:
        if log in ("with its index", "alone"):
            owner.catalog.files.commit(1, [indexed("5", "1.5", sentences=("Late.", "Number 5."))])
        shutil.copytree(tmp_path / "made", tmp_path / "store")
    wal, shm = (tmp_path / "store" / f"{CATALOG_FILE}-{end}" for end in ("wal", "shm"))
    assert wal.exists() and shm.exists()
    if log != "with its index":
        shm.unlink()
    if log == "none":
        wal.unlink()
    elif log == "empty":
        wal.write_bytes(b"")
    before = sorted(path.name for path in (tmp_path / "store").rglob("*"))
    require_answers(read_only(tmp_path / "store"), 6 if log in ("with its index", "alone") else 5)
    assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == before


def test_index_files_that_are_missing_or_behind_are_made_in_memory(
    read_only: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_store(tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / VECTORS_FOLDER)
    require_answers(read_only(tmp_path / "bare"), 5)
    assert "the report index can't be written: Read-only file system" in caplog.text
    make_store(tmp_path / "behind", 6)
    with Store.open(tmp_path / "behind") as store:
        shutil.copytree(tmp_path / "behind" / VECTORS_FOLDER, tmp_path / "older")
        store.erase(SearchFilter({"sop_instance_uid": ("1.5",)}))
    shutil.rmtree(tmp_path / "behind" / VECTORS_FOLDER)
    (tmp_path / "older").rename(tmp_path / "behind" / VECTORS_FOLDER)
    with Store.open(read_only(tmp_path / "behind")) as store:
        assert len(store.frames_index()) == 10, "what was erased is not answered with"


def test_a_store_of_another_user_that_this_one_may_read() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root's rights")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        make_store(folder / "store")
        for path in (folder / "store", *(folder / "store").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "store" / "pseudonym.key").chmod(0o600)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                with Store.open(folder / "store") as store:
                    sound = {check.name: check.sound for check in verify_store(store)}
                    seen = (len(store.frames_index()), len(list(select(store))), len(store.reports_index()))
                status = 0 if seen == (10, 5, 5) and [n for n, ok in sound.items() if not ok] == ["key"] else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_an_older_store_that_cannot_be_migrated_says_so(read_only: Callable[[Path], Path]) -> None:
    with pytest.raises(StoreIncompatible, match=r"has schema 0003.*can't be migrated: this user may not write") as said:
        Store.open(read_only(REFERENCE / "store-0.1.0"))
    assert "Copy the store" in said.value.hint


def test_a_log_without_its_index_is_not_opened_while_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "made")
    with Store.open(tmp_path / "made") as owner:
        owner.catalog.files.archive_id("/late")
        shutil.copytree(tmp_path / "made", tmp_path / "store")
    (tmp_path / "store" / f"{CATALOG_FILE}-shm").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("indexer.catalog.read_only.may_be_written", lambda path: False)
        lent = Store.open(tmp_path / "store")
    assert len(lent.catalog.files.archive_roots()) == 2
    with lent:  # noqa: SIM117
        with pytest.raises(StoreError, match="was changed while it was read"), lent.catalog._database.reading():
            with closing(sqlite3.connect(tmp_path / "store" / CATALOG_FILE)) as owner:
                owner.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@needs_model
def test_every_command_that_writes_nothing_answers(read_only: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    copied(("CT_small.dcm", "MR_small.dcm", "reportsi.dcm"), archive)
    medlens("index", archive, "--store", tmp_path / "store", "--workers", 1)
    store = ("--store", read_only(tmp_path / "store"))
    [first, *_] = map(json.loads, medlens("search", "axial CT", *store, "-k", 2).stdout.splitlines())
    assert first["sop_instance_uid"] == CT
    assert json.loads(medlens("info", *store).stdout)["instances"] == 3
    assert len(medlens("select", *store).stdout.splitlines()) == 3
    assert json.loads(medlens("show", first["ref"], *store).stdout)["ref"] == first["ref"]
    assert medlens("describe", archive / "CT_small.dcm", *store).stdout
    labelled = medlens("classify", "--labels", "modality", *store).stdout.splitlines()
    assert len(labelled) == 2
    assert {json.loads(line)["wrong"] for line in medlens("verify", *store).stdout.splitlines()} == {0}
    refused = medlens("classify", "--labels", "modality", "--save", *store, code=1)
    assert "can't be written" in refused.stderr
