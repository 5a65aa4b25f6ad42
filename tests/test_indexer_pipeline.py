"""From files to rows and vectors: what is indexed, what is skipped, what a second run does."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from pydicom import dcmread
from pydicom.data import get_testdata_file

from indexer.dicom.safe_read import open_dicom
from indexer.reading.frames import parse_policy
from indexer.run.options import IndexOptions, Progress
from indexer.run.pipeline import index_archive
from indexer.store.store import Store
from retrieval.encoders.spec import IndexingEncoder
from retrieval.errors import MedlensError, NonFiniteEmbedding, StoreError, StoreIncompatible

FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in FILES:
        shutil.copy(str(get_testdata_file(name)), folder / "deep" / name)
    (folder / "deep" / "er" / "notes.txt").write_text("no DICOM at all\n" * 50)
    (folder / "broken.dcm").write_bytes((folder / "deep" / "CT_small.dcm").read_bytes()[:3000])
    return folder


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def store(tmp_path: Path, encoder: FakeEncoder) -> Store:
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as opened:
        yield opened


def run(archive: Path, store: Store, encoder: FakeEncoder, **options):
    on_progress = options.pop("on_progress", lambda progress: None)
    return index_archive([archive], store, encoder, IndexOptions(workers=2, **options), on_progress=on_progress)


def test_one_run_takes_images_reports_and_others_each_as_what_they_are(archive, store, encoder):
    assert isinstance(encoder, IndexingEncoder)
    report = run(archive, store, encoder)
    counts = store.catalog.counts()
    assert report.indexed == counts.instances == len(FILES)
    assert report.frames == counts.frames == 1 + 1 + 1 + 10  # the enhanced MR has ten
    assert report.reports == counts.reports == 1
    assert counts.sentences > 0
    assert report.not_embedded == {"RTPLAN": 1}
    reasons = {r.path: r.reason for r in report.rejected}
    assert set(reasons) == {"broken.dcm", "deep/er/notes.txt"}
    assert reasons["deep/er/notes.txt"] == "not-dicom"


def test_what_is_counted_as_not_embedded_is_what_the_store_holds(archive, store, encoder):
    """Copies of a file, and others that have its UID and another content, are in the catalog no second time."""
    plan = dcmread(get_testdata_file("rtplan.dcm"))
    for n in range(5):
        shutil.copy(archive / "deep" / "rtplan.dcm", archive / f"copy{n}.dcm")
        plan.RTPlanLabel = f"mutant {n}"
        plan.save_as(archive / f"mutant{n}.dcm")
    report = run(archive, store, encoder)
    assert report.not_embedded == {"RTPLAN": 1}
    assert store.catalog.counts().modalities["RTPLAN"] == 1
    assert run(archive, store, encoder).not_embedded == {}


def test_the_stored_vector_is_that_of_the_rendered_frame(archive, store, encoder):
    from indexer.render.frame import render_frame

    run(archive, store, encoder)
    uid = str(dcmread(archive / "deep" / "CT_small.dcm", stop_before_pixels=True).SOPInstanceUID)
    ids, vectors = next(store.catalog.vectors.iter_vectors("frame"))
    keys = {i: key for i, (key, _) in store.catalog.frames.get(int(i) for i in ids).items()}
    row = next(n for n, i in enumerate(ids) if keys[int(i)].sop_instance_uid == uid)
    picture = render_frame(open_dicom(archive / "deep" / "CT_small.dcm"))
    expected = encoder.encode_images([picture])[0]
    assert float(vectors[row].astype(np.float32) @ expected) > 0.999


def test_a_second_run_encodes_nothing_and_still_names_what_was_rejected(archive, store, encoder):
    first = run(archive, store, encoder)
    encoder.images_encoded = 0
    second = run(archive, store, encoder)
    assert encoder.images_encoded == 0
    assert (second.indexed, second.unchanged) == (0, len(FILES))
    assert sorted(r.path for r in second.rejected) == sorted(r.path for r in first.rejected)


def test_a_touched_file_is_looked_at_again_but_not_replaced(archive, store, encoder):
    run(archive, store, encoder)
    os.utime(archive / "deep" / "CT_small.dcm", ns=(1, 1))
    report = run(archive, store, encoder)
    assert (report.indexed, report.updated, report.unchanged) == (0, 0, len(FILES))


def test_a_changed_file_replaces_its_row_and_vector(archive, store, encoder):
    run(archive, store, encoder)
    path = archive / "deep" / "CT_small.dcm"
    ds = dcmread(path)
    ds.PixelData = np.ascontiguousarray(ds.pixel_array[::-1] // 2).tobytes()
    ds.save_as(path)
    before = len(store.frames_index())
    report = run(archive, store, encoder)
    assert (report.updated, report.indexed) == (1, 0)
    assert len(store.frames_index()) == before


def test_pruning_drops_what_is_gone_and_nothing_else(archive, store, encoder):
    run(archive, store, encoder)
    (archive / "deep" / "MR_small.dcm").unlink()
    assert run(archive, store, encoder).removed == 0
    report = run(archive, store, encoder, prune=True)
    assert report.removed == 1
    assert store.catalog.counts().instances == len(FILES) - 1
    assert len(store.frames_index()) == store.catalog.counts().frames


def test_the_same_uid_with_other_content_is_a_conflict(archive, store, encoder):
    ds = dcmread(archive / "deep" / "CT_small.dcm")
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(archive / "deep" / "z_other.dcm")
    shutil.copy(archive / "deep" / "CT_small.dcm", archive / "deep" / "z_same.dcm")
    report = run(archive, store, encoder)
    assert {r.path: r.reason for r in report.rejected}["deep/z_other.dcm"] == "conflict"
    assert report.duplicates == 1
    assert store.catalog.counts().instances == len(FILES)


def test_the_frame_policy_decides_which_frames_are_embedded(archive, store, encoder):
    report = run(archive, store, encoder, frames=parse_policy("middle"))
    assert report.frames == 4


def test_progress_counts_every_file_once(archive, store, encoder):
    seen: list[Progress] = []
    run(archive, store, encoder, on_progress=seen.append)
    assert seen[-1].files == len(FILES) + 2
    assert sum(seen[-1].rejected.values()) == 2
    assert seen[-1].rejected["not-dicom"] == 1
    assert seen[-1].frames == store.catalog.counts().frames
    assert set(seen[-1].loads) == {"read", "encode", "commit"}
    assert [p.files for p in seen] == sorted(p.files for p in seen)


def test_another_model_is_refused_before_any_work(archive, store):
    other = FakeEncoder("other", seed=1)
    with pytest.raises(StoreIncompatible, match=r"'fake'.*'other'"):
        run(archive, store, other)
    assert other.images_encoded == 0


def test_a_missing_archive_is_refused_before_any_work(archive, store, encoder):
    with pytest.raises(MedlensError, match="can't be opened"):
        index_archive([archive, archive / "nowhere"], store, encoder)
    assert store.catalog.counts().instances == 0


def many(archive: Path, count: int) -> None:
    """More images, each of its own instance and content."""
    ds = dcmread(archive / "deep" / "CT_small.dcm")
    for i in range(count):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i}"
        ds.save_as(archive / "deep" / f"x{i:03d}.dcm")


def test_interrupted_it_keeps_what_is_being_encoded_and_goes_on(archive, store, encoder):
    many(archive, 60)
    encode, waiting, asked = encoder.encode_images, threading.Event(), threading.Event()

    def second_waits(images):
        if encoder.images_encoded:
            waiting.set()
            assert asked.wait(30)
        return encode(images)

    def stop(progress: Progress) -> None:
        if waiting.is_set() and not asked.is_set():
            asked.set()
            raise KeyboardInterrupt

    encoder.encode_images = second_waits
    with pytest.raises(KeyboardInterrupt):
        run(archive, store, encoder, on_progress=stop)
    kept = store.catalog.counts()
    assert kept.frames == encoder.images_encoded  # all that was encoded is there, and no more was encoded
    assert 8 <= kept.frames < 60
    encoder.encode_images = encode
    report = run(archive, store, encoder)
    assert encoder.images_encoded == store.catalog.counts().frames  # none twice
    assert store.catalog.counts().instances == len(FILES) + 60
    assert report.indexed == len(FILES) + 60 - kept.instances


def test_an_encoder_that_fails_ends_the_run_and_what_was_committed_stays(archive, store, encoder):
    many(archive, 40)
    encode = encoder.encode_images

    def fails_later(images):
        if encoder.images_encoded >= 16:
            raise NonFiniteEmbedding("no usable embedding")
        return encode(images)

    encoder.encode_images = fails_later
    with pytest.raises(NonFiniteEmbedding):
        run(archive, store, encoder)
    assert store.catalog.counts().frames == encoder.images_encoded >= 16


def test_a_commit_that_fails_ends_the_run(archive, store, encoder, monkeypatch):
    many(archive, 40)
    commit, calls = store.catalog.files.commit, []

    def second_fails(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise StoreError("the disk is full")
        return commit(*arguments, **options)

    monkeypatch.setattr(store.catalog.files, "commit", second_fails)
    with pytest.raises(StoreError, match="full"):
        run(archive, store, encoder)
    assert len(calls) == 2


def test_two_archives_in_one_run_are_counted_together(archive, store, encoder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(str(get_testdata_file("SC_rgb.dcm")), other / "a.dcm")
    (other / "b.txt").write_text("no DICOM\n" * 50)
    seen: list[Progress] = []
    report = index_archive([archive, other], store, encoder, IndexOptions(workers=2), on_progress=seen.append)
    assert report.indexed == len(FILES) + 1
    assert seen[-1].files == len(FILES) + 2 + 2
    assert seen[-1].rejected["not-dicom"] == 2
    assert set(report.loads) == {"read", "encode", "commit"}
