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
from command_line import copied, medlens
from PIL import Image

from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models
from retrieval.errors import MedlensError

FILES = ("CT_small.dcm", "MR_small.dcm", "examples_ybr_color.dcm", "reportsi.dcm", "rtplan.dcm")
pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(FILES, tmp_path_factory.mktemp("archive"))


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


def test_a_frame_of_a_query_image_is_named(store, archive):
    many = archive / "examples_ybr_color.dcm"
    for number in (1, 30):
        row = json.loads(medlens("search", "--image", many, "--frame", number, "-k", 1, "--store", store).stdout)
        assert row["frame_number"] == number
    for command in (["search", "--image", many], ["describe", many]):
        result = medlens(*command, "--frame", 31, "--store", store, code=1)
        assert "31" in result.stderr and "30" in result.stderr


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
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    assert "http:" not in text and "https:" not in text


def test_a_filter_in_words_holds_in_search_and_in_select(store, tmp_path):
    where = ["--store", store, "--where", "Modality = MR or kind = report and StudyDate is missing", "--format", "json"]
    answer = json.loads(medlens("search", "anything", *where, "--cohort", tmp_path / "found.json").stdout)
    assert {hit["modality"] for hit in answer["results"]} == {"MR"} and answer["searched"] == 1
    assert answer["where"] == where[3]
    rows = json.loads(medlens("select", *where, "--cohort", tmp_path / "all.csv").stdout)["results"]
    assert "MR" in [m for row in rows for m in row["modalities"]]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["query"] == "anything" and len(found["results"]) == 1
    listed = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert found["results"][0] in listed
    assert listed[0].keys() == {
        "patient_pseudonym",
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
    }
    copies = tmp_path / "copies"
    said = medlens("select", *where, "--level", "instance", "--copy-to", copies).stderr
    assert f"{len(listed)} files copied to copies" in said and len(list(copies.iterdir())) == len(listed)


def test_an_empty_filter_says_what_the_store_has_in_every_command(store):
    none = ["--store", store, "--where", "Modality = CX", "--format", "json"]
    of_frames = "no frame says Modality CX; the store has US, CT, MR"
    of_files = "no file says Modality CX; the store has CT, MR, RTPLAN, SR, US"
    for command, note in ((("search", "x"), of_frames), (("select",), of_files), (("classify",), of_frames)):
        result = medlens(*command, *none)
        assert json.loads(result.stdout)["notes"] == [note] and note in result.stderr.splitlines(), command
    result = medlens("delete", "--dry-run", *none)
    assert json.loads(result.stdout)[0]["notes"] == [of_files] and of_files in result.stderr


def test_words_in_a_filter_are_noted(store):
    words = ["--store", store, "--where", "Modality = ultrasound", "--format", "json"]
    for command in (("search", "x"), ("select",), ("classify",)):
        result = medlens(*command, *words)
        answer = json.loads(result.stdout)
        assert answer["notes"] == ["Modality ultrasound is read as US, IVUS"] and answer["results"], command
    assert "must name the values themselves" in medlens("delete", "--yes", *words, code=1).stderr


def test_files_of_which_none_can_be_copied_are_an_error(archive, tmp_path):
    place = Path(shutil.copytree(archive, tmp_path / "archive"))
    medlens("index", place, "--store", tmp_path / "store", "--workers", 1)
    place.rename(tmp_path / "elsewhere")
    for command in (["search", "x"], ["select"]):
        result = medlens(*command, "--store", tmp_path / "store", "--copy-to", tmp_path / "copies", code=1)
        assert "could be copied to 'copies'" in result.stderr and "not copied: 1." in result.stderr


