"""Header to record, over real files and over broken ones."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from indexer.dicom.header import pseudonym, read_record
from indexer.keywords import COLUMNS, KEYWORDS, ValueKind
from indexer.privacy.scrub import MARK
from indexer.records import InstanceRecord
from indexer.sources.folders import iter_files
from retrieval.errors import DicomError, UnsupportedImageError

KEY = b"0123456789abcdef"
CT = "1.2.840.10008.5.1.4.1.1.2"
STORAGE = "1.2.840.10008.5.1.4.1.1."
TYPES = {
    ValueKind.TEXT: str,
    ValueKind.INTEGER: int,
    ValueKind.NUMBER: float,
    ValueKind.DATE: date,
    ValueKind.AGE: float,
    ValueKind.FLAG: bool,
}


def read(path: Path | str) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path, stop_before_pixels=True)


def header(**attributes: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    ds.Rows, ds.Columns, ds.BitsAllocated = 4, 5, 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return ds


def raw(ds: Dataset, **attributes: bytes | None) -> Dataset:
    """`ds` with values as a broken writer leaves them, read back from a file."""
    for keyword, value in attributes.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        ds[tag] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), dictionary_VR(tag), len(value or b""), value, 0, False, True
        )
    return ds


def everything(record: InstanceRecord) -> str:
    return repr(record) + "\n".join(map(str, record.attributes.values())) + record.report_text


def check(record: InstanceRecord) -> None:
    """What holds of every record: every column, of its type, fit for any database."""
    assert list(record.attributes) == list(COLUMNS)
    for column, value in record.attributes.items():
        assert value is None or type(value) is TYPES[COLUMNS[column].kind], column
        assert value != ""
    assert record.sop_instance_uid and record.study_instance_uid != "None"
    assert record.attributes["sop_class_uid"] and record.attributes["series_instance_uid"]
    assert (record.number_of_frames >= 1) == (record.kind == "image")
    repr(record).encode("utf-8")
    assert "\0" not in everything(record)
    assert record.kind == "report" or not record.report_text


def dicom_files(*roots: Path) -> Iterator[tuple[Path, Dataset]]:
    for root in roots:
        for _, path in iter_files(root):
            try:
                yield path, read(path)
            except (InvalidDicomError, OSError, ValueError, NotImplementedError):
                continue  # no DICOM: the reader of files reports it


def test_a_ct_literally() -> None:
    record = read_record(read(str(get_testdata_file("CT_small.dcm"))), KEY)
    check(record)
    assert record.kind == "image" and record.number_of_frames == 1 and record.warnings == ()
    known = {k: v for k, v in record.attributes.items() if v is not None}
    assert known == {
        "study_instance_uid": "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322",
        "study_date": date(2004, 1, 19),
        "study_description": "e+1",
        "patient_age": 0.0,
        "patient_sex": "O",
        "series_instance_uid": "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322",
        "modality": "CT",
        "series_number": 1,
        "manufacturer": "GE MEDICAL SYSTEMS",
        "manufacturer_model_name": "RHAPSODE",
        "sop_instance_uid": "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
        "sop_class_uid": CT,
        "instance_number": 1,
        "image_type": "ORIGINAL\\PRIMARY\\AXIAL",
        "content_date": date(1997, 4, 30),
        "slice_thickness": 5.0,
        "image_orientation_patient": "1.000000\\0.000000\\0.000000\\0.000000\\1.000000\\0.000000",
        "image_position_patient": "-158.135803\\-179.035797\\-75.699997",
        "rows": 128,
        "columns": 128,
        "photometric_interpretation": "MONOCHROME2",
    }


def test_every_file_of_pydicom_gives_a_record_or_a_reason() -> None:
    root = Path(pydicom.__file__).parent / "data"
    counts = {"image": 0, "report": 0, "other": 0}
    refused = []
    for path, ds in dicom_files(root):
        identity = [str(ds.get(k) or "") for k in ("PatientName", "PatientID", "AccessionNumber")]
        try:
            record = read_record(ds, KEY)
        except UnsupportedImageError as exc:
            refused.append(path.name)
            assert exc.hint and not any(len(value) > 3 and value in str(exc) for value in identity)
            continue
        check(record)
        counts[record.kind] += 1
    assert counts == {"image": 154, "report": 3, "other": 20}
    assert set(refused) == {
        *("DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit", "DICOMDIR-nooffset", "DICOMDIR-nopatient"),
        *("DICOMDIR-reordered", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"),
    }


@pytest.mark.slow
def test_every_file_of_the_shared_data(shared_data: Path) -> None:
    kinds: dict[str, set[str]] = {"image": set(), "report": set(), "other": set()}
    for _, ds in dicom_files(shared_data / "dicom"):
        try:
            record = read_record(ds, KEY)
        except UnsupportedImageError as exc:
            assert "SOPInstanceUID is missing" in str(exc)
            continue
        check(record)
        kinds[record.kind].add(str(record.attributes["modality"]))
    assert kinds["report"] == {"SR"}
    assert {"SEG", "ANN", "RTDOSE"} <= kinds["other"]
    assert kinds["image"].isdisjoint({"SEG", "ANN", "RTDOSE", "SR"}) and {"SM", "MR", "DX"} <= kinds["image"]


@pytest.mark.parametrize("path", sorted(map(str, get_charset_files("*.dcm"))), ids=lambda p: Path(p).name)
def test_every_character_set(path: str) -> None:
    """The name in the description is found and cut, whatever the character set."""
    ds = read(path)
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3"
    name = str(ds.PatientName) if "PatientName" in ds else ""
    ds.StudyDescription = f"CT CHEST for {name}"
    record = read_record(ds, KEY)
    check(record)
    assert not [w for w in record.warnings if "SpecificCharacterSet" in w]
    text = str(record.attributes["study_description"])
    assert text.startswith("CT CHEST for")
    for part in name.replace("=", "^").replace("*", "^").split("^"):
        assert len(part) < 3 or part not in text


def test_an_unknown_character_set_is_a_warning() -> None:
    ds = raw(header(SpecificCharacterSet="KLINGON"), Manufacturer="Müller".encode("latin-1"))
    record = read_record(ds, KEY)
    check(record)
    assert any("SpecificCharacterSet" in w for w in record.warnings)
    assert str(record.attributes["manufacturer"]).startswith("M")


@pytest.mark.parametrize(
    ("age", "years"),
    [("065Y", 65.0), ("018M", 1.5), ("026W", 26 * 7 / 365.25), ("010D", 10 / 365.25), ("65y", 65.0), ("000Y", 0.0)],
)
def test_age_is_in_years(age: str, years: float) -> None:
    assert read_record(raw(header(), PatientAge=age.encode()), KEY).attributes["patient_age"] == pytest.approx(years)


def test_age_is_computed_from_nothing_else() -> None:
    record = read_record(header(PatientBirthDate="19500101", StudyDate="20200101"), KEY)
    assert record.attributes["patient_age"] is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *[("PatientAge", v) for v in (b"65", b"Y065", b"-05Y", b"6.5Y", b"CANARY")],
        *[("StudyDate", v) for v in (b"20201301", b"2020-1-1", b"CANARY", b"202001", b"20200101-20200202")],
        *[("SeriesNumber", v) for v in (b"CANARY", b"1.5", b"99999999999999", b"1e400")],
        *[("SliceThickness", v) for v in (b"nan", b"inf", b"1,5", b"CANARY", b"1e999")],
        ("NumberOfFrames", b"CANARY"),
        ("BurnedInAnnotation", b"CANARY"),
        ("Rows", b"\x01"),
    ],
)
def test_a_malformed_value_is_none_and_a_warning_without_the_value(
    keyword: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = read_record(raw(header(), **{keyword: value}), KEY)
    check(record)
    column = next(k.column for k in KEYWORDS if k.name == keyword)
    assert record.attributes[column] is None
    [warning] = record.warnings
    assert caplog.text == ""  # pydicom logs the values it warns of
    assert keyword in warning and "expected" in warning and "CANARY" not in warning


def test_odd_but_readable_values() -> None:
    ds = raw(
        header(),
        StudyDate=b"2020.01.31",
        SliceThickness=b"1.5\\2.5",
        SeriesNumber=b" 7 ",
        Modality=b"CT\0\0",
        Manufacturer=b"two\nlines\x1b[31m",
        ViewPosition=b"",
    )
    record = read_record(ds, KEY)
    check(record)
    a = record.attributes
    assert (a["study_date"], a["slice_thickness"], a["series_number"]) == (date(2020, 1, 31), 1.5, 7)
    assert (a["modality"], a["manufacturer"], a["view_position"]) == ("CT", "two lines [31m", None)
    assert record.warnings == ("(0018,0050) SliceThickness has 2 values, expected one; the first one is kept",)


def test_long_text_is_cut() -> None:
    record = read_record(raw(header(), Manufacturer=b"x" * 100_000), KEY)
    assert record.attributes["manufacturer"] == "x" * 1024
    assert "100000 characters" in record.warnings[0]


def test_the_callers_dataset_is_not_changed() -> None:
    ds = read(str(get_testdata_file("reportsi.dcm")))
    before = ds.to_json()
    read_record(ds, KEY)
    assert ds.to_json() == before


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_without_identity_the_file_is_refused_with_the_tag(keyword: str) -> None:
    ds = header()
    delattr(ds, keyword)
    with pytest.raises(UnsupportedImageError, match=rf"\(0008,001[68]\) {keyword} is missing") as caught:
        read_record(ds, KEY)
    assert caught.value.hint
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    setattr(ds.file_meta, f"MediaStorage{keyword}", CT)
    record = read_record(ds, KEY)
    assert any(f"MediaStorage{keyword} is used instead" in w for w in record.warnings)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "CANARY^JOHN", "1.2.3/4", "1" * 65])
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID"])
def test_what_is_no_uid_is_refused_without_quoting_it(keyword: str, uid: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"{keyword} is not a UID") as caught:
        read_record(raw(header(), **{keyword: uid.encode()}), KEY)
    assert uid not in str(caught.value)


def test_a_stray_image_is_a_study_of_its_own() -> None:
    ds = header()
    del ds.StudyInstanceUID
    assert read_record(ds, KEY).study_instance_uid == "1.2.3.5"
    del ds.SeriesInstanceUID
    record = read_record(ds, KEY)
    assert record.study_instance_uid == record.attributes["series_instance_uid"] == "1.2.3.4"
    assert len(record.warnings) == 2


def test_a_dicomdir_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="table of contents"):
        read_record(read(str(get_testdata_file("DICOMDIR"))), KEY)


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (CT, "image"),
        (f"{STORAGE}481.1", "image"),  # RT Image
        (f"{STORAGE}77.1.6", "image"),  # whole slide
        ("1.2.999.1", "image"),  # private
        *[(f"{STORAGE}{s}", "other") for s in ("66", "66.4", "66.7", "30", "481.2", "4.2", "11.1", "88.59", "88.67")],
        *[(f"{STORAGE}{s}", "other") for s in ("9.1.1", "104.2", "104.3")],
        *[(f"{STORAGE}{s}", "report") for s in ("88.11", "88.22", "88.33", "88.34", "88.50", "104.1")],
    ],
)
def test_kind_by_sop_class(sop_class: str, kind: str) -> None:
    assert read_record(header(SOPClassUID=sop_class), KEY).kind == kind


def test_kind_by_pixels() -> None:
    ds = header()
    del ds.Columns
    record = read_record(ds, KEY)
    assert record.kind == "image"  # one that rendering refuses
    assert record.warnings == ("Columns missing; an image needs them",)
    plan = header(SOPClassUID=f"{STORAGE}481.5")
    del plan.Rows, plan.Columns, plan.BitsAllocated
    assert read_record(plan, KEY).warnings == ()


@pytest.mark.parametrize(("written", "frames"), [(None, 1), (b"7", 7), (b"0", 1), (b"-3", 1), (b"x", 1)])
def test_number_of_frames(written: bytes | None, frames: int) -> None:
    ds = header() if written is None else raw(header(), NumberOfFrames=written)
    assert read_record(ds, KEY).number_of_frames == frames


def test_burned_in_text() -> None:
    def likely(**attributes: Any) -> bool:
        return read_record(header(**attributes), KEY).burned_in_text != "no"

    assert not likely(Modality="CT")
    assert likely(Modality="CT", BurnedInAnnotation="YES")
    assert likely(Modality="US") and not likely(Modality="US", BurnedInAnnotation="NO")
    assert likely(SOPClassUID=f"{STORAGE}7", Modality="OT") and likely(SOPClassUID=f"{STORAGE}7.4")
    assert not likely(SOPClassUID=f"{STORAGE}77.1.4") and likely(SOPClassUID=f"{STORAGE}77.1.1.1")
    assert likely(Modality="SM", ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])


def test_pseudonyms() -> None:
    one = pseudonym("4711", "Clinic A", KEY)
    assert (
        one == "f6b5350544857c85eb1cc8bd80133085"
    )  # a golden value: were it to change, every store would lose its patients
    assert pseudonym(" 4711 ", "Clinic A ", KEY) == one
    assert len({one, pseudonym("4711", "", KEY), pseudonym("4711", "Clinic A", KEY[::-1]),
                pseudonym("A4711", "Clinic ", KEY)}) == 4  # fmt: skip
    assert pseudonym("", "Clinic A", KEY) is None and pseudonym("  ", "", KEY) is None
    with pytest.raises(ValueError, match="at least 16"):
        pseudonym("4711", "", b"short")
    assert read_record(header(PatientID="4711", IssuerOfPatientID="Clinic A"), KEY).patient_pseudonym == one
    assert read_record(header(PatientName="X"), KEY).patient_pseudonym is None


@given(st.text(), st.text(), st.text(), st.text())
def test_pseudonyms_do_not_collide(a: str, b: str, c: str, d: str) -> None:
    same = (a.strip(), b.strip()) == (c.strip(), d.strip())
    if a.strip() and c.strip():
        assert (pseudonym(a, b, KEY) == pseudonym(c, d, KEY)) == same


def test_descriptions_are_opt_out() -> None:
    ds = header(StudyDescription="CT CHEST", SeriesDescription="axial")
    record = read_record(ds, KEY, keep_descriptions=False)
    assert record.attributes["study_description"] is record.attributes["series_description"] is None
    assert read_record(ds, KEY).attributes["study_description"] == "CT CHEST"


def test_free_text_goes_when_the_names_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.dicom.identifying.MAX_ELEMENTS", 3)
    record = read_record(header(StudyDescription="CT for CANARY"), KEY)
    assert record.attributes["study_description"] is None
    assert "free text is left out" in record.warnings[0]


# ---- canaries: every attribute that identifies, in images and in reports

VALUES = {"DA": "19010203", "DT": "19010203040506", "TM": "040506", "IS": "471147", "DS": "471147", "AS": "099Y"}
TEXT_VRS = ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "UR")
KEPT = {k.name for k in KEYWORDS}


def with_canaries(ds: Dataset) -> Dataset:
    """Every text attribute of the dictionary's patient, study, visit and order groups that medlens does not keep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, entry in pydicom.datadict.DicomDictionary.items():
            vr, keyword = entry[0], entry[4]
            identifying = tag >> 16 in (0x0008, 0x0010, 0x0012, 0x0032, 0x0038, 0x0040, 0x4008, 0x0018)
            if identifying and vr in TEXT_VRS and keyword and keyword not in KEPT and keyword != "SpecificCharacterSet":
                if vr in ("CS", "AE") or keyword in ("ValueType", "TextValue", "CodeMeaning", "RelationshipType"):
                    continue
                setattr(ds, keyword, "CANARYFAMILY^CANARYGIVEN" if vr == "PN" else f"CANARY{tag:08x}"[:16])
        other = Dataset()
        other.PatientID, other.IssuerOfPatientID = "CANARYOTHER", "CANARYISSUER"
        ds.OtherPatientIDsSequence = Sequence([other])
        ds.PatientBirthDate = VALUES["DA"]
        private = ds.private_block(0x0099, "CANARYCREATOR", create=True)
        private.add_new(1, "LO", "CANARYPRIVATE")
    return ds


