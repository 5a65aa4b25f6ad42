"""The judged comparison of a model with its own library, the list of models, and the table of public ones."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import medlens
from test_retrieval_checkpoints import COCA
from tiny_models import CLIP_PREPROCESS, write_biomedclip, write_clip
from tiny_transformers import write_dual_encoder

from retrieval.encoders import model_list, original_library
from retrieval.encoders.config_rules import is_repository
from retrieval.encoders.model_check import TEXTS, Judgement, ModelCheck, check_model
from retrieval.encoders.original_library import OriginalModel
from retrieval.encoders.public_models import checked_on, public_models
from retrieval.encoders.transformers_model import Tokenizer
from retrieval.errors import EncoderError, TrainingError, WeightsNotFound
from retrieval.training.model_folder import find_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def coca(folder: Path) -> Path:
    import open_clip

    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.CoCa(**{key: value for key, value in COCA.items() if key != "custom_text"})
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    described = {"model_cfg": COCA, "preprocess_cfg": CLIP_PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def biomedclip(folder: Path) -> Path:
    write_biomedclip(folder, folder.parent / "scratch", vision="vit_tiny_patch16_224", hidden=128, layers=1)
    return folder


def checkpoint(folder: Path) -> Path:
    """Names that open_clip itself would not know."""
    write_clip(folder, weights="open_clip_pytorch_model.bin")
    state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    wrapped = {f"ema_model.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": wrapped}, folder / "open_clip_pytorch_model.bin")
    return folder


MODELS = {
    "clip": lambda folder: write_clip(folder),
    "coca": coca,
    "biomedclip": biomedclip,
    "checkpoint": checkpoint,
    "medsiglip in shards": lambda folder: write_dual_encoder(folder, "siglip as MedSigLIP", "sharded in fp16"),
    "pubmedclip": lambda folder: write_dual_encoder(folder, "clip as PubMedCLIP", "pickle"),
    "vit and bert": lambda folder: write_dual_encoder(folder, "vit and bert"),
}
JUDGED = {"pixels", "tokens", "embeddings of images", "embeddings of texts"}


def of(checked: ModelCheck, name: str) -> Judgement:
    (found,) = (one for one in checked.judgements if one.check == name)
    return found


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_model_of_ones_own_is_judged_by_its_own_library(tmp_path: Path, kind: str) -> None:
    checked = check_model(str(MODELS[kind](tmp_path / "model")), "cpu")
    assert checked.passed, checked.judgements
    assert {name for name in JUDGED if of(checked, name).result == "pass"} == JUDGED
    assert of(checked, "pixels").value == 0.0
    assert of(checked, "tokens").value == len(TEXTS)
    assert checked.library.startswith("transformers " if "config.json" in listed(tmp_path / "model") else "open_clip ")
    for name in ("images a second", "texts a second", "seconds to load", "megabytes of memory"):
        value = of(checked, name).value
        assert isinstance(value, int | float) and value > 0
    cold = of(checked, "cold start without PyTorch")
    possible = kind in ("clip", "biomedclip", "checkpoint")
    assert cold.result == ("pass" if possible else "note")
    assert cold.value == ("no" if not possible else pytest.approx(1.0, abs=1e-4))
    assert of(checked, "bfloat16").detail


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - (
        {"config.json"} if (folder / "open_clip_config.json").exists() else set()
    )


@pytest.mark.parametrize("what", ["pixels", "tokens", "images", "texts"])
def test_what_differs_from_the_library_fails(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = original_library._of_open_clip

    def other(*arguments: Any) -> OriginalModel:
        model = real(*arguments)
        function = getattr(model, what)
        changes: dict[str, Any] = {
            "pixels": lambda picture: function(picture) + np.float32(2 / 255 / 0.2),
            "tokens": lambda texts: function(texts) + 1,
            "images": lambda pictures: function(pictures)[::-1],
            "texts": lambda texts: function(texts)[::-1],
        }
        return replace(model, **{what: changes[what]})

    monkeypatch.setattr(original_library, "_of_open_clip", other)
    checked = check_model(str(write_clip(tmp_path / "model")), "cpu")
    failed = {one.check for one in checked.judgements if one.result == "fail"}
    named = {"pixels": "pixels", "tokens": "tokens", "images": "embeddings of images", "texts": "embeddings of texts"}
    assert named[what] in failed and not checked.passed
    assert failed <= {named[what], "cold start without PyTorch"}


def test_a_mask_that_the_library_would_not_use_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real difference, of the kind that a wrong reading of a model's files makes."""
    folder = write_dual_encoder(tmp_path / "model", "siglip as MedSigLIP")
    real = Tokenizer.__init__

    def masked(self: Any, config: Any, place: Path) -> None:
        real(self, replace(config, masked=True), place)

    monkeypatch.setattr(Tokenizer, "__init__", masked)
    checked = check_model(str(folder), "cpu")
    assert {one.check for one in checked.judgements if one.result == "fail"} == {"embeddings of texts"}


