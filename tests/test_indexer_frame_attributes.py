"""Functional groups and coded anatomy: in the catalog, by frame where they differ, seen by filters and side rules."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr._snomed_dict import mapping
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

from indexer.dicom.anatomy import _TERM_OF, body_part, side
from indexer.dicom.frame_attributes import with_frames
from indexer.dicom.frame_groups import FrameGroups
from indexer.dicom.header import read_record
from indexer.dicom.safe_read import open_dicom
from indexer.keywords import BY_FRAME
from indexer.records import InstanceRecord
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.store import Store
from retrieval.search.query import Query, Ranker
from retrieval.types import FrameKey, SearchFilter

KEY = bytes(32)
UID = "1.2.826.0.1.3680043.10.999"
CHEST, ABDOMEN, LEFT, RIGHT = ("51185008", "SCT"), ("T-D4000", "SRT"), ("7771000", "SCT"), ("G-A100", "SRT")


def item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, scheme: str = "SCT") -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="Doe^Jane")]


def of_frame(laterality: str | None, region: tuple[str, str], z: float) -> Dataset:
    anatomy = item(AnatomicRegionSequence=code(*region))
    if laterality is not None:
        anatomy.FrameLaterality = laterality
    return item(FrameAnatomySequence=[anatomy], PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])])


def enhanced(path: Path, groups: list[Dataset], uid: str = "1.2.3.4", **shared: Any) -> Path:
    """An enhanced CT of as many frames as there are groups, all with one orientation and thickness."""
    axial = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ds = item(SOPClassUID=EnhancedCTImageStorage, SOPInstanceUID=uid, StudyInstanceUID="1.2.3", Modality="CT")
    ds.SeriesInstanceUID, ds.PatientID, ds.ImageType = "1.2.3.1", "4711", ["ORIGINAL", "PRIMARY"]
    ds.Rows, ds.Columns, ds.NumberOfFrames = 8, 8, len(groups)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = np.random.default_rng(0).integers(0, 4096, (len(groups), 8, 8)).astype(np.uint16).tobytes()
    measures = {"PixelMeasuresSequence": [item(SliceThickness=2.5)], "PlaneOrientationSequence": [axial]}
    ds.SharedFunctionalGroupsSequence = [item(**(measures | shared))]
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return path


def record_of(path: Path, numbers: tuple[int, ...]) -> InstanceRecord:
    ds = open_dicom(path)
    notes: list[str] = []
    record = with_frames(read_record(ds, KEY), ds, numbers, notes.append)
    assert notes == []
    return record


def kept(record: InstanceRecord) -> tuple[Any, ...]:
    """Body part, side, thickness, orientation, position."""
    return tuple(record.attributes[name] for name in BY_FRAME)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("85_tomo_laterality_in_groups.dcm", ("BREAST", "L", 1.0, None, None)),
        ("85c_dx_anatomic_region_only.dcm", ("CHEST", None, None, None, None)),
        ("94_tomo_L.dcm", ("BREAST", "L", None, None, None)),
        ("94_tomo_R.dcm", ("BREAST", "R", None, None, None)),
    ],
)
def test_what_the_groups_and_codes_of_a_case_say(shared_data: Path, case: str, expected: tuple[Any, ...]) -> None:
    record = record_of(shared_data / "cases" / case, (1, 2, 3))
    assert kept(record) == expected
    assert record.frame_attributes == {}, "alike in all frames"


def test_a_mass_in_the_left_breast_leaves_the_right_tomosynthesis_out(shared_data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("94_tomo_L.dcm", "94_tomo_R.dcm", "85c_dx_anatomic_region_only.dcm"):
        shutil.copy(shared_data / "cases" / name, archive)
    encoder = FakeEncoder()
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as store:
        index_archive([archive], store, encoder, IndexOptions(workers=1))
        found = store.search(Query("mass in the left breast", ranker=Ranker.DENSE), encoder=encoder)
        assert {hit.key.sop_instance_uid for hit in found.hits} == {f"{UID}.4001", f"{UID}.2036"}
        right = store.search(
            Query("mass", ranker=Ranker.DENSE, where=SearchFilter(where="ImageLaterality = R")), encoder=encoder
        )
        assert {hit.key.sop_instance_uid for hit in right.hits} == {f"{UID}.4003"}
        chest = list(store.catalog.instances.select(SearchFilter({"body_part_examined": ("CHEST",)}), "instance"))
        assert [row["sop_instance_uid"] for row in chest] == [f"{UID}.2036"]


def test_what_differs_is_kept_by_frame(tmp_path: Path) -> None:
    groups = [of_frame("L", CHEST, 0), of_frame("R", CHEST, 2.5), of_frame(None, ABDOMEN, 5)]
    record = record_of(enhanced(tmp_path / "a.dcm", groups), (1, 2, 3))
    assert kept(record) == (None, None, 2.5, "1.0\\0.0\\0.0\\0.0\\1.0\\0.0", None)
    assert record.frame_attributes == {
        1: {"body_part_examined": "CHEST", "image_laterality": "L", "image_position_patient": "0.0\\0.0\\0.0"},
        2: {"body_part_examined": "CHEST", "image_laterality": "R", "image_position_patient": "0.0\\0.0\\2.5"},
        3: {"body_part_examined": "ABDOMEN", "image_laterality": None, "image_position_patient": "0.0\\0.0\\5.0"},
    }
    one = record_of(tmp_path / "a.dcm", (2,))
    assert kept(one) == ("CHEST", "R", 2.5, "1.0\\0.0\\0.0\\0.0\\1.0\\0.0", "0.0\\0.0\\2.5"), (
        "of the frames that are indexed"
    )
    assert one.frame_attributes == {}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A left chest, a right chest and an abdomen of no side in one object; one of the right abdomen; one of nothing."""
    archive = tmp_path / "archive"
    archive.mkdir()
    enhanced(archive / "a.dcm", [of_frame("L", CHEST, 0), of_frame("R", CHEST, 2.5), of_frame(None, ABDOMEN, 5)])
    enhanced(archive / "b.dcm", [of_frame("R", ABDOMEN, 9)], uid="1.2.3.5")
    enhanced(archive / "c.dcm", [Dataset()], uid="1.2.3.6")
    place = tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    encoder = FakeEncoder()
    with Store.create(place, encoder.spec.to_json(), local_dir=tmp_path / "local") as made:
        index_archive([archive], made, encoder, IndexOptions(workers=1))
        yield made