def test_a_store_whose_vectors_are_a_file_says_so(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    shutil.rmtree(copy / "vectors")
    (copy / "vectors").write_text("")
    for command in (["search", "x"], ["info"], ["verify", "--repair"]):
        assert "'vectors' in the store 'store' is not a folder" in medlens(*command, "--store", copy, code=1).stderr
    (copy / "vectors").unlink()
    medlens("search", "x", "--store", copy)


def test_describe_gives_sentences_of_the_reports(store, archive):
    rows = [json.loads(x) for x in medlens("describe", archive / "CT_small.dcm", "--store", store).stdout.splitlines()]
    assert rows and all(row["text"] and row["studies"] for row in rows)


def test_a_composed_query_says_what_each_part_gave(store, archive):
    asked = ["--image", archive / "CT_small.dcm", "--text", "brain", "--not", "spine", "--weight", "image=0.5"]
    asked += ["--fusion", "sum", "--ranker", "dense", "--level", "study", "--store", store]
    rows = [json.loads(line) for line in medlens("search", "MR", *asked).stdout.splitlines()]
    assert len({row["study_instance_uid"] for row in rows}) == len(rows) > 1
    for row in rows:
        header = ["header"] * (row["modality"] != "MR")
        assert list(row["breakdown"]) == ["text", "text2", "image", "not", *header]
        assert sum(row["breakdown"].values()) == pytest.approx(row["score"], abs=1e-5)
    table = medlens("search", "MR", *asked, "--format", "table").stdout
    assert "breakdown" in table
    second = medlens("search", "MR", *asked, "--offset", 1, "-k", 1).stdout.splitlines()
    assert [json.loads(line) for line in second] == [rows[1]]


def test_search_says_which_ranker_answered(store):
    head = json.loads(medlens("search", "the", "--store", store, "--format", "json").stdout)
    assert head["ranker"] == "dense" and head["score"] == "cosine similarity"


def test_describe_matches_phrases_and_says_whose_sentences_are(store, archive, tmp_path):
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("# three\nCT image\n\nMR image\nCT image\nultrasound\n")
    asked = ("describe", archive / "CT_small.dcm", "--store", store)
    rows = [json.loads(line) for line in medlens(*asked, "--phrases", phrases).stdout.splitlines()]
    assert sorted(row["text"] for row in rows) == ["CT image", "MR image", "ultrasound"]
    rows = [json.loads(line) for line in medlens(*asked, "--borrow", 1).stdout.splitlines()]
    assert {"same_patient", "same_study", "borrowed_from"} <= rows[0].keys()


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
    terms = "Apache-2.0 as far as medlens has rights; learned partly from non-commercial and unlicensed images"
    assert facts["model_terms"] == terms
    shown = medlens("info", "--store", store, "--format", "table").stdout
    assert "MR" in shown and terms.split(";")[0] in shown


def test_models_shows_the_terms_of_the_weights_in_a_line():
    terms = "Apache-2.0 as far as medlens has rights; learned partly from non-commercial and unlicensed images"
    listed = {
        row["name"]: row["terms"] for row in map(json.loads, medlens("models", "--format", "jsonl").stdout.splitlines())
    }
    assert listed[DEFAULT_MODEL] == terms
    shown = medlens("models", "--format", "table").stdout
    assert f"Terms of the weights of {DEFAULT_MODEL}: {terms}." in shown.splitlines()


def test_indexing_again_says_unchanged_and_the_report_lists_what_was_rejected(store, archive, tmp_path):
    report = tmp_path / "rejected.jsonl"
    result = medlens("index", archive, "--store", store, "--report", report, "--strict", "--format", "table", code=3)
    assert f"{len(FILES)} unchanged" in result.stdout
    assert [json.loads(line)["path"] for line in report.read_text().splitlines()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "x", "--not", "x"], "cancel out"),
        (["search", "x", "--modality", ""], "compared with an empty text"),
        (["search", "x", "--where", "kind = picture"], "expected image, report, other"),
        (["search", "x", "--montage", "nowhere/hits.png"], "can't be written: the folder 'nowhere' does not exist"),
        (["search", "x", "--cohort", "nowhere/hits.csv"], "can't be written: the folder 'nowhere' does not exist"),
        (["search", "x", "-o", "empty"], "it is a folder"),
        (["search", "--image", "{empty}"], "the file is a directory; expected a regular file"),
        (["search", "--image", "/dev/null"], "the file is a device; expected a regular file"),
        (["delete", "--patient", "", "--yes", "--store", "{store}"], "compared with an empty text"),
        (
            ["index", "{archive}", "--store", "{empty}/new", "--report", "nowhere/r.jsonl"],
            "can't be written: the folder 'nowhere' does not exist",
        ),
        (["search", "x", "--exclude-same-patient"], "the query has no image, so no patient can be left out"),
        (["search", "--image", "{archive}/notes.txt"], "the file is neither a DICOM file nor a picture"),
        (["search", "--image", "{archive}/CT_small.dcm", "--ranker", "text"], "no words in the query"),
        (["describe", "{archive}/CT_small.dcm", "--phrases", "missing.txt"], "missing.txt"),
        (["search", "x", "--image", "y.dcm"], "y.dcm"),
        (["search", "x", "--store", "nowhere"], "no store"),
        (["search", "x", "--model", "medlens-bass"], "medlens-base"),
        (["search", "x", "--where", "Modalty = CT"], "Did you mean 'Modality'?"),
        (["search", "x", "--where", "PatientAge > 60 and"], "^"),
        (["search", "x", "--where", " "], "the filter is empty"),
        (["select", "--where", "Modality < CT", "--store", "{store}"], "modality is text; expected one of =, !="),
        (["search", "--image", "missing.dcm"], "missing.dcm"),
        (["classify", "missing.dcm"], "missing.dcm"),
        (["classify", "{archive}/CT_small.dcm", "--labels", "modalty"], "modality"),
        (["describe", "{archive}/notes.txt"], "the file is neither a DICOM file nor a picture"),
        (["index", "{empty}", "--store", "{empty}/new"], "no files"),
        (["index", "nowhere", "--store", "{empty}/new"], "nowhere"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(arguments, said, store, archive, tmp_path):
    refused(arguments, said, 1, store, archive, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["search", "   "], "empty"),
        (["search"], "empty"),
        (["search", "x", "-k", "0"], "-k"),
        (["search", "--not", "x"], "expected at least one positive part"),
        (["search", "x", "--weight", "image=2"], "the parts are: text"),
        (["search", "x", "--weight", "txet=2"], "Did you mean 'text'"),
        (["search", "x", "--weight", "text=-1"], "above 0"),
        (["search", "x", "--weight", "text"], "NAME=NUMBER"),
        (["search", "x", "--text", "y", "--weight", "text=1e308"], "0.0001 to 10,000"),
        (["search", "x", "--weight", "text=nan"], "0.0001 to 10,000"),
        (["search", "x\udce9", "--format", "json"], "not UTF-8"),
        (["search", "x", "--ranker", "hybird"], "Did you mean 'hybrid'"),
        (["search", "x", "--level", "studies"], "Did you mean 'study'"),
        (["search", "x", "--fold", "nan"], "fold is nan"),
        (["search", "x", "--frame", "1"], "1 frame numbers were given for 0 images"),
        (["search", "--image", "{archive}/CT_small.dcm", "--frame", "0"], "the frame number of a query image is 0"),
        (["search", "x", "--montage", "hits.jpg"], ".png"),
        (["search", "x", "--cohort", "hits.txt"], ".csv or .json"),
        (["select", "--level", "studies", "--store", "{store}"], "studies"),
        (["select", "--cohort", "hits.txt", "--store", "{store}"], ".csv or .json"),
        (["describe", "{archive}/CT_small.dcm", "--format", "html"], "only `medlens search` can write html"),
        (
            ["delete", "--where", "Modality = CT", "--yes", "--format", "html", "--store", "{store}"],
            "only `medlens search` can write html",
        ),
        (["index", "{archive}", "--store", "{empty}/new", "--format", "html"], "only `medlens search` can write html"),
        (["index", "{archive}", "--store", "{empty}/new", "--frames", "some"], "max:N"),
        (["index", "{archive}", "--store", "{empty}/new", "--shard", "3/2"], "I/N"),
        (["render", "{archive}/CT_small.dcm", "-o", "x.txt"], ".png"),
        (["calibrate", "--labels", "modality", "--truth", "x.csv", "--plot", "x.txt"], ".png, .svg or .pdf"),
    ],
)
def test_an_option_that_can_not_be_is_a_usage_error(arguments, said, store, archive, tmp_path):
    refused(arguments, said, 2, store, archive, tmp_path)


