"""Text burned into pixels: what a header says of it, in the catalog, as a filter, and said where pictures are shown."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from catalog_factory import SPEC, indexed
from command_line import medlens
from fake_encoder import FakeEncoder
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from typer.testing import Result

from cli.medlens_output.montage import montage
from cli.medlens_output.page import html_page
from indexer.dicom.header import read_record
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.store import Store
from indexer.tasks.answers import HitPicture
from indexer.tasks.training import _filter
from indexer.tasks.training_pairs import ExportSettings, export_pairs
from retrieval.errors import QueryError
from retrieval.search.query import Query, Ranker
from retrieval.types import SearchFilter

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, US, SC, SR = f"{STORAGE}2", f"{STORAGE}6.1", f"{STORAGE}7", f"{STORAGE}88.11"


def header(sop_class: str = CT, **attributes: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = sop_class, "1.2.3.4", "1.2.3", "1.3"
    ds.Rows, ds.Columns, ds.BitsAllocated = 4, 5, 16
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def method(*codes: str) -> list[Dataset]:
    items = []
    for code in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = code, "DCM"
        items.append(item)
    return items


@pytest.mark.parametrize(
    ("ds", "value"),
    [
        (header(), "no"),
        (header(BurnedInAnnotation="YES"), "yes"),
        (header(BurnedInAnnotation="NO"), "no"),
        (header(US), "likely"),
        (header(US, BurnedInAnnotation="NO"), "no"),
        (header(US, BurnedInAnnotation="YES"), "yes"),
        (header(SC), "likely"),
        (header(SC, BurnedInAnnotation="NO", ConversionType="WSD"), "no"),
        (header(Modality="ES"), "likely"),
        (header(ConversionType="SD"), "likely"),
        (header(SequenceOfUltrasoundRegions=[Dataset()]), "likely"),
        (header(SequenceOfUltrasoundRegions=[]), "no"),
        (header(RecognizableVisualFeatures="YES"), "likely"),
        (header(RecognizableVisualFeatures="YES", BurnedInAnnotation="NO"), "no"),
        (header(RecognizableVisualFeatures="NO"), "no"),
        (header(US, RecognizableVisualFeatures="NO"), "likely"),
        (header(US, DeidentificationMethodCodeSequence=method("113100", "113101")), "no"),
        (header(US, DeidentificationMethodCodeSequence=method("113100")), "likely"),
        (header(US, BurnedInAnnotation="YES", DeidentificationMethodCodeSequence=method("113101")), "yes"),
        (header(SR, BurnedInAnnotation="YES"), None),
    ],
)
def test_what_a_header_says(ds: Dataset, value: str | None) -> None:
    assert read_record(ds, bytes(32)).burned_in_text == value


FILES = {"4": ("CT", {}), "5": ("CT", {"BurnedInAnnotation": "YES"}), "6": ("US", {})}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One picture without text, one whose header says YES, one of a kind that usually has some."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for name, (modality, attributes) in FILES.items():
        ds = dcmread(str(get_testdata_file("CT_small.dcm")))
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{name}"
        ds.Modality = modality
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / f"{name}.dcm")
    return folder


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Any:
    encoder = FakeEncoder()
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as made:
        index_archive([archive], made, encoder, IndexOptions(workers=1))
        yield made


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("burned_in_text = no", "4"),
        ("burned_in_text = YES", "5"),
        ("burned_in_text in (yes, likely)", "56"),
        ("burned_in_text != no", "56"),
        ("burned_in_text is missing", ""),
    ],
)
def test_it_is_a_filter(store: Store, where: str, found: str) -> None:
    results = store.search(
        Query("anything", ranker=Ranker.DENSE, where=SearchFilter(where=where)), encoder=FakeEncoder()
    )
    assert "".join(sorted(hit.key.sop_instance_uid[-1] for hit in results.hits)) == found
    rows = store.catalog.instances.select(SearchFilter(where=where), "instance")
    assert "".join(sorted(row["sop_instance_uid"][-1] for row in rows)) == found


def test_a_value_that_it_does_not_have_is_an_error(store: Store) -> None:
    with pytest.raises(QueryError, match="'maybe'; expected yes, likely, no"):
        store.catalog.frames.ids_matching(SearchFilter(where="burned_in_text = maybe"))


def test_page_and_montage_say_it(store: Store) -> None:
    results = store.search(Query("anything", ranker=Ranker.DENSE), encoder=FakeEncoder())
    text = html_page(store, results)
    assert text.count("Burned in</dt>") == 2
    assert text.count("the header says that text is burned into this picture") == 1
    assert text.count("this picture may show text about a patient") == 1
    drawn: list[str] = []
    from PIL import ImageDraw

    real = ImageDraw.ImageDraw.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ImageDraw.ImageDraw, "text", lambda self, xy, text, *rest: drawn.append(text) or real(self, xy, text, *rest)
        )
        montage(results, {hit.rank: HitPicture(None, "gone") for hit in results.hits})
    assert any(line.startswith("(!) 2 of 3 may show text about a patient. 3 hits.") for line in drawn)
    marked = {line[0] for line in drawn if "(!)" in line and line[0].isdigit()}
    assert marked == {str(hit.rank) for hit in results.hits if hit.key.sop_instance_uid[-1] in "56"}


def said(result: Result) -> str:
    return str(result.stderr)


def test_show_and_render_say_it_on_stderr(store: Store, archive: Path, tmp_path: Path) -> None:
    place, target = tmp_path / "store", tmp_path / "picture.png"
    yes, likely = "the header says that text is burned into this picture", "this picture may show text about a patient"
    for name, expected in (("4", ""), ("5", yes), ("6", likely)):
        shown = medlens("show", f"1.2.3.{name}", "--store", place, "--format", "json")
        assert json.loads(shown.stdout)[0]["burned_in_text"] == {"4": "no", "5": "yes", "6": "likely"}[name]
        for ref in (f"1.2.3.{name}", archive / f"{name}.dcm"):
            target.unlink(missing_ok=True)
            rendered = medlens("render", ref, "-o", target, "--store", place)
            assert Image.open(target).size == (128, 128)
            for result in (shown, rendered):
                assert (expected in said(result)) if expected else not said(result)


def test_no_burned_in_is_a_filter_of_select_and_its_cohort(store: Store, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort.csv"
    place = ("--store", tmp_path / "store", "--level", "instance", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(medlens("select", *place, "--no-burned-in", "--cohort", cohort).stdout)))
    assert [(row["sop_instance_uid"], row["burned_in_text"]) for row in rows] == [("1.2.3.4", "no")]
    text = cohort.read_text()
    assert "1.2.3.4" in text and "1.2.3.5" not in text and "1.2.3.6" not in text
    both = medlens("select", *place, "--no-burned-in", "--where", "Modality = US")
    assert list(csv.DictReader(io.StringIO(both.stdout))) == []


def test_reports_are_searched_though_a_filter_asks_for_pictures_without_text(tmp_path: Path) -> None:
    """A report's own row has no such value; what its sentences find are the frames of its study that pass."""
    with Store.create(tmp_path / "store", SPEC) as store:
        archive = store.catalog.files.archive_id("/a")
        store.catalog.files.commit(
            archive, [indexed("r", "1.1", frames=0, sentences=("Large effusion.",)), *pictures("1.1.study")]
        )
        clean = SearchFilter({"burned_in_text": ("no",)})
        found = store.search(Query("effusion", ranker=Ranker.TEXT, where=clean), encoder=Still())
        assert {hit.key.sop_instance_uid for hit in found.hits} == {"1.2"}


