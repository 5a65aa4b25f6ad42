"""A store in one file and back: one state of it, whole or not at all, and never what was erased since."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import SPEC, indexed, vectors
from command_line import medlens

from indexer.catalog.processes import Process
from indexer.records import FileStat
from indexer.store import backup_file
from indexer.store.place import CATALOG_FILE, KEY_FILE, VECTORS_FOLDER
from indexer.store.store import Store
from indexer.tasks import backing_up, restoring
from indexer.tasks.backing_up import backup, write_erasures
from indexer.tasks.erasing import erase_again
from indexer.tasks.restoring import Restored, restore
from indexer.tasks.verifying import verify_store
from retrieval.errors import MedlensError, OutputError, StoreError, StoreIncompatible
from retrieval.types import SearchFilter

REFERENCE = Path(__file__).parent / "reference"


def fill(store: Store, first: int = 0, count: int = 6) -> None:
    """Each instance is of a patient, study and series of its own, but every third of the study 2.0."""
    archive = store.catalog.files.archive_id("/a")
    items = [
        indexed(
            f"{n}",
            f"1.{n}",
            "x",
            sentences=(f"Finding {n}.",),
            study_instance_uid=f"2.{n % 3 and n}",
            series_instance_uid=f"3.{n}",
        )
        for n in range(first, first + count)
    ]
    store.catalog.files.commit(archive, items)
    store.refresh()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store", SPEC) as store:
        fill(store)
    return tmp_path / "store"


def backed_up(place: Path, name: str = "store.backup", **options: Any) -> Path:
    with Store.open(place) as store:
        backup(store, place.parent / name, **options)
    return place.parent / name


def erased(place: Path, *uids: str, **options: Any) -> None:
    with Store.open(place) as store:
        for uid in uids:
            store.erase(SearchFilter({"study_instance_uid": (uid,)}), **options)


def uids(place: Path) -> set[str]:
    with Store.open(place) as store:
        assert [check for check in verify_store(store) if not check.sound] == []
        return {row["sop_instance_uid"] for row in store.catalog.instances.select(SearchFilter(), "instance")}


def everything(place: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but those that restoring itself writes."""
    with closing(sqlite3.connect(place / CATALOG_FILE)) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(map(repr, database.execute(f"SELECT * FROM {name}")))  # type: ignore[misc]
            for name in names
            if name not in ("manifest", "sqlite_stat1")
        }


def test_a_store_comes_back_as_it_was(place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["medlens-backup.json", CATALOG_FILE, KEY_FILE]
    done = restore(file, tmp_path / "again")
    assert done == Restored(done.made, instances=6, erasures=None, erased=0, has_key=True)
    assert everything(tmp_path / "again") == everything(place)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o700
    assert uids(tmp_path / "again") == {f"1.{n}" for n in range(6)}
    with Store.open(tmp_path / "again") as store, Store.open(place) as original:
        assert store.pseudonym_key == original.pseudonym_key
        assert store.manifest["restored"]["erasures"] is None
        best, score = store.frames_index().search(vectors("1.4/x", 2)[:1], 1)[0][0]
        assert (str(store.catalog.frames.get([best])[best][0]), round(score, 2)) == ("1.4#1", 1.0)
        fill(store, 6, 2)  # ids go on
        assert len(store.frames_index()) == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "store", "store.backup"], (
        "nothing is left over"
    )


