"""Weights as training scripts leave them, CoCa, and folders whose text model lies beside what names it."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import CLIP_PREPROCESS, write_biomedclip, write_clip
from tiny_transformers import write_dual_encoder

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.image_tower import probe_pictures
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import LightEncoder, open_encoder
from retrieval.errors import EncoderError, MedlensError

TEXTS = ["a chest ct", "no effusion, no pneumonia"]
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "model", weights="open_clip_pytorch_model.bin")


@pytest.fixture(scope="module")
def state(clip: Path) -> State:
    loaded: State = torch.load(clip / "open_clip_pytorch_model.bin", weights_only=True)
    return loaded


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


BESIDE = {
    "epoch": 3,
    "name": "run",
    "args": argparse.Namespace(lr=1e-3),
    "best": np.float64(0.5),
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.98)}]},
    "scaler": None,
}
CHECKPOINTS: dict[str, Callable[[State], Any]] = {
    "open_clip's": lambda s: {**BESIDE, "state_dict": s},
    "of several processes": lambda s: {**BESIDE, "state_dict": under("module.", s)},
    "compiled": lambda s: {"state_dict": under("_orig_mod.", s)},
    "of several processes, compiled": lambda s: {"model": under("module._orig_mod.", s)},
    "Lightning's": lambda s: {"state_dict": {**under("model.", s), "loss.bias": torch.ones(1)}, "hyper_parameters": {}},
    "an average beside it": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "an average of processes": lambda s: {"model": other(s), "model_ema": under("module.", s)},
    "an average in the same dict": lambda s: {"state_dict": under("model.", other(s)) | under("ema_model.", s)},
    "PyTorch's average": lambda s: {**under("module.", s), "n_averaged": torch.tensor(7)},
    "nested": lambda s: {"model": {"state_dict": s}},
}


@pytest.mark.parametrize("kind", list(CHECKPOINTS))
def test_a_training_checkpoint_is_the_model_in_it(clip: Path, state: State, tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    torch.save(CHECKPOINTS[kind](state), folder / "open_clip_pytorch_model.bin")
    plain = ClipEncoder.load(str(clip), "cpu", "fp32")
    picture = probe_pictures((40, 60))[0]
    for encoder in (ClipEncoder.load(str(folder), "cpu", "fp32"), open_encoder(str(folder))):
        assert (encoder.encode_text(TEXTS) * plain.encode_text(TEXTS)).sum(axis=1).min() > 0.99999
        assert encoder.logit_scale == pytest.approx(plain.logit_scale)
    np.testing.assert_array_equal(
        ClipEncoder.load(str(folder), "cpu", "fp32").encode_images([picture]), plain.encode_images([picture])
    )
    assert isinstance(open_encoder(str(folder)), LightEncoder)


def test_a_checkpoint_of_a_dual_encoder_of_transformers(tmp_path: Path) -> None:
    folder = write_dual_encoder(tmp_path / "model", "vit and bert", "pickle")
    plain = ClipEncoder.load(str(folder), "cpu", "fp32").encode_text(TEXTS)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**BESIDE, "state_dict": under("model.module.", state)}, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(ClipEncoder.load(str(folder), "cpu", "fp32").encode_text(TEXTS), plain)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda s: {**s, "visual.proj.lora_A.default.weight": torch.ones(2, 2)}, "merge_and_unload"),
        (lambda s: under("base_model.model.", {**s, "a.lora_B.weight": torch.ones(2, 2)}), "LoRA"),
        (lambda s: under("student.", s) | under("teacher.", other(s)), "'student.', 'teacher.'"),
        (lambda s: {"state_dict": [1, 2]}, "holds no tensors"),
    ],
)
def test_weights_that_are_not_one_model(
    clip: Path, state: State, tmp_path: Path, made: Callable[[State], Any], said: str
) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    torch.save(made(state), folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError) as caught:
        ClipEncoder.load(str(folder), "cpu", "fp32")
    assert said in f"{caught.value} {caught.value.hint}"
    with pytest.raises(MedlensError):
        open_encoder(str(folder))


# -- CoCa

COCA: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 8,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "attn_pooler_heads": 2,
    },
    "custom_text": True,
}


@pytest.mark.parametrize("half", [False, True])
def test_a_coca_gives_open_clips_own_embeddings(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    values = {key: value for key, value in COCA.items() if key != "custom_text"}
    model = open_clip.CoCa(**values).eval()
    state = {name: tensor.half() if half else tensor for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    described = {"model_cfg": COCA, "preprocess_cfg": CLIP_PREPROCESS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    theirs.eval()
    encoder = ClipEncoder.load(str(tmp_path), "cpu", "fp32")
    pictures = [*probe_pictures((40, 60)), np.stack(probe_pictures((50, 31))[:3], axis=-1)]
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
        images = theirs.encode_image(pixels, normalize=True).numpy()
        texts = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS), normalize=True).numpy()
    assert (encoder.encode_images(pictures) * images).sum(axis=1).min() >= 0.9999
    assert (encoder.encode_text(TEXTS) * texts).sum(axis=1).min() >= 0.9999
    assert abs(texts[0] @ texts[1]) < 0.999


# -- a text model beside


@pytest.mark.parametrize("where", ["within", "beside"])
@pytest.mark.parametrize("named", ["pubmedbert", "/home/somebody/models/pubmedbert/", "..\\models\\pubmedbert"])
def test_a_tokenizer_that_the_configuration_names_lies_beside_it(tmp_path: Path, where: str, named: str) -> None:
    folder = tmp_path / "model"
    write_biomedclip(folder, tmp_path / "scratch", vision="vit_tiny_patch16_224", hidden=128, layers=1)
    plain = ClipEncoder.load(str(folder), "cpu", "fp32")
    place = (folder if where == "within" else tmp_path) / "pubmedbert"
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).rename(place / name)
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text("utf-8"))
    values["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": named, "hf_model_name": named}
    path.write_text(json.dumps(values))
    encoder = ClipEncoder.load(str(folder), "cpu", "fp32")
    assert encoder.spec.fingerprint == plain.spec.fingerprint
    np.testing.assert_array_equal(encoder.encode_text(TEXTS), plain.encode_text(TEXTS))


@pytest.mark.parametrize("named", ["..", ".", "some/..", "/", "no-such-folder"])
def test_a_tokenizer_is_looked_for_nowhere_else(tmp_path: Path, named: str) -> None:
    folder = tmp_path / "model"
    write_biomedclip(folder, tmp_path / "scratch", vision="vit_tiny_patch16_224", hidden=128, layers=1)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).rename(tmp_path / name)
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text("utf-8"))
    values["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": named, "hf_model_name": named}
    path.write_text(json.dumps(values))
    with pytest.raises(EncoderError, match="it has no tokenizer"):
        ClipEncoder.load(str(folder), "cpu", "fp32")
    assert resolve_model(str(folder)).folder == folder
