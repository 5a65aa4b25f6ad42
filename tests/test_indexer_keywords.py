"""The keyword table against pydicom's dictionary, and against what must never be in it."""

from __future__ import annotations

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from indexer.keywords import COLUMNS, KEYWORDS


def test_the_table_agrees_with_the_dictionary() -> None:
    for keyword in KEYWORDS:
        assert keyword.tag == tag_for_keyword(keyword.name), keyword.name
        assert (keyword.vr, keyword.vm) == (dictionary_VR(keyword.tag), dictionary_VM(keyword.tag)), keyword.name


def test_column_names() -> None:
    assert len(COLUMNS) == len(KEYWORDS)
    expected = {"sop_instance_uid", "study_instance_uid", "manufacturer_model_name", "burned_in_annotation", "rows"}
    assert COLUMNS.keys() > expected
    assert all(column == column.lower() and column.isidentifier() for column in COLUMNS)


def test_no_identity_is_kept() -> None:
    names = {keyword.name for keyword in KEYWORDS}
    forbidden = {
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "AccessionNumber",
        "ReferringPhysicianName",
        "InstitutionName",
        "StationName",
        "OperatorsName",
    }
    assert names.isdisjoint(forbidden)