@pytest.mark.parametrize(
    ("where", "frames", "instances"),
    [
        ("ImageLaterality = L", ["4#1"], "4"),
        ("ImageLaterality = R", ["4#2", "5#1"], "45"),
        ("ImageLaterality != L", ["4#2", "5#1"], "45"),
        ("ImageLaterality is missing", ["4#3", "6#1"], "46"),
        ("BodyPartExamined = chest and ImageLaterality = R", ["4#2"], "4"),
        ("BodyPartExamined = abdomen and ImageLaterality = L", [], ""),
        ("BodyPartExamined contains 'ABD' and SliceThickness < 3", ["4#3", "5#1"], "45"),
        ("ImagePositionPatient is present and Modality = CT", ["4#1", "4#2", "4#3", "5#1"], "45"),
        ("Modality = CT", ["4#1", "4#2", "4#3", "5#1", "6#1"], "456"),
    ],
)
def test_filters_see_each_frame(store: Store, where: str, frames: list[str], instances: str) -> None:
    catalog, chosen = store.catalog, SearchFilter(where=where)
    keys = {key for key, _ in catalog.frames.get(catalog.frames.ids_matching(chosen)).values()}
    assert sorted(f"{key.sop_instance_uid[-1]}#{key.frame_number}" for key in keys) == frames
    batches = [
        f"{uid[-1]}#{number}"
        for batch in catalog.frames.batches(chosen)
        for uid, number in zip(batch.sop_instance_uids, batch.frame_numbers, strict=True)
    ]
    assert sorted(batches) == frames
    assert "".join(sorted(r["sop_instance_uid"][-1] for r in catalog.instances.select(chosen, "instance"))) == instances
    assert catalog.instances.count_matching(chosen)["instances"] == len(instances)


def test_a_frame_is_shown_with_its_own_values(store: Store) -> None:
    frames = store.catalog.frames
    found = dict(frames.get(frames.ids_matching(SearchFilter())).values())
    assert [found[FrameKey("1.2.3.4", n)]["body_part_examined"] for n in (1, 2, 3)] == ["CHEST", "CHEST", "ABDOMEN"]
    assert [found[FrameKey("1.2.3.4", n)]["image_laterality"] for n in (1, 2, 3)] == ["L", "R", None]
    assert found[FrameKey("1.2.3.4", 2)]["image_position_patient"] == "0.0\\0.0\\2.5"
    assert {values["slice_thickness"] for values in found.values()} == {2.5}


