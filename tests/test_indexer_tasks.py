"""What the commands do, from Python: one function a job, values out, progress by callbacks, nothing printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import copied
from fake_encoder import FakeEncoder
from PIL import Image

from indexer.reading.files import PictureRequest
from indexer.run.options import Progress
from indexer.store.store import Store
from indexer.tasks import encoding
from indexer.tasks.classifying import FileLabeller, classify_files, classify_frames, classify_studies
from indexer.tasks.copying import CohortMember, cohort
from indexer.tasks.encoding import encode_all_pictures, encode_pictures
from indexer.tasks.erasing import erase, plan_erasure
from indexer.tasks.facts import store_facts
from indexer.tasks.indexing import index
from indexer.tasks.rendering import render_file
from indexer.tasks.selecting import select
from retrieval.encoders.model_list import ListedModel, list_models
from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models
from retrieval.errors import DicomError, EvaluationError, MedlensError, QueryError, StoreIncompatible
from retrieval.search.parts import query_parts
from retrieval.search.query import ImagePart, TextPart
from retrieval.types import FrameKey, SearchFilter
from retrieval.zeroshot.checking import check_labels
from retrieval.zeroshot.labels import load_labels

FILES = ("CT_small.dcm", "MR_small.dcm")
CT, MR = (
    "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
    "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457",
)
needs_model = pytest.mark.skipif(
    DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(FILES, tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def place(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stores") / "store"
    index([archive], place, workers=1)
    return place


@needs_model
def test_index_makes_a_store_and_keeps_its_model(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: list[str] = []
    seen: list[Progress] = []
    place = tmp_path / "store"
    report = index(
        [archive], place, workers=1, on_model=lambda encoder: models.append(encoder.name), on_progress=seen.append
    )
    assert (report.indexed, report.frames, [r.reason for r in report.rejected]) == (2, 2, ["not-dicom"])
    assert models == [DEFAULT_MODEL] and seen[-1].files == 3
    assert index([archive], str(place), workers=1).unchanged == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedlensError, match="no files in 'empty'"):
        index([tmp_path / "empty"], tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert capsys.readouterr().out == ""


@needs_model
def test_a_store_is_described_listed_and_erased(place: Path, archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    index([archive], copy, workers=1)
    with Store.open(copy) as store:
        facts = store_facts(store)
        assert facts.model["name"] == DEFAULT_MODEL and facts.counts.modalities == {"CT": 1, "MR": 1}
        assert facts.labelled_frames == {} and facts.indexes["frame"]["rows"] == 2
        only_ct = SearchFilter(where="Modality = CT")
        (row,) = select(store, only_ct, level="instance")
        assert row["sop_instance_uid"] == CT and row["file_path"] == "CT_small.dcm"
        assert [study["modalities"] for study in select(store)] == [["CT"], ["MR"]]
        with pytest.raises(QueryError):
            select(store, SearchFilter(where="Modality ="))
        with pytest.raises(QueryError, match="nothing was named to erase"):
            plan_erasure(store)
        assert not plan_erasure(store, studies=["1.2.3"])
        plan = plan_erasure(store, where="Modality = CT")
        assert plan and plan.matching["instances"] == 1
        assert store.catalog.counts().instances == 2
        assert erase(store, plan) == 1
        assert store.catalog.counts().modalities == {"MR": 1}


@needs_model
def test_files_and_the_frames_of_a_store_get_the_same_labels(place: Path, archive: Path) -> None:
    labels = load_labels("modality")
    unreadable: list[str] = []
    files = list(classify_files([archive], labels, on_unreadable=lambda name, error: unreadable.append(name)))
    assert [found.file for found in files] == list(FILES) and unreadable == ["notes.txt"]
    with Store.open(place) as store:
        frames = {found.key: found.labels for found in classify_frames(store, labels, save=True)}
        assert frames.keys() == {FrameKey(CT), FrameKey(MR)}
        assert store_facts(store).labelled_frames == {"modality": 2}
        studies = list(classify_studies(store, labels, where=SearchFilter(where="Modality = MR")))
    for found, uid in zip(files, (CT, MR), strict=True):
        of_frame = frames[FrameKey(uid)]
        assert found.labels.label == of_frame.label
        assert found.labels.values == pytest.approx(of_frame.values, abs=0.02)  # vectors of a store are float16
        assert not found.labels.calibrated and found.labels.found is None
    assert [(s.frames, s.labels.values) for s in studies] == [(1, pytest.approx(frames[FrameKey(MR)].values))]


@needs_model
def test_files_that_are_done_are_passed_over(archive: Path) -> None:
    labeller = FileLabeller.open(load_labels("CT, MR"))
    assert [found.file for found in labeller.label([archive], skip={"CT_small.dcm"})] == ["MR_small.dcm"]


@needs_model
def test_the_models_and_how_they_tell_labels_apart() -> None:
    terms = "Apache-2.0 as far as medlens has rights; learned partly from non-commercial and unlicensed images"
    (default,) = (model for model in list_models() if model.default)
    assert replace(default, megabytes=None, figures=None) == ListedModel(
        DEFAULT_MODEL, 256, True, terms=terms, at_hand="shipped"
    )
    found = check_labels(load_labels("plane"))
    assert [wording.label for wording in found.wordings] == ["axial", "coronal", "sagittal"]
    assert all(w.nearest_label in {"axial", "coronal", "sagittal"} - {w.label} for w in found.wordings)
    (alone,) = check_labels(load_labels("edema,", independent=True)).wordings
    assert alone.nearest_label is None and alone.odd_one == "edema" and alone.odd_one_similarity == pytest.approx(1)


@needs_model
def test_a_file_is_rendered_as_the_model_sees_it(archive: Path) -> None:
    picture = render_file(archive / "CT_small.dcm", window="lung")
    assert picture.shape[:2] == (128, 128) and picture.dtype == np.uint8


@needs_model
def test_another_model_is_refused_before_anything_is_read(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.create(tmp_path / "store", FakeEncoder().spec.to_json()):
        pass
    monkeypatch.setattr("indexer.tasks.indexing.index_archive", lambda *_, **__: pytest.fail("files were read"))
    with pytest.raises(StoreIncompatible):
        index([archive], tmp_path / "store", model=DEFAULT_MODEL)


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)).save(path)
    return paths


def test_pictures_are_encoded_in_order_and_broken_ones_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BATCH", 4)
    encoder, paths = FakeEncoder(), pictures(tmp_path, 7)
    paths[2].write_bytes(b"no picture")
    order = [0, 1, 2, 3, 3, 4, 5, 6]  # one of them twice
    broken: list[int] = []

    def unreadable(key: int, error: DicomError) -> None:
        broken.append(key)

    requests = ((i, PictureRequest(paths[i])) for i in order)
    batches = list(encode_pictures(encoder, requests, unreadable))  # type: ignore[arg-type]
    assert [keys for keys, _ in batches] == [[0, 1, 3, 3], [4, 5, 6]] and broken == [2]
    for keys, vectors in batches:
        fitted = [encoder.spec.preprocess.fit(np.asarray(Image.open(paths[i]))) for i in keys]
        np.testing.assert_allclose(vectors, encoder.encode_images(fitted), atol=1e-6)


def test_all_pictures_or_the_error_of_the_first_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 4)
    encoder, paths = FakeEncoder(), pictures(tmp_path, 6)
    told: list[tuple[int, int]] = []

    def refusal(at: int, error: DicomError) -> MedlensError:
        return EvaluationError(f"row {at}")

    def encoded() -> np.ndarray:
        requests = [PictureRequest(path) for path in paths]
        return encode_all_pictures(encoder, requests, refusal, lambda done, total: told.append((done, total)))  # type: ignore[arg-type]

    assert encoded().shape == (6, 16) and told == [(4, 6), (6, 6)]
    paths[5].write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match="row 5") as caught:
        encoded()
    assert isinstance(caught.value.__cause__, DicomError)


def test_parts_of_a_query_as_people_write_them() -> None:
    found = query_parts(
        ["effusion"], [Path("a.dcm"), Path("b.dcm")], not_like=["device"], weights=["image2=0.5", "not=2"]
    )
    assert [(type(p), p.weight) for p in found] == [(TextPart, 1), (ImagePart, 1), (ImagePart, 0.5), (TextPart, -2)]
    frames = query_parts(images=[Path("a"), Path("b")], frame_numbers=[7])
    assert [p.frame_number for p in frames if isinstance(p, ImagePart)] == [7, 1]
    for weights, message in (
        (["text"], "NAME=NUMBER"),
        (["text=x"], "NAME=NUMBER"),
        (["image=2"], "the weight 'image=2' names no part of the query"),
        (["text=0"], "above 0"),
        (["text=1", "text=2"], "twice"),
    ):
        with pytest.raises(QueryError, match=message):
            query_parts(["x"], weights=weights)
    with pytest.raises(QueryError, match="2 frame numbers were given for 1 images"):
        query_parts(images=[Path("a")], frame_numbers=[1, 2])


def test_a_cohort_is_uids_alone() -> None:
    values = {
        "patient_pseudonym": "p",
        "study_instance_uid": "1",
        "series_instance_uid": "1.1",
        "sop_instance_uid": "1.1.1",
        "file_path": "name.dcm",
    }
    assert cohort([values, values]) == (CohortMember("p", "1", "1.1", "1.1.1"),)
