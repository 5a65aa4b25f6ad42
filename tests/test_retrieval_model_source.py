"""Models by name: what is found, what is refused and how, and BiomedCLIP's architecture from a folder, offline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import CLIP_CONFIG, write_biomedclip, write_clip

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import WEIGHTS_NAMES, resolve_model, shipped_models, weights_in
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import EncoderSpec
from retrieval.encoders.torch_model import open_model
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.types import RenderProfile, Window


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write_config(folder: Path, **changes: Any) -> None:
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_is_found_with_and_without_its_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_clip(tmp_path / "small")
    plain, prefixed = resolve_model(str(folder)), resolve_model(f"local-dir:{folder}")
    assert plain == prefixed
    assert (plain.name, plain.source, plain.folder) == ("small", f"local-dir:{folder}", folder)
    assert resolve_model(plain.source) == plain
    monkeypatch.chdir(tmp_path)
    assert resolve_model("local-dir:small") == resolve_model("./small") == plain
    monkeypatch.chdir(folder)
    assert resolve_model(".") == plain
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/small") == resolve_model("local-dir:~/small") == plain


def test_the_spec_says_what_the_model_is(tmp_path: Path) -> None:
    windows = {"CT": (Window(40, 400), Window(-600, 1500), Window(300, 1500))}
    profile = {"name": "ct3", "windows": {"CT": [{"center": w.center, "width": w.width} for w in windows["CT"]]}}
    folder = write_clip(tmp_path / "small", {"name": "called-so", "render_profile": profile})
    spec = ClipEncoder.load(str(folder), "cpu", "fp32").spec
    digest = hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert spec == EncoderSpec(
        name="called-so",
        weights_sha256=digest,
        embed_dim=32,
        preprocess=Preprocess((32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bilinear", "longest", 9),
        render_profile=RenderProfile("ct3", windows),
        configuration={
            "vision": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
            "text": {"context_length": 24, "width": 32, "heads": 2, "layers": 2},
        },
        tokenizer={"kind": "clip"},
    )
    again = EncoderSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.fingerprint == spec.fingerprint


def test_a_fingerprint_is_of_what_changes_embeddings(tmp_path: Path) -> None:
    one = ClipEncoder.load(str(write_clip(tmp_path / "one")), "cpu", "fp32").spec
    two = ClipEncoder.load(str(write_clip(tmp_path / "two", {"name": "other"})), "cpu", "fp32").spec
    assert one != two
    assert one.fingerprint == two.fingerprint
    write_config(tmp_path / "two", preprocess_cfg={"size": 32, "mean": [0.1] * 3, "std": [0.2] * 3})
    assert ClipEncoder.load(str(tmp_path / "two"), "cpu", "fp32").spec.fingerprint != one.fingerprint


@pytest.mark.parametrize("name", WEIGHTS_NAMES)
def test_weights_under_every_name_load(tmp_path: Path, name: str) -> None:
    folder = write_clip(tmp_path / "small", weights=name)
    assert ClipEncoder.load(str(folder), "cpu", "fp32").embed_dim == 32


def test_weights_are_chosen_as_open_clip_chooses_them(tmp_path: Path) -> None:
    """Else the checksum would be of another file than the one that was loaded."""
    from open_clip.factory import _find_checkpoint_in_dir

    for name in reversed(WEIGHTS_NAMES):
        (tmp_path / name).write_bytes(b"x")
        assert weights_in(tmp_path) == Path(str(_find_checkpoint_in_dir(tmp_path))) == tmp_path / name


@pytest.mark.parametrize("extension", ["pt", "safetensors"])
def test_an_architecture_with_a_file(tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_clip(tmp_path / "small", weights="model.safetensors" if extension == "safetensors" else "model.pth")
    made = next(p for p in folder.iterdir() if p.suffix != ".json").rename(tmp_path / f"weights.{extension}")
    (tmp_path / "tiny-arch.json").write_text(json.dumps(CLIP_CONFIG))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {"tiny-arch": CLIP_CONFIG})
    source = resolve_model(f"tiny-arch@{made}")
    assert (source.name, source.source) == (f"tiny-arch@{made.name}", f"tiny-arch@{made}")
    encoder = ClipEncoder.from_source(source, "cpu", "fp32")
    assert encoder.spec.weights_sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert encoder.encode_text(["ct"]).shape == (1, 32)
    made.write_bytes(made.read_bytes()[:2000])
    with pytest.raises(EncoderError, match="can't be loaded") as caught:
        ClipEncoder.load(f"tiny-arch@{made}")
    assert not isinstance(caught.value, WeightsNotFound)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("no-such-model", "there is no model 'no-such-model'", "hf-hub:ORG/REPO"),
        ("x" * 5000, "can't be a path", ""),
        ("ViT-B-32", "there is no model 'ViT-B-32'", "ARCHITECTURE@CHECKPOINT"),
        ("ViT-B-33@openai", "no architecture 'ViT-B-33'; did you mean 'ViT-B-32'", "medlens models"),
        ("ViT-B-32@no_such_tag", "neither a file nor a tag of ViT-B-32 (tags: ", "medlens models"),
        ("ViT-B-32@missing.pt", "neither a file nor a tag", "medlens models"),
        ("local-dir:no/such/folder", "the model folder 'folder' does not exist", "medlens train"),
        ("~nobody-by-this-name/model", "can't be a path", ""),
    ],
)
def test_names_that_lead_nowhere(name: str, said: str, hint: str) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        resolve_model(name)
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_a_near_miss_of_a_shipped_name_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_clip(tmp_path / "models" / "medlens-base")
    monkeypatch.setattr("retrieval.encoders.model_source.data_folder", lambda: tmp_path)
    assert shipped_models() == {"medlens-base": folder}
    assert resolve_model().folder == resolve_model("medlens-base").folder == folder
    assert resolve_model().source == "medlens-base"  # found again wherever medlens is installed
    with pytest.raises(WeightsNotFound, match="did you mean 'medlens-base'"):
        resolve_model("medlens_base")


def test_without_a_shipped_model_the_default_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoders.model_source.data_folder", lambda: tmp_path)
    with pytest.raises(WeightsNotFound, match=r"'medlens-base': it is neither a folder nor a shipped model \(none\)"):
        resolve_model()


@pytest.mark.parametrize("name", ["hf-hub:medlens/no-such-model", "ViT-B-32@openai", "ViT-B-32@laion2b_s34b_b79k"])
def test_without_the_network_a_hub_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("open_clip.pretrained.urllib.request.urlopen", refuse)
    monkeypatch.setattr("open_clip.pretrained._get_cache_dir", lambda *_: str(tmp_path), raising=False)
    with pytest.raises(WeightsNotFound, match="could not be downloaded from the Hugging Face hub") as caught:
        ClipEncoder.load(name, "cpu")
    assert "network" in caught.value.hint
    assert "--model" in caught.value.hint


def test_a_folder_without_configuration_or_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"has no open_clip_config\.json") as caught:
        resolve_model(str(tmp_path))
    assert str(tmp_path) not in str(caught.value)
    folder = write_clip(tmp_path / "small")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="has no weights") as caught:
        resolve_model(str(folder))
    assert "unfinished" in caught.value.hint


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "can't be read"),
        ("[]", "has no 'model_cfg'"),
        ("{}", "has no 'model_cfg'"),
        ('{"model_cfg": []}', "has no 'model_cfg'"),
        ('{"model_cfg": {}}', "can't be loaded"),
        ('{"model_cfg": {"embed_dim": 8, "vision_cfg": 1, "text_cfg": {}}}', "can't be loaded"),
        ("\xff", "can't be "),
    ],
)
def test_a_broken_configuration(tmp_path: Path, config: str, said: str) -> None:
    folder = write_clip(tmp_path / "small")
    (folder / "open_clip_config.json").write_bytes(config.encode("latin-1"))
    with pytest.raises(EncoderError) as caught:
        ClipEncoder.load(str(folder), "cpu")
    assert said in str(caught.value)
    assert "small" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "medlens", [{"render_profile": {"percentiles": [3]}}, {"render_profile": {"windows": {"CT": [{"c": 1}]}}}, 7]
)
def test_a_broken_render_profile(tmp_path: Path, medlens: Any) -> None:
    folder = write_clip(tmp_path / "small", medlens)
    with pytest.raises(EncoderError, match="can't be loaded"):
        ClipEncoder.load(str(folder), "cpu")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("damage", [_cut, lambda _: b"", lambda _: b"no weights at all", lambda d: b"\0" * len(d)])
def test_damaged_weights(tmp_path: Path, name: str, damage: Any) -> None:
    folder = write_clip(tmp_path / "small", weights=name)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(EncoderError, match="the model 'small' can't be loaded") as caught:
        ClipEncoder.load(str(folder), "cpu")
    assert "damaged" in caught.value.hint
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("state", [{}, [1, 2], {"logit_scale": torch.tensor(1.0)}])
def test_a_pickle_that_holds_no_model(tmp_path: Path, state: Any) -> None:
    folder = write_clip(tmp_path / "small", weights="open_clip_pytorch_model.bin")
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError, match="the model 'small' can't be loaded"):
        ClipEncoder.load(str(folder), "cpu")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "small", weights="open_clip_pytorch_model.bin")
    torch.save({"logit_scale": Trap(tmp_path / "sprung")}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError):
        ClipEncoder.load(str(folder), "cpu")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "small")
    write_config(folder, model_cfg=CLIP_CONFIG | {"embed_dim": 64})
    with pytest.raises(EncoderError, match="size mismatch"):
        ClipEncoder.load(str(folder), "cpu")


def agree_with_open_clip(encoder: ClipEncoder, folder: Path, model: Any) -> None:
    """The encoder's embeddings are those of the model that the weights were taken from."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 250, 3), np.uint8)
    transform = open_clip.image_transform(224, False, model_mean(), model_std())
    texts = ["Chest CT scan of the pneumonia", "radiograph"]
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    assert tokens.shape == (2, 256)
    assert len(set(tokens[0].tolist())) > 6  # words, not one [UNK]
    with torch.inference_mode():
        expected_image = model.encode_image(transform(Image.fromarray(image))[None], normalize=True).numpy()
        expected_text = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images([image]), expected_image, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(texts), expected_text, rtol=0, atol=1e-5)


