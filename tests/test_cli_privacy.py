"""No patient in anything medlens writes or prints: an archive whose identifying values are canaries."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from cli.medlens_app import app
from retrieval.encoders.model_source import DEFAULT_MODEL, shipped_models

CANARY = "CANARY"
pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in shipped_models(), reason="the default model is not in data/models")


@pytest.fixture(scope="module")
def archive(shared_data: Path, shared_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    script = shared_tools / "make_archive.py"
    pairs = shared_data / "pairs" / "medpix"
    subprocess.run([sys.executable, script, pairs, folder, "--limit", "12"], check=True, capture_output=True)
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        ds = dcmread(path)
        ds.StudyDescription = f"CT CHEST for {ds.PatientName}"
        ds.SeriesDescription = f"{ds.PatientID} axial"
        ds.RequestingPhysician = "CANARY^PHYSICIAN"
        if ds.Modality == "SR":
            ds.ContentSequence[0].TextValue += f" Discussed with {ds.ReferringPhysicianName}, ID {ds.PatientID}."
        ds.save_as(path)
        if number == 0:  # and one that breaks in its pixels, one that breaks in its header
            content = path.read_bytes()
            (folder / "cut.dcm").write_bytes(content[: len(content) // 2])
            (folder / "header.dcm").write_bytes(content[:700])
    return folder


def test_no_canary_leaves_the_archive(archive: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    page, report, picture = tmp_path / "hits.html", tmp_path / "rejected.jsonl", tmp_path / "x.png"
    sheet, cohort = tmp_path / "hits.png", tmp_path / "cohort.json"
    image = next(p for p in sorted(archive.rglob("*.dcm")) if dcmread(p, force=True).get("Modality") in ("CT", "MR"))
    said = []
    for arguments in (
        ["-vv", "index", archive, "--store", store, "--report", report, "--workers", 2],
        ["-vv", "index", archive, "--store", store, "--format", "table"],
        ["-vv", "search", "CANARY", "--store", store, "--format", "json", "-k", 50],
        ["-vv", "search", "--image", image, "--store", store],
        ["search", "axial CT", "--store", store, "--format", "html", "-o", page],
        ["-vv", "search", "CT", "--store", store, "--montage", sheet, "--cohort", cohort, "--where", "Modality = CT"],
        ["-vv", "select", "--store", store, "--level", "instance", "--format", "json"],
        ["-vv", "select", "--store", store, "--format", "table", "--where", "PatientName = CT"],
        ["-vv", "describe", image, "--store", store, "-k", 50],
        ["-vv", "classify", archive, "--labels", "modality"],
        ["-vv", "classify", archive / "header.dcm"],
        ["-vv", "render", archive / "cut.dcm", "-o", picture],
        ["info", "--store", store],
    ):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code in (0, 1), result.stderr
        echoed = (
            '"query": "CANARY"',
            "searched for: CANARY",
            "(check their spelling): CANARY",
        )  # what was typed is said again
        said.append(reduce(lambda text, echo: text.replace(echo, ""), echoed, result.stdout + result.stderr))
    assert json.loads(said[0].splitlines()[-1])["indexed"] > 12
    printed = "\n".join(said).replace(str(archive), "")
    assert CANARY not in printed
    for path in [page, report, sheet, cohort, *(p for p in store.rglob("*") if p.is_file())]:
        assert CANARY.encode() not in path.read_bytes(), path.name
    assert (store / "pseudonym.key").stat().st_mode & 0o777 == 0o600
