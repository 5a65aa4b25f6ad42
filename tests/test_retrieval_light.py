"""Text without torch: the same embeddings, by the same rules, and torch where NumPy can't."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import CLIP_CONFIG, bert_config, pieces, write_biomedclip, write_clip, write_tokenizer

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import render_profile_of, resolve_model, shipped_models
from retrieval.encoders.numpy_text.encoder import LightEncoder, open_encoder
from retrieval.encoders.numpy_text.needs_torch import NeedsTorch
from retrieval.encoders.numpy_text.tokens import BytePairs, WordPieces
from retrieval.encoders.numpy_text.towers import erf
from retrieval.encoders.tensors import UnusableWeights, open_tensors
from retrieval.encoders.text_files import read_tokenizer
from retrieval.encoders.torch_model import open_model
from retrieval.errors import EncoderError, NonFiniteEmbedding
from retrieval.types import Encoder, RenderProfile

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.99999  # cosine; what users are told is 0.9999
TEXTS = [
    "axial CT of the chest with a pleural effusion",
    "MR image of the knee.",
    "x",
    "",
    " \n\t ",
    "long " * 400,
    "é µ 漢字 \u200b \ufeff 🩻 ﬁbrosis Straße İstanbul",
    "schÃ¶n &amp;amp; &lt;b&gt; “quoted”",
    "T2-weighted, 3.5cm x 1.2cm; it's  [SEP] [MASK] <end_of_text> !<start_of_text>",
    "UPPER case aNd MiXeD",
    "a" * 120,
    "\x1b[31mred\x1b[0m \x00 \x07",
]


def write_bert_clip(
    folder: Path, pooler: str = "mean_pooler", projection: str | None = "mlp", embed_dim: int = 24, **config: Any
) -> Path:
    """A small image tower with a BERT of random weights that spread: constant rows would hide a mistake."""
    write_tokenizer(folder, pieces(["chest", "knee", "axial", "##weight"]))
    described = bert_config(len(pieces(["chest", "knee", "axial", "##weight"])), 64, 2, 96, 40) | config
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    text_cfg = {
        "context_length": 32,
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "hf_model_pretrained": False,
        "hf_pooler_type": pooler,
        "hf_proj_type": projection,
    }
    model_cfg = {"embed_dim": embed_dim, "vision_cfg": CLIP_CONFIG["vision_cfg"], "text_cfg": text_cfg}
    torch.manual_seed(1)
    model = open_clip.CustomTextCLIP(**model_cfg)
    save_file(spread(model.state_dict()), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}), encoding="utf-8")
    return folder


def spread(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights large enough that every part shows in the result: biases and norms are all 0 and 1 as made."""
    generator = torch.Generator().manual_seed(2)
    out = {}
    for name, values in state.items():
        noise = torch.randn(values.shape, generator=generator) if values.is_floating_point() else 0
        out[name] = (values + 0.15 * noise).contiguous() if values.is_floating_point() else values
    return out


