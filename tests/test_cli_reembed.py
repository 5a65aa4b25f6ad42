"""`medlens reembed`, and what a store answers whose model is not at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import copied, medlens
from tiny_models import write_clip

from indexer.store.place import KEY_FILE
from retrieval.encoders import hub, known_models
from retrieval.encoders.released import title

REFERENCE = Path(__file__).parent / "reference" / "store-0.1.0"
FILES = ("CT_small.dcm", "MR_small.dcm", "reportsi.dcm")
CT, CINE = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322", "1.2.3.4.4"
OWN_CONFIG = {"embed_dim": 48}


def answer(*arguments: object) -> dict[str, Any]:
    """The one row that a command answers."""
    (line,) = medlens(*arguments, "--format", "jsonl").stdout.splitlines()
    row: dict[str, Any] = json.loads(line)
    return row


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return write_clip(folder / "first"), write_clip(folder / "second", config=OWN_CONFIG)


@pytest.fixture
def world(models: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """An archive, and its store by the first model."""
    (tmp_path / "archive").mkdir()
    archive = copied(FILES, tmp_path / "archive")
    medlens("index", archive, "--store", tmp_path / "store", "--model", models[0], "--workers", 1)
    return archive, tmp_path / "store"


def test_a_store_changes_its_model_and_answers_by_it(world: tuple[Path, Path], models: tuple[Path, Path]) -> None:
    _, store = world
    refused = medlens("index", world[0], "--store", store, "--model", models[1], code=1).stderr
    assert "belongs to the model 'first'" in refused
    assert f"medlens reembed --model {models[1].name}" in refused
    row = answer("reembed", "--store", store, "--model", models[1], "--workers", 1)
    assert (row["model"], row["former_model"], row["switched"]) == ("second", "first", True)
    assert (row["frames"], row["kept"], row["unreadable"], row["left_out"]) == (2, 0, {}, 0)
    info = answer("info", "--store", store)
    assert (info["model"], info["dimensions"], info["next_model"]) == ("second", 48, None)
    found = json.loads(medlens("search", "--store", store, "--like", f"{CT}#1", "--format", "json").stdout)
    assert (found["model"], found["results"][0]["sop_instance_uid"]) == ("second", CT)
    medlens("search", "a chest", "--store", store)
    assert "unchanged" in medlens("index", world[0], "--store", store, "--workers", 1, "--format", "table").stdout
    again = medlens("reembed", "--store", store, "--model", models[1], "--format", "table").stdout
    assert again.startswith("encoded 0 frames and 0 sentences") and "'store' has the model second" in again


def test_what_cannot_be_read_is_listed_and_the_model_kept(
    world: tuple[Path, Path], models: tuple[Path, Path], tmp_path: Path
) -> None:
    archive, store = world
    (archive / "CT_small.dcm").rename(tmp_path / "away.dcm")
    place = ("--store", store, "--model", models[1], "--workers", 1, "--format", "table")
    stopped = medlens("reembed", *place, "--report", tmp_path / "unreadable.jsonl", code=3)
    assert "1 files with 1 frames can't be read again" in stopped.stdout
    assert "the store keeps its model, first: 1 files can't be read again" in stopped.stderr
    (line,) = (tmp_path / "unreadable.jsonl").read_text().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["reason"]) == ("CT_small.dcm", "unreadable")
    info = answer("info", "--store", store)
    assert info["model"] == "first"
    assert info["next_model"] == {
        "model": "second",
        "frames": 1,
        "of_frames": 2,
        "sentences": info["sentences"],
        "of_sentences": info["sentences"],
    }
    other = medlens("reembed", "--store", store, "--model", models[0], code=1).stderr
    assert "to the model second was begun and is not finished" in other
    (tmp_path / "away.dcm").rename(archive / "CT_small.dcm")
    # Without --model it goes on with the change that was begun.
    done = medlens("reembed", "--store", store, "--workers", 1, "--format", "table").stdout
    assert done.startswith("encoded 1 frames and 0 sentences") and "'store' has the model second" in done


def test_leaving_out_and_abandoning(world: tuple[Path, Path], models: tuple[Path, Path]) -> None:
    archive, store = world
    (archive / "CT_small.dcm").unlink()
    medlens("reembed", "--store", store, "--model", models[1], "--workers", 1, code=3)
    assert medlens("reembed", "--store", store, "--abandon", "--restart", code=2).exit_code == 2
    assert answer("reembed", "--store", store, "--abandon") == {"abandoned": True}
    done = medlens("reembed", "--store", store, "--model", models[1], "--drop-unreadable", "--format", "table").stdout
    assert "1 instances were left out; `medlens index` looks at their files again" in done


@pytest.fixture
def old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 0.1.0's, where its model is not shipped any more."""
    store = shutil.copytree(REFERENCE, tmp_path / "old")
    (store / KEY_FILE).chmod(0o600)
    monkeypatch.setattr(known_models, "shipped_models", dict)
    return store


def test_without_its_model_a_store_answers_what_needs_none(old_store: Path) -> None:
    place = ("--store", old_store, "--format", "json")
    assert json.loads(medlens("select", *place).stdout)["found"] == 3
    assert answer("show", f"{CT}#1", "--store", old_store)["sop_instance_uid"] == CT
    words = json.loads(medlens("search", "pleural effusion", "--ranker", "text", *place).stdout)["results"]
    assert {hit["sop_instance_uid"] for hit in words} == {CINE}
    like = json.loads(medlens("search", "--like", f"{CT}#1", *place).stdout)["results"]
    assert like[0]["sop_instance_uid"] == CT
    assert json.loads(medlens("describe", f"{CT}#1", *place).stdout)["results"]
    labelled = json.loads(medlens("select", "--where", "label.MR > 0.9", *place).stdout)
    assert labelled["found"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "pleural effusion"),
        ("search", "--like", "prior.png"),
        ("describe", "prior.png"),
        ("classify", "--labels", "modality"),
        ("index", "."),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_without_its_model_words_and_foreign_pictures_are_refused_with_the_remedy(
    arguments: tuple[str, ...], old_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32)).save(tmp_path / "prior.png")
    said = medlens(*arguments, "--store", old_store, code=1).stderr
    assert "this store was made with medlens-base 0.1.0, which this medlens does not ship any more" in said
    assert "medlens reembed --model medlens-base" in said


def test_index_asks_no_hub_for_a_model_that_is_not_the_stores(
    world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store = world

    def asked(*arguments: object, **options: object) -> None:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", asked)
    monkeypatch.setattr("open_clip.download_pretrained", asked)
    monkeypatch.setattr(hub, "cached_folder", lambda repository: None)
    for model in ("hf-hub:nobody/else", "ViT-B-32@openai"):
        said = medlens("index", archive, "--store", store, "--model", model, code=1).stderr
        assert "the store belongs to the model 'first'" in said and "nothing was downloaded" in said
        assert f"medlens reembed --model {model}" in said


def test_a_released_model_is_named_with_its_version() -> None:
    assert title({"name": "x", "weights_sha256": "0" * 64}) == "x"
    released = "66479d957aef908a4e33561be6ab40abdaa391745d42988f906a4f1800f78d62"
    assert title({"name": "anything", "weights_sha256": released}) == "medlens-base 0.1.0"
