"""Which words of a query name what a DICOM header knows, and which headers contradict them."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from retrieval.language.header_terms import header_terms
from retrieval.resources import data_folder
from retrieval.types import SearchFilter


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("chest x-ray", ("chest", "radiograph")),
        ("CXR", ("radiograph", "chest")),
        ("Axial T2 brain MRI", ("brain", "MR", "axial", "T2")),
        ("sagittal STIR of the lumbar spine", ("lumbar spine", "sagittal", "STIR")),
        ("necrosis of the femoral head", ("hip",)),
        ("mass in the pancreatic head", ("pancreas",)),
        ("left breast mammogram, MLO", ("breast", "mammogram", "mediolateral oblique")),
        ("women over 60 with knee pain, 2023", ("female", "knee", "age over 60", "2023")),
        ("62-year-old man", ("male", "age 57 to 67")),
        ("children, since 2020", ("children", "from 2020")),
        ("Röntgen Thorax", ("radiograph", "chest")),
        ("IRM du genou", ("MR", "knee")),
        ("tomografía computarizada del abdomen", ("CT", "abdomen")),
        ("risonanza magnetica del ginocchio", ("MR", "knee")),
        ("no pleural effusion", ("chest",)),
        ("pneumothorax after biopsy of the liver", ("liver",)),
        ("mass over 60 mm", ()),
        ("3 of 2000 slices", ()),
        ("it was for us", ()),
        ("main finding", ()),
        ("", ()),
    ],
)
def test_terms_of_a_query(text: str, names: tuple[str, ...]) -> None:
    assert set(header_terms([text]).names) == set(names)


def contradicted(text: str, attribute: str) -> set[str]:
    return {value for f in header_terms([text]).contradictions for value in f.equals.get(attribute, ())}


def test_a_value_of_another_term_contradicts_and_an_unknown_one_does_not() -> None:
    modalities = contradicted("chest x-ray", "modality")
    assert {"CT", "MR", "US", "SM", "MG"} <= modalities
    assert modalities.isdisjoint({"CR", "DX", "RG", "OT", "SC", ""})
    parts = contradicted("chest x-ray", "body_part_examined")
    assert {"BRAIN", "KNEE", "ABDOMEN", "BREAST"} <= parts
    assert parts.isdisjoint({"CHEST", "THORAX", "LUNG", "CHESTABDOMEN", "WHOLEBODY", "HOSPITAL SPECIAL"})


def test_regions_that_contain_one_another_agree() -> None:
    assert "CHESTABDPELVIS" not in contradicted("CT of the liver", "body_part_examined")
    assert "CSPINE" not in contradicted("MRI of the spine", "body_part_examined")
    assert "LSPINE" in contradicted("MRI of the cervical spine", "body_part_examined")
    assert "KNEE" not in contradicted("knee and ankle", "body_part_examined")


def test_ages_and_years_and_descriptions_are_filters_in_words() -> None:
    filters = [f.where for f in header_terms(["women under 40, before 2019, axial T1"]).contradictions if f.where]
    assert filters[:2] == ["PatientAge > 40", "StudyDate > 2018-12-31"]
    assert filters[2].startswith('(SeriesDescription contains "coronal"') and "not (" in filters[2]
    assert 'contains "flair"' in filters[3] and '"t1"' in filters[3].partition("not (")[2]


def test_all_filters_are_ones_that_a_catalog_takes() -> None:
    from indexer.catalog.conditions import require_valid

    everything = (
        "women over 60, under 70, 65-year-old, elderly, axial T2, sagittal FLAIR, DWI, 2023, since 2020, until 2024"
    )
    for where in header_terms([everything, "knee x-ray PA view"]).contradictions:
        assert isinstance(where, SearchFilter)
        require_valid(where)


def test_the_table_is_sound() -> None:
    table = json.loads((data_folder() / "terms" / "header.json").read_text(encoding="utf-8"))
    for attribute, terms in table.items():
        for name, term in terms.items():
            assert term["values"] and len(set(term["values"])) == len(term["values"]), (attribute, name)
            assert term["words"]["en"], (attribute, name)
        if attribute in ("Modality", "PatientSex"):  # a word of one language is no word of another term
            for one, other in combinations(terms, 2):
                words = [{w for said in terms[n]["words"].values() for w in said} for n in (one, other)]
                assert not words[0] & words[1] - {"tomografía por emisión de positrones"}, (one, other)
