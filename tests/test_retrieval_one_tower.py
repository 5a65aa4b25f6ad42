"""Models of one tower are refused: what was found, and what is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import write_clip

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.errors import EncoderError

NEEDED = "an image tower and a text tower that were trained together"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "model")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            "image",
            r"'model' has an image tower and no text tower: its weights have \d+ tensors of images and 0 of text",
        ),
        ("text", r"'model' has a text tower and no image tower: its weights have 0 tensors of images and \d+ of text"),
    ],
)
def test_the_weights_of_one_tower(folder: Path, kept: str, said: str) -> None:
    state = load_file(folder / WEIGHTS)
    one = {k: v for k, v in state.items() if k.startswith("visual.") == (kept == "image") or k == "logit_scale"}
    save_file(one, folder / WEIGHTS)
    with pytest.raises(EncoderError, match=said) as caught:
        ClipEncoder.load(str(folder), "cpu", "fp32")
    assert NEEDED in caught.value.hint


@pytest.mark.parametrize(("kept", "said"), [("vision_cfg", "no text tower"), ("text_cfg", "no image tower")])
def test_the_configuration_of_one_tower(folder: Path, kept: str, said: str) -> None:
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["model_cfg"] = {"embed_dim": 32, kept: values["model_cfg"][kept]}
    path.write_text(json.dumps(values))
    with pytest.raises(EncoderError, match=f"{said}: its configuration has {kept} alone") as caught:
        open_encoder(str(folder))
    assert NEEDED in caught.value.hint


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("vit", "an image tower and no text tower"),
        ("dinov2", "no text tower"),
        ("bert", "a text tower and no image tower"),
    ],
)
def test_one_tower_of_transformers(tmp_path: Path, model_type: str, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "model.safetensors").write_bytes(b"unread")
    with pytest.raises(EncoderError, match=f"config.json says model_type '{model_type}'") as caught:
        ClipEncoder.load(str(tmp_path), "cpu", "fp32")
    assert said in caught.value.hint and NEEDED in caught.value.hint