def test_a_check_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dual_encoder(tmp_path / "model", "siglip as SigLIP 2")
    document = json.loads(medlens("models", "check", folder, "--device", "cpu", "--format", "json").stdout)
    assert document["passed"] is True
    assert document["layout"] == "transformers, siglip"
    assert (document["dimensions"], document["context_length"]) == (64, 64)
    assert {row["check"] for row in document["results"]} >= JUDGED
    assert all(row["result"] in ("pass", "fail", "note") for row in document["results"])
    table = medlens("models", "check", folder, "--device", "cpu", "--format", "table").stdout
    assert "embeddings of images" in table and "at least 0.9999" in table
    shutil.rmtree(folder)
    gone = medlens("models", "check", folder, "--format", "json", code=1)
    assert "there is no model" in gone.stderr + gone.stdout


def test_a_failed_judgement_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_clip(tmp_path / "model")
    judgement = Judgement("pixels", "fail", 9.0, "at most 1")
    failed = ModelCheck("x", "open_clip", 8, 24, 1.0, "f", "open_clip 3", (judgement,))
    monkeypatch.setattr("retrieval.encoders.model_check.check_model", lambda *_, **__: failed)
    document = json.loads(medlens("models", "check", folder, "--format", "json", code=1).stdout)
    assert (document["passed"], document["results"][0]["result"]) == (False, "fail")


def test_a_model_that_cant_be_loaded_is_an_error_and_no_judgement(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "model")
    (folder / "open_clip_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(EncoderError):
        check_model(str(folder), "cpu")
    with pytest.raises(WeightsNotFound):
        check_model(str(tmp_path / "nothing"), "cpu")


# -- the list


def test_the_list_shows_sizes_figures_and_what_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dual_encoder(tmp_path / "model", "vit and bert", "sharded")
    added = model_list.add_model(str(folder))
    bytes_there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert (added.megabytes, added.at_hand, added.figures) == (round(bytes_there / 1e6, 1), "here", None)
    figure = {"value": 0.544}
    retrieval = {"chest": {"images": 40, "image_to_text": {"10": figure}, "text_to_image": {"10": {"value": 0.5}}}}
    (folder / "metrics.json").write_text(json.dumps({"retrieval": retrieval}))
    (one,) = (one for one in model_list.list_models() if one.fingerprint == added.fingerprint)
    assert one.figures == "R@10 on 40 dev images of chest: 54 % to text, 50 % to image"
    (folder / "metrics.json").write_text(json.dumps({"retrieval": {"chest": 3}}))
    assert next(m for m in model_list.list_models() if m.place == added.place).figures is None
    shutil.rmtree(folder)
    (gone,) = (one for one in model_list.list_models() if one.fingerprint == added.fingerprint)
    assert (gone.megabytes, gone.at_hand) == (None, "not here")


def test_shipped_models_state_their_size() -> None:
    for one in model_list.list_models():
        assert one.at_hand == "shipped" and one.megabytes is not None and one.megabytes > 1
        assert one.figures is not None and one.figures.startswith("R@10 on ")


# -- the table of public models


def test_the_table_of_public_models_is_whole() -> None:
    found = public_models()
    assert {"BiomedCLIP", "MedSigLIP", "PubMedCLIP", "PLIP", "CONCH", "CXR-CLIP", "FLAIR"} <= {
        one.name for one in found
    }
    assert len({one.name for one in found}) == len(found)
    for one in found:
        assert one.seen and one.subject and one.licence and one.sources
        assert all(source.startswith("https://") for source in one.sources)
        assert (one.place is None) == (one.why is not None) == (one.command is None)
        if one.place is not None:
            assert one.place.startswith("hf-hub:") and is_repository(one.place.removeprefix("hf-hub:"))
            assert one.images_per_second is not None and math.isfinite(one.images_per_second)
            assert one.speed in ("fast", "medium", "slow")
    assert checked_on() == "2026-11-29"


def test_known_models_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    snapshot = cache / "models--vinid--plip" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "models--vinid--plip" / "refs").mkdir()
    (cache / "models--vinid--plip" / "refs" / "main").write_text("abc")
    (snapshot / "pytorch_model.bin").write_bytes(b"x" * 2_500_000)
    rows = {row["name"]: row for row in json.loads(medlens("models", "--known", "--format", "json").stdout)}
    assert rows["PLIP"]["cached_megabytes"] == 2.5
    assert rows["BiomedCLIP"]["cached_megabytes"] is None
    assert rows["BiomedCLIP"]["command"] == (
        "medlens index ARCHIVE --model hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    )
    assert rows["CONCH"]["command"] is None
    table = medlens("models", "--known", "--format", "table").stdout
    assert "nobody has run the published weights" in table


def test_training_does_not_go_on_from_a_model_of_transformers(tmp_path: Path) -> None:
    write_dual_encoder(tmp_path / "model", "vit and bert")
    with pytest.raises(TrainingError, match="is one of transformers"):
        find_folder("model", tmp_path)
