"""A request to erase: rows, vectors, texts and every copy of them go, and the next run does not bring them back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from catalog_factory import SPEC, indexed, vectors

from indexer.catalog import database as database_module
from indexer.catalog.erasure import Erasures
from indexer.records import FileStat
from indexer.store import report_index
from indexer.store.place import CATALOG_FILE
from indexer.store.store import Store
from retrieval.errors import QueryError, StoreError
from retrieval.search.bm25 import ReportIndex, build_report_index
from retrieval.types import SearchFilter

MARKER = "Geheimbefund"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = Store.create(tmp_path / "store", SPEC)
    else:
        made = Store.create(request.getfixturevalue("postgres_url"), SPEC, local_dir=tmp_path / "store")
    with made:
        fill(made)
        yield made


@pytest.fixture
def in_folder(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SPEC) as made:
        fill(made)
        yield made


def item(n: int, path: str = "", mtime: int = 0, **attributes: object):
    secret = n % 3 == 0
    values = {
        "study_instance_uid": f"2.{n % 3}",
        "series_instance_uid": f"3.{n % 6}",
        "study_description": f"{MARKER} {n}" if secret else "nothing",
        "modality": "CT" if n % 2 else "MR",
    } | attributes
    name = f"{MARKER}/{n}" if secret else f"plain/{n}"
    return indexed(
        path or name, f"1.{n}", "x", frames=20, mtime=mtime, sentences=(f"{MARKER} {n}.",) if secret else (), **values
    )


def fill(store: Store) -> None:
    archive = store.catalog.files.archive_id("/a")
    for n in range(20):
        store.catalog.files.commit(archive, [item(n)])
    store.refresh()


def secrets() -> list[bytes]:
    frames = [row.astype("<f2").tobytes() for n in range(0, 20, 3) for row in vectors(f"1.{n}/x", 20)]
    texts = [row.astype("<f2").tobytes() for n in range(0, 20, 3) for row in vectors(f"1.{n}/x/text", 1)]
    return [MARKER[:8].encode(), MARKER[:8].lower().encode(), *frames, *texts]  # indexes of words fold and cut them


def found_in(folder: Path) -> set[str]:
    """Files under a folder in which anything of study 2.0 can be found."""
    wanted = secrets()
    return {
        path.name
        for path in folder.rglob("*")
        if path.is_file() and any(secret in data for data in [path.read_bytes()] for secret in wanted)
    }


def study(uid: str) -> SearchFilter:
    return SearchFilter({"study_instance_uid": (uid,)})


def test_no_byte_is_left_in_any_file_of_the_store(in_folder: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    (folder / "vectors" / ".frames.faiss.killed.tmp").write_bytes(secrets()[1])
    (folder / "vectors" / ".reports.killed.tmp").mkdir()
    (folder / "vectors" / ".reports.killed.tmp" / "words.json").write_bytes(secrets()[0])
    backup = sqlite3.connect(folder / f"{CATALOG_FILE}.schema-0001.backup")
    with closing(sqlite3.connect(folder / CATALOG_FILE)) as source, closing(backup) as target:
        source.backup(target)
    in_folder.reports_index()
    before = found_in(folder)
    assert any(path.name in before for path in (folder / "vectors" / "reports").iterdir())
    assert {"frames.faiss", "sentences.faiss", f"{CATALOG_FILE}.schema-0001.backup"} <= before
    assert in_folder.erase(study("2.0")) == 7
    assert found_in(folder) == set()
    assert in_folder.catalog.counts().instances == 13
    assert len(in_folder.frames_index()) == 13 * 20


def test_an_index_of_words_read_before_an_erasure_does_not_come_back(
    in_folder: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def erased_meanwhile(texts: Mapping[str, str]) -> ReportIndex:
        monkeypatch.undo()
        assert in_folder.erase(study("2.0")) == 7
        return build_report_index(texts)

    folder = tmp_path / "store"
    shutil.rmtree(folder / "vectors" / "reports")
    monkeypatch.setattr(report_index, "build_report_index", erased_meanwhile)
    report_index.open_report_index(folder / "vectors", in_folder.catalog, in_folder.manifest["store_id"])
    assert found_in(folder) == set()


def test_erased_in_many_small_steps_no_byte_is_left(in_folder: Store, tmp_path: Path) -> None:
    """Pages are split, merged and freed on the way; none keeps a remainder."""
    archive = in_folder.catalog.files.archive_id("/a")
    for n in range(20, 60):
        in_folder.catalog.files.commit(archive, [item(n)])
        if n % 2:
            in_folder.catalog.files.commit(archive, [item(n - 10, mtime=n, study_description="later")])
    for n in range(0, 60, 3):
        in_folder.erase(SearchFilter({"sop_instance_uid": (f"1.{n}",)}))
    assert found_in(tmp_path / "store") == set()


def test_what_was_named_stays_out(store: Store) -> None:
    catalog, archive = store.catalog, store.catalog.files.archive_id("/a")
    assert store.erase(study("2.0")) == 7
    erased = store.erasures
    stat = item(0).stat
    worker = catalog.claims.take_lease(*_elsewhere())
    assert catalog.claims.claim(archive, worker, [stat], erased).erased == [stat], (
        "a known file costs no more than a stat"
    )
    changed = FileStat(stat.path, stat.size, stat.stamp + 1)
    assert list(catalog.claims.claim(archive, worker, [changed], erased).granted) == [changed], (
        "it may hold something else now"
    )
    outcome = catalog.files.commit(archive, [item(0, path="elsewhere", mtime=5), item(1, path="p1")], erased=erased)
    assert (outcome.tally.erased, outcome.tally.duplicates) == (1, 1)
    assert catalog.claims.claim(archive, worker, [FileStat("elsewhere", 1, 5)], erased).erased
    new = item(30, path="new of the study")
    assert catalog.files.commit(archive, [new], erased=erased).tally.erased == 1, (
        "a study that is erased takes nothing new in"
    )
    assert catalog.counts().instances == 13


def test_what_a_filter_matched_stays_out_instance_by_instance(store: Store) -> None:
    catalog, archive = store.catalog, store.catalog.files.archive_id("/a")
    where = SearchFilter({"study_instance_uid": ("2.0",)}, "Modality = CT")
    assert catalog.instances.count_matching(where) == {
        "patients": 3,
        "studies": 1,
        "instances": 3,
        "frames": 60,
        "sentences": 3,
    }
    assert store.erase(where) == 3
    assert catalog.files.commit(archive, [item(3, path="x")], erased=store.erasures).tally.erased == 1
    new = item(33, path="another of the study")
    assert catalog.files.commit(archive, [new], erased=store.erasures).tally.indexed == 1


def test_a_patient_stays_out(in_folder: Store) -> None:
    archive = in_folder.catalog.files.archive_id("/a")
    assert in_folder.erase(SearchFilter({"patient_pseudonym": ("p1.4",)})) == 1
    assert in_folder.catalog.files.commit(
        archive, [item(4, path="x", study_instance_uid="9")], erased=in_folder.erasures
    ).tally.erased


def test_readmitted_and_not_kept_out(store: Store) -> None:
    catalog, archive = store.catalog, store.catalog.files.archive_id("/a")
    store.erase(study("2.0"))
    with catalog._database.reading() as connection:
        scopes = connection.exec_driver_sql("SELECT DISTINCT scope FROM erasures").scalars()
        assert set(scopes) == {"study", "file"}
    assert catalog.files.commit(archive, [item(0)], erased=store.erasures, readmit=True).tally.indexed == 1
    assert catalog.files.commit(archive, [item(3, path="y")], erased=store.erasures).tally.indexed == 1, (
        "the study is let in again"
    )
    store.erase(study("2.1"), keep_out=False)
    assert catalog.files.commit(archive, [item(1)], erased=store.erasures).tally.indexed == 1


def test_the_digests_say_nothing_without_the_key(in_folder: Store) -> None:
    in_folder.erase(study("2.0"))
    kept = in_folder.catalog._database
    with kept.reading() as connection:
        text = str(connection.exec_driver_sql("SELECT * FROM erasures").all())
    assert "2.0" not in text
    assert MARKER not in text
    assert Erasures(b"another key").digest("study", "2.0") not in text
    assert in_folder.erasures.digest("study", "2.0") in text
    with pytest.raises(ValueError, match="scope"):
        in_folder.erasures.digest("hospital", "x")


def test_nothing_named_is_refused_and_nothing_found_is_fine(in_folder: Store) -> None:
    with pytest.raises(ValueError, match="everything"):
        in_folder.erase(SearchFilter())
    with pytest.raises(QueryError):
        in_folder.erase(SearchFilter({}, "NoSuchThing = 1"))
    assert in_folder.erase(study("no such study")) == 0
    assert in_folder.catalog.counts().instances == 20


def test_a_reader_that_holds_the_log_is_named(in_folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    place = in_folder.place.folder / CATALOG_FILE
    in_folder.close()
    with closing(sqlite3.connect(place, isolation_level=None)) as reader, Store.open(in_folder.place.folder) as store:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM frames").fetchone()
        with pytest.raises(StoreError, match=r"everything was erased.*write-ahead log in use"):
            store.erase(study("2.0"))
        reader.execute("ROLLBACK")
        assert store.erase(study("2.0")) == 0, "the same command again empties the log"
        assert found_in(in_folder.place.folder) == set()


def _elsewhere():
    from indexer.catalog.claims import LEASE_S
    from indexer.catalog.processes import Process

    return Process("another machine", 1, "0"), LEASE_S
