"""The catalog on SQLite and PostgreSQL: what is committed, replaced, moved, in conflict, erased, and killed halfway."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from catalog_factory import DIM, SPEC, content_hash, indexed, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.catalog import batching
from indexer.catalog import database as database_module
from indexer.catalog.schema import SCHEMA_REVISION, metadata
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.keywords import COLUMNS, ValueKind
from indexer.records import FileStat, Rejection
from indexer.vectors.index import CatalogIndex
from retrieval.errors import (
    QueryError,
    StoreCorrupt,
    StoreError,
    StoreIncompatible,
    StoreNotFound,
    UnknownFilterKeyword,
)
from retrieval.types import Catalog, FrameKey, SearchFilter

MANIFEST = {"model": SPEC, "store_id": "test"}


@pytest.fixture(scope="session")
def fresh_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fresh") / "catalog.sqlite"
    SqlCatalog.create(path, MANIFEST).close()
    return path


@pytest.fixture
def new_file(fresh_file: Path, tmp_path: Path) -> Path:
    """An empty catalog's file, copied: quicker than migrating for every test."""
    (tmp_path / "store").mkdir()
    return Path(shutil.copy(fresh_file, tmp_path / "store" / "catalog.sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest) -> str | Path:
    """An empty catalog, on both databases."""
    if request.param == "sqlite":
        return request.getfixturevalue("new_file")
    url = request.getfixturevalue("postgres_url")
    SqlCatalog.create(url, MANIFEST).close()
    return url


@pytest.fixture
def catalog(location: str | Path) -> Iterator[SqlCatalog]:
    with SqlCatalog.open(location) as opened:
        yield opened


@pytest.fixture
def sqlite_catalog(new_file: Path) -> Iterator[SqlCatalog]:
    with SqlCatalog.open(new_file) as opened:
        yield opened


def paths(catalog: SqlCatalog, archive: int, status: str = "indexed") -> dict[str, str]:
    return {path: file.reason for path, file in catalog.files.known(archive) if file.status == status}


def shown(catalog: SqlCatalog) -> dict[str, str]:
    """Path of the file by SOP Instance UID, of the frames that search can find."""
    found = catalog.frames.get(catalog.frames.ids_matching(SearchFilter()))
    return {key.sop_instance_uid: attributes["file_path"] for key, attributes in found.values()}


# -- what goes in comes out


def test_a_row_and_its_vector_come_back(catalog: SqlCatalog) -> None:
    assert isinstance(catalog.frames, Catalog)
    archive = catalog.files.archive_id("/archive")
    assert catalog.files.archive_id("/archive") == archive != catalog.files.archive_id("/other")
    values: dict[str, Any] = {
        "study_date": date(2020, 2, 29),
        "patient_age": 0.5,
        "modality": "CT",
        "series_number": 2**31 - 1,
        "burned_in_annotation": False,
        "study_description": "Thorax nativ, Übersicht\x00",
        "image_type": "ORIGINAL\\PRIMARY",
    }
    outcome = catalog.files.commit(
        archive,
        [indexed("a/b.dcm", "1.2", "x", frames=3, **values), indexed("c.dcm", "1.3", sentences=("One.", "Two."))],
        [(FileStat("bad\udcff.dcm", 9, 8), Rejection("bad\udcff.dcm", "not-dicom", "no preamble \udcff"))],
    )
    done = outcome.tally
    assert (done.indexed, done.frames, done.reports, done.sentences) == (2, 5, 1, 2)

    ids = catalog.frames.ids_matching(SearchFilter({"sop_instance_uid": ("1.2",)}))
    assert ids.dtype == np.int64
    found = catalog.frames.get([999, *ids[::-1]])
    assert list(found) == ids[::-1].tolist(), "in the order asked, without what is not there"
    assert [key for key, _ in found.values()] == [FrameKey("1.2", n) for n in (3, 2, 1)]
    attributes = found[int(ids[0])][1]
    assert attributes.keys() == COLUMNS.keys() | {
        *("patient_pseudonym", "kind", "burned_in_text", "file_path", "archive_root")
    }
    expected = values | {"study_description": "Thorax nativ, Übersicht", "file_path": "a/b.dcm", "modality": "CT"}
    assert {name: attributes[name] for name in expected} == expected
    assert (attributes["archive_root"], attributes["patient_pseudonym"], attributes["rows"]) == (
        "/archive",
        "p1.2",
        None,
    )

    back, stored = catalog.frames.vectors_of(ids.tolist())
    assert back.tolist() == ids.tolist()
    assert np.array_equal(stored, vectors("1.2/x", 3).astype(np.float16))
    rows = catalog.reports.sentence_rows([2, 1, 77])
    assert [(row.text, row.position, row.sop_instance_uid) for row in rows.values()] == [
        ("Two.", 1, "1.3"),
        ("One.", 0, "1.3"),
    ]
    assert catalog.reports.texts() == {"1.3.study": "One. Two."}
    assert catalog.vectors.ids_matching(SearchFilter({"SOPInstanceUID": ("1.3",)}), kind="sentence").tolist() == [1, 2]

    known = dict(catalog.files.known(archive))
    assert known.keys() == {"a/b.dcm", "c.dcm", "bad\udcff.dcm"}
    assert known["bad\udcff.dcm"] == (9, 8, "rejected", "not-dicom", "no preamble ?")
    counts = catalog.counts()
    assert (counts.files, counts.instances, counts.frames, counts.studies, counts.patients) == (2, 2, 5, 2, 2)
    assert (counts.reports, counts.sentences, counts.series) == (1, 2, 0)
    assert (dict(counts.modalities), dict(counts.rejected)) == ({"": 1, "CT": 1}, {"not-dicom": 1})


def test_manifest(catalog: SqlCatalog) -> None:
    assert catalog.manifest["model"] == SPEC
    catalog.manifest.update({"a": [1, {"b": None}], "model": {"embed_dim": 8}})
    assert dict(catalog.manifest) == {"a": [1, {"b": None}], "model": {"embed_dim": 8}, "store_id": "test"}
    del catalog.manifest["a"]
    assert "a" not in catalog.manifest
    with pytest.raises(KeyError):
        del catalog.manifest["a"]


def test_long_id_lists(sqlite_catalog: SqlCatalog) -> None:
    archive = sqlite_catalog.files.archive_id("/a")
    sqlite_catalog.files.commit(archive, [indexed(f"{n}", f"1.{n}", frames=70) for n in range(500)])
    ids = sqlite_catalog.frames.ids_matching(SearchFilter())
    assert len(ids) == 35_000  # over SQLite's 32,766 parameters
    assert list(sqlite_catalog.frames.get(ids)) == ids.tolist()
    assert len(sqlite_catalog.frames.vectors_of(ids)[0]) == 35_000
    batches = list(sqlite_catalog.vectors.iter_vectors("frame", after_id=5, batch=9000))
    assert np.concatenate([found for found, _ in batches]).tolist() == ids[5:].tolist()
    assert sqlite_catalog.files.forget(archive, [f"{n}" for n in range(499)] + [f"x{n}" for n in range(40_000)]) == 499
    assert sqlite_catalog.counts().frames == 70


def test_vectors_that_would_poison_the_store_are_refused(sqlite_catalog: SqlCatalog) -> None:
    archive = sqlite_catalog.files.archive_id("/a")
    good = indexed("a", "1.1")
    bad: list[tuple[Any, str]] = [
        (np.full((2, DIM), np.nan, np.float32), "norms"),
        (np.ones((2, DIM), np.float32), "norms"),
        (vectors("x", 2, DIM + 1), r"\(2, 9\); expected \(2, 8\)"),
        (vectors("x", 1), r"\(1, 8\); expected \(2, 8\)"),
        (None, "are missing; expected 2"),
    ]
    for value, message in bad:
        broken = type(good)(**{**good.__dict__, "frame_vectors": value})
        with pytest.raises(ValueError, match=message):
            sqlite_catalog.files.commit(archive, [indexed("b", "1.2"), broken])
    assert sqlite_catalog.counts().instances == 0


# -- files change, move, clash and go


def test_a_changed_file_replaces_its_instance(catalog: SqlCatalog) -> None:
    archive = catalog.files.archive_id("/a")
    catalog.files.commit(archive, [indexed("a", "1.1", "old", sentences=("Old.",)), indexed("b", "1.2")])
    outcome = catalog.files.commit(archive, [indexed("a", "1.1", "new", mtime=1), indexed("b", "1.3", mtime=1)])
    assert (outcome.tally.updated, outcome.tally.indexed, outcome.tally.rejected) == (2, 0, [])
    assert shown(catalog) == {"1.1": "a", "1.3": "b"}
    assert catalog.frames.ids_matching(SearchFilter()).tolist() == [5, 6, 7, 8], "ids are never used twice"
    assert catalog.vectors.deleted_since("frame", 0)[1].tolist() == [1, 2, 3, 4]
    assert catalog.vectors.deleted_since("sentence", 0)[1].tolist() == [1]
    assert catalog.counts().reports == 0


def test_touched_moved_and_copied_files_keep_their_vectors(catalog: SqlCatalog) -> None:
    archive, other = catalog.files.archive_id("/a"), catalog.files.archive_id("/b")
    catalog.files.commit(archive, [indexed("a", "1.1", "x")])
    stat = FileStat("a", 1, 99)
    unknown = FileStat("q", 1, 1)
    outcome = catalog.files.commit(archive, [], copies=[(stat, content_hash("1.1", "x")), (unknown, "unknown")])
    assert (outcome.tally.unchanged, outcome.stale) == (1, (unknown,))
    assert dict(catalog.files.known(archive))["a"].stamp == 99
    outcome = catalog.files.commit(other, [], copies=[(FileStat("moved", 1, 5), content_hash("1.1", "x"))])
    assert (outcome.tally.duplicates, outcome.stale) == (1, ())
    assert dict(catalog.files.known(other))["moved"] == (
        1,
        5,
        "indexed",
        "duplicate",
        "the file is a byte-for-byte copy of another file of 1.1",
    )
    assert catalog.files.forget(archive, ["a"]) == 0
    assert shown(catalog) == {"1.1": "moved"}
    assert dict(catalog.files.known(other))["moved"].reason == ""
    assert catalog.vectors.deleted_since("frame", 0)[1].size == 0
    assert catalog.files.forget(other, ["moved"]) == 1
    assert catalog.counts().frames == 0


def test_the_same_uid_with_other_content_is_a_conflict_until_its_rival_goes(catalog: SqlCatalog) -> None:
    archive = catalog.files.archive_id("/a")
    catalog.files.commit(archive, [indexed("a", "1.1", "x")])
    outcome = catalog.files.commit(
        archive, [indexed("b", "1.1", "y"), indexed("c", "1.1", "x"), indexed("d", "1.1", "x", hashed=False)]
    )
    assert [conflict.path for conflict in outcome.tally.rejected] == ["b", "d"]
    assert outcome.tally.duplicates == 1
    assert shown(catalog) == {"1.1": "a"}
    assert paths(catalog, archive, "rejected") == {"b": "conflict", "d": "conflict"}
    # The owner changes, but a copy still has the old content: that one takes over, the change is in conflict with it.
    outcome = catalog.files.commit(archive, [indexed("a", "1.1", "z", mtime=1)])
    assert [conflict.path for conflict in outcome.tally.rejected] == ["a"]
    assert shown(catalog) == {"1.1": "c"}
    # The last copy goes: those in conflict are unknown again, so that the next run reads them.
    assert catalog.files.forget(archive, ["c"]) == 1
    assert list(catalog.files.known(archive)) == []


def test_clashes_within_one_commit(catalog: SqlCatalog) -> None:
    archive = catalog.files.archive_id("/a")
    files = [indexed("a", "1.1", "x"), indexed("b", "1.1", "x"), indexed("c", "1.1", "y"), indexed("a", "1.2", "z")]
    outcome = catalog.files.commit(archive, files)
    assert (outcome.tally.indexed, outcome.tally.duplicates, outcome.tally.reasons["conflict"]) == (2, 1, 1)
    assert shown(catalog) == {"1.1": "b", "1.2": "a"}


def test_a_file_that_breaks_loses_its_instance(catalog: SqlCatalog) -> None:
    archive = catalog.files.archive_id("/a")
    catalog.files.commit(archive, [indexed("a", "1.1"), indexed("b", "1.2")])
    rejected = [(FileStat(name, 0, 1), Rejection(name, "pixel-decode", "")) for name in ("a", "new")]
    assert catalog.files.commit(archive, [], rejected).tally.removed == 1
    assert shown(catalog) == {"1.2": "b"}
    assert paths(catalog, archive, "rejected") == {"a": "pixel-decode", "new": "pixel-decode"}
    assert catalog.files.commit(archive, [indexed("a", "1.1", mtime=2)]).tally.indexed == 1


Disk = dict[str, tuple[str, str]]  # what is in the archive: (UID, content) by path
_names = st.sampled_from("abcd")
_files = st.tuples(st.sampled_from(["1.1", "1.2"]), st.sampled_from("xyz"))
_steps = st.lists(st.dictionaries(_names, _files), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(steps=_steps, batch=st.integers(1, 4), adopting=st.booleans())
def test_runs_over_a_changing_archive_end_where_the_archive_is(
    fresh_file: Path, steps: list[Disk], batch: int, adopting: bool
) -> None:
    """Whatever happens to the files, indexing until nothing changes gives a catalog that matches them."""
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copy(fresh_file, folder)
        with SqlCatalog.open(Path(copied)) as catalog:
            archive, stamps, seen = catalog.files.archive_id("/a"), dict[tuple[str, Any], int](), set[int]()
            index = CatalogIndex(DIM)
            for disk in steps:
                for _ in range(6):
                    if not _run(catalog, archive, disk, stamps, batch, adopting):
                        break
                else:
                    pytest.fail("indexing the same files again and again never comes to rest")
                _matches(catalog, archive, disk)
                index.catch_up(catalog.vectors)
                ids = catalog.frames.ids_matching(SearchFilter())
                assert index.ids.tolist() == ids.tolist()
                assert not (set(catalog.vectors.deleted_since("frame", 0)[1].tolist()) & set(ids.tolist()))
                seen |= set(ids.tolist())


def _run(
    catalog: SqlCatalog, archive: int, disk: Disk, stamps: dict[tuple[str, Any], int], batch: int, adopting: bool
) -> bool:
    """One indexing run, as the pipeline does it. Whether there was anything to do."""
    known = dict(catalog.files.known(archive))
    gone = [path for path in known if path not in disk]
    new = []
    for path, (uid, content) in disk.items():
        mtime = stamps.setdefault((path, (uid, content)), len(stamps))
        if path not in known or (known[path].size, known[path].stamp) != (len(content), mtime):
            new.append(indexed(path, uid, content, mtime=mtime))
    anything = bool(new or gone)
    if adopting:
        outcome = catalog.files.commit(archive, [], copies=[(item.stat, item.content_hash) for item in new])
        new = [item for item in new if item.stat in outcome.stale]
    for start in range(0, len(new), batch):
        catalog.files.commit(archive, new[start : start + batch])
    catalog.files.forget(archive, gone)
    return anything


def _matches(catalog: SqlCatalog, archive: int, disk: Disk) -> None:
    known = dict(catalog.files.known(archive))
    assert known.keys() == disk.keys()
    ids = catalog.frames.ids_matching(SearchFilter())
    found = catalog.frames.get(ids)
    uids = {uid for uid, _ in disk.values()}
    assert {key.sop_instance_uid for key, _ in found.values()} == uids
    assert len(ids) == 2 * len(uids)
    chosen = {}
    for i, (key, attributes) in found.items():
        uid, content = disk[attributes["file_path"]]
        assert key.sop_instance_uid == uid
        chosen[uid] = content
        expected = vectors(f"{uid}/{content}", 2)[key.frame_number - 1].astype(np.float16)
        assert np.array_equal(catalog.frames.vectors_of([i])[1][0], expected)
    for path, (uid, content) in disk.items():
        assert known[path].status == ("indexed" if content == chosen[uid] else "rejected")


# -- filters


def _random_attributes(rng: np.random.Generator) -> dict[str, Any]:
    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    return {
        "study_instance_uid": pick("2.1", "2.2", "2.3"),
        "modality": pick("CT", "MR", "ct", None),
        "body_part_examined": pick("KNEE", "Schädel", "SCHÄDEL", "a%b", "a_b", "'; DROP TABLE frames; --", None),
        "image_type": pick("ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\SECONDARY", "ORIGINAL", None),
        "patient_age": pick(60.0, 1.5, 0.0, 5 * 7 / 365.25, None),
        "slice_thickness": pick(0.7, 0.1 + 0.2, None),
        "series_number": pick(1, 2, -3, None),
        "study_date": pick(date(2020, 1, 31), date(1999, 12, 1), None),
        "burned_in_annotation": pick(True, False, None),
    }


_SPELLINGS: dict[str, list[tuple[str, Callable[[Any], bool]]]] = {
    "study_instance_uid": [("2.1", lambda v: v == "2.1"), ("2.9", lambda v: False)],
    "Modality": [("ct", lambda v: v in ("CT", "ct")), ("MR", lambda v: v == "MR")],
    "body_part_examined": [
        ("schädel", lambda v: v in ("Schädel", "SCHÄDEL")),
        ("knee", lambda v: v == "KNEE"),
        ("A%B", lambda v: v == "a%b"),
        ("%", lambda v: False),
        ("'; DROP TABLE frames; --", lambda v: v == "'; DROP TABLE frames; --"),
    ],
    "image_type": [
        ("axial", lambda v: bool(v) and "AXIAL" in v),
        ("Original", lambda v: bool(v) and "ORIGINAL" in v),
        ("derived\\secondary", lambda v: v == "DERIVED\\SECONDARY"),
    ],
    "PatientAge": [
        ("60", lambda v: v == 60),
        ("018M", lambda v: v == 1.5),
        ("000Y", lambda v: v == 0),
        ("005W", lambda v: bool(v) and v < 1),
    ],
    "slice_thickness": [("0.3", lambda v: bool(v) and v < 0.5), ("0.70", lambda v: v == 0.7)],
    "series_number": [("1", lambda v: v == 1), ("-3", lambda v: v == -3)],
    "study_date": [("20200131", lambda v: v == date(2020, 1, 31)), ("1999-12-01", lambda v: v == date(1999, 12, 1))],
    "burned_in_annotation": [("YES", lambda v: v is True), ("no", lambda v: v is False)],
}
_COLUMN = {"Modality": "modality", "PatientAge": "patient_age"}


def test_filters_are_exact(catalog: SqlCatalog) -> None:
    rng = np.random.default_rng(0)
    archive = catalog.files.archive_id("/a")
    rows = [_random_attributes(rng) for _ in range(150)]
    catalog.files.commit(archive, [indexed(f"{n}", f"1.{n}", frames=1, **row) for n, row in enumerate(rows)])
    catalog.files.forget(archive, [f"{n}" for n in range(0, 150, 7)])
    kept = {n + 1: row for n, row in enumerate(rows) if n % 7}
    for _ in range(150):
        chosen = {}
        for name in rng.choice(list(_SPELLINGS), size=rng.integers(1, 4), replace=False):
            options = _SPELLINGS[name]
            chosen[str(name)] = [options[i] for i in rng.permutation(len(options))[: rng.integers(1, len(options) + 1)]]
        where = SearchFilter({name: tuple(text for text, _ in options) for name, options in chosen.items()})
        expected = [
            i
            for i, row in kept.items()
            if all(any(test(row[_COLUMN.get(name, name)]) for _, test in opts) for name, opts in chosen.items())
        ]
        assert catalog.frames.ids_matching(where).tolist() == expected, where
    assert catalog.frames.ids_matching(SearchFilter({"modality": ()})).size == 0


def test_filters_that_make_no_sense(sqlite_catalog: SqlCatalog) -> None:
    with pytest.raises(UnknownFilterKeyword, match="'modalty'") as caught:
        sqlite_catalog.frames.ids_matching(SearchFilter({"modalty": ("CT",)}))
    assert caught.value.hint == "Did you mean 'modality'?"
    with pytest.raises(UnknownFilterKeyword) as caught:
        sqlite_catalog.frames.ids_matching(SearchFilter({"PatientName; DROP TABLE frames": ("x",)}))
    for name, value in [
        ("patient_age", "old"),
        ("patient_age", "nan"),
        ("series_number", "1.5"),
        ("series_number", "9" * 30),
        ("study_date", "20201301"),
        ("burned_in_annotation", "maybe"),
    ]:
        with pytest.raises(QueryError, match=f"{name} is compared with {value!r}; expected"):
            sqlite_catalog.frames.ids_matching(SearchFilter({name: (value,)}))


# -- erasure


def test_an_erased_study_leaves_no_byte_behind(new_file: Path) -> None:
    marker = "Geheimbefund"
    with SqlCatalog.open(new_file) as catalog:
        archive = catalog.files.archive_id("/a")
        for n in range(30):
            name = marker if n == 7 else f"text {n}"
            catalog.files.commit(
                archive, [indexed(f"{name}/x{n}", f"1.{n}", sentences=(f"{name}.",), study_description=name)]
            )
        secret = vectors("1.7/", 2)[0].astype("<f2").tobytes()
        assert any(marker.encode() in file.read_bytes() for file in new_file.parent.iterdir())
        with pytest.raises(ValueError, match="everything"):
            catalog.instances.delete_matching(SearchFilter())
        assert catalog.instances.delete_matching(SearchFilter({"study_instance_uid": ("no such study",)})) == 0
        assert catalog.instances.delete_matching(SearchFilter({"study_instance_uid": ("1.7.study",)})) == 1
        for file in new_file.parent.iterdir():
            assert marker.encode() not in file.read_bytes(), file.name
            assert secret not in file.read_bytes(), file.name
        assert catalog.counts().instances == 29
        assert len(dict(catalog.files.known(archive))) == 29


# -- several at once, and killed


_CHILD = """
import sys
sys.path[:0] = sys.argv[1].split(";")
from pathlib import Path
from catalog_factory import indexed
from indexer.catalog.sql_catalog import SqlCatalog
place, tag, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
catalog = SqlCatalog.open(place if "://" in place else Path(place))
archive = catalog.files.archive_id("/a")
for n in range(count):
    catalog.files.commit(archive, [indexed(f"{tag}/{n}/{m}", f"1.{tag}.{n}.{m}", frames=3) for m in range(5)])
    print(n, flush=True)
"""


def _child(place: str | Path, tag: str, count: int) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    arguments = [f"{here.parent};{here}", str(place), tag, str(count)]
    return subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(location: str | Path, catalog: SqlCatalog) -> None:
    """Nothing lost, nothing twice, and an index that catches up meanwhile misses nothing."""
    index = CatalogIndex(DIM)
    children = [_child(location, tag, 20) for tag in ("8", "9")]
    archive = catalog.files.archive_id("/a")
    while any(child.poll() is None for child in children):
        index.catch_up(catalog.vectors)
        catalog.files.commit(
            archive, [indexed("mine", "1.1", str(index.mark.last_id), frames=1, mtime=index.mark.last_id)]
        )
    assert [child.wait() for child in children] == [0, 0]
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    index.catch_up(catalog.vectors)
    assert catalog.counts().frames == 2 * 20 * 5 * 3 + 1
    assert index.ids.tolist() == catalog.frames.ids_matching(SearchFilter()).tolist()


def test_killed_at_any_time_what_was_reported_is_there(new_file: Path) -> None:
    for attempt, lines in enumerate((1, 4, 9)):
        child = _child(new_file, str(attempt), 10_000)
        assert child.stdout is not None
        done = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        done += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        reported = len([line for line in done if line.endswith("\n")])
        assert reported >= lines
        with SqlCatalog.open(new_file) as catalog:
            found = catalog.frames.get(catalog.frames.ids_matching(SearchFilter()))
            mine = [key for key, _ in found.values() if key.sop_instance_uid.startswith(f"1.{attempt}.")]
            assert len(mine) % 15 == 0, "half a batch was committed"
            assert reported <= len(mine) // 15 <= reported + 1
            _, stored = catalog.frames.vectors_of(found)
            for (key, _), vector in zip(found.values(), stored, strict=True):
                expected = vectors(f"{key.sop_instance_uid}/", 3)[key.frame_number - 1]
                assert np.array_equal(vector, expected.astype(np.float16))
            assert len(list(catalog.files.known(catalog.files.archive_id("/a")))) == len(found) // 3


def test_threads_share_a_catalog(sqlite_catalog: SqlCatalog) -> None:
    archive = sqlite_catalog.files.archive_id("/a")
    failures: list[StoreError] = []

    def work(tag: int) -> None:
        try:
            for n in range(10):
                sqlite_catalog.files.commit(archive, [indexed(f"{tag}.{n}", f"{tag}.{n}")])
                sqlite_catalog.frames.get(sqlite_catalog.frames.ids_matching(SearchFilter()))
        except StoreError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(tag,)) for tag in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sqlite_catalog.counts().frames == 80


# -- migrations


def test_models_and_migrations_agree(location: str | Path, catalog: SqlCatalog) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    heads = ScriptDirectory.from_config(database_module._alembic_config()).get_heads()
    assert heads == [SCHEMA_REVISION]
    engine = sa.create_engine(database_module.parse_url(location))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_columns_say_their_tag_and_vr() -> None:
    assert metadata.tables["instances"].c["modality"].comment == "(0008,0060) Modality | VR CS, VM 1"
    assert set(metadata.tables["instances"].columns.keys()) > COLUMNS.keys()
    dates = [name for name, keyword in COLUMNS.items() if keyword.kind is ValueKind.DATE]
    assert all(isinstance(metadata.tables["instances"].c[name].type, sa.Date) for name in dates)


def test_a_newer_schema_is_refused(location: str | Path) -> None:
    _set_revision(location, "0999")
    with pytest.raises(
        StoreIncompatible,
        match=f"has schema '0999', but this version of medlens supports schemas up to {SCHEMA_REVISION}",
    ):
        SqlCatalog.open(location)


def test_an_older_schema_is_migrated_after_a_backup(
    location: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqlCatalog.open(location) as catalog:
        catalog.files.commit(catalog.files.archive_id("/a"), [indexed("a", "1.1")])
    folder = tmp_path / "100% migrations"
    shutil.copytree(database_module.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = f"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0999", "{SCHEMA_REVISION}"
def upgrade():
    op.add_column("files", sa.Column("note", sa.Text()))
    if BREAK:
        raise OSError("power cut")
"""
    monkeypatch.setattr(database_module, "MIGRATIONS", folder)
    monkeypatch.setattr(database_module, "SCHEMA_REVISION", "0999")
    script = folder / "versions" / "0999_next.py"
    script.write_text(f"BREAK = True\n{text}")
    if isinstance(location, str):  # other machines may be at work, and backups are the server's business
        with pytest.raises(StoreIncompatible) as refused:
            SqlCatalog.open(location)
        assert "medlens migrate" in str(refused.value.hint)
    with pytest.raises(OSError, match="power cut"):
        SqlCatalog.upgrade(location)
    assert _columns(location, "files").isdisjoint({"note"}), "half a migration stayed"
    script.write_text(f"BREAK = False\n{text}")
    if isinstance(location, str):
        assert SqlCatalog.upgrade(location)
    with SqlCatalog.open(location) as catalog:
        assert shown(catalog) == {"1.1": "a"}
    assert "note" in _columns(location, "files")
    if isinstance(location, Path):
        backup = location.with_name(f"{location.name}.schema-{SCHEMA_REVISION}.backup")
        assert "note" not in _columns(backup, "files")
        assert backup.stat().st_mode & 0o077 == location.stat().st_mode & 0o077


GOLDEN = Path(__file__).parent / "golden" / "catalog-0001.sql"  # written by the code of schema 0001


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_catalog_of_the_first_schema_is_brought_here(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        location: str | Path = tmp_path / "catalog.sqlite"
        with closing(sqlite3.connect(location)) as database:
            database.executescript(GOLDEN.read_text("utf-8"))
    else:
        location = request.getfixturevalue("postgres_url")
        _golden_on_postgres(location, tmp_path)
        assert SqlCatalog.upgrade(location)
        assert not SqlCatalog.upgrade(location), "there was something to do twice"
    with SqlCatalog.open(location) as catalog:
        archive = catalog.files.archive_id("/archive")
        assert shown(catalog) == {"1.1": "study/1.dcm", "1.2": "study/2.dcm"}
        ids = catalog.frames.ids_matching(SearchFilter())
        assert ids.tolist() == [1, 2, 3]
        expected = np.concatenate([vectors("1.1/x", 2), vectors("1.2/xy", 1)]).astype(np.float16)
        assert np.array_equal(catalog.frames.vectors_of(ids)[1], expected)
        assert [row.text for row in catalog.reports.sentence_rows([1, 2]).values()] == [
            "No effusion.",
            "The heart is large.",
        ]
        assert paths(catalog, archive) == {
            "study/1.dcm": "", "study/2.dcm": "", "study/sr.dcm": "", "copy.dcm": "duplicate"
        }  # fmt: skip
        assert paths(catalog, archive, "rejected") == {"broken.dcm": "pixel-decode", "other.dcm": "conflict"}
        assert catalog.vectors.deleted_since("frame", 0)[1].tolist() == [4, 5, 6]
        catalog.files.commit(archive, [indexed("new", "1.5", frames=1)])
        assert catalog.frames.ids_matching(SearchFilter()).tolist() == [1, 2, 3, 7], "an old id was given out again"
    test_models_and_migrations_agree(location, catalog)
    if isinstance(location, Path):
        backup = location.with_name("catalog.sqlite.schema-0001.backup")
        with closing(sqlite3.connect(backup)) as database:
            assert "\n".join(database.iterdump()) + "\n" == GOLDEN.read_text("utf-8")
        assert sorted(path.name for path in tmp_path.glob("*.tmp")) == []


def _golden_on_postgres(url: str, folder: Path) -> None:
    from alembic import command

    engine = sa.create_engine(url)
    with closing(sqlite3.connect(folder / "golden.sqlite")) as source, engine.begin() as target:
        source.executescript(GOLDEN.read_text("utf-8"))
        config = database_module._alembic_config()
        config.attributes["connection"] = target
        command.upgrade(config, "0001")
        for name in ("archives", "files", "instances", "frames", "reports", "sentences", "deletions", "manifest"):
            table = sa.Table(name, sa.MetaData(), autoload_with=target)
            rows = source.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in rows.description]
            for row in rows.fetchall():
                values = dict(zip(columns, row, strict=True))
                values |= {key: bool(v) for key, v in values.items() if key == "burned_in_annotation" and v is not None}
                values |= {key: json.loads(v) for key, v in values.items() if key == "value"}
                target.execute(sa.insert(table), values)
        for name in ("archives", "files", "instances", "frames", "reports", "sentences", "deletions"):
            key = "seq" if name == "deletions" else "id"
            last = source.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", [name]).fetchone()[0]
            last = last or source.execute(f"SELECT max({key}) FROM {name}").fetchone()[0]
            target.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{name}', '{key}'), {last})"))
    engine.dispose()


def test_two_that_open_an_old_catalog_at_once_keep_one_true_backup(tmp_path: Path) -> None:
    location = tmp_path / "catalog.sqlite"
    with closing(sqlite3.connect(location)) as database:
        database.executescript(GOLDEN.read_text("utf-8"))
    failures: list[StoreError] = []

    def opened() -> None:
        try:
            SqlCatalog.open(location).close()
        except StoreError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite.schema-0001.backup")) as database:
        assert "\n".join(database.iterdump()) + "\n" == GOLDEN.read_text("utf-8")


def test_commits_wait_for_the_disk(location: str | Path, catalog: SqlCatalog, request: pytest.FixtureRequest) -> None:
    """What was reported as committed survives a power cut: the database syncs before it says so."""
    if isinstance(location, Path):
        with catalog._database.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL: the log, at each commit
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        return
    with catalog._database.writing() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with SqlCatalog.open(location) as other, other._database.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_a_log_cut_anywhere_by_a_power_cut_opens_with_whole_commits(new_file: Path, tmp_path: Path) -> None:
    with SqlCatalog.open(new_file) as catalog:
        archive = catalog.files.archive_id("/a")
        for n in range(12):
            catalog.files.commit(archive, [indexed(f"{n}/{m}", f"1.{n}.{m}", frames=3) for m in range(4)])
        log = new_file.with_name(f"{new_file.name}-wal").read_bytes()
        main = new_file.read_bytes()
    seen = set()
    for cut in np.random.default_rng(0).integers(0, len(log), 20).tolist():
        place = tmp_path / f"cut{cut}"
        place.mkdir()
        (place / "catalog.sqlite").write_bytes(main)
        (place / "catalog.sqlite-wal").write_bytes(log[:cut])
        with SqlCatalog.open(place / "catalog.sqlite") as catalog:
            counts = catalog.counts()
            assert counts.files == counts.instances == counts.frames // 3
            assert counts.files % 4 == 0
            seen.add(counts.files)
    assert len(seen) > 5, "the log was never cut between commits"


def _columns(location: str | Path, table: str) -> set[str]:
    engine = sa.create_engine(database_module.parse_url(location))
    try:
        return {column["name"] for column in sa.inspect(engine).get_columns(table)}
    finally:
        engine.dispose()


def _set_revision(location: str | Path, revision: str) -> None:
    engine = sa.create_engine(database_module.parse_url(location))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    engine.dispose()


# -- what goes wrong


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        SqlCatalog.open(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="expected sqlite or postgresql"):
        SqlCatalog.open("mysql://host/db")
    with pytest.raises(StoreError, match="the location is not a database URL"):
        SqlCatalog.open("://")
    with pytest.raises(StoreError, match="memory"):
        SqlCatalog.create("sqlite://")


def test_create_twice(location: str | Path) -> None:
    why = "contains a store already" if isinstance(location, str) else "a file of that name exists already"
    with pytest.raises(StoreError, match=why):
        SqlCatalog.create(location)


def test_a_file_that_is_no_database(new_file: Path) -> None:
    new_file.write_bytes(b"this is no database, but a long enough text" * 100)
    with pytest.raises(StoreCorrupt, match="is not an SQLite database") as caught:
        SqlCatalog.open(new_file)
    assert caught.value.hint
    assert caught.value.__cause__ is not None
    new_file.write_bytes(b"")
    with pytest.raises(StoreCorrupt, match="does not state its schema version"):
        SqlCatalog.open(new_file)


def test_damaged_pages(new_file: Path) -> None:
    with SqlCatalog.open(new_file) as catalog:
        catalog.files.commit(catalog.files.archive_id("/a"), [indexed(f"{n}", f"1.{n}") for n in range(2000)])
    data = bytearray(new_file.read_bytes())
    data[len(data) // 4 :] = b"\xa5" * (len(data) - len(data) // 4)
    new_file.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="is damaged"), SqlCatalog.open(new_file) as catalog:
        catalog.frames.get(catalog.frames.ids_matching(SearchFilter()))
        list(catalog.vectors.iter_vectors("frame"))


def test_missing_table(location: str | Path, catalog: SqlCatalog) -> None:
    engine = sa.create_engine(database_module.parse_url(location))
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE sentences RENAME TO lost"))
    engine.dispose()
    with pytest.raises(StoreCorrupt, match="has no table that is needed"):
        catalog.counts()


def test_locked(new_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(new_file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with SqlCatalog.open(new_file) as catalog:
        assert catalog.counts().files == 0, "readers never wait"
        with pytest.raises(StoreError, match="locked by another process") as caught:
            catalog.files.archive_id("/secret/Doe^John")
    holder.close()
    assert "Doe" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert str(new_file.parent) not in str(caught.value)


def test_full_disk_keeps_what_was_committed(sqlite_catalog: SqlCatalog) -> None:
    archive = sqlite_catalog.files.archive_id("/a")
    sqlite_catalog.files.commit(archive, [indexed("a", "1.1")])

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 2}")

    sa.event.listen(sqlite_catalog._database.engine, "connect", limit)
    sqlite_catalog._database.engine.dispose()
    with pytest.raises(StoreError, match="disk is full"):
        sqlite_catalog.files.commit(archive, [indexed(f"{n}", f"2.{n}") for n in range(2000)])
    assert shown(sqlite_catalog) == {"1.1": "a"}


def test_no_permission_to_write(new_file: Path) -> None:
    connection = sqlite3.connect(f"file:{new_file}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("DELETE FROM files")
    connection.close()
    found = database_module.translate(caught.value, "'x'")
    assert "can't be written" in str(found)
    assert "permission" in found.hint


def test_postgresql_says_what_is_wrong(postgres_server: str, postgres_url: str) -> None:
    with pytest.raises(StoreNotFound, match="does not contain a medlens store"):
        SqlCatalog.open(postgres_url)
    with pytest.raises(StoreNotFound, match="does not exist") as caught:
        SqlCatalog.open(postgres_server.format(database="nowhere"))
    assert "createdb" in caught.value.hint
    with pytest.raises(StoreError, match="can't be reached"):
        SqlCatalog.open("postgresql://me:secret@127.0.0.1:1/db")
    with pytest.raises(StoreError) as refused:
        SqlCatalog.open(postgres_url.replace("medlens@", "stranger:hunter2@"))
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


def test_rows_of_different_sizes_are_noticed(sqlite_catalog: SqlCatalog) -> None:
    sqlite_catalog.files.commit(sqlite_catalog.files.archive_id("/a"), [indexed("a", "1.1")])
    with sqlite_catalog._database.writing() as connection:
        connection.execute(sa.text("UPDATE frames SET vector = x'00' WHERE id = 1"))
    with pytest.raises(StoreCorrupt, match="different sizes"):
        list(sqlite_catalog.vectors.iter_vectors("frame"))


def test_chunks_fit_the_databases() -> None:
    assert 3 * batching.CHUNK < 32_766


def test_the_ids_of_a_filter_are_remembered_until_anything_is_committed(
    catalog: SqlCatalog, location: str | Path
) -> None:
    """By this handle or by another, which stands for another process: the database tells them apart no more."""
    archive = catalog.files.archive_id("/archive")
    catalog.files.commit(
        archive, [indexed("a", "1.1", frames=1, modality="CT"), indexed("b", "1.2", frames=1, modality="MR")]
    )
    ct, mr = SearchFilter({"modality": ("CT",)}), SearchFilter({"modality": ("MR",)})
    first = catalog.frames.ids_matching(ct)
    assert first.tolist() == [1]
    assert catalog.frames.ids_matching(ct) is first
    assert catalog.frames.ids_matching(mr).tolist() == [2]
    assert catalog.vectors.ids_matching(ct, kind="sentence").tolist() == []
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 7
    catalog.files.commit(archive, [indexed("c", "1.3", frames=1, modality="CT")])
    assert catalog.frames.ids_matching(ct).tolist() == [1, 3]
    with SqlCatalog.open(location) as other:
        other.files.commit(archive, [indexed("d", "1.4", frames=1, modality="CT")])
        assert catalog.frames.ids_matching(ct).tolist() == [1, 3, 4]
        other.instances.delete_matching(SearchFilter({"sop_instance_uid": ("1.1",)}))
        assert catalog.frames.ids_matching(ct).tolist() == [3, 4]
    for number in range(40):  # more filters than are remembered
        assert catalog.frames.ids_matching(SearchFilter({"modality": ("CT", f"X{number}")})).tolist() == [3, 4]