def test_other_vectors_and_deletion(store: Store) -> None:
    """A frame with another vector is another row; what is said of it stays. Nothing of a deleted instance stays."""
    frames = store.catalog.frames
    [left] = frames.ids_matching(SearchFilter(where="ImageLaterality = L"))
    _, vectors = frames.vectors_of([left])
    assert frames.replace_vectors(["1.2.3.4"], [1], -vectors) == 1
    [again] = frames.ids_matching(SearchFilter(where="ImageLaterality = L"))
    assert again != left
    assert store.catalog.instances.delete_matching(SearchFilter(where="ImageLaterality = L")) == 1
    assert frames.ids_matching(SearchFilter(where="ImageLaterality is missing")).size == 1
    with store.catalog._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM frame_attributes").scalar_one() == 0


def test_only_the_groups_of_indexed_frames_are_read(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = shared_data / "cases" / "108_philips_enhanced_4000_frames.dcm.gz"
    path = tmp_path / "x.dcm"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    ds = open_dicom(path)
    read: list[int] = []
    real = FrameGroups._item
    monkeypatch.setattr(FrameGroups, "_item", lambda self, place: read.append(place) or real(self, place))
    record = with_frames(read_record(ds, KEY), ds, (1, 2000, 4000), print)
    assert read == [0, 1999, 3999]
    positions = [record.frame_attributes[n]["image_position_patient"] for n in (1, 2000, 4000)]
    assert positions == ["0.0\\0.0\\0.0", "0.0\\0.0\\1999.0", "0.0\\0.0\\3999.0"]


# -- codes


@pytest.mark.parametrize(
    ("value", "scheme", "term"),
    [
        ("76752008", "SCT", "BREAST"),
        ("T-04000", "SRT", "BREAST"),
        ("T-04000", "SNM3", "BREAST"),
        ("51185008", "SCT", "CHEST"),
        ("816094009", "SCT", "CHEST"),
        ("T-D3000", "99SDM", "CHEST"),
        ("R-FAB56", "SRT", "CHESTABDPELVIS"),
        ("T-11501", "SRT", "CSPINE"),
        ("12921003", "SCT", "PELVIS"),
        ("76752008", "99LOCAL", None),
        ("404684003", "SCT", None),  # a clinical finding
    ],
)
def test_a_region_by_its_code(value: str, scheme: str, term: str | None) -> None:
    assert body_part(item(AnatomicRegionSequence=code(value, scheme))) == term


def test_old_codes_mean_what_the_new_ones_do() -> None:
    """Every SNOMED-RT code of the table against the code of SNOMED CT that pydicom pairs with it."""
    old = {c: term for c, term in _TERM_OF.items() if not c.isdecimal()}
    assert len(old) > 100
    assert {c: _TERM_OF.get(mapping["SRT"][c]) for c in old} == old
    for c, term in _TERM_OF.items():
        if c.isdecimal() and c in mapping["SCT"]:
            assert _TERM_OF[mapping["SCT"][c]] == term, c


def test_a_side_by_the_modifier_of_a_region() -> None:
    knee = item(AnatomicRegionSequence=code("72696002"))
    assert side(knee) is None
    knee.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = code(*RIGHT)
    assert (body_part(knee), side(knee)) == ("KNEE", "R")
    beside = item(AnatomicRegionSequence=code("72696002"), AnatomicRegionModifierSequence=code(*LEFT))
    assert side(beside) == "L"


def test_what_the_header_says_itself_stays_and_text_is_no_side() -> None:
    ds = item(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID="1.2.3.4", BodyPartExamined="KNEE")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.ImageLaterality = "1.2.3", "1.2.3.1", "L"
    ds.AnatomicRegionSequence = code(*CHEST)
    ds.AnatomicRegionModifierSequence = code(*RIGHT)
    record = read_record(ds, KEY)
    assert (record.attributes["body_part_examined"], record.attributes["image_laterality"]) == ("KNEE", "L")
    anatomy = item(AnatomicRegionSequence=code("404684003"), FrameLaterality="DOE JANE")
    ds.SharedFunctionalGroupsSequence = [item(FrameAnatomySequence=[anatomy])]
    record = read_record(ds, KEY)
    assert (record.attributes["body_part_examined"], record.attributes["image_laterality"]) == ("KNEE", "L")
    [note] = [note for note in record.warnings if "FrameLaterality" in note]
    assert "DOE" not in note and "that part was removed" in note
    assert "Doe" not in repr(record) and "DOE" not in repr(record)
