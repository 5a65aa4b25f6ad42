"""classify over a store and over files, calibrate, and the label sets, as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import copied, medlens

from cli.medlens_output.spool import Spool
from indexer.output_formats import json_lines
from indexer.outputs import Output
from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models
from retrieval.errors import MedlensError

FILES = ("CT_small.dcm", "MR_small.dcm", "examples_ybr_color.dcm")
pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models")


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(FILES, tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def store(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    medlens("index", archive, "--store", folder, "--workers", 1)
    return folder


def test_a_store_is_labelled_from_its_vectors(store: Path, tmp_path: Path) -> None:
    rows = rows_of(medlens("classify", "--store", store, "--where", "Modality in (CT, MR)").stdout)
    assert len(rows) == 2
    for row in rows:
        assert row["label"] == max(row["scores"], key=row["scores"].get)
        assert "probability" not in json.dumps(row)
    medlens("classify", "--store", store, "--labels", "chexpert", "-o", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open() as file:
        flat = list(csv.DictReader(file))
    assert len(flat) == len(rows_of(medlens("classify", "--store", store).stdout))
    assert all(0 <= float(row["score.pleural effusion"]) <= 1 for row in flat)
    parquet = pytest.importorskip("pyarrow.parquet")
    medlens("classify", "--store", store, "--labels", "chexpert", "-o", tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["score.edema"] for row in table] == [float(row["score.edema"]) for row in flat]
    studies = rows_of(medlens("classify", "--store", store, "--level", "study").stdout)
    assert sum(row["frames"] for row in studies) == len(flat)


def test_saved_labels_filter(store: Path) -> None:
    rows = rows_of(medlens("classify", "--store", store, "--labels", "modality", "--save").stdout)
    (facts,) = rows_of(medlens("info", "--store", store).stdout)
    assert facts["labelled_frames"] == {"modality": len(rows)}
    border = sorted(row["scores"]["CT"] for row in rows)[-1] - 1e-4
    best = rows_of(medlens("classify", "--store", store, "--where", f"label.CT >= {border:.5f}").stdout)
    assert [row["scores"]["CT"] for row in best] == [max(row["scores"]["CT"] for row in rows)]


def test_files_go_on_where_they_stopped(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    whole = rows_of(medlens("classify", archive, "-o", tmp_path / "whole.jsonl").stdout)
    whole = rows_of((tmp_path / "whole.jsonl").read_text())
    assert {row["file"] for row in whole} == set(FILES)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cli.medlens_output.spool.Spool.rows", stopped)
        medlens("classify", archive, "-o", out, code=130)
    assert not out.exists()
    spool = tmp_path / ".out.jsonl.partial.jsonl"
    lines = spool.read_text().splitlines(keepends=True)
    spool.write_text("".join(lines[:2]) + lines[2][:20])  # the last row was torn
    result = medlens("classify", archive, "-o", out)
    assert "notes.txt" in result.stderr
    assert sorted(rows_of(out.read_text()), key=str) == sorted(whole, key=str)
    assert not spool.exists()


def test_a_spool_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    def done(stamp: str) -> set[str]:
        with Spool(Output(tmp_path / "out", json_lines("labels", ("file",))), stamp) as spool:
            return spool.done

    with Spool(Output(tmp_path / "out", json_lines("labels", ("file",))), "one") as spool:
        spool.add([{"file": "a\udce9"}])
    assert done("one") == {"a\udce9"}
    assert done("two") == set()
    assert not list(tmp_path.iterdir())  # a spool without rows is not kept
    (tmp_path / ".out.partial.jsonl").write_bytes(b"\xff\x00 no spool\n")
    assert done("one") == set()


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    with Spool(Output(tmp_path / "out", json_lines("labels", ("file",))), "one") as spool:
        spool.add([{"file": "a"}])
        with pytest.raises(MedlensError, match="another run is writing 'out'"):
            Spool(Output(tmp_path / "out", json_lines("labels", ("file",))), "one")
        assert [row["file"] for row in spool.rows()] == ["a"]


def test_calibrate_refuses_a_truth_of_another_archive(store: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("sop_instance_uid,label\n1.2.3,CT\n")
    result = medlens("calibrate", "--labels", "modality", "--truth", truth, "--store", store, code=1)
    assert "1 of the 1 images in the truth file 'truth.csv' are not in the store" in result.stderr
    rows = rows_of(medlens("classify", "--store", store).stdout)
    lines = "".join(f"{uid},CT\n" for uid in {row["sop_instance_uid"] for row in rows})
    truth.write_text("sop_instance_uid,label\n" + lines)
    result = medlens("calibrate", "--labels", "modality", "--truth", truth, "--store", store, code=1)
    assert "patients" in result.stderr
    truth.write_text("file,label\nmissing.png,CT\n")
    result = medlens("calibrate", "--labels", "modality", "--truth", truth, "-o", tmp_path / "c.json", code=1)
    assert "line 2" in result.stderr


def test_pictures_are_calibrated_and_then_have_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = []
    for i in range(24):
        pixels = rng.integers(0, 255, (40, 40), np.uint8) if i % 2 else np.full((40, 40), 8 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'CT' if i % 2 else 'MR'},p{i}\n")
    (tmp_path / "truth.csv").write_text("file,label,patient\n" + "".join(lines))
    kept, plot = tmp_path / "c.json", tmp_path / "plot.png"
    arguments = ["--labels", "CT, MR", "--truth", tmp_path / "truth.csv", "-o", kept]
    if pytest.importorskip("matplotlib"):
        arguments += ["--plot", plot]
    (figures,) = rows_of(medlens("calibrate", *arguments).stdout)
    assert figures["rows"] == 24 and plot.stat().st_size > 1000
    wishes = ["--calibration", kept, "--coverage", 0.9, "--unknown", 0.05]
    (row,) = rows_of(medlens("classify", tmp_path / "1.png", "--labels", "CT, MR", *wishes).stdout)
    assert {"probability", "probabilities", "possible", "unknown"} <= row.keys()
    result = medlens("classify", tmp_path / "1.png", "--labels", "modality", "--calibration", kept, code=1)
    assert "'inline'" in result.stderr


def test_bad_wishes_are_clear_errors(store: Path, archive: Path, tmp_path: Path) -> None:
    for arguments, said, code in (
        (["--coverage", 0.9], "need a calibration", 1),
        (["--level", "patient"], "'study'", 2),
        (["--labels", "edema, mass", "--save"], "labels given on the command line have no name to save them under", 1),
        (["--labels", "modality", "--independent"], "the labels of 'modality' are exclusive", 1),
        (["--where", "label.nothing > 0.5"], "the store has no saved label 'nothing'", 1),
        (["--sensitivity", 0.9, "--specificity", 0.9], "one of them", 2),
        ([archive, "--save"], "for a store", 2),
    ):
        assert said in medlens("classify", "--store", store, *arguments, code=code).stderr


def test_label_sets_are_shown_and_checked(tmp_path: Path) -> None:
    rows = rows_of(medlens("labels", "list").stdout)
    listed = {row["name"]: row["kind"] for row in rows}
    meant_for = {row["name"]: row["meant_for"] for row in rows}
    assert meant_for["breast_finding"] == ["US", "MG"]
    assert meant_for["modality_fine"] == []
    assert listed["chexpert"] == listed["chestxray14"] == "independent"
    assert {"modality", "body_region", "plane", "pneumonia", "projection"} <= {
        n for n, k in listed.items() if k == "exclusive"
    }
    shown = rows_of(medlens("labels", "show", "edema, mass", "--independent").stdout)
    assert shown[0]["absent"] == ["normal", "no edema", "normal, no edema"]
    checked = rows_of(medlens("labels", "check", "plane").stdout)
    assert {row["label"] for row in checked} == {"axial", "coronal", "sagittal"}
    (tmp_path / "bad.yaml").write_text("name: x\nlabels: []\n")
    assert "labels" in medlens("labels", "check", tmp_path / "bad.yaml", code=1).stderr
