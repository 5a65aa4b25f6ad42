"""A store answers queries: whose pictures are asked with, reports that come and go, sentences and whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.own_model import StoreEncoder
from indexer.store.place import KEY_FILE, VECTORS_FOLDER
from indexer.store.report_index import FOLDER
from indexer.store.store import Store
from indexer.tasks.verifying import verify_store
from retrieval.errors import InvalidImage, MedlensError, QueryError
from retrieval.search.query import ImagePart, Level, OnePer, Query, Ranker
from retrieval.search.ranking import Ranked, Ranking, best_first
from retrieval.types import SearchFilter

REPORTS = {"A": "Large left pleural effusion.", "B": "Small glioma of the left frontal lobe."}


def write_image(folder: Path, patient: str, number: int) -> Path:
    ds = dcmread(str(get_testdata_file("MR_small.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{ord(patient)}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.{ord(patient)}", f"1.2.{ord(patient)}.9"
    ds.PatientID = f"CANARY-{patient}"
    rng = np.random.default_rng(ord(patient) * 100 + number)
    ds.PixelData = rng.integers(0, 3000, (ds.Rows, ds.Columns)).astype(np.int16).tobytes()
    path = folder / f"{patient}{number}.dcm"
    ds.save_as(path)
    return path


def write_report(folder: Path, patient: str, text: str) -> None:
    ds = dcmread(str(get_testdata_file("reportsi.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{ord(patient)}.77"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.{ord(patient)}", f"1.2.{ord(patient)}.78"
    ds.PatientID = f"CANARY-{patient}"
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", text
    ds.ContentSequence = [item]
    ds.save_as(folder / f"{patient}.sr.dcm")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for patient in "ABC":
        for number in range(3):
            write_image(folder, patient, number)
    for patient, text in REPORTS.items():
        write_report(folder, patient, text)
    return folder


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Iterator[Store]:
    encoder = FakeEncoder()
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as made:
        index_archive([archive], made, encoder, IndexOptions(workers=1))
        yield made


def test_a_text_alone_is_a_query_and_asks_the_reports_too(store: Store) -> None:
    results = store.search("glioma", encoder=FakeEncoder())
    assert results.ranker == "hybrid"
    reports = {hit.attributes["study_instance_uid"]: hit.breakdown.get("report", 0) for hit in results.hits}
    # of two reports one matches: one standard deviation above and below the mean; BM25 gives 0.378 of the one word
    assert reports == pytest.approx(
        {f"1.2.{ord('A')}": -0.3, f"1.2.{ord('B')}": 0.3 + 8 * 0.37782, f"1.2.{ord('C')}": 0}, abs=1e-3
    )


def test_a_side_that_is_asked_for_is_looked_up_in_the_headers(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    archive = tmp_path / "sides"
    archive.mkdir()
    for number, (image, series) in enumerate((("L", ""), ("R", ""), ("", "R"), ("", ""), ("L", "R"))):
        path = write_image(archive, "A", number)
        header = dcmread(path)
        header.ImageLaterality, header.Laterality = image, series
        header.save_as(path)
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as made:
        index_archive([archive], made, encoder, IndexOptions(workers=1))
        found = made.search(Query("left breast", ranker=Ranker.DENSE), encoder=encoder)
        assert {hit.key.sop_instance_uid[-1] for hit in found.hits} == {"0", "3", "4"}
        assert found.searched == 3 and "2 frames" in found.notes[0]
        assert len(made.search(Query("left breast", literal=True), encoder=encoder).hits) == 5


@pytest.mark.parametrize("word", ["no ", "no, ", ".", "left and "])
def test_a_report_of_one_word_over_and_over_is_indexed_searched_verified_and_deleted(word: str, tmp_path: Path) -> None:
    """Any of these took minutes to hours where work on a text grew with its square, in this and each later command."""
    encoder = FakeEncoder()
    archive = tmp_path / "archive"
    archive.mkdir()
    write_image(archive, "A", 1)
    write_image(archive, "B", 1)
    write_report(archive, "A", "Glioma. " + word * (200_000 // len(word)))
    write_report(archive, "B", "Large pleural effusion.")
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as store:
        report = index_archive([archive], store, encoder, IndexOptions(workers=1))
        assert (report.indexed, report.rejected) == (4, ())
        found = store.search(Query("glioma, no effusion", ranker=Ranker.TEXT, level=Level.STUDY), encoder=encoder)
        assert [hit.attributes["study_instance_uid"] for hit in found.hits] == [f"1.2.{ord('A')}"]
        assert all(check.sound for check in verify_store(store))
        assert store.erase(SearchFilter({"study_instance_uid": (f"1.2.{ord('A')}",)})) == 2
        found = store.search(Query("effusion", ranker=Ranker.TEXT), encoder=encoder)
        assert [hit.attributes["study_instance_uid"] for hit in found.hits] == [f"1.2.{ord('B')}"]
        assert not store.search(Query("glioma", ranker=Ranker.TEXT), encoder=encoder).hits


def test_the_text_ranker_loads_no_model(store: Store) -> None:
    class NoModel(FakeEncoder):
        def encode_text(self, texts):  # type: ignore[no-untyped-def]
            raise AssertionError("encoded")

    results = store.search(Query("effusion", ranker=Ranker.TEXT, level=Level.STUDY), encoder=NoModel())
    assert [hit.attributes["study_instance_uid"] for hit in results.hits] == [f"1.2.{ord('A')}"]
    # ... and the store's own is not even looked for: there is no such model.
    assert store.search(Query("effusion", ranker=Ranker.TEXT)).model == "fake"
    with pytest.raises(MedlensError):
        StoreEncoder(store).load()


def test_a_ranking_can_be_put_around_the_stores_own(store: Store) -> None:
    class UpsideDown:
        """The same frames, the worst first."""

        additive, depth, scale = False, None, "how little it fits"

        def __init__(self, first: Ranking) -> None:
            self.first = first

        def top(self, n: int) -> Ranked:
            return best_first(self.scores([i for i, _ in self.first.top(1000)]))[:n]

        def scores(self, ids: Sequence[int]) -> dict[int, float]:
            return {i: -score for i, score in self.first.scores(ids).items()}

        def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
            return {i: {"unfit": score} for i, score in self.scores(ids).items()}

    query = Query("glioma", ranker=Ranker.DENSE, k=50)
    plain = store.search(query, encoder=FakeEncoder())
    turned = store.search(query, encoder=FakeEncoder(), steps=[lambda ranking, asked: UpsideDown(ranking)])
    assert [hit.key for hit in turned.hits] == [hit.key for hit in plain.hits][::-1]
    assert turned.score == "how little it fits"
    assert [hit.breakdown["unfit"] for hit in turned.hits] == [-hit.score for hit in plain.hits][::-1]


def test_an_image_finds_itself_and_its_patient_can_be_excluded(store: Store, archive: Path) -> None:
    found = store.search(archive / "B1.dcm", encoder=FakeEncoder())
    assert found.hits[0].key.sop_instance_uid == f"1.2.{ord('B')}.1"
    query = Query(archive / "B1.dcm", exclude_same_patient=True, k=50)
    others = store.search(query, encoder=FakeEncoder())
    assert {hit.attributes["study_instance_uid"] for hit in others.hits} == {f"1.2.{ord(p)}" for p in "AC"}
    assert others.searched == 6


def test_a_patient_is_told_by_a_file_that_is_not_in_the_store(store: Store, tmp_path: Path) -> None:
    query = Query(write_image(tmp_path, "C", 8), exclude_same_patient=True, one_per=OnePer.PATIENT)
    hits = store.search(query, encoder=FakeEncoder()).hits
    assert sorted(hit.attributes["study_instance_uid"] for hit in hits) == [f"1.2.{ord(p)}" for p in "AB"]


def test_without_the_key_the_patient_is_told_by_the_stores_own_row(store: Store, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / KEY_FILE).unlink()
    query = Query(archive / "B1.dcm", exclude_same_patient=True, k=50)
    assert store.search(query, encoder=FakeEncoder()).searched == 6
    with pytest.raises(QueryError, match=r"the patient of .* is unknown"):
        unknown = write_image(tmp_path, "C", 8)
        store.search(Query(unknown, exclude_same_patient=True), encoder=FakeEncoder())


def test_a_patient_that_can_not_be_told_is_an_error_and_not_a_silent_answer(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "prior.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(picture)
    assert store.search(picture, encoder=FakeEncoder()).hits
    pixels = ImagePart(np.zeros((8, 8), np.uint8))
    for part, said in ((picture, "prior.png"), (pixels, "as pixels"), ("words", "no image")):
        with pytest.raises(QueryError, match=said):
            store.search(Query(part, exclude_same_patient=True), encoder=FakeEncoder())


def test_a_query_image_that_does_not_decode_names_the_file_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InvalidImage, match=r"'notes\.txt'") as caught:
        store.search(tmp_path / "notes.txt", encoder=FakeEncoder())
    assert str(tmp_path) not in str(caught.value)


def test_deleted_reports_leave_the_ranking_and_its_files(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store" / VECTORS_FOLDER / FOLDER
    assert "glioma" in json.loads((folder / "words.json").read_text())
    assert len(store.reports_index()) == 2
    store.catalog.instances.delete_matching(SearchFilter({"study_instance_uid": (f"1.2.{ord('B')}",)}))
    store.refresh()
    assert "glioma" not in json.loads((folder / "words.json").read_text())
    assert len(store.reports_index()) == 1
    assert store.search(Query("glioma", ranker=Ranker.TEXT)).hits == ()


def test_a_damaged_report_index_is_built_anew(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store" / VECTORS_FOLDER / FOLDER
    (folder / "weights.npy").write_bytes(b"junk")
    with Store.open(tmp_path / "store") as opened:
        assert opened.reports_index().scores("glioma").max() > 0
    with Store.open(tmp_path / "store") as opened:
        assert isinstance(opened.reports_index().weights, np.memmap)


def test_sentences_say_whose_they_are(store: Store, archive: Path) -> None:
    hits = store.describe(archive / "A0.dcm", k=10, encoder=FakeEncoder())
    assert {hit.text: (hit.same_study, hit.same_patient) for hit in hits} == {
        REPORTS["A"]: (True, True),
        REPORTS["B"]: (False, False),
    }
    assert all(hit.borrowed is None for hit in hits)


def test_an_image_without_a_report_borrows_its_neighbours_sentences(store: Store, archive: Path) -> None:
    encoder = FakeEncoder()
    hits = store.describe(archive / "C0.dcm", k=1, borrow=5, encoder=encoder)
    borrowed = [hit for hit in hits if hit.borrowed is not None]
    assert {hit.text for hit in borrowed} == set(REPORTS.values())
    assert [hit.same_study for hit in borrowed] == [False, False]
    scores = [hit.borrowed for hit in borrowed]
    assert scores == sorted(scores, reverse=True)
    studies = store.search(Query(archive / "C0.dcm", level=Level.STUDY, k=3), encoder=encoder)
    similarity = {hit.attributes["study_instance_uid"]: hit.score for hit in studies.hits}
    assert {hit.studies[0]: hit.borrowed for hit in borrowed} == pytest.approx(
        {study: score for study, score in similarity.items() if study != f"1.2.{ord('C')}"}, abs=1e-5
    )


def test_phrases_are_ranked_by_the_image(store: Store, archive: Path) -> None:
    encoder = FakeEncoder()
    phrases = ["MR of the brain", "chest radiograph", "CT"]
    hits = store.describe(archive / "A0.dcm", k=2, phrases=phrases, encoder=encoder)
    assert len(hits) == 2 and hits[0].score >= hits[1].score
    assert {hit.text for hit in hits} < set(phrases)


def test_results_become_a_data_frame(store: Store) -> None:
    pytest.importorskip("pandas")
    results = store.search("glioma", encoder=FakeEncoder())
    frame = results.to_pandas()
    assert list(frame["rank"]) == [hit.rank for hit in results.hits]
    assert {"score", "sop_instance_uid", "frame_number", "folded", "part.text", "part.report", "modality"} <= {*frame}
    assert store.search(Query("glioma", offset=99), encoder=FakeEncoder()).to_pandas().empty


def test_without_pandas_the_error_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MedlensError, match="pandas") as caught:
        store.search("glioma", encoder=FakeEncoder()).to_pandas()
    assert "medlens[pandas]" in caught.value.hint