def write_wide_clip(folder: Path, *, custom_text: bool = False, quick_gelu: bool = False) -> Path:
    """A small CLIP with weights that spread, its text tower under "text." or not."""
    config = CLIP_CONFIG | {"quick_gelu": quick_gelu} | ({"custom_text": True} if custom_text else {})
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    model = open_clip.CLIP(**(CLIP_CONFIG | {"quick_gelu": quick_gelu}))
    if custom_text:
        model = open_clip.CustomTextCLIP(**(CLIP_CONFIG | {"quick_gelu": quick_gelu}))
    save_file(spread(model.state_dict()), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    return folder


def write_halved(folder: Path, dtype: torch.dtype) -> Path:
    write_bert_clip(folder)
    path = folder / "open_clip_model.safetensors"
    save_file({k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(path).items()}, path)
    return folder


def write_download(folder: Path) -> Path:
    """What a hub gives of BiomedCLIP: weights in torch's zip, no config.json."""
    write_biomedclip(folder, folder.parent / "scratch", vision="vit_tiny_patch16_224", hidden=128, layers=2)
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {
    "bert mean mlp": write_bert_clip,
    "bert cls linear": lambda f: write_bert_clip(f, "cls_last_hidden_state_pooler", "linear"),
    "bert pooler, no projection": lambda f: write_bert_clip(f, "cls_pooler", None, 64),
    "bert of few heads, other epsilon": lambda f: write_bert_clip(f, num_attention_heads=2, layer_norm_eps=1e-3),
    "bert in fp16": lambda f: write_halved(f, torch.float16),
    "bert in bf16": lambda f: write_halved(f, torch.bfloat16),
    "biomedclip as downloaded": write_download,
    "clip": write_wide_clip,
    "clip quick gelu": lambda f: write_wide_clip(f, quick_gelu=True),
    "clip custom text": lambda f: write_wide_clip(f, custom_text=True),
    "clip in torch's zip": lambda f: write_clip(f, weights="open_clip_pytorch_model.bin"),
}


@pytest.fixture(scope="module", params=MODELS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LightEncoder, ClipEncoder]:
    folder = MODELS[request.param](tmp_path_factory.mktemp("light") / "model")
    light = open_encoder(str(folder))
    assert isinstance(light, LightEncoder)
    return light, ClipEncoder.load(str(folder), "cpu", "fp32")


def test_texts_embed_as_with_torch(both: tuple[LightEncoder, ClipEncoder]) -> None:
    light, whole = both
    expected, got = whole.encode_text(TEXTS), light.encode_text(TEXTS)
    assert got.dtype == np.float32
    assert (got * expected).sum(axis=1).min() > LEAST
    # The model tells texts apart by more than the two runtimes differ: a tower that ignores its input would pass above.
    assert np.linalg.norm(expected[0] - expected[1]) > 100 * np.abs(got - expected).max()


def test_the_identity_is_the_same(both: tuple[LightEncoder, ClipEncoder]) -> None:
    light, whole = both
    assert light.spec == whole.spec
    assert light.logit_scale == pytest.approx(whole.logit_scale)
    assert json.dumps(light.spec.to_json()) == json.dumps(whole.spec.to_json())
    assert isinstance(light, Encoder)
    assert (light.name, light.embed_dim) == (whole.name, whole.embed_dim)


def test_a_batch_changes_nothing(both: tuple[LightEncoder, ClipEncoder]) -> None:
    light, _ = both
    texts = [*TEXTS, *(f"text number {i} " * (i % 5) for i in range(60))]
    alone = np.concatenate([light.encode_text([text]) for text in texts])
    np.testing.assert_allclose(light.encode_text(texts), alone, rtol=0, atol=2e-5)
    np.testing.assert_allclose(light.encode_text(texts[::-1]), alone[::-1], rtol=0, atol=2e-5)


def test_no_texts_and_one_text_in_place_of_a_list(both: tuple[LightEncoder, ClipEncoder]) -> None:
    light, _ = both
    assert light.encode_text([]).shape == (0, light.embed_dim)
    with pytest.raises(TypeError, match="list of texts"):
        light.encode_text("ct")


def test_pictures_go_through_the_whole_model(both: tuple[LightEncoder, ClipEncoder]) -> None:
    light, whole = both
    images = [np.arange(900, dtype=np.uint8).reshape(30, 30), np.full((20, 40, 3), 9, np.uint8)]
    cosines = (light.encode_images(images) * whole.encode_images(images)).sum(axis=1)
    assert cosines.min() > 0.999  # bf16 where the machine has it
    assert light.whole() is light.whole()


def test_the_shipped_model_in_words(shared_data: Path) -> None:
    if "medlens-base" not in shipped_models():
        pytest.skip("the default model is not in data/models")
    lines = (shared_data / "pairs" / "medpix" / "pairs.jsonl").read_text("utf-8").splitlines()
    captions = list(dict.fromkeys(json.loads(line)["text"] for line in lines))[::11]
    assert len(captions) > 100
    light, whole = open_encoder(), ClipEncoder.load(None, "cpu", "fp32")
    assert isinstance(light, LightEncoder)
    assert light.spec == whole.spec
    assert light.logit_scale == pytest.approx(whole.logit_scale)
    texts = [*captions, *TEXTS]
    assert (light.encode_text(texts) * whole.encode_text(texts)).sum(axis=1).min() > LEAST


# -- tokens

anything = st.text(max_size=60) | st.text(st.sampled_from("ab'stré <>&;[]PADend_of_text!?1２ſİ\n\u0301"), max_size=40)


@pytest.fixture(scope="module")
def byte_pairs() -> tuple[BytePairs, Any]:
    return BytePairs(20), open_clip.SimpleTokenizer(context_length=20)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=anything)
def test_byte_pairs_are_open_clips(byte_pairs: tuple[BytePairs, Any], text: str) -> None:
    mine, theirs = byte_pairs
    (ids,) = mine([text])
    assert [*ids, *[mine.pad] * (20 - len(ids))] == theirs([text])[0].tolist()


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[WordPieces, Any]:
    folder = tmp_path_factory.mktemp("pieces")
    write_tokenizer(folder, pieces(["chest", "knee", "##s"]))
    (folder / "config.json").write_text(json.dumps(bert_config(80, 64, 1, 64)), encoding="utf-8")
    theirs = open_clip.tokenizer.HFTokenizer(str(folder), context_length=20)
    return WordPieces(read_tokenizer(folder, "pieces"), 20), theirs


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=anything)
def test_word_pieces_are_those_of_transformers(word_pieces: tuple[WordPieces, Any], text: str) -> None:
    mine, theirs = word_pieces
    (ids,) = mine([text])
    assert [*ids, *[mine.pad] * (20 - len(ids))] == theirs([text])[0].tolist()


