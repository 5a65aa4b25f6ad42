"""What people write in a filter: words for values, dates and ages; and what an empty answer says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from catalog_factory import SPEC, indexed

from indexer.catalog.conditions import require_valid
from indexer.catalog.filters.dates import UnclearDate, days, said_of
from indexer.catalog.filters.values import ages
from indexer.store.store import Store
from indexer.tasks.erasing import plan_erasure
from retrieval.errors import QueryError
from retrieval.language.value_words import values_called
from retrieval.resources import data_folder
from retrieval.types import SearchFilter

ROWS: list[dict[str, Any]] = [  # frames 1 to 5
    {"modality": "CT", "body_part_examined": "CHEST", "patient_age": 34.0, "patient_sex": "F"},
    {"modality": "CT", "body_part_examined": "ABDOMEN", "patient_age": 71.0, "patient_sex": "M"},
    {"modality": "MR", "body_part_examined": "KNEE", "patient_age": 0.5, "study_description": "=cmd()\u202e"},
    {"modality": "CR", "slice_thickness": 2.5, "image_type": "ORIGINAL\\PRIMARY"},
    {"modality": "CT", "body_part_examined": "ABDOMEN", "patient_age": 18.0},
]
DAYS = [date(2016, 1, 3), date(2023, 5, 5), date(2024, 12, 30), None, date(2023, 5, 31)]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    location: str | Path = tmp_path / "store"
    if request.param == "postgresql":
        location = request.getfixturevalue("postgres_url")
    with Store.create(location, SPEC, local_dir=tmp_path / "local") as made:
        rows = [row | {"study_date": day} for row, day in zip(ROWS, DAYS, strict=True)]
        files = [indexed(f"{n}", f"1.{n}", frames=1, **row) for n, row in enumerate(rows, 1)]
        made.catalog.files.commit(made.catalog.files.archive_id("/a"), files)
        yield made


def found(store: Store, where: str) -> list[int]:
    ids: list[int] = store.catalog.frames.ids_matching(SearchFilter(where=where)).tolist()
    return ids


def notes(store: Store, where: str) -> tuple[str, ...]:
    return store.catalog.frames.filter_notes(SearchFilter(where=where), empty=not found(store, where))


EMPTY = [
    ("Modality = CX", ["no frame says Modality CX; the store has CT, CR, MR"]),
    ("Modality in (CX, CY)", ["no frame says Modality CX or CY; the store has CT, CR, MR"]),
    (
        "Modality = CX and PatientAge is present or PatientAge > 90",
        [
            "no frame says Modality CX; the store has CT, CR, MR",
            "no frame has PatientAge > 90; the store has 6 months to 71 years",
        ],
    ),
    (
        "PatientSex is present and Modality = CT and BodyPartExamined = KNEE",
        ["no frame with Modality = CT says BodyPartExamined KNEE; those have ABDOMEN, CHEST"],
    ),
    (
        "Modality = CT and PatientAge < 18 years",
        ["no frame with Modality = CT has PatientAge < 18 years; those have 18 to 71 years"],
    ),
    ("StudyDate > 2024", ["no frame has StudyDate > 2024; the store has 2016-01-03 to 2024-12-30"]),
    (
        "not (Modality != CT or PatientSex != MALE or BodyPartExamined = ABDOMEN)",
        [
            "PatientSex MALE is read as M",
            "no frame with PatientSex = M says BodyPartExamined other than ABDOMEN; those have ABDOMEN",
        ],
    ),
    ("SeriesNumber = 3", ["no frame says SeriesNumber 3; the store has no SeriesNumber"]),
    ("SliceThickness < 1", ["no frame has SliceThickness < 1; the store has 2.5"]),
    ("StudyDescription contains knee", ["no frame has StudyDescription contains knee; the store has '=cmd()\ufffd"]),
    ("ImageType = AXIAL", ["no frame says ImageType AXIAL; the store has ORIGINAL, PRIMARY"]),
    ("Modality is missing", ["no frame lacks Modality"]),
    ("Manufacturer is present", ["no frame says Manufacturer; the store has no Manufacturer"]),
    ("StudyInstanceUID = 9", ["no frame says StudyInstanceUID 9"]),
    ("patient_pseudonym = nobody", ["no frame says patient_pseudonym nobody"]),
    (
        "Modality = mammography",
        ["Modality mammography is read as MG", "no frame says Modality MG; the store has CT, CR, MR"],
    ),
]


def test_an_empty_answer_says_what_the_store_has(store: Store) -> None:
    for where, expected in EMPTY:
        assert found(store, where) == [], where
        assert list(notes(store, where)) == expected, where
    assert notes(store, "Modality = CT") == ()
    equal = SearchFilter({"modality": ("CX",)})
    assert store.catalog.frames.filter_notes(equal, empty=True) == (EMPTY[0][1][0],)
    reports = SearchFilter(where="kind = report")
    assert store.catalog.instances.filter_notes(reports, empty=True) == (
        "no file says kind report; the store has image",
    )


def test_at_most_ten_values_are_listed(store: Store) -> None:
    files = [indexed(f"m{n}", f"2.{n}", frames=1, manufacturer=f"M{n:02}") for n in range(12)]
    files.append(indexed("more", "2.99", frames=1, manufacturer="M11"))
    store.catalog.files.commit(store.catalog.files.archive_id("/a"), files)
    assert notes(store, "Manufacturer = X") == (
        "no frame says Manufacturer X; the store has M11, M00, M01, M02, M03, M04, M05, M06, M07, M08 and others",
    )


def test_a_store_without_frames_says_so(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SPEC) as made:
        assert notes(made, "Modality = CT") == ("the store has no frames",)


def test_words_for_values(store: Store) -> None:
    for where, ids, note in (
        ("Modality = X-ray", [4], "Modality X-ray is read as CR, DX, RG, RF"),
        ("Modality in ('röntgen', mri)", [3, 4], "Modality röntgen is read as CR, DX, RG, RF"),
        ("Modality != 'plain film'", [1, 2, 3, 5], "Modality plain film is read as CR, DX, RG, RF"),
        ("BodyPartExamined = thorax", [1], "BodyPartExamined thorax is read as CHEST, THORAX"),
        ("BodyPartExamined = Bauch", [2, 5], "BodyPartExamined Bauch is read as ABDOMEN"),
        ("PatientSex = woman", [1], "PatientSex woman is read as F"),
        ("PatientAge = child", [3], "PatientAge child is read as under 18 years"),
        ("PatientAge >= adult", [1, 2, 5], "PatientAge adult is read as 18 years and over"),
        ("StudyDate = 05.05.2023", [2], "StudyDate 05.05.2023 is read as 5 May 2023 (day first)"),
    ):
        assert found(store, where) == ids, where
        assert notes(store, where)[0] == note
    assert notes(store, "Modality = ct and BodyPartExamined = chest") == ()


def test_a_value_of_the_store_wins_over_the_word(store: Store) -> None:
    assert found(store, "BodyPartExamined = thorax") == [1]
    files = [indexed("t", "3.1", frames=1, body_part_examined="Thorax")]
    store.catalog.files.commit(store.catalog.files.archive_id("/a"), files)
    assert found(store, "BodyPartExamined = THORAX") == [6]
    assert notes(store, "BodyPartExamined = thorax") == ()


def test_equal_values_are_no_words(store: Store) -> None:
    assert store.catalog.frames.ids_matching(SearchFilter({"modality": ("x-ray",)})).tolist() == []


@pytest.mark.parametrize("where", ["Modality = x-ray", "PatientAge = child", "StudyDate < 05.05.2023"])
def test_an_erasure_takes_no_words(store: Store, where: str) -> None:
    with pytest.raises(QueryError, match=r"must name the values themselves, but .* is read as "):
        plan_erasure(store, where=where)
    assert found(store, "Modality is present") == [1, 2, 3, 4, 5]
    plan = plan_erasure(store, where="Modality = CX")
    assert not plan and plan.notes == ("no file says Modality CX; the store has CT, CR, MR",)


def test_dates_and_ages_in_filters(store: Store) -> None:
    for where, ids in (
        ("StudyDate = 2023", [2, 5]),
        ("StudyDate = May 2023", [2, 5]),
        ("StudyDate = 5 May 2023 and Modality = CT", [2]),
        ("StudyDate in (May 5, 2023, 30. Dezember 2024)", [2, 3]),
        ("StudyDate < May 2023", [1]),
        ("StudyDate > may 2023", [3]),
        ("StudyDate between 31/05/2023 and 2024/12", [3, 5]),
        ("PatientAge < 18 years", [3]),
        ("PatientAge = 018Y", [5]),
        ("PatientAge = 6 mos or PatientAge > 70 years old", [2, 3]),
        ("PatientAge = 6M", [3]),
    ):
        assert found(store, where) == ids, where
        assert notes(store, where) == (), where


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2023", "2023-01-01", "2023-12-31"),
        ("2023-5", "2023-05-01", "2023-05-31"),
        ("2023/05/06", "2023-05-06", "2023-05-06"),
        ("20230506", "2023-05-06", "2023-05-06"),
        ("05/2023", "2023-05-01", "2023-05-31"),
        ("Sept. 2023", "2023-09-01", "2023-09-30"),
        ("5th of May 2023", "2023-05-05", "2023-05-05"),
        ("May 5th, 2023", "2023-05-05", "2023-05-05"),
        ("5 de mayo de 2023", "2023-05-05", "2023-05-05"),
        ("1. März 2023", "2023-03-01", "2023-03-01"),
        ("2 février 2024", "2024-02-02", "2024-02-02"),
        ("3 GENNAIO 2024", "2024-01-03", "2024-01-03"),
        ("13/04/2023", "2023-04-13", "2023-04-13"),
        ("04/13/2023", "2023-04-13", "2023-04-13"),
        ("06.05.2023", "2023-05-06", "2023-05-06"),
        ("5-5-2023", "2023-05-05", "2023-05-05"),
    ],
)
def test_dates_as_people_write_them(text: str, first: str, last: str) -> None:
    assert tuple(map(str, days(text))) == (first, last)
    assert said_of(text) == ("6 May 2023 (day first)" if "." in text and "/" not in text and text[0] == "0" else "")


@pytest.mark.parametrize(
    "text", ["May", "5 May", "Foo 2023", "5 May 5, 2023", "1/2-2023", "32.01.2023", "last 30 days"]
)
def test_what_is_not_a_date(text: str) -> None:
    with pytest.raises(ValueError):
        days(text)


def test_unclear_dates_are_refused_with_what_to_write() -> None:
    with pytest.raises(UnclearDate):
        days("3-4-2023")
    with pytest.raises(QueryError) as caught:
        require_valid(SearchFilter(where="StudyDate >= 03/04/2023"))
    assert str(caught.value).startswith(
        "study_date is compared with '03/04/2023', which can be 3 April 2023 or 4 March 2023 (column 14)"
    )
    assert caught.value.hint == "Write the year first: 2023-04-03 or 2023-03-04."
    with pytest.raises(QueryError, match=r"which has no month 13: in a date with dots the day comes first") as caught:
        require_valid(SearchFilter(where="StudyDate = 05.13.2023"))
    assert caught.value.hint == "Write the year first: 2023-05-13."
    with pytest.raises(QueryError, match="can't be read") as caught:
        require_valid(SearchFilter(where="BodyPartExamined = lumbar spine"))
    assert caught.value.hint == 'A value of several words needs quotes: BodyPartExamined = "lumbar spine".'


def test_age_groups_have_ends() -> None:
    low, high = ages("child")
    assert low == 0 and 18 - 1e-9 < high < 18
    assert ages("Elderly")[0] == 65
    assert ages("newborn")[1] == pytest.approx(timedelta(28) / timedelta(365.25))
    assert ages("18 years")[0] < 18 < ages("18 years")[1]


@pytest.mark.parametrize(
    ("attribute", "word", "values"),
    [
        ("Modality", "X Ray", ("CR", "DX", "RG", "RF")),
        ("Modality", "CR", ()),
        ("Modality", "angiography", ("XA",)),
        ("BodyPartExamined", "Brustkorb", ("CHEST", "THORAX")),
        ("BodyPartExamined", "rib", ()),  # a value of its own, which no other value means
        ("BodyPartExamined", "foot", ("FOOT",)),
        ("BodyPartExamined", "pied", ("ANKLE", "FOOT")),
        ("BodyPartExamined", "c-spine", ("CSPINE", "CERVICALSPINE")),
        ("PatientSex", "femme", ("F",)),
        ("StudyDescription", "chest", ()),
    ],
)
def test_values_called(attribute: str, word: str, values: tuple[str, ...]) -> None:
    assert values_called(attribute, word) == values


def test_the_narrower_values_are_values_of_the_terms() -> None:
    terms, narrower = (
        json.loads((data_folder() / "terms" / name).read_text("utf-8"))
        for name in ("header.json", "filter_values.json")
    )
    assert set(narrower["BodyPartExamined"]) == set(terms["BodyPartExamined"])
    for attribute, named in narrower.items():
        known = {value for term in terms[attribute].values() for value in term["values"]}
        assert known >= {value for groups in named.values() for group in groups for value in group}
        assert set(named) <= set(terms[attribute])