def test_training_pairs_without_text(tmp_path: Path) -> None:
    assert _filter("", True) == "burned_in_text = no"
    assert _filter("Modality = CT or Modality = US", True) == "(Modality = CT or Modality = US) and burned_in_text = no"
    assert _filter("Modality = CT", False) == "Modality = CT"
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("clean.dcm", "text.dcm"):
        (folder / name).write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    with Store.create(tmp_path / "store", SPEC) as store:
        archive = store.catalog.files.archive_id(str(folder))
        store.catalog.files.commit(
            archive, [indexed("r", "1.1", frames=0, sentences=("Large effusion.",)), *pictures("1.1.study")]
        )
        assert export_pairs(store, tmp_path / "all", ExportSettings()).rows == 2
        assert export_pairs(store, tmp_path / "clean", ExportSettings(where=_filter("", True))).rows == 1


def pictures(study: str) -> list[Any]:
    from dataclasses import replace

    out = []
    for name, uid, value in (("clean.dcm", "1.2", "no"), ("text.dcm", "1.3", "likely")):
        file = indexed(name, uid, frames=1, study_instance_uid=study)
        out.append(replace(file, record=replace(file.record, burned_in_text=value)))
    return out


class Still:
    """An encoder for which every text is one vector."""

    name, embed_dim = "demo", 8

    def encode_text(self, texts: Any) -> Any:
        from catalog_factory import vectors

        return vectors("text", 1).repeat(len(texts), axis=0)

    encode_images = encode_text
