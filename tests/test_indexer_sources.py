"""A source without paths or times is indexed, compared and shown as a folder is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from fake_encoder import FakeEncoder
from http_source import Bucket, Remote
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from indexer.dicom.safe_read import open_dicom, read_header
from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_picture, load_pictures
from indexer.records import FileStat, IndexReport
from indexer.render.frame import render_frame
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.sources.folders import Folder
from indexer.sources.opening import digest, locate, opened, source_at
from indexer.sources.source import Source
from indexer.store.store import Store
from indexer.tasks.verifying import verify_store
from retrieval.errors import DicomError, FileUnreadable, NotDicomError
from retrieval.types import SearchFilter

NAMES = ("CT_small.dcm", "JPEG2000.dcm", "MR_small.dcm", "reportsi.dcm", "rtplan.dcm")


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    files = {f"studies/{name}": Path(str(get_testdata_file(name))).read_bytes() for name in NAMES}
    with Bucket(files | {"studies/notes.txt": b"no DICOM at all\n" * 50}) as served:
        yield served


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", FakeEncoder().spec.to_json()) as made:
        yield made


def index(source: Source | Path, store: Store, **options: bool) -> IndexReport:
    return index_archive([source], store, FakeEncoder(), IndexOptions(workers=1, **options))  # type: ignore[arg-type]


def vectors_by_uid(store: Store) -> dict[str, bytes]:
    ids, vectors = store.catalog.frames.vectors_of(store.catalog.frames.ids_matching(SearchFilter()).tolist())
    keys = store.catalog.frames.get(ids.tolist())
    return {str(keys[i][0]): vector.tobytes() for i, vector in zip(ids.tolist(), vectors, strict=True)}


def test_it_is_indexed_as_a_folder_of_the_same_files(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    report = index(bucket, store)
    assert (report.indexed, report.frames, report.reports) == (5, 3, 1)
    assert [(r.path, r.reason) for r in report.rejected] == [("studies/notes.txt", "not-dicom")]
    assert store.catalog.files.archive_roots() == {1: "bucket://radiology"}
    folder = tmp_path / "folder"
    for key, data in bucket.files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    with Store.create(tmp_path / "other", FakeEncoder().spec.to_json()) as other:
        index(folder, other)
        assert vectors_by_uid(other) == vectors_by_uid(store)
        hashes = {digest(folder / key) for key in bucket.files if "notes" not in key}
        assert store.catalog.files.hashes_known(hashes) == hashes


def test_what_is_unchanged_by_its_tag_is_not_fetched(bucket: Bucket, store: Store) -> None:
    index(bucket, store)
    bucket.fetched.clear()
    report = index(bucket, store)
    assert (report.unchanged, len(report.rejected), sum(bucket.fetched.values())) == (5, 1, 0)
    ds = dcmread(str(get_testdata_file("MR_small.dcm")))
    ds.PixelData = bytes(len(ds.PixelData))
    changed = io.BytesIO()
    ds.save_as(changed)
    bucket.files["studies/MR_small.dcm"] = changed.getvalue()
    report = index(bucket, store)
    assert (report.updated, report.unchanged, bucket.fetched) == (1, 4, {"studies/MR_small.dcm": 1})


def test_a_renamed_key_keeps_its_vectors_and_one_that_is_gone_is_pruned(bucket: Bucket, store: Store) -> None:
    index(bucket, store)
    before = vectors_by_uid(store)
    bucket.files["archived/CT_small.dcm"] = bucket.files.pop("studies/CT_small.dcm")
    del bucket.files["studies/MR_small.dcm"]
    report = index(bucket, store, prune=True)
    assert (report.moved, report.removed, report.frames) == (1, 1, 0)
    gone = dcmread(str(get_testdata_file("MR_small.dcm"))).SOPInstanceUID
    assert vectors_by_uid(store) == {key: vector for key, vector in before.items() if not key.startswith(gone)}
    shown = store.catalog.frames.get(store.catalog.frames.ids_matching(SearchFilter({"modality": ("CT",)})))
    assert "archived/CT_small.dcm" in [attributes["file_path"] for _, attributes in shown.values()]


def test_pictures_are_read_where_the_source_locates_them(bucket: Bucket) -> None:
    path = Path(str(get_testdata_file("MR_small.dcm")))
    picture = load_picture(bucket.locate("studies/MR_small.dcm"), PictureRequest(path).profile)
    assert np.array_equal(picture, load_picture(path, PictureRequest(path).profile))
    png = io.BytesIO()
    Image.fromarray(np.full((4, 6), 77, np.uint8)).save(png, "PNG")
    bucket.files["picture.png"] = png.getvalue()
    asked = [PictureRequest(bucket.locate(key)) for key in ("picture.png", "gone.dcm", "studies/notes.txt")]
    outcomes = [outcome for _, outcome in load_pictures(asked, workers=1)]
    assert np.array_equal(outcomes[0], np.full((4, 6), 77, np.uint8))
    assert [type(outcome) for outcome in outcomes[1:]] == [FileUnreadable, NotDicomError]


def test_bytes_in_memory_are_read_as_the_file_is(bucket: Bucket) -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    read = 0
    for path in sorted(folder.glob("*.dcm")):
        bucket.files[path.name] = path.read_bytes()
        where = bucket.locate(path.name)
        assert digest(where) == digest(path)
        try:
            expected = open_dicom(path)
        except DicomError as error:
            with pytest.raises(type(error)):
                open_dicom(where)
            continue
        assert open_dicom(where) == expected
        assert read_header(where) == read_header(path)
        try:
            picture = render_frame(expected)
        except DicomError as error:
            with pytest.raises(type(error)):
                render_frame(open_dicom(where))
            continue
        assert np.array_equal(render_frame(open_dicom(where)), picture), path.name
        read += 1
    assert read > 30


def test_a_path_of_the_catalog_is_opened_through_its_source(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.dcm"
    file.parent.mkdir()
    file.write_bytes(b"bytes")
    assert source_at(str(tmp_path)) == Folder(tmp_path)
    assert source_at(str(tmp_path)).stat("a/b.dcm") == FileStat("a/b.dcm", 5, file.stat().st_mtime_ns)
    assert source_at(str(tmp_path)).stat("a/c.dcm") is None
    with opened(locate(str(tmp_path), "a/b.dcm")) as found:
        assert found.read() == b"bytes"
    with pytest.raises(FileUnreadable, match="the path was not stored by medlens"):
        locate(str(tmp_path), "../b.dcm")
    with pytest.raises(FileUnreadable, match="this version of medlens can't read archives at bucket://"):
        locate("bucket://radiology", "a/b.dcm")


def test_files_of_a_source_that_cannot_be_asked_are_counted_as_gone(bucket: Bucket, store: Store) -> None:
    index(bucket, store)
    files = {check.name: check for check in verify_store(store, files=True)}["files"]
    assert (files.looked_at, files.wrong) == (5, 5)


def test_tags_differ_and_remotes_are_named_without_their_folders() -> None:
    stats = {FileStat.tagged("a", 1, tag) for tag in ("", "x", '"x"', "é")}
    assert len(stats) == 4
    assert all(-(2**63) <= stat.stamp < 2**63 for stat in stats)
    assert FileStat.tagged("a", 1, "x").version == (1, 5395104992458594383)
    assert Remote("http://host/a%2Fb.dcm").name == "b.dcm"