def names_everyone(ds: Dataset) -> str:
    """A text that quotes what the scrubber promises to know."""
    return (
        f"CT CHEST for {ds.PatientName}, {ds.PatientID}, {ds.AccessionNumber}, Canarygiven Canaryfamily, CANARYOTHER "
        f"at {ds.InstitutionName} by {ds.ReferringPhysicianName} born 3.2.1901 (19010203): small effusion"
    )


def test_no_identifying_value_survives_in_an_image() -> None:
    ds = with_canaries(header(SpecificCharacterSet="ISO_IR 192", Modality="CT"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.SeriesDescription = names_everyone(ds)
    ds.StudyDescription = "CT CHEST for CANARYFAMILY^CANARYGIVEN"
    assert len(ds) > 300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        ds.save_as(buffer, implicit_vr=True, little_endian=True)  # the reader has no VR to go by
        ds = dcmread(buffer, force=True)
    record = read_record(ds, KEY)
    assert "canary" not in everything(record).lower() and "1901" not in everything(record)
    assert record.attributes["study_description"] == f"CT CHEST for {MARK}"
    assert str(record.attributes["series_description"]).endswith("small effusion")


def test_no_identifying_value_survives_in_a_report() -> None:
    ds = with_canaries(header(SOPClassUID=f"{STORAGE}88.11", SpecificCharacterSet="ISO_IR 192"))
    finding, reader = Dataset(), Dataset()
    finding.ValueType, finding.RelationshipType, finding.TextValue = "TEXT", "CONTAINS", names_everyone(ds)
    reader.ValueType, reader.RelationshipType, reader.PersonName = "PNAME", "CONTAINS", "CANARYREADER^X"
    addendum = Dataset()
    addendum.ValueType, addendum.RelationshipType, addendum.TextValue = "TEXT", "CONTAINS", "Read with Canaryreader."
    ds.ContentSequence = Sequence([finding, reader, addendum])
    record = read_record(ds, KEY)
    assert record.kind == "report"
    assert "canary" not in everything(record).lower() and "1901" not in everything(record)
    assert "small effusion" in record.report_text and f"Read with {MARK}." in record.report_text


def test_an_archive_of_canaries(shared_data: Path, shared_tools: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        shared_tools / "make_archive.py",
        shared_data / "pairs" / "medpix",
        tmp_path,
        "--limit",
        "40",
    ]
    subprocess.run(command, check=True, capture_output=True)
    records = [read_record(ds, KEY) for _, ds in dicom_files(tmp_path)]
    reports = [r for r in records if r.kind == "report"]
    assert sum(r.kind == "image" for r in records) == 40 and len(reports) > 10
    for record in records:
        check(record)
        assert "canary" not in everything(record).lower()
        assert "19000101" not in everything(record)
        assert record.warnings == ()
    assert all(len(r.report_text) > 30 for r in reports)
    by_patient: dict[str | None, set[str]] = {}
    for record in records:
        by_patient.setdefault(record.patient_pseudonym, set()).add(record.study_instance_uid)
    assert len(by_patient) == len(reports) and all(len(studies) == 1 for studies in by_patient.values())


def test_mutants_never_escape() -> None:
    """Flipped, cut and repeated bytes: a record or a DicomError, and never a Python warning."""
    rng = random.Random(7)
    sources = [Path(str(get_testdata_file(n))).read_bytes() for n in ("CT_small.dcm", "reportsi.dcm", "test-SR.dcm")]
    read_ones = 0
    for i in range(600):
        data = bytearray(sources[i % 3][:6000])
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(132, len(data))
            data[at : at + 1] = bytes([rng.randrange(256)]) * rng.choice((1, 1, 1, 0, 3))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds = dcmread(io.BytesIO(bytes(data)), stop_before_pixels=True)
        except Exception:  # noqa: BLE001 - pydicom's own parsing; the reader of files contains it
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                record = read_record(ds, KEY)
            except DicomError:
                continue
        check(record)
        read_ones += 1
    assert read_ones > 100
