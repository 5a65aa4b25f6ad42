"""A store written down as a pairs set to train on: what is in it, whose it is, and when it is made anew."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from catalog_factory import SPEC, indexed
from command_line import medlens
from drawn_world import SHAPES, TONES, make_world, settings_of_run
from exporting_process import export_in_process
from PIL import Image
from pydicom.data import get_testdata_file

from indexer.reading.files import PictureRequest, read_picture
from indexer.store.store import Store
from indexer.tasks.training_pairs import ExportSettings, export_pairs, side_of
from retrieval.errors import QueryError, TrainingError
from retrieval.training.config import load_config
from retrieval.training.run import train

AXIAL = r"1\0\0\0\1\0"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(str(get_testdata_file(name)), folder / name)
    (folder / "broken.dcm").write_bytes(b"\0" * 300)
    return folder


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Store:
    """A CT with a report of two sentences, an MR with one, a broken and a missing file, an image without a report."""
    made = Store.create(tmp_path / "store", SPEC)
    made.catalog.files.commit(
        made.catalog.files.archive_id(str(archive)),
        [
            indexed(
                "CT_small.dcm", "1.1", frames=1, study_instance_uid="a", image_orientation_patient=AXIAL, modality="CT"
            ),
            indexed("ct.sr", "1.2", frames=0, sentences=("Clear lungs", "No effusion."), study_instance_uid="a"),
            indexed("MR_small.dcm", "2.1", frames=1, study_instance_uid="b", modality="MR"),
            indexed("broken.dcm", "2.2", frames=1, study_instance_uid="b"),
            indexed("gone.dcm", "2.3", frames=1, study_instance_uid="b"),
            indexed("mr.sr", "2.4", frames=0, sentences=("Normal brain.",), study_instance_uid="b"),
            indexed("alone.dcm", "3.1", frames=1, study_instance_uid="c"),
        ],
    )
    return made


def rows_of(pairs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]


def test_frames_with_their_studys_report(store: Store, archive: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    out = tmp_path / "work" / "pairs"
    found = export_pairs(store, out, ExportSettings(longest=50), progress=lambda *at: done.append(at))
    assert (found.rows, found.patients, found.without_report, found.changed) == (2, 2, 1, False)
    assert found.unreadable == {"not-dicom": 1, "unreadable": 1}
    assert done[-1] == (4, 4)
    ct, mr = rows_of(found.pairs)
    assert (ct["text"], ct["modality"], ct["plane"], ct["group"]) == (
        "Clear lungs. No effusion.",
        "CT",
        "axial",
        "p1.1",
    )
    assert (mr["text"], mr["group"]) == ("Normal brain.", "p2.1")
    assert "plane" not in mr
    assert ct["split"] == side_of("p1.1", 0.1)
    picture = np.asarray(Image.open(out / ct["image"]))
    expected = read_picture(PictureRequest(archive / "CT_small.dcm", longest=50))
    assert picture.shape == (50, 50)
    np.testing.assert_array_equal(picture, expected)
    assert (out.stat().st_mode & 0o777) == 0o700
    # Nothing of a header but what the catalog keeps of it.
    assert {name for row in (ct, mr) for name in row} == {"image", "text", "group", "split", "plane", "modality"}


def test_patients_keep_their_side_as_the_store_grows() -> None:
    sides = [side_of(f"patient{i}", 0.25) for i in range(4000)]
    assert sides.count("dev") == pytest.approx(1000, abs=110)  # four standard deviations
    assert sides == [side_of(f"patient{i}", 0.25) for i in range(4000)]
    small = {i for i in range(4000) if side_of(f"patient{i}", 0.1) == "dev"}
    assert small < {i for i in range(4000) if sides[i] == "dev"}, "a larger share takes none back"


def test_a_study_without_a_patient_is_no_uid(archive: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "nameless", SPEC) as made:
        file = indexed("CT_small.dcm", "1.1", frames=1, study_instance_uid="1.2.3.4")
        report = indexed("r", "1.2", frames=0, sentences=("Clear lungs.",), study_instance_uid="1.2.3.4")
        files = [replace(f, record=replace(f.record, patient_pseudonym=None)) for f in (file, report)]
        made.catalog.files.commit(made.catalog.files.archive_id(str(archive)), files)
        text = export_pairs(made, tmp_path / "pairs").pairs.read_text()
    assert "study-" in text
    assert "1.2.3.4" not in text


def test_it_is_made_anew_only_when_it_has_to_be(store: Store, archive: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "work" / "pairs", ExportSettings(longest=40)
    reads: list[int] = []

    def export(settings: ExportSettings = settings, **options: Any) -> Any:
        reads.clear()
        return export_pairs(store, out, settings, progress=lambda done, total: reads.append(done), **options)

    first = export()
    assert reads
    assert export() == first
    assert not reads
    more = indexed("CT_small.dcm", "9.1", frames=1, study_instance_uid="a")
    store.catalog.files.commit(store.catalog.files.archive_id(str(archive)), [more])
    kept = export(keep=True)
    assert not reads
    assert kept == replace(first, changed=True)
    new = export()
    assert reads
    assert new.rows == first.rows  # the file at that path has another owner now
    other = export(ExportSettings(longest=30), keep=True)
    assert reads
    assert max(np.asarray(Image.open(out / rows_of(other.pairs)[0]["image"])).shape) == 30
    assert [path.name for path in out.parent.iterdir()] == ["pairs"], "nothing unfinished is left"


def test_what_cant_be_trained_on_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="the store 'store' has no frame with a report to train on; 0 frames have no report"
    ):
        export_pairs(store, tmp_path / "a", ExportSettings(where="Modality = US"))
    assert export_pairs(store, tmp_path / "b", ExportSettings(where="Modality = MR")).rows == 1
    with pytest.raises(QueryError):
        export_pairs(store, tmp_path / "c", ExportSettings(where="Modality ="))
    with pytest.raises(TrainingError, match="none of the 2 frames could be read: 1 not-dicom, 1 unreadable"):
        export_pairs(store, tmp_path / "d", ExportSettings(where="Modality is missing"))


def test_of_two_processes_one_makes_it(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = (tmp_path / "store", tmp_path / "work" / "pairs", answers)
    processes = [context.Process(target=export_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    made = sorted(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    assert made == [False, True]


@pytest.mark.slow
def test_nothing_of_a_patient_is_written(shared_data: Path, shared_tools: Path, tmp_path: Path) -> None:
    """DICOM files and structured reports whose identifying values are canaries, indexed and written down."""
    archive, place = tmp_path / "archive", tmp_path / "store"
    make = [sys.executable, shared_tools / "make_archive.py", shared_data / "pairs/medpix", archive, "--limit", "24"]
    subprocess.run([*map(str, make), "--split", "dev"], check=True, capture_output=True)
    medlens("index", archive, "--store", place, "--workers", 1)
    with Store.open(place) as opened:
        found = export_pairs(opened, tmp_path / "pairs", ExportSettings(longest=96))
    assert (found.rows, found.unreadable) == (24, {})
    rows = rows_of(found.pairs)
    assert all(len(row["text"].split()) > 3 for row in rows)
    assert found.patients == len({row["group"] for row in rows}) > 1
    for path in (tmp_path / "pairs").rglob("*"):
        assert path.is_dir() or b"CANARY" not in path.read_bytes(), path.name


# A run on a store


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn world with its first 72 pictures in a store, two of each patient, and their texts as reports."""
    root = make_world(tmp_path_factory.mktemp("world"))
    with Store.create(root / "site", SPEC) as made:
        files = []
        for i in range(72):
            about = {"study_instance_uid": f"s{i}", "modality": "OT"}
            picture = indexed(f"{i}.png", f"1.{i}", frames=1, **about)
            said = (f"a {TONES[i // 3 % 2]} {SHAPES[i % 3]}",)
            report = indexed(f"{i}.sr", f"2.{i}", frames=0, sentences=said, **about)
            patient = f"pseudonym{i // 2}"
            files += [replace(f, record=replace(f.record, patient_pseudonym=patient)) for f in (picture, report)]
        made.catalog.files.commit(made.catalog.files.archive_id(str(root / "shapes")), files)
    return root


