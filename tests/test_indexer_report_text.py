"""The text of structured reports and PDFs."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from indexer.dicom import report_text as module
from indexer.dicom.report_text import report_text
from retrieval.language.sentences import sentences

PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"


def code(meaning: str, value: str = "1") -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return Sequence([item])


def item(
    value_type: str, concept: str = "", *children: Dataset, relationship: str = "CONTAINS", **values: Any
) -> Dataset:
    ds = Dataset()
    ds.ValueType, ds.RelationshipType = value_type, relationship
    if concept:
        ds.ConceptNameCodeSequence = code(concept)
    if children:
        ds.ContentSequence = Sequence(children)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def number(concept: str, value: str, unit_code: str, unit: str) -> Dataset:
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = code(unit, unit_code)
    return item("NUM", concept, MeasuredValueSequence=Sequence([measured]))


def test_reading_order_sections_codes_and_measurements() -> None:
    report = item(
        "CONTAINER",
        "Diagnostic imaging report",
        item("PNAME", "Person Observer Name", PersonName="Canary^Observer", relationship="HAS OBS CONTEXT"),
        item("TEXT", "Observer", TextValue="CANARY", relationship="HAS OBS CONTEXT"),
        item("CODE", "Language", ConceptCodeSequence=code("English"), relationship="HAS CONCEPT MOD"),
        item("PNAME", "Reader", PersonName="Canary^Reader"),
        item("UIDREF", "Study", UID="1.2.3"),
        item("DATE", "Date", Date="20200101"),
        item(
            "CONTAINER",
            "Findings",
            item("TEXT", "Finding", TextValue="Small effusion.\r\n\r\nNo pneumothorax."),
            number("Diameter", "12.5", "mm", "millimeter"),
            number("Opacity", "40", "%", "percent"),
            item("CODE", "Laterality", ConceptCodeSequence=code("Left")),
            item("CONTAINER", "Empty section"),
        ),
        item("TEXT", "Impression", item("TEXT", "Comment", TextValue="Follow up."), TextValue="Effusion."),
        item("TEXT", "Impression", TextValue="Old fracture."),
    )
    assert report_text(report).split("\n") == [
        "Finding:",
        "Small effusion.",
        "No pneumothorax.",
        "Diameter: 12.5 mm",
        "Opacity: 40 percent",
        "Laterality: Left",
        "Impression:",
        "Effusion.",
        "Follow up.",
        "Old fracture.",
    ]


def test_the_reports_of_pydicom() -> None:
    ds = dcmread(get_testdata_file("test-SR.dcm"))
    lines = report_text(ds).split("\n")
    assert lines[:3] == ["A mass of", "Diameter: 3 cm", "was detected."]
    assert "Riesmeier" not in report_text(ds)


def test_broken_items_cost_themselves_alone() -> None:
    bad = item("NUM", "Diameter")
    bad.MeasuredValueSequence = Sequence([Dataset()])
    no_type = Dataset()
    no_type.TextValue = "no value type"
    warnings: list[str] = []
    report = item("CONTAINER", "", bad, no_type, Dataset(), item("CODE", "x"), item("TEXT", TextValue="Effusion."))
    assert report_text(report, warn=warnings.append) == "Effusion."
    assert report_text(Dataset(), warn=warnings.append) == ""
    no_sequence = Dataset()
    no_sequence.add_new(0x0040A730, "LO", "no sequence")
    assert report_text(no_sequence, warn=warnings.append) == ""
    assert warnings == []


def test_depth_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = sys.getrecursionlimit() * 3
    chain = item("TEXT", TextValue="deepest")
    for _ in range(depth):
        parent = Dataset()
        parent.ValueType, parent.ContentSequence = "CONTAINER", [chain]
        chain = parent
    assert report_text(chain) == "deepest"
    warnings: list[str] = []
    monkeypatch.setattr(module, "MAX_ITEMS", 10)
    assert report_text(chain, warn=warnings.append) == ""
    monkeypatch.setattr(module, "MAX_CHARACTERS", 5)
    assert report_text(item("CONTAINER", "", item("TEXT", TextValue="x" * 9)), warn=warnings.append) == "xxxxx"
    assert warnings == [
        "the report has more than 10 content items; the rest is left out",
        "the report has 9 characters; the first 5 are kept",
    ]


def pdf(*pages: str) -> bytes:
    """A small PDF, each line of text on a line of its own."""
    objects: list[bytes] = []
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for i, page in enumerate(pages):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in page.split("\n"))
        stream = f"BT /F1 10 Tf 40 700 Td {lines}ET".encode()
        font = b"/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s /Contents %d 0 R >>" % (font, 5 + 2 * i)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, offsets = b"%PDF-1.4\n", []
    for number_, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number_, body)
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, xref)


def encapsulated(document: bytes) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.EncapsulatedDocument = PDF_CLASS, document + b"\0" * (len(document) % 2)
    return ds


def test_encapsulated_pdf() -> None:
    pytest.importorskip("pypdf")
    ds = encapsulated(pdf("FINDINGS:\nThere is a small left pleural effusion and a con-\nsolidation.", "Second page."))
    text = report_text(ds)
    assert " ".join(text.split()) == (
        "FINDINGS: There is a small left pleural effusion and a consolidation. Second page."
    )
    assert sentences(text) == ["There is a small left pleural effusion and a consolidation.", "Second page."]


@pytest.mark.parametrize("cut", [0, 1, 5, 60, 200, 400])
def test_broken_pdf_is_a_warning(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pypdf")
    warnings: list[str] = []
    assert report_text(encapsulated(pdf("CANARY text")[:cut]), warn=warnings.append) in ("", "CANARY text")
    assert len(warnings) <= 1 and "CANARY" not in "".join(warnings)
    assert warnings or cut > 300
    assert caplog.text == ""  # pypdf logs what it stumbles over


def test_a_pdf_of_pictures_says_so() -> None:
    pytest.importorskip("pypdf")
    warnings: list[str] = []
    assert report_text(encapsulated(pdf("")), warn=warnings.append) == ""
    assert "the PDF has no text that can be searched, only pictures of text" in warnings[0]


def test_without_pypdf_the_warning_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    warnings: list[str] = []
    assert report_text(encapsulated(pdf("text")), warn=warnings.append) == ""
    assert "medlens[pdf]" in warnings[0]