def model_mean() -> tuple[float, ...]:
    return tuple(open_clip.OPENAI_DATASET_MEAN)


def model_std() -> tuple[float, ...]:
    return tuple(open_clip.OPENAI_DATASET_STD)


@pytest.mark.parametrize("pooler", ["cls_last_hidden_state_pooler", "mean_pooler", "cls_pooler"])
def test_biomedclips_architecture_made_small_loads_offline(tmp_path: Path, pooler: str) -> None:
    folder = tmp_path / "biomedclip"
    vision = "vit_tiny_patch16_224"
    model = write_biomedclip(folder, tmp_path / "bert", vision=vision, hidden=128, layers=3, pooler=pooler)
    assert not (folder / "config.json").exists()
    encoder = ClipEncoder.load(f"local-dir:{folder}", "cpu", "fp32")
    assert (encoder.name, encoder.embed_dim) == ("biomedclip", 512)
    agree_with_open_clip(encoder, folder, model)


def test_a_bert_whose_heads_cant_be_told_asks_for_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "biomedclip"
    model = write_biomedclip(folder, tmp_path / "bert", vision="vit_tiny_patch16_224", hidden=192, layers=1)
    with pytest.raises(EncoderError, match="hidden size 192") as caught:
        ClipEncoder.load(str(folder), "cpu", "fp32")
    assert "config.json" in caught.value.hint
    (folder / "config.json").write_bytes((tmp_path / "bert" / "config.json").read_bytes())
    agree_with_open_clip(ClipEncoder.load(str(folder), "cpu", "fp32"), folder, model)


def test_a_text_tower_that_is_no_bert_asks_for_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "biomedclip"
    model = write_biomedclip(folder, tmp_path / "bert", vision="vit_tiny_patch16_224", hidden=128, layers=1)
    state = {k: v for k, v in model.state_dict().items() if "word_embeddings" not in k}
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError, match="is not a BERT"):
        ClipEncoder.load(str(folder), "cpu", "fp32")


@pytest.mark.slow
def test_biomedclips_architecture_in_full_loads_offline(tmp_path: Path) -> None:
    folder = tmp_path / "biomedclip"
    model = write_biomedclip(folder, tmp_path / "bert", vision="vit_base_patch16_224", hidden=768, layers=12)
    agree_with_open_clip(ClipEncoder.load(f"local-dir:{folder}", "cpu", "fp32"), folder, model)


def test_open_model_loads_on_the_cpu_in_float32(tmp_path: Path) -> None:
    model, _, _ = open_model(resolve_model(str(write_clip(tmp_path / "small"))))
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}