def settings(world: Path, name: str, **source: Any) -> Path:
    schedule = {"epochs": 2, "batch_size": 16, "evaluate_every": 1, "warmup_steps": 3}
    data = [{"store": "site", "dev_share": 0.3, "terms": "the site's own", **source}]
    values = settings_of_run(output=f"out/{name}", data=data, label_sets={}, schedule=schedule)
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_model_is_trained_on_a_store(world: Path) -> None:
    path = settings(world, "stored")
    result = medlens("train", path, "--device", "cpu", "--tensorboard", world / "logs")
    assert "store site: 72 pictures of 36 patients" in result.stderr
    rows = rows_of(world / "out" / "stored.work" / "stores" / "site" / "pairs.jsonl")
    sides = {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "dev")}
    assert not sides["train"] & sides["dev"]
    assert len(sides["dev"]) == sum(side_of(f"pseudonym{i}", 0.3) == "dev" for i in range(36))
    card = (world / "out" / "stored" / "README.md").read_text()
    dev = sum(row["split"] == "dev" for row in rows)
    assert f"| site | {72 - dev} | {dev} | 36 | the site's own |" in card
    assert "pseudonym" not in card + result.stdout + result.stderr
    assert list((world / "logs" / "shapes").glob("events.*"))
    again = medlens("train", path, "--device", "cpu")
    assert "store site: 72 pictures of 36 patients" in again.stderr


def test_what_a_store_and_a_pairs_file_may_say(world: Path) -> None:
    for source, said in (
        ({"pairs": "shapes/pairs.jsonl"}, "either pairs: FILE or store: PLACE"),
        ({"store": None}, "either pairs"),
        ({"store": None, "pairs": "shapes/pairs.jsonl"}, "dev_share belong to a store"),
        ({"dev_share": 2}, "dev_share"),
    ):
        with pytest.raises(TrainingError, match=said):
            load_config(settings(world, "odd", **source))
    config = load_config(settings(world, "library"))
    assert config.data[0].store == str(world / "site")
    with pytest.raises(TrainingError, match="a store can't be read as a pairs file"):
        train(config)
    url = load_config(settings(world, "url", store="postgresql+psycopg://me@host/db"))
    assert url.data[0].store == "postgresql+psycopg://me@host/db"