def test_the_error_function() -> None:
    x = np.linspace(-6, 6, 10_001, dtype=np.float32)
    np.testing.assert_allclose(erf(x), torch.erf(torch.from_numpy(x)).numpy(), rtol=0, atol=6e-7)


# -- what NumPy does not do


def altered(folder: Path, **text_cfg: Any) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model_cfg"]["text_cfg"] |= text_cfg
    path.write_text(json.dumps(config), encoding="utf-8")


def altered_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")


def with_another_tensor(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    save_file(load_file(path) | {"text.transformer.extra.weight": torch.ones(3)}, path)


def without_a_tensor(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    del state["text.transformer.encoder.layer.1.output.dense.bias"]
    save_file(state, path)


BERT_CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pooler": (lambda f: altered(f, hf_pooler_type="max_pooler"), "its pooler is 'max_pooler'"),
    "tokenizer settings": (lambda f: altered(f, tokenizer_kwargs={"strip_sep_token": True}), "settings of its own"),
    "context": (lambda f: altered(f, context_length=64), "its context is 64 tokens, its tower has places for 40"),
    "activation": (lambda f: altered_json(f / "config.json", hidden_act="relu"), "hidden_act 'relu'"),
    "family": (lambda f: altered_json(f / "config.json", model_type="roberta"), "model_type 'roberta'"),
    "case": (
        lambda f: altered_json(f / "tokenizer_config.json", do_lower_case=False),
        "its tokenizer.json has lowercase True",
    ),
    "side": (lambda f: altered_json(f / "tokenizer_config.json", padding_side="left"), "on the left"),
    "class": (lambda f: altered_json(f / "tokenizer_config.json", tokenizer_class="T5Tokenizer"), "a T5Tokenizer"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "its tokenizer.json is missing"),
    "more weights": (with_another_tensor, "text.transformer.extra.weight and 0 more"),
    "fewer weights": (without_a_tensor, "have no text.transformer.encoder.layer.1.output.dense.bias"),
    "damaged": (
        lambda f: (f / "open_clip_model.safetensors").write_bytes(b"\xff" * 100),  # type: ignore[dict-item]
        "is neither a safetensors file nor a torch archive",
    ),
    "empty": (lambda f: (f / "open_clip_model.safetensors").write_bytes(b""), "is empty"),  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert_clip(tmp_path_factory.mktemp("bert") / "model")


@pytest.mark.parametrize("change", BERT_CHANGES)
def test_what_a_bert_may_have_that_is_not_computed(bert: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    alter, reason = BERT_CHANGES[change]
    alter(folder)
    with pytest.raises(NeedsTorch, match=reason):
        LightEncoder(resolve_model(str(folder)))


CLIP_CHANGES = {
    "no_causal_mask": True,
    "pool_type": "last",
    "embed_cls": True,
    "ls_init_value": 0.1,
    "context_length": 12,
    "hf_tokenizer_name": "some/tokenizer",
}


@pytest.mark.parametrize("change", CLIP_CHANGES)
def test_what_a_clip_may_have_that_is_not_computed(tmp_path: Path, change: str) -> None:
    folder = write_clip(tmp_path / "model")
    write_tokenizer(folder, pieces())
    altered(folder, **{change: CLIP_CHANGES[change]})
    with pytest.raises(NeedsTorch):
        LightEncoder(resolve_model(str(folder)))


def test_torch_takes_over_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_clip(tmp_path / "model")
    altered(folder, no_causal_mask=True)
    with caplog.at_level(logging.INFO, "retrieval"):
        encoder = open_encoder(str(folder))
    assert isinstance(encoder, ClipEncoder)
    assert "is encoded with torch: text_cfg has no_causal_mask True, expected False" in caplog.text
    expected = ClipEncoder.load(str(folder), "cpu", "fp32").encode_text(TEXTS)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected, rtol=0, atol=1e-6)


def test_a_device_asked_for_by_name_is_used_or_refused(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EncoderError, match="device 'gpu' is not known"):
        open_encoder(str(bert), "gpu")
    with caplog.at_level(logging.INFO, "retrieval"):
        assert isinstance(open_encoder(str(bert), "cpu"), LightEncoder)
    assert "is encoded with NumPy" in caplog.text
    assert isinstance(open_encoder(str(bert), "cpu", "bf16"), ClipEncoder)


def test_a_broken_model_says_what_torch_says_of_it(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / "open_clip_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(EncoderError, match="can't be loaded"):
        open_encoder(str(folder))


def test_no_usable_embedding_is_an_error(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "model")
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    state["text_projection"].fill_(float("nan"))
    save_file(state, path)
    with pytest.raises(NonFiniteEmbedding, match="for 2 of 2 texts"):
        LightEncoder(resolve_model(str(folder))).encode_text(["a", "b"])


def test_weights_that_were_replaced_meanwhile_are_not_mixed(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    light = LightEncoder(resolve_model(str(folder)))
    path = folder / "open_clip_model.safetensors"
    state = {name: values + 0.01 for name, values in load_file(path).items()}
    path.unlink()
    save_file(state, path)
    with pytest.raises(EncoderError, match="has changed"):
        light.encode_images([np.zeros((8, 8), np.uint8)])


# -- weights files


def test_a_model_from_the_hubs_cache(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that huggingface_hub documents; nothing asks the network."""
    place = tmp_path / "hub" / "models--some--model"
    shutil.copytree(bert, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    light = open_encoder("hf-hub:some/model")
    assert isinstance(light, LightEncoder)
    assert light.spec.name == "hf-hub:some/model"
    np.testing.assert_array_equal(light.encode_text(TEXTS), open_encoder(str(bert)).encode_text(TEXTS))
    with pytest.raises(NeedsTorch, match="not in the hub's cache"):
        LightEncoder(replace(resolve_model("hf-hub:some/other")))


def test_of_a_model_on_a_hub_both_ways_of_loading_say_the_same(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `medlens train` wrote may have been put on a hub: its name and render profile are in its configuration."""
    place = tmp_path / "hub" / "models--some--model"
    shutil.copytree(bert, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc", encoding="utf-8")
    path = place / "snapshots" / "abc" / "open_clip_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    profile = {"name": "lungs", "windows": {"CT": [{"center": -600, "width": 1500}]}, "percentiles": [1, 99]}
    path.write_text(json.dumps(config | {"medlens": {"name": "own", "render_profile": profile}}), encoding="utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = resolve_model("hf-hub:some/model")
    _, _, whole = open_model(source)
    assert whole == LightEncoder(source).spec
    assert whole.name == "own"
    assert whole.render_profile == render_profile_of(source) != RenderProfile()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def test_a_pickle_that_wants_more_than_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.ones(2), "b": Evil()}, path)
    with pytest.raises(UnusableWeights, match=r"it needs .*\.system"):
        open_tensors(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnusableWeights):
        open_tensors(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_tensors_of_every_type(tmp_path: Path, suffix: str) -> None:
    base = torch.arange(24).reshape(2, 3, 4)
    types = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8)
    state = {str(kind): base.to(kind) for kind in types} | {"scalar": torch.tensor(3.5), "none": torch.ones(0, 4)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".bin":
        torch.save({"state_dict": state | {"part": base[1].float()}}, path)  # a part lies inside another's storage
    else:
        save_file(state, path)
    found = open_tensors(path)
    for name, values in state.items():
        assert found[name].shape == tuple(values.shape)
        np.testing.assert_array_equal(found[name].float32(), values.float().numpy())
    rows = found[str(torch.bfloat16)].float32(np.array([1, 0, 1]))
    np.testing.assert_array_equal(rows, base.float().numpy()[[1, 0, 1]])


def test_a_tensor_that_does_not_lie_in_order(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"turned": base.T, "gaps": base[1:, ::2], "none": base[:0]}, tmp_path / "weights.bin")
    found = open_tensors(tmp_path / "weights.bin")
    np.testing.assert_array_equal(found["turned"].float32(), base.T.numpy())
    np.testing.assert_array_equal(found["gaps"].float32(), base[1:, ::2].numpy())
    assert found["none"].shape == (0, 6)


def test_a_tensor_that_repeats_its_values_is_refused(tmp_path: Path) -> None:
    """Some bytes would become any amount of memory."""
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "weights.bin")
    with pytest.raises(UnusableWeights, match="has 4 bytes"):
        open_tensors(tmp_path / "weights.bin")


@pytest.mark.parametrize("keep", [0, 4, 9, 60, -1])
def test_a_file_cut_short(bert: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes((bert / "open_clip_model.safetensors").read_bytes()[:keep])
    with pytest.raises(UnusableWeights):
        open_tensors(path)


# -- what a search in words imports

SEARCH = """
import sys
from retrieval.encoders.numpy_text.encoder import open_encoder
open_encoder(sys.argv[1]).encode_text(["a chest film"])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("family", ["bert mean mlp", "clip", "biomedclip as downloaded"])
def test_text_needs_no_torch(tmp_path: Path, family: str) -> None:
    folder = MODELS[family](tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", SEARCH, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert not imported & {"torch", "open_clip", "transformers", "torchvision", "timm", "PIL", "faiss"}