def refused(arguments: list[str], said: str, code: int, store: Path, archive: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = [a.format(archive=archive, empty=empty, store=store) for a in arguments]
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
    assert process.returncode == code, process.stderr
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert not (empty / "new").exists()


def test_a_forgotten_archive_is_not_the_current_folder(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(archive)
    assert (
        "the path is empty; to name the current folder, write ."
        in medlens("index", "", "--store", tmp_path / "store", code=2).stderr
    )


def test_no_hits_are_an_answer_in_every_format(store, tmp_path):
    none, one = ("--modality", "PT"), ("--modality", "CT", "-k", 1)
    for command in (("search", "x"), ("select", "--level", "series"), ("select",), ("select", "--level", "instance")):
        filters = (none[:2], one if command[0] == "search" else one[:2])
        empty, full = (medlens(*command, *f, "--format", "csv", "--store", store).stdout for f in filters)
        assert empty.splitlines() == full.splitlines()[:1] and len(full.splitlines()) == 2, command
    sheet = tmp_path / "hits.png"
    result = medlens("search", "x", *none, "--montage", sheet, "--store", store)
    assert "no results, so hits.png was not written" in result.stderr and not sheet.exists() and result.stdout == ""


def test_an_erasure_that_finds_nothing_says_so(store):
    result = medlens("delete", "--patient", "DOE", "--store", store, "--format", "json")
    assert json.loads(result.stdout)[0]["erased"] == 0
    assert "nothing in the store matches" in result.stderr and "not a PatientID" in result.stderr


def test_names_that_are_no_utf_8_are_told_of_all_the_same(store, archive, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.dcm"))
    shutil.copy(archive / "CT_small.dcm", odd)
    bad = odd.with_name("no\udce9.dcm")
    bad.write_text("no DICOM\n" * 100)
    commands = (
        ["search", "--image", odd, "--store", store, "--format", "json", "-k", "1"],
        ["describe", odd, "--store", store, "--format", "json", "-k", "1"],
        ["index", tmp_path, "--store", tmp_path / "new", "--report", tmp_path / "r.jsonl", "--format", "json"],
    )
    program = (  # all in one process: what takes long is to start
        "import json, sys\nfrom cli.medlens_app import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    sys.argv[1:] = arguments\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        print('\\n', [end.code])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, json.dumps([[str(a) for a in command] for command in commands])],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    *answers, after = process.stdout.split(b"\n [0]\n")
    assert after == b"", process.stderr
    assert len([json.loads(answer) for answer in answers]) == 3
    assert json.loads((tmp_path / "r.jsonl").read_text())["reason"] == "not-dicom"


def test_ctrl_c_says_how_to_go_on(archive, tmp_path, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.tasks.indexing.index_archive", stopped)
    result = medlens("index", archive, "--store", tmp_path / "store", code=130)
    assert "same command" in result.stderr


def test_an_error_is_json_where_json_was_asked_for(store):
    result = medlens("search", " ", "--store", store, "--format", "json", code=2)
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


def test_a_log_for_programs_is_json_lines_without_paths(archive, tmp_path):
    result = medlens("index", archive, "--store", tmp_path / "store", "--log-json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("start", "done")
    assert events[0]["model"] == DEFAULT_MODEL
    last = {event["event"]: event for event in events}
    assert last["rejected"]["reasons"] == {"not-dicom": 1}
    assert last["commit"]["files"] == len(FILES) + 1
    assert last["commit"]["frames"] == last["done"]["frames"] == json.loads(result.stdout)["frames"]
    assert [event["seconds"] for event in events[:-1]] == sorted(event["seconds"] for event in events[:-1])
    assert not [name for name in (*FILES, "notes", str(tmp_path)) if name in result.stderr]


def test_a_log_of_a_run_that_fails_ends_with_stopped(archive, tmp_path, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise MedlensError("the disk is full")

    monkeypatch.setattr("indexer.tasks.indexing.index_archive", fails)
    result = medlens("index", archive, "--store", tmp_path / "store", "--log-json", code=1)
    assert json.loads(result.stderr.splitlines()[1])["type"] == "MedlensError"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["search", "CT", "--store", "STORE", "--format", "csv", "-o"], "x.csv"),
        (["search", "CT", "--store", "STORE", "--format", "jsonl", "-o"], "x.jsonl"),
        (["search", "CT", "--store", "STORE", "--format", "json", "-o"], "x.json"),
        (["search", "CT", "--store", "STORE", "--format", "html", "-o"], "x.html"),
        (["search", "CT", "--store", "STORE", "--level", "series", "--format", "csv", "-o"], "x.csv"),
        (["search", "CT", "--store", "STORE", "--montage"], "x.png"),
        (["search", "CT", "--store", "STORE", "--cohort"], "x.json"),
        (["search", "CT", "--store", "STORE", "--cohort"], "x.csv"),
        (["select", "--store", "STORE", "--level", "series", "--format", "csv", "-o"], "x.csv"),
        (["select", "--store", "STORE", "--level", "instance", "-o"], "x.jsonl"),
        (["classify", "--store", "STORE", "-o"], "x.csv"),
        (["classify", "--store", "STORE", "--level", "study", "-o"], "x.jsonl"),
        (["classify", "--store", "STORE", "--labels", "lesion, none", "--independent", "-o"], "x.json"),
        (["classify", "--store", "STORE", "-o"], "x.parquet"),
        (["classify", "ARCHIVE", "-o"], "x.csv"),
        (["export", "--store", "STORE"], "x.npz"),
        (["export", "--store", "STORE"], "x.parquet"),
        (["export", "--store", "STORE"], "x.faiss"),
        (["index", "ARCHIVE", "--store", "STORE", "--report"], "x.jsonl"),
        (["render", "ARCHIVE/CT_small.dcm", "-o"], "x.png"),
        (["render", "ARCHIVE/CT_small.dcm", "-o"], "x.jpg"),
    ],
)
def test_an_output_replaces_an_earlier_one_of_its_kind_alone(arguments, name, store, archive, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    target = tmp_path / name
    command = [a.replace("STORE", str(store)).replace("ARCHIVE", str(archive)) for a in arguments]
    medlens(*command, target)
    made = target.read_bytes()
    medlens(*command, target)
    assert len(target.read_bytes()) == len(made)
    target.write_bytes(b"mine")
    assert "--force" in medlens(*command, target, code=1).stderr
    assert target.read_bytes() == b"mine"
    medlens(*command, target, "--force")
    assert len(target.read_bytes()) == len(made)
