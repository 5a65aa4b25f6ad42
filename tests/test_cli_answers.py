"""What is made of the hits: the page in a real browser, the contact sheet, copies, cohorts; and hostile values."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import SPEC, indexed, vectors
from chromium import browser
from fake_encoder import FakeEncoder
from PIL import Image
from pydicom.data import get_testdata_file

from cli.medlens_output.cohort import cohort_format, write_cohort
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.montage import CELL, KIND, write_montage
from cli.medlens_output.page import Card, html_page, page
from cli.medlens_output.streams import write_stream
from indexer.output_formats import csv_file, picture
from indexer.outputs import Output
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.slices import slice_position_cache, with_slice_positions
from indexer.store.store import Store
from indexer.tasks.answers import HitPicture, best_sentences, hit_pictures
from indexer.tasks.copying import CopiedFiles, copy_files
from retrieval.errors import MedlensError, QueryError
from retrieval.search.searcher import Searcher
from retrieval.types import FrameKey, Hit, SearchFilter, SearchResults

FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "reportsi.dcm",
)
HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)"><!--'


@pytest.fixture(scope="module")
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for name in FILES:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    return folder


@pytest.fixture(scope="module")
def store(archive: Path, encoder: FakeEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    place = tmp_path_factory.mktemp("stores") / "store"
    with Store.create(place, encoder.spec.to_json()) as made:
        index_archive([archive], made, encoder, IndexOptions(workers=1))
        yield made


@pytest.fixture(scope="module")
def results(store: Store, encoder: FakeEncoder) -> SearchResults:
    searcher = Searcher(encoder, store.frames_index(), store.catalog.frames)
    found = with_slice_positions(
        searcher.search_text("axial CT & more", k=9), store.catalog, slice_position_cache(store.catalog)
    )
    breakdown = {"text": 0.5, "not": -0.125}
    return replace(found, hits=tuple(replace(hit, breakdown=breakdown, folded=2) for hit in found.hits))


def gone(results: SearchResults, rank: int) -> SearchResults:
    """The same, with the file of one hit no longer there."""
    hits = [
        replace(h, attributes={**h.attributes, "file_path": "gone.dcm"}) if h.rank == rank else h for h in results.hits
    ]
    return replace(results, hits=tuple(hits))


def test_the_page_in_a_browser(store: Store, results: SearchResults, tmp_path: Path) -> None:
    page_file = tmp_path / "hits.html"
    results = gone(results, 3)
    hits = len(results.hits)
    page_file.write_text(html_page(store, results), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page_file)
        assert tab.value("document.querySelectorAll('li').length") == hits >= 4
        assert tab.value("[...document.images].every(i => i.naturalWidth > 0)")
        assert tab.value("document.images.length") == hits - 1
        focused = "[...document.querySelectorAll('li > article')].indexOf(document.activeElement)"
        enlarged = "document.querySelector('dialog').open ? document.querySelector('dialog .rank').textContent : ''"
        columns = tab.value("columns()")
        assert 2 <= columns < hits
        for key, place in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowDown", columns)):
            tab.press(key)
            assert tab.value(focused) == place, key
        for key, place in (("ArrowUp", 0), ("ArrowLeft", 0), ("End", hits - 1), ("ArrowDown", hits - 1), ("Home", 0)):
            tab.press(key)
            assert tab.value(focused) == place, key
        grid = {scheme: tab.screenshot(scheme) for scheme in ("light", "dark")}
        small = tab.value("document.images[0].clientHeight")
        tab.press("Enter")
        assert tab.value(enlarged) == "1."
        assert tab.value("document.querySelector('dialog img').clientHeight") > 1.5 * small
        assert tab.value("getComputedStyle(document.querySelector('dialog dd.uid')).display") != "none"
        tab.press("ArrowRight")
        assert tab.value(enlarged) == "2."
        large = tab.screenshot("dark")
        tab.press("Escape")
        assert tab.value(enlarged) == "" and tab.value(focused) == 1
        assert not tab.complaints, tab.complaints
        assert all(url.startswith(("data:", "file:", "about:")) for url in tab.asked), tab.asked
    corner = {scheme: shot.getpixel((3, 3)) for scheme, shot in grid.items()}
    assert min(corner["light"]) > 200 and max(corner["dark"]) < 60
    assert all(len(shot.resize((150, 110)).getcolors(1 << 16) or []) > 500 for shot in (*grid.values(), large))
    if keep := os.environ.get("MEDLENS_KEEP_SCREENSHOTS"):  # to be looked at
        for name, shot in {**grid, "large": large}.items():
            shot.save(Path(keep) / f"page-{name}.png")


def test_nothing_that_is_said_in_a_file_or_a_query_runs(tmp_path: Path) -> None:
    values = dict.fromkeys(("modality", "study_description", "series_description", "sop_instance_uid"), HOSTILE)
    values |= {"study_instance_uid": HOSTILE, "slice": None}
    hit = Hit(1, 0.5, FrameKey(HOSTILE), values, {HOSTILE: 0.25, "b": 0.25})
    card = Card(hit, HitPicture(None, HOSTILE), sentence=HOSTILE)
    text = page(SearchResults(HOSTILE, HOSTILE, (hit,), 3, score=HOSTILE), [card])
    page_file = tmp_path / "hits.html"
    page_file.write_text(text, encoding="utf-8")
    assert text.count("<script") == 1 and "<img" not in text
    with browser(tmp_path / "profile") as tab:
        tab.open(page_file)
        assert tab.value("document.images.length") == 0
        assert tab.value("document.querySelector('h1').textContent") == HOSTILE
        assert tab.value("document.querySelector('blockquote').textContent") == HOSTILE
        # and what got past the escaping would meet the policy
        tab.value(
            "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
        )
        tab.value(
            "const i = document.createElement('img'); i.src = 'https://example.org/x.png'; document.body.append(i)"
        )
        assert tab.value("window.ran") is None
        assert len(tab.complaints) >= 1 and "Content Security Policy" in tab.complaints[0]


def test_the_page_says_what_it_knows(store: Store, results: SearchResults) -> None:
    text = html_page(store, gone(results, 1))
    assert "axial CT &amp; more" in text and f"{len(results.hits)} hits" in text
    assert "text 0.500, not -0.125" in text and "2 that look the same" in text
    assert "no picture: " in text and str(Path.cwd()) not in text
    assert text.count("data:image/jpeg") == len(results.hits) - 1
    of_a_scanner = replace(results.hits[0], attributes=results.hits[0].attributes | {"burned_in_text": "no"})
    of_a_probe = replace(of_a_scanner, attributes=of_a_scanner.attributes | {"burned_in_text": "likely"})
    pages = [html_page(store, replace(results, hits=(hit,))) for hit in (of_a_scanner, of_a_probe)]
    assert ["Burned in</dt>" in page for page in pages] == [False, True]
    none = html_page(store, replace(results, hits=(), searched=0))
    assert "No results." in none and "<ol>" not in none


def test_the_best_sentence_is_the_nearest_to_the_words(tmp_path: Path) -> None:
    said = ("Clear lungs.", "A nodule.", "An old fracture.")
    with Store.create(tmp_path / "store", SPEC) as store:
        archive = store.catalog.files.archive_id("/a")
        files = [
            indexed("report", "1.1", frames=0, sentences=said),
            indexed("image", "1.2", frames=2, study_instance_uid="1.1.study"),
            indexed("other", "1.3", frames=1),
        ]
        store.catalog.files.commit(archive, files)
        found = store.catalog.frames.get(store.catalog.frames.ids_matching(SearchFilter()).tolist())
        hits = [Hit(n, 0.5, *row) for n, row in enumerate(found.values(), 1)]
        assert len(hits) == 3
        of_sentences = vectors("1.1//text", 3)
        for vector, sentence in zip(of_sentences, said, strict=True):
            assert best_sentences(store, hits, vector[None]) == {1: sentence, 2: sentence}
        own = (vectors("1.2/", 2) @ of_sentences.T).argmax(axis=1)  # without words: the nearest to the frame itself
        assert best_sentences(store, hits) == {1: said[own[0]], 2: said[own[1]]}
        assert best_sentences(store, hits[2:]) == best_sentences(store, []) == {}


def test_a_contact_sheet(store: Store, results: SearchResults, tmp_path: Path) -> None:
    target = tmp_path / "hits.png"
    write_montage(store, gone(results, 2), Output(target, picture("a montage", KIND)))
    sheet = np.asarray(Image.open(target).convert("RGB"))
    pictures = hit_pictures(store, results.hits, longest=CELL)
    first = np.asarray(Image.fromarray(pictures[1].pixels).convert("RGB").resize((CELL, CELL)), float)
    top = next(y for y in range(sheet.shape[0]) if (sheet[y, 16 : 16 + CELL] == 0).all() or sheet[y, 20:90].std() > 30)
    best = min(np.abs(sheet[y : y + CELL, 16 : 16 + CELL].astype(float) - first).mean() for y in range(top, top + 120))
    assert best < 12, "the first cell is not the first hit's picture"
    with pytest.raises(QueryError, match="there are no results to show"):
        write_montage(store, replace(results, hits=()), Output(target, picture("a montage", KIND)))


def test_copies_have_plain_names_and_overwrite_nothing(store: Store, results: SearchResults, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "copies"
    values = [hit.attributes for hit in results.hits]
    outcome = copy_files([*values, values[0]], folder)
    names = sorted(path.name for path in folder.iterdir())
    assert outcome == CopiedFiles(len(values))
    assert names == [f"{n:04d}_{value['sop_instance_uid']}.dcm" for n, value in enumerate(values, 1)]
    for value, name in zip(values, names, strict=True):
        source = Path(value["archive_root"]) / value["file_path"]
        assert (folder / name).read_bytes() == source.read_bytes()
    (folder / names[0]).write_bytes(b"mine")
    (folder / names[1]).unlink()
    outcome = copy_files(values, folder)
    assert outcome.copied == 1 and len(outcome.problems) == len(values) - 1
    assert all("exists" in problem and str(tmp_path) not in problem for _, problem in outcome.problems)
    assert (folder / names[0]).read_bytes() == b"mine"


def test_what_can_not_be_copied_is_reported(results: SearchResults, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    (root / "folder.dcm").mkdir(parents=True)
    os.mkfifo(root / "fifo.dcm")
    (root / "good.dcm").write_bytes(b"bytes")
    paths = ["gone.dcm", "folder.dcm", "fifo.dcm", "../outside.dcm", "/etc/passwd", "good.dcm"]
    (tmp_path / "outside.dcm").write_bytes(b"outside")
    values = [
        {"sop_instance_uid": f"1.{n}/../../x", "archive_root": str(root), "file_path": path}
        for n, path in enumerate(paths)
    ]
    outcome = copy_files(values, tmp_path / "copies")
    assert outcome.copied == 1 and [uid for uid, _ in outcome.problems] == [v["sop_instance_uid"] for v in values[:-1]]
    assert [p.name for p in (tmp_path / "copies").iterdir()] == ["0006_1.5_.._.._x.dcm"]


def test_a_cohort_names_each_instance_once(results: SearchResults, tmp_path: Path) -> None:
    def target(name: str) -> Output:
        return Output(tmp_path / name, cohort_format(tmp_path / name, ("query",)))

    values = [hit.attributes for hit in results.hits]
    assert write_cohort([*values, *values], target("c.csv"), {"query": "x"}) == len(values)
    assert write_cohort(values, target("c.json"), {"query": "x"}) == len(values)
    listed = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8")))
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["query"] == "x"
    assert [{k: v or "" for k, v in row.items()} for row in document["results"]] == listed
    assert [row["sop_instance_uid"] for row in listed] == [v["sop_instance_uid"] for v in values]
    assert write_cohort([], target("none.csv"), {}) == 0
    assert (tmp_path / "none.csv").read_text().startswith("patient_pseudonym,")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def output(path: Path) -> Output:
        return Output(path, csv_file("rows", ("a",)))

    (tmp_path / "old.csv").write_text("a\n7\n")

    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_stream(rows(), Format.CSV, output(tmp_path / "old.csv"))
    assert (tmp_path / "old.csv").read_text() == "a\n7\n"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    output(tmp_path / "old.csv").write_text("new")
    assert (tmp_path / "old.csv").read_text() == "new"
    output(Path("/dev/null")).write_text("what is no file is not replaced by one")
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    output(tmp_path / "pipe").write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    with pytest.raises(MedlensError, match=r"'x\.csv' can't be written"):
        output(tmp_path / "nowhere" / "x.csv").write_text("")


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "  +cmd|' /C calc'!A0"])
def test_a_cell_of_csv_is_no_formula(value: str) -> None:
    out = io.StringIO()
    write_rows([{"a": value, "b": [value, "x"], "c": {value: 1}, "d": -3}], Format.CSV, out=out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert row["a"] == "'" + value.replace("\r", "\n")
    assert row["b"].startswith("'") and row["c"].startswith("'")
    assert row["d"] == "-3"


def test_no_control_reaches_a_terminal_by_a_table() -> None:
    nasty = "a\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnp.exe\u2066 \x08\x00 b\nc\td"
    out = io.StringIO()
    write_rows([{"x": nasty, "y": [nasty], "z": {nasty: nasty}}], Format.TABLE, head={"query": nasty}, out=out)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out.getvalue())
    assert "red" in out.getvalue()
