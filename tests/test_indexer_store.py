"""A store as a whole: made in one step or not at all, opened or refused with a reason, its parts in step."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, vectors

from indexer.catalog.sql_catalog import SqlCatalog
from indexer.store.place import CATALOG_FILE, KEY_FILE, VECTORS_FOLDER, is_url
from indexer.store.store import Store
from indexer.tasks.facts import store_facts
from indexer.tasks.selecting import select
from indexer.vectors.index import CatalogIndex
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound
from retrieval.types import SearchFilter


@pytest.fixture(params=["folder", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    location: str | Path = tmp_path / "store"
    if request.param == "postgresql":
        location = request.getfixturevalue("postgres_url")
    with Store.create(location, SPEC, local_dir=tmp_path / "local") as made:
        made.location = location  # type: ignore[attr-defined]
        yield made


def fill(store: Store, count: int = 20) -> int:
    archive = store.catalog.files.archive_id("/a")
    files = [indexed(f"{n}", f"1.{n}", sentences=("Clear.", f"Number {n}.")) for n in range(count)]
    store.catalog.files.commit(archive, files)
    return archive


def reopened(store: Store, tmp_path: Path) -> Store:
    return Store.open(store.location, local_dir=tmp_path / "local")  # type: ignore[attr-defined]


def test_a_store_remembers(store: Store, tmp_path: Path) -> None:
    fill(store)
    key = store.pseudonym_key
    store.refresh()
    store.close()
    with reopened(store, tmp_path) as again:
        assert again.model == SPEC
        assert again.pseudonym_key == key
        assert len(key) == 32
        assert len(again.frames_index()) == len(again.sentences_index()) == 40
        query = vectors("1.7/", 2)[:1]
        (best, score), *_ = again.frames_index().search(query, 3)[0]
        assert again.catalog.frames.get([best])[best][0].sop_instance_uid == "1.7"
        assert score == pytest.approx(1, abs=1e-3)
        query = vectors("1.9//text", 2)[1:]
        (best, _), *_ = again.sentences_index().search(query, 1)[0]
        assert again.catalog.reports.sentence_rows([best])[best].text == "Number 9."
        in_folder = isinstance(store.location, Path)  # type: ignore[attr-defined]
        why = (
            "already a store at 'store'" if in_folder else "the local folder 'local' contains the key of another store"
        )
        with pytest.raises(StoreError, match=why):
            Store.create(store.location, SPEC, local_dir=tmp_path / "local")  # type: ignore[attr-defined]
        assert again.pseudonym_key == key


def test_index_files_may_go_at_any_time(store: Store, tmp_path: Path) -> None:
    fill(store)
    store.refresh()
    store.close()
    files = sorted(tmp_path.rglob("*.faiss"))
    assert len(files) == 2
    files[0].unlink()
    files[1].write_bytes(b"rubbish")
    with reopened(store, tmp_path) as again:
        assert len(again.frames_index()) == len(again.sentences_index()) == 40


def test_erasure_reaches_the_index_files(store: Store, tmp_path: Path) -> None:
    fill(store)
    store.refresh()
    secrets = [vectors("1.7/", 2)[0].astype("<f2").tobytes(), vectors("1.7//text", 2)[1].astype("<f2").tobytes()]

    def found() -> int:
        contents = [path.read_bytes() for path in tmp_path.rglob("*.faiss")]
        return sum(secret in content for secret in secrets for content in contents)

    assert found() == 2
    gone = store.catalog.frames.ids_matching(SearchFilter({"study_instance_uid": ("1.7.study",)})).tolist()
    store.catalog.instances.delete_matching(SearchFilter({"study_instance_uid": ("1.7.study",)}))
    assert not set(gone) & set(store.frames_index().ids.tolist())
    store.refresh()
    assert found() == 0


def test_a_deletion_by_another_process_is_written_back_when_opened(store: Store, tmp_path: Path) -> None:
    fill(store)
    store.refresh()
    with reopened(store, tmp_path) as other:
        other.catalog.instances.delete_matching(SearchFilter({"study_instance_uid": ("1.3.study",)}))
    with reopened(store, tmp_path) as again:
        assert len(again.frames_index()) == 38
    assert [len(CatalogIndex.load(path)) for path in tmp_path.rglob("frames.faiss")] == [38]


def test_another_model_is_refused_by_name(store: Store) -> None:
    store.require_model(SPEC | {"name": "the same weights under another name"})
    with pytest.raises(StoreIncompatible) as caught:
        store.require_model(SPEC | {"name": "biomedclip", "weights_sha256": "cd" * 32, "embed_dim": 512})
    message = str(caught.value)
    assert "'demo' (weights abababababab)" in message
    assert "'biomedclip' (weights cdcdcdcdcdcd)" in message
    assert "embed_dim, weights_sha256" in message
    assert "--model demo" in caught.value.hint
    with pytest.raises(StoreIncompatible, match="render"):
        store.require_model(SPEC | {"render": {"name": "ct-3-windows"}})


def test_the_spec_survives_json(tmp_path: Path) -> None:
    spec = SPEC | {"preprocess": {"mean": (0.5, 0.25), "size": (224, 224)}}
    with Store.create(tmp_path / "s", spec) as store:
        store.require_model(spec)
    with pytest.raises(ValueError, match="embed_dim is None"):
        Store.create(tmp_path / "t", {"name": "x"})
    assert not (tmp_path / "t").exists()


def test_the_key(store: Store, tmp_path: Path) -> None:
    (path,) = tmp_path.rglob("pseudonym.key")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(bytes(32))
    with pytest.raises(StoreIncompatible, match="mixed up"):
        _ = store.pseudonym_key
    path.unlink()
    with pytest.raises(StoreError, match="missing") as caught:
        _ = store.pseudonym_key
    assert "Copy pseudonym.key" in caught.value.hint
    assert len(store.frames_index()) == 0, "searching needs no key"


def modes_in(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o7777 for path in (store, *store.rglob("*"))}


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("given", [0o000, 0o022, 0o077])
def test_a_store_is_its_owners_alone_whatever_the_umask(given: int, umask: None, tmp_path: Path) -> None:
    os.umask(given)
    with Store.create(tmp_path / "store", SPEC) as store:
        fill(store)
        store.refresh()
        modes = modes_in(tmp_path / "store")  # with SQLite's log, which is there while the store is open
        assert {"frames.faiss", "sentences.faiss", "reports", "words.json", f"{CATALOG_FILE}-wal"} <= modes.keys()
        assert {name: oct(mode) for name, mode in modes.items() if mode not in (0o700, 0o600)} == {}
        store.derived.rebuild()
    assert {name: oct(mode) for name, mode in modes_in(tmp_path / "store").items() if mode not in (0o700, 0o600)} == {}


def test_rights_that_the_owner_gives_are_kept_by_what_is_written_anew(umask: None, tmp_path: Path) -> None:
    os.umask(0o077)
    with Store.create(tmp_path / "store", SPEC) as store:
        fill(store)
        store.refresh()
        for path in (tmp_path / "store", *(tmp_path / "store").rglob("*")):
            path.chmod(0o750 if path.is_dir() else 0o640)
        (tmp_path / "store" / KEY_FILE).chmod(0o600)
        store.derived.rebuild()
        modes = modes_in(tmp_path / "store")
        index = tmp_path / "store" / VECTORS_FOLDER / "frames.faiss"
        index.chmod(0o644)
        before = index.read_bytes()
        store.erase(SearchFilter(where="SOPInstanceUID = 1.3"))
        assert index.read_bytes() != before
        assert index.stat().st_mode & 0o777 == 0o644
    assert modes.pop(KEY_FILE) == 0o600
    assert {name: oct(mode) for name, mode in modes.items() if mode not in (0o750, 0o640)} == {}


def test_a_group_may_read_a_store_but_not_its_key(umask: None, tmp_path: Path) -> None:
    os.umask(0o022)
    gid = os.getgroups()[-1] if os.getgroups() else os.getgid()
    with Store.create(tmp_path / "store", SPEC, group=grp.getgrgid(gid).gr_name) as store:
        fill(store)
        store.refresh()
        modes = modes_in(tmp_path / "store")
        assert {path.stat().st_gid for path in (tmp_path / "store").rglob("*") if path.name != KEY_FILE} == {gid}
    assert modes.pop(KEY_FILE) == 0o600
    assert {mode & 0o777 for mode in modes.values()} == {0o750, 0o640}
    assert f"{CATALOG_FILE}-wal" in modes
    with pytest.raises(StoreError, match="there is no group 'no-such-group' on this machine"):
        Store.create(tmp_path / "other", SPEC, group="no-such-group")
    assert not (tmp_path / "other").exists()


def test_no_store_is_made_inside_another(tmp_path: Path) -> None:
    Store.create(tmp_path / "store", SPEC).close()
    (tmp_path / "link").symlink_to("store/vectors")
    with pytest.raises(StoreError, match="'inner' is inside the store 'store'"):
        Store.create(tmp_path / "link" / "inner", SPEC)


def test_what_is_read_needs_no_key(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SPEC) as store:
        fill(store)
    (tmp_path / "store" / KEY_FILE).unlink()
    with Store.open(tmp_path / "store") as store:
        assert len(store.frames_index()) == store.catalog.counts().frames > 0
        assert list(select(store))
        assert store_facts(store).counts.instances > 0


@pytest.mark.parametrize("owner_at_work", [False, True])
def test_who_may_not_write_a_store_reads_it(
    owner_at_work: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.create(tmp_path / "store", SPEC) as store:
        fill(store)
        store.refresh()
    owner = Store.open(tmp_path / "store")
    if owner_at_work:
        owner.catalog.files.commit(
            owner.catalog.files.archive_id("/a"), [indexed("late", "1.99", sentences=("Late.",))]
        )
    else:
        owner.close()
    monkeypatch.setattr("indexer.catalog.read_only.may_be_written", lambda path: False)
    before = modes_in(tmp_path / "store").keys()
    with Store.open(tmp_path / "store") as lent:
        state = lent.catalog.state()
        assert len(list(select(lent))) == 20 + owner_at_work
        assert len(lent.frames_index()) == lent.catalog.counts().frames
        assert lent.catalog.state() == state
        with pytest.raises(StoreError, match="can't be written"):
            lent.catalog.files.archive_id("/new")
        if owner_at_work:
            owner.catalog.files.archive_id("/another")
            assert lent.catalog.state() != state
    assert modes_in(tmp_path / "store").keys() == before
    owner.close()


def test_a_catalog_that_changes_under_a_reader_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(tmp_path / "store", SPEC).close()
    with monkeypatch.context() as patch:
        patch.setattr("indexer.catalog.read_only.may_be_written", lambda path: False)
        lent = Store.open(tmp_path / "store")
    with lent, pytest.raises(StoreError, match="was changed while it was read"):  # noqa: SIM117
        with lent.catalog._database.reading():
            with Store.open(tmp_path / "store") as owner:
                owner.catalog.files.archive_id("/a")  # closing it empties the log into the file


def test_every_store_has_its_own_key(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a", SPEC) as a, Store.create(tmp_path / "b", SPEC) as b:
        assert a.pseudonym_key != b.pseudonym_key
        assert a.manifest["store_id"] != b.manifest["store_id"]


def test_places_that_hold_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="the folder does not exist") as caught:
        Store.open(tmp_path / "Doe^John" / "none")
    assert "medlens index" in caught.value.hint
    assert "Doe" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreNotFound, match="empty"):
        Store.open(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match=r"is not a medlens store: it has no catalog\.sqlite") as other:
        Store.open(tmp_path / "other")
    assert not isinstance(other.value, StoreNotFound)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(StoreError, match="there is already something else at"):
        Store.create(tmp_path / "other", SPEC)
    with pytest.raises(StoreError, match="there is already something else at"):
        Store.create(tmp_path / "file", SPEC)
    with pytest.raises(StoreError, match="can't be read or created"):
        Store.create(tmp_path / "file" / "below", SPEC)
    Store.create(tmp_path / "empty", SPEC).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "other"]


def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(SqlCatalog, "create", fail)
    with pytest.raises(StoreError, match="disk is full"):
        Store.create(tmp_path / "s", SPEC)
    with pytest.raises(StoreError, match="disk is full"):
        Store.create("postgresql://x/y", SPEC, local_dir=tmp_path / "local")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "s").exists()


def test_two_processes_may_not_both_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SqlCatalog.create

    def overtaken(url: Path, manifest: dict[str, object]) -> SqlCatalog:
        monkeypatch.setattr(SqlCatalog, "create", original)
        Store.create(tmp_path / "s", SPEC | {"name": "the quicker one"}).close()
        return original(url, manifest)

    monkeypatch.setattr(SqlCatalog, "create", overtaken)
    with pytest.raises(StoreError):
        Store.create(tmp_path / "s", SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    with Store.open(tmp_path / "s") as store:
        assert store.model["name"] == "the quicker one"


def test_the_local_folder_of_a_database_has_a_default(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with Store.create(postgres_url, SPEC) as store:
        folder = tmp_path / "data" / "medlens" / "stores" / store.manifest["store_id"]
        fill(store, 3)
        store.refresh()
    assert {path.name for path in folder.iterdir()} == {"pseudonym.key", "vectors"}
    assert {path.name for path in (folder / "vectors").iterdir()} == {"frames.faiss", "sentences.faiss", "reports"}


def test_a_manifest_without_a_model_is_corrupt(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SPEC) as store:
        del store.manifest["model"]
        with pytest.raises(StoreCorrupt, match="does not name a model"):
            store.frames_index()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    Store.create(tmp_path / "s", SPEC).close()
    (tmp_path / "s").chmod(0)
    try:
        with pytest.raises(StoreError, match="can't be reached"):
            Store.open(tmp_path / "s")
    finally:
        (tmp_path / "s").chmod(0o700)


def test_what_is_a_url() -> None:
    assert is_url("postgresql+psycopg://host/db")
    assert not is_url("/a/b")
    assert not is_url(Path("a://b"))


def test_importing_the_store_imports_nothing_heavy() -> None:
    code = (
        "import sys, indexer.store.store\n"
        "print(sorted({'torch', 'faiss', 'sqlalchemy', 'alembic', 'numpy', 'pydicom'} & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_and_searching_imports_no_torch_and_no_alembic(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SPEC) as store:
        fill(store, 3)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from indexer.store.store import Store\n"
        f"store = Store.open(Path({str(tmp_path / 's')!r}))\n"
        f"hits = store.frames_index().search(np.ones((1, {DIM}), np.float32), 3)[0]\n"
        "assert len(store.catalog.frames.get([i for i, _ in hits])) == 3\n"
        "print(sorted({'torch', 'alembic', 'pydicom'} & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_vectors_are_kept_to_half_a_thousandth(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SPEC) as store:
        fill(store)
        ids, stored = store.catalog.frames.vectors_of(store.catalog.frames.ids_matching(SearchFilter()))
        exact = np.concatenate([vectors(f"1.{n}/", 2) for n in range(20)])
        assert len(ids) == 40
        assert np.abs(stored.astype(np.float32) @ exact.T - exact @ exact.T).max() < 5e-4
