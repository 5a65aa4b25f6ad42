"""The commands as a user meets them, with the model that ships."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from cli.medlens_app import app
from retrieval.model_source import DEFAULT_MODEL, shipped_models

runner = CliRunner()
FILES = ("CT_small.dcm", "MR_small.dcm", "examples_ybr_color.dcm", "reportsi.dcm", "rtplan.dcm")
pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models")


def medlens(*arguments: object, code: int = 0):
    result = runner.invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for name in FILES:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    (folder / "notes.txt").write_text("no DICOM\n" * 100)
    return folder


@pytest.fixture(scope="module")
def store(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    result = medlens("index", archive, "--store", folder, "--format", "json", "--workers", 2)
    outcome = json.loads(result.stdout)["results"] if "results" in result.stdout else json.loads(result.stdout)
    assert outcome[0]["indexed"] == len(FILES)
    assert outcome[0]["rejected"] == {"not-dicom": 1}
    return folder


def test_search_by_text_gives_rows_in_rank_order(store):
    rows = [json.loads(line) for line in medlens("search", "MR of the brain", "--store", store).stdout.splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {"sop_instance_uid", "frame_number", "modality"} <= rows[0].keys()


def test_search_by_image_finds_the_image_itself_first(store, archive):
    result = medlens("search", "--image", archive / "CT_small.dcm", "--store", store, "--format", "json", "-k", 1)
    hit = json.loads(result.stdout)["results"][0]
    assert hit["modality"] == "CT"
    assert hit["score"] == pytest.approx(1, abs=2e-3)


def test_a_filter_holds_and_says_how_many_passed(store):
    result = medlens("search", "anything", "--store", store, "--modality", "mr", "--format", "json")
    answer = json.loads(result.stdout)
    assert {hit["modality"] for hit in answer["results"]} == {"MR"}
    assert answer["searched"] == 1
    assert (
        json.loads(medlens("search", "x", "--store", store, "--modality", "PT", "--format", "json").stdout)["results"]
        == []
    )


def test_the_formats_say_the_same(store):
    by = {f: medlens("search", "x", "--store", store, "--format", f).stdout for f in ("json", "jsonl", "csv", "table")}
    uids = [hit["sop_instance_uid"] for hit in json.loads(by["json"])["results"]]
    assert [json.loads(line)["sop_instance_uid"] for line in by["jsonl"].splitlines()] == uids
    assert [row["sop_instance_uid"] for row in csv.DictReader(io.StringIO(by["csv"]))] == uids
    assert "rank" in by["table"]


def test_the_page_holds_its_pictures_and_loads_nothing(store, tmp_path):
    page = tmp_path / "hits.html"
    medlens("search", "CT <script>alert(1)</script>", "--store", store, "--format", "html", "-o", page)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 3
    assert "<script" not in text
    assert "http:" not in text and "https:" not in text


def test_describe_gives_sentences_of_the_reports(store, archive):
    rows = [json.loads(x) for x in medlens("describe", archive / "CT_small.dcm", "--store", store).stdout.splitlines()]
    assert rows and all(row["text"] and row["studies"] for row in rows)


def test_classify_tells_ct_from_mr_and_names_what_it_could_not_read(archive):
    files = [archive / name for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")]
    result = medlens("classify", *files, "--labels", "modality", "--format", "json")
    answers = {Path(row["file"]).name: row for row in json.loads(result.stdout)["results"]}
    assert set(answers) == {"CT_small.dcm", "MR_small.dcm"}
    for row in answers.values():
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert row["label"] == max(row["scores"], key=row["scores"].get)
    assert "rtplan.dcm" in result.stderr


def test_render_writes_a_picture(archive, tmp_path):
    out = tmp_path / "ct.png"
    medlens("render", archive / "CT_small.dcm", "-o", out)
    assert Image.open(out).size == (128, 128)


def test_info_says_what_is_in_the_store(store):
    facts = json.loads(medlens("info", "--store", store, "--format", "json").stdout)[0]
    assert facts["model"] == DEFAULT_MODEL
    assert facts["instances"] == len(FILES)
    assert facts["rejected_files"] == {"not-dicom": 1}
    assert "MR" in medlens("info", "--store", store, "--format", "table").stdout


def test_indexing_again_says_unchanged_and_the_report_lists_what_was_rejected(store, archive, tmp_path):
    report = tmp_path / "rejected.jsonl"
    result = medlens("index", archive, "--store", store, "--report", report, "--strict", "--format", "table", code=3)
    assert f"{len(FILES)} unchanged" in result.stdout
    assert [json.loads(line)["path"] for line in report.read_text().splitlines()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "   "], "empty"),
        (["search", "x", "--image", "y.dcm"], "one of the two"),
        (["search", "x", "--store", "nowhere"], "no store"),
        (["search", "x", "--model", "medlens-bass"], "medlens-base"),
        (["search", "--image", "missing.dcm"], "missing.dcm"),
        (["classify", "missing.dcm"], "missing.dcm"),
        (["classify", "{archive}/CT_small.dcm", "--labels", "modalty"], "modality"),
        (["describe", "{archive}/notes.txt"], "neither DICOM nor a picture"),
        (["index", "{empty}", "--store", "{empty}/new"], "no files"),
        (["index", "{archive}", "--store", "{empty}/new", "--frames", "some"], "max:N"),
        (["index", "nowhere", "--store", "{empty}/new"], "nowhere"),
        (["render", "{archive}/CT_small.dcm", "-o", "x.txt"], ".png"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(arguments, said, store, archive, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = [a.format(archive=archive, empty=empty) for a in arguments]
    if arguments[0] in ("search", "describe") and "--store" not in arguments:
        arguments += ["--store", str(store)]
    process = subprocess.run(
        [sys.executable, "-c", "from cli.medlens_app import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert process.returncode == 1, process.stderr
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert not (empty / "new").exists()


def test_usage_errors_exit_with_2():
    medlens("search", "x", "-k", 0, code=2)
    medlens("frobnicate", code=2)


def test_ctrl_c_says_how_to_go_on(archive, tmp_path, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.medlens_indexing.index_archive", stopped)
    result = medlens("index", archive, "--store", tmp_path / "store", code=130)
    assert "same command" in result.stderr


def test_an_error_is_json_where_json_was_asked_for(store):
    result = medlens("search", " ", "--store", store, "--format", "json", code=1)
    error = json.loads(result.stderr)
    assert error["type"] == "EmptyQuery" and error["hint"]


def test_a_store_of_another_model_is_refused_by_name(store, archive, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shipped_models()[DEFAULT_MODEL], copy)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    config["medlens"]["name"] = "squashed"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    result = medlens("search", "x", "--store", store, "--model", copy, code=1)
    assert DEFAULT_MODEL in result.stderr and "squashed" in result.stderr


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from cli.medlens_app import app; "
        "heavy = {'torch', 'faiss', 'pydicom', 'sqlalchemy', 'numpy', 'open_clip', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])