def test_a_backup_has_one_state_while_others_write(place: Path, tmp_path: Path) -> None:
    """Each commit adds a study of two instances: no backup has half of one."""
    stop, backups = threading.Event(), []
    with Store.open(place) as writer, Store.open(place) as reader:

        def write() -> None:
            archive, n = writer.catalog.files.archive_id("/b"), 0
            while not stop.is_set():
                pair = [indexed(f"{n}/{i}", f"5.{n}.{i}", "y", study_instance_uid=f"5.{n}") for i in (0, 1)]
                writer.catalog.files.commit(archive, pair)
                n += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for n in range(8):
                backup(reader, tmp_path / f"{n}.backup")
                backups.append(tmp_path / f"{n}.backup")
        finally:
            stop.set()
            thread.join()
    seen = []
    for n, file in enumerate(backups):
        restore(file, tmp_path / f"restored{n}")
        there = [uid for uid in uids(tmp_path / f"restored{n}") if uid.startswith("5.")]
        assert len({uid.rpartition(".")[0] for uid in there}) * 2 == len(there)
        seen.append(len(there))
    assert seen == sorted(seen) and seen[-1] > seen[0], "there was writing going on"


def test_claims_and_deleted_rows_stay_behind(place: Path, tmp_path: Path) -> None:
    with Store.open(place) as store:
        lease = store.catalog.claims.take_lease(Process.this())
        store.catalog.claims.claim(1, lease, [FileStat("claimed by name", 1, 1)])
        backup(store, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert b"Finding 4" in content and b"claimed by name" not in content
    restore(tmp_path / "file", tmp_path / "again")
    with Store.open(tmp_path / "again") as store:
        assert store.catalog.claims.lease_count() == 0


def test_what_was_erased_since_does_not_come_back_over_its_own_store(place: Path, tmp_path: Path) -> None:
    erased(place, "2.1")
    file = backed_up(place)
    erased(place, "2.0", "2.4")
    with Store.open(place) as store:
        fill(store, 7, 1)
    with pytest.raises(StoreError, match=r"there is already a store at 'store'; everything added since") as refused:
        restore(file, place)
    assert "--replace" in refused.value.hint
    done = restore(file, place, replace=True)
    assert (done.instances, done.erased, done.erasures is not None and done.erasures > 3) == (2, 3, True)
    assert uids(place) == {"1.2", "1.5"}
    for path in place.rglob("*"):
        if path.is_file():
            assert b"Finding 4" not in path.read_bytes() and b"Finding 0" not in path.read_bytes(), path.name
    with Store.open(place) as store:
        again = indexed("new path", "1.4", "x", study_instance_uid="2.4")
        assert store.catalog.files.commit(1, [again], erased=store.erasures).tally.erased == 1
        assert store.manifest["restored"]["erasures"] == done.erasures


@pytest.mark.parametrize("scope", ["patient_pseudonym", "series_instance_uid", "sop_instance_uid"])
def test_erasures_of_every_scope_are_applied_by_a_list(scope: str, place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    with Store.open(place) as store:
        row = next(iter(store.catalog.instances.select(SearchFilter(where="SOPInstanceUID = 1.4"), "instance")))
        store.erase(SearchFilter({scope: (row[scope],)}))
        assert write_erasures(store, tmp_path / "erasures.json") >= 2
    text = (tmp_path / "erasures.json").read_text()
    assert "1.4" not in text and (tmp_path / "erasures.json").stat().st_mode & 0o777 == 0o600
    done = restore(file, tmp_path / "again", erasures=tmp_path / "erasures.json")
    assert (done.erased, done.instances) == (1, 5)
    assert uids(tmp_path / "again") == {f"1.{n}" for n in (0, 1, 2, 3, 5)}
    restore(file, tmp_path / "without")
    assert "1.4" in uids(tmp_path / "without")
    with Store.open(tmp_path / "without") as store:
        assert erase_again(store, tmp_path / "erasures.json") == 1
        assert erase_again(store, tmp_path / "erasures.json") == 0
    assert "1.4" not in uids(tmp_path / "without")


def test_no_list_at_hand_is_reported(place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    said = medlens("restore", file, "--store", tmp_path / "again", "--format", "json")
    assert "medlens: no list says what was erased after" in said.stderr
    assert json.loads(said.stdout)[0]["erasures"] is None
    said = medlens("backup", tmp_path / "list.json", "--erasures", "--store", place)
    assert json.loads(said.stdout) == {"erasures": 0}
    said = medlens("restore", file, "--store", tmp_path / "third", "--erasures", tmp_path / "list.json")
    assert said.stderr == "" and json.loads(said.stdout)["erasures"] == 0


def test_a_list_or_a_store_of_another_key_is_refused(place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    with Store.create(tmp_path / "other", SPEC) as other:
        fill(other)
        write_erasures(other, tmp_path / "theirs.json")
    with pytest.raises(StoreIncompatible, match="their keys differ"):
        restore(file, tmp_path / "again", erasures=tmp_path / "theirs.json")
    with pytest.raises(StoreIncompatible, match="their keys differ"):
        restore(file, tmp_path / "other", replace=True)
    with Store.open(place) as store, pytest.raises(StoreIncompatible, match="belongs to another store"):
        erase_again(store, tmp_path / "theirs.json")
    (tmp_path / "theirs.json").write_text('{"medlens_erasures": 1, "key_check": "x", "digests": {"patient": ["x"]}}')
    with pytest.raises(StoreError, match="is not a list of erasures"):
        restore(file, tmp_path / "again", erasures=tmp_path / "theirs.json")
    assert len(uids(tmp_path / "other")) == 6 and not (tmp_path / "again").exists()


def test_the_key_may_stay_out(place: Path, tmp_path: Path) -> None:
    key = (place / KEY_FILE).read_bytes()
    file = backed_up(place, key=False)
    assert key not in file.read_bytes()
    assert not restore(file, tmp_path / "again").has_key
    assert len(uids_without_key(tmp_path / "again")) == 6
    erased(place, "2.4")
    with Store.open(place) as store:
        write_erasures(store, tmp_path / "list.json")
    with pytest.raises(StoreError, match="has no key, and without it nothing can be erased"):
        restore(file, tmp_path / "third", erasures=tmp_path / "list.json")
    assert restore(file, place, replace=True).has_key, "the key of the store that is replaced"
    assert (place / KEY_FILE).read_bytes() == key
    assert "1.4" not in uids(place)
    (place / KEY_FILE).unlink()
    with Store.open(place) as store, pytest.raises(StoreError, match=r"the pseudonym key of .* is missing"):
        backup(store, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def uids_without_key(place: Path) -> set[str]:
    with Store.open(place) as store:
        return {row["sop_instance_uid"] for row in store.catalog.instances.select(SearchFilter(), "instance")}


def test_who_could_read_the_store_can_read_the_restored_one(place: Path) -> None:
    file = backed_up(place)
    for path in (place, *place.rglob("*")):
        path.chmod(0o750 if path.is_dir() else 0o640)
    (place / KEY_FILE).chmod(0o600)
    restore(file, place, replace=True)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (place, *place.rglob("*"))}
    assert modes.pop(KEY_FILE) == 0o600
    assert set(modes.values()) == {0o750, 0o640}


def test_a_store_that_somebody_has_open_is_not_replaced(place: Path) -> None:
    file = backed_up(place)
    with Store.open(place) as reader:
        reader.catalog.counts()
        with pytest.raises(StoreError, match="another process has the store 'store' open"):
            restore(file, place, replace=True)
        assert reader.catalog.counts().instances == 6
    assert restore(file, place, replace=True).instances == 6


def test_an_older_store_is_backed_up_and_restored_to_the_present_schema(tmp_path: Path) -> None:
    place = shutil.copytree(REFERENCE / "store-0.1.0", tmp_path / "store")
    (place / KEY_FILE).chmod(0o600)
    file = backed_up(place)
    restore(file, tmp_path / "again")
    assert uids(tmp_path / "again") == uids(place)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [CATALOG_FILE, KEY_FILE, VECTORS_FOLDER]


@pytest.mark.parametrize("closed", [False, True])
def test_a_copied_folder_is_a_store_of_its_own(closed: bool, place: Path, tmp_path: Path) -> None:
    """As `cp -a` makes it, also of one that a killed process has left with its log, its lease and its claims."""
    with Store.open(place) as store:
        store.catalog.claims.take_lease(Process("another machine", 1, "0"), -1.0)
        fill(store, 6, 1)
        if not closed:
            subprocess.run(["cp", "-a", place, tmp_path / "copy"], check=True)
    if closed:
        subprocess.run(["cp", "-a", place, tmp_path / "copy"], check=True)
    index = (tmp_path / "copy" / VECTORS_FOLDER / "frames.faiss").stat()
    with Store.open(tmp_path / "copy") as store:
        assert len(store.frames_index()) == 14
        archive, lease = store.catalog.files.archive_id("/a"), store.catalog.claims.take_lease(Process.this())
        assert store.catalog.claims.claim(archive, lease, [FileStat("new", 1, 1)]).granted
        store.catalog.claims.end_lease(lease)
        assert [check for check in verify_store(store) if not check.sound] == []
        assert store.pseudonym_key == (place / KEY_FILE).read_bytes()
        store.erase(SearchFilter({"study_instance_uid": ("2.0",)}))
    with Store.open(place) as store:
        assert len(store.frames_index()) == store.catalog.counts().frames == 14
    assert (place / VECTORS_FOLDER / "frames.faiss").stat().st_mtime_ns == index.st_mtime_ns, "used as it was copied"


# -- killed, or out of luck


@pytest.mark.parametrize("at", ["member_of", "write_backup", "sync"])
def test_a_backup_that_fails_leaves_the_old_one(at: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = backed_up(place)
    before = file.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backing_up, at, fails)
    with Store.open(place) as store, pytest.raises(OutputError, match="No space left on device"):
        backup(store, file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in place.parent.iterdir()) == ["store", "store.backup"]


def killed(work: Callable[[], object], module: object, name: str, calls: int = 1) -> None:
    """Run `work` in a process that is killed when a function is called for the `calls`-th time."""
    child = os.fork()
    if child == 0:
        real, left = getattr(module, name), [calls]

        def last(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            return real(*arguments, **options)

        setattr(module, name, last)
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 9, "it was to be killed on the way"


@pytest.mark.parametrize("name", ["member_of", "write_backup", "sync"])
def test_a_killed_backup_leaves_no_half_file_and_the_next_clears_up(name: str, place: Path, tmp_path: Path) -> None:
    killed(lambda: backed_up(place), backing_up, name)
    assert not (tmp_path / "store.backup").exists()
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".store.backup")]
    assert left
    for path in left:
        assert path.stat().st_mode & 0o077 == 0
        os.utime(path, (0, 0))
    assert restore(backed_up(place), tmp_path / "again").instances == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "store", "store.backup"]


@pytest.mark.parametrize("name", ["_share_as_before", "_finished", "_previous_stores"])
def test_a_killed_restoration_leaves_the_store_as_it_was(name: str, place: Path) -> None:
    file = backed_up(place)
    erased(place, "2.4")
    before = everything(place)
    killed(lambda: restore(file, place, replace=True), restoring, name, calls=2 if name == "_previous_stores" else 1)
    assert everything(place) == before
    assert restore(file, place, replace=True).erased == 1


def test_killed_between_the_old_store_and_the_new_its_erasures_are_still_found(place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    erased(place, "2.4")
    real = Path.rename

    def rename(self: Path, target: Any) -> Any:
        if target == place:  # the old store has been moved away
            os.kill(os.getpid(), 9)
        return real(self, target)

    child = os.fork()
    if child == 0:
        Path.rename = rename  # type: ignore[method-assign]
        try:
            restore(file, place, replace=True)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert not place.exists()
    done = restore(file, place)
    assert (done.erased, done.erasures is not None) == (1, True)
    assert "1.4" not in uids(place)


# -- made by a stranger


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in members:
            header = info if isinstance(info, tarfile.TarInfo) else tarfile.TarInfo(info)
            if header.isreg():
                header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def parts_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_is_no_backup_of_ours_is_refused_and_nothing_is_made(place: Path, tmp_path: Path) -> None:
    parts = parts_of(backed_up(place))
    listed, catalog, key = parts.values()
    facts = json.loads(listed)

    def with_facts(**changes: Any) -> bytes:
        return json.dumps(facts | changes).encode()

    def files(**changes: Any) -> bytes:
        return with_facts(files=facts["files"] | changes)

    def digest(data: bytes) -> dict[str, Any]:
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    with closing(sqlite3.connect(tmp_path / "trap")) as database:
        with closing(sqlite3.connect(place / CATALOG_FILE)) as source:
            source.backup(database)
        database.execute("CREATE TRIGGER t AFTER INSERT ON manifest BEGIN DELETE FROM erasures; END")
        database.commit()
        database.execute("PRAGMA journal_mode=DELETE")
    trap = (tmp_path / "trap").read_bytes()
    torn = bytearray(catalog)
    torn[4096 * 3 : 4096 * 4] = b"\xaa" * 4096
    names = (backup_file.LIST, CATALOG_FILE, KEY_FILE)
    whole = list(zip(names, (listed, catalog, key), strict=True))
    long = "x" * 200
    cases: dict[str, tuple[list[tuple[tarfile.TarInfo | str, bytes]], str]] = {
        "another tar": ([("readme", b"hello")], "is not a backup of a medlens store"),
        "a path upwards": ([(names[0], files(**{"../evil": digest(b"x")})), ("../evil", b"x")], "names other files"),
        "an unlisted path": ([whole[0], whole[1], whole[2], ("../evil", b"x")], "files that its list does not name"),
        "an absolute name": ([whole[0], ("/tmp/evil", catalog)], "the next file is not catalog.sqlite"),
        "a symbolic link": (
            [whole[0], (link(CATALOG_FILE, "/etc/passwd", tarfile.SYMTYPE), b""), whole[1]],
            "not a regular file",
        ),
        "a hard link": (
            [whole[0], (link(CATALOG_FILE, "/etc/passwd", tarfile.LNKTYPE), b""), whole[1]],
            "not a regular file",
        ),
        "a device": ([whole[0], (link(CATALOG_FILE, "", tarfile.CHRTYPE), b""), whole[1]], "not a regular file"),
        "a sparse file": (
            [whole[0], (link(CATALOG_FILE, "", tarfile.GNUTYPE_SPARSE), b""), whole[1]],
            "not a regular file",
        ),
        "a long name": ([whole[0], (long, catalog)], "not a regular file"),
        "the key first": ([whole[0], whole[2], whole[1]], "the next file is not catalog.sqlite"),
        "no key after all": ([whole[0], whole[1]], "it ends too early"),
        "another catalog": (
            [whole[0], (names[1], bytes(len(catalog))), whole[2]],
            "the checksum of catalog.sqlite is wrong",
        ),
        "a longer key": ([(names[0], files(**{KEY_FILE: digest(key * 2)})), whole[1], (names[2], key * 2)], "64 bytes"),
        "negative": ([(names[0], files(**{CATALOG_FILE: {"bytes": -1, "sha256": ""}})), whole[1]], "can't be read"),
        "more than there is": (
            [(names[0], files(**{CATALOG_FILE: {"bytes": 1 << 50, "sha256": ""}})), whole[1]],
            "shorter than its list",
        ),
        "a list too long": ([(names[0], listed + b" " * 70_000), whole[1], whole[2]], "at most 65,536"),
        "no JSON": ([(names[0], b"{"), whole[1], whole[2]], "can't be read"),
        "nested": ([(names[0], b"[" * 60_000), whole[1], whole[2]], "can't be read"),
        "of the future": ([(names[0], with_facts(medlens_backup=2)), *whole[1:]], "another version"),
        "another store": ([(names[0], with_facts(store_id="x")), *whole[1:]], "not the one that its list describes"),
        "a trigger": (
            [(names[0], files(**{CATALOG_FILE: digest(trap)})), (names[1], trap), whole[2]],
            "triggers, views or virtual tables",
        ),
        "a torn page": (
            [(names[0], files(**{CATALOG_FILE: digest(bytes(torn))})), (names[1], bytes(torn)), whole[2]],
            "damaged",
        ),
        "no database": (
            [(names[0], files(**{CATALOG_FILE: digest(b"x" * 5000)})), (names[1], b"x" * 5000), whole[2]],
            "SQLite",
        ),
        "a wrong key": (
            [(names[0], files(**{KEY_FILE: digest(bytes(32))})), whole[1], (names[2], bytes(32))],
            "its key belongs to another store",
        ),
    }
    for what, (members, said) in cases.items():
        file = tar_of(tmp_path / "hostile", *members)
        with pytest.raises(StoreError) as refused:
            restore(file, tmp_path / "again")
        assert said in str(refused.value), what
        assert not (tmp_path / "again").exists(), what
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".again")] == [], what
    assert not (tmp_path / "evil").exists()
    assert restore(tar_of(tmp_path / "same", *whole), tmp_path / "again").instances == 6, "the parts as they were"


def test_no_cut_or_changed_byte_makes_a_store(place: Path, tmp_path: Path) -> None:
    content = backed_up(place).read_bytes()
    rng = np.random.default_rng(0)
    used = len(content.rstrip(b"\0"))
    for n in range(60):
        damaged = bytearray(content)
        if n % 2:
            damaged = damaged[: int(rng.integers(0, used))]
        else:
            damaged[int(rng.integers(0, used))] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            restore(tmp_path / "damaged", tmp_path / "again")
        except MedlensError:
            assert not (tmp_path / "again").exists()
        else:  # a bit that nobody reads: a time, an owner, what fills a block
            assert uids(tmp_path / "again") == {f"1.{k}" for k in range(6)}
            shutil.rmtree(tmp_path / "again")


def test_places_and_sources_that_can_not_be(place: Path, tmp_path: Path) -> None:
    file = backed_up(place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "link").symlink_to("store")
    for target, said in (
        (tmp_path / "full", "already something else"),
        (tmp_path / "link", "is a link"),
        (place / "inner", "is inside the store 'store'"),
        ("postgresql://host/database", "only be restored to a folder"),
    ):
        with pytest.raises(StoreError, match=said):
            restore(file, target, replace=True)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "full"):
        with pytest.raises(StoreError, match="can't be read"):
            restore(tmp_path / name, tmp_path / "again")
    with pytest.raises(StoreError, match="is not a backup"):
        (tmp_path / "empty").write_bytes(b"")
        restore(tmp_path / "empty", tmp_path / "again")
    with Store.open(place) as store:
        with pytest.raises(OutputError, match="inside the store"):
            backup(store, place / "x")
        with pytest.raises(OutputError, match="not a backup of a store"):
            backup(store, tmp_path / "full" / "x")
        backup(store, tmp_path / "full" / "x", force=True)


def test_a_store_in_postgresql_names_its_own_tools(postgres_url: str, place: Path, tmp_path: Path) -> None:
    with Store.create(postgres_url, SPEC, local_dir=tmp_path / "local") as store:
        fill(store)
        with pytest.raises(StoreError, match="is in PostgreSQL and can't be written to a file by medlens") as refused:
            backup(store, tmp_path / "x")
        assert "pg_dump" in refused.value.hint and not (tmp_path / "x").exists()
        store.erase(SearchFilter({"study_instance_uid": ("2.4",)}))
        assert write_erasures(store, tmp_path / "list.json") == 2
        with store.catalog._database.writing() as connection:  # as if a dump of before had been loaded
            connection.exec_driver_sql("DELETE FROM erasures")
        fill(store, 4, 1)
        assert erase_again(store, tmp_path / "list.json") == 1
