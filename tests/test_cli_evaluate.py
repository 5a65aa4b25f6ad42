"""`medlens evaluate` as a user meets it, with the model that ships."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import medlens
from PIL import Image

from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models

pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models")
QUICK = ("--resamples", 20)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures with words, two of each patient, half of them said to be CT and half MR; two training rows."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(14):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 5), np.uint8)
        Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"images/{i}.png")
        values = {
            "image": f"images/{i}.png",
            "text": f"{('CT', 'MR')[i % 2]} of organ {i} with finding{i // 2}",
            "title": f"finding{i // 2}",
            "group": f"SECRET{i // 2}",
            "split": "dev" if i < 12 else "train",
            "modality": ("CT", "MR")[i % 2],
        }
        lines.append(json.dumps(values))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_figures_of_a_pairs_file_with_interval_and_chance(pairs: Path) -> None:
    rows = [json.loads(line) for line in medlens("evaluate", pairs, *QUICK).stdout.splitlines()]
    tasks = {row["task"] for row in rows}
    assert tasks == {"image to text", "text to image", "zero-shot modality"}
    found = next(row for row in rows if row["figure"] == "R@10")
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert found["chance"] == pytest.approx(10 / 12)
    shown = medlens("evaluate", pairs, *QUICK, "--format", "table").stdout
    assert "R@10" in shown and "chance" in shown and "SECRET" not in shown


def test_a_second_text_asks_and_the_report_is_written(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = medlens("evaluate", pairs, "--query", "title", *QUICK, "-o", out, "--format", "json")
    document = json.loads(result.stdout)[0]
    by = {way["ranker"]: way["figures"]["R@5"]["value"] for way in document["retrieval"] if "second" in way["task"]}
    assert document["model"] == DEFAULT_MODEL
    assert document["rows"]["images"] == 12 and document["rows"]["groups"] == 6
    assert set(by) == {"dense", "text", "hybrid"}
    assert by["text"] == 1  # the title stands in the text, word by word
    assert json.loads((out / "metrics.json").read_text()) == document
    page = (out / "report.html").read_text()
    assert page.count("<img") == 3 * 2 + 2
    assert f"{DEFAULT_MODEL} was computed in fp32 by medlens" in page
    assert "SECRET" not in page + (out / "metrics.json").read_text()
    only = medlens("evaluate", pairs, "--query", "title", *QUICK, "--ranker", "text", "--format", "csv")
    table = list(csv.DictReader(io.StringIO(only.stdout)))
    assert {row["by"] for row in table if "second" in row["task"]} == {"text"}


def test_labels_alone(pairs: Path) -> None:
    rows = [json.loads(x) for x in medlens("evaluate", pairs, "--zero-shot", *QUICK).stdout.splitlines()]
    assert {row["task"] for row in rows} == {"zero-shot modality"}
    assert {row["by"] for row in rows} == {"medlens", "plain softmax"}
    said = medlens("evaluate", pairs, "--zero-shot", "--precision", "bf16", *QUICK).stderr
    assert f"medlens: {DEFAULT_MODEL} was computed in bf16 by medlens" in said
    named = medlens("evaluate", pairs, "--zero-shot", "--labels", "CT, MR=modality", *QUICK).stdout.splitlines()
    assert json.loads(named[0])["task"] == "zero-shot inline"


def test_calibrated_probabilities_are_judged_on_patients_the_calibration_has_not_seen(
    pairs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    lines = []
    for i in range(24):
        pixels = (
            np.random.default_rng(100 + i).integers(0, 256, (40, 40), np.uint8) if i % 2 else np.full((40, 40), 8 * i)
        )
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'CT' if i % 2 else 'MR'},p{i}\n")
    (tmp_path / "truth.csv").write_text("file,label,patient\n" + "".join(lines))
    kept, out = tmp_path / "kept.json", tmp_path / "report"
    medlens("calibrate", "--labels", "modality", "--truth", tmp_path / "truth.csv", "-o", kept)
    arguments = ["--zero-shot", "--labels", "modality", "--calibration", kept, *QUICK]
    document = json.loads(medlens("evaluate", pairs, *arguments, "-o", out, "--format", "json").stdout)[0]
    calibrated = document["zero_shot"][0]["calibrated"]
    assert calibrated["rows"] == 12
    assert all("ECE" in figures for figures in calibrated["estimates"].values()) and len(calibrated["estimates"]) == 3
    assert "has not seen" in (out / "report.html").read_text()
    other = medlens("evaluate", pairs, "--zero-shot", "--labels", "CT, MR=modality", "--calibration", kept, code=1)
    assert "kept.json" in other.stderr and "which is not evaluated with the same prompts" in other.stderr


def test_a_model_compared_with_itself_does_not_differ(pairs: Path) -> None:
    result = medlens("evaluate", pairs, *QUICK, "--compare", DEFAULT_MODEL)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["task"] for row in rows} == {"image to text, dense", "text to image, dense", "zero-shot modality"}
    assert all(row["value"] == row["low"] == row["high"] == 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["{pairs}", "--split", "test"], "dev, train"),
        (["{pairs}", "--text", "caption"], "'caption'"),
        (["{pairs}", "--ranker", "text"], "--query FIELD"),
        (["{pairs}", "--query", "title", "--ranker", "fuzzy"], "dense, text, hybrid"),
        (["{pairs}", "--labels", "plane"], "no field 'plane'"),
        (["{pairs}", "--labels", "plane=modality"], "0 of the labels"),
        (["{pairs}", "--split", "all", "--trained-on", "{pairs}"], "groups"),
        (["--store", "nowhere"], "no store"),
        (["{broken}"], "row 1 of 12 can't be read"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], said: str, pairs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pairs, broken)
    (broken / "images/0.png").write_bytes(b"no picture")
    result = medlens("evaluate", *[a.format(pairs=pairs, broken=broken) for a in arguments], *QUICK, code=1)
    assert said in result.stderr
    assert "SECRET" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize("option", [["--split", "dev"], ["--text", "x"], ["--query", "x"], ["--trained-on", "x"]])
def test_a_store_has_no_fields_of_a_pairs_file(option: list[str], tmp_path: Path) -> None:
    said = medlens("evaluate", "--store", tmp_path, *option, code=2).stderr
    assert f"{option[0]} can only be used with a pairs file, and no pairs file was named" in said


@pytest.mark.slow
def test_a_store_is_judged_by_its_own_reports(shared_data: Path, shared_tools: Path, tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", tmp_path / "store"
    make = [sys.executable, shared_tools / "make_archive.py", shared_data / "pairs/medpix", archive, "--limit", "24"]
    subprocess.run([*map(str, make), "--split", "dev"], check=True, capture_output=True)
    medlens("index", archive, "--store", store, "--workers", 1)
    result = medlens("evaluate", "--store", store, *QUICK, "--format", "json")
    document = json.loads(result.stdout)[0]
    assert document["rows"]["images"] == 24
    assert [way["task"] for way in document["retrieval"]][:2] == ["image to text", "text to image"]
    assert document["retrieval"][0]["gallery"] > 10  # sentences
    assert {found["labels"] for found in document["zero_shot"]} == {"body_region"}  # all are of one modality
    assert "CANARY" not in result.stdout + result.stderr
    # The same model from another folder: encoded anew, and the same but for the rounding of stored vectors.
    copy = tmp_path / "copy"
    shutil.copytree(shipped_models()[DEFAULT_MODEL], copy)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    rows = [
        json.loads(line)
        for line in medlens("evaluate", "--store", store, *QUICK, "--compare", copy).stdout.splitlines()
    ]
    first = {w["task"]: w["figures"]["MRR"]["value"] for w in document["retrieval"]}
    compared = next(row for row in rows if row["figure"] == "MRR" and row["task"].startswith("image to text"))
    assert compared["first"] == first["image to text"]
    assert compared["second"] == pytest.approx(compared["first"], abs=0.15)
