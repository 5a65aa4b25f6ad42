"""Dual encoders of transformers: each architecture from each kind of weights, against the library's own embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_transformers import ARCHITECTURES, WEIGHTS, write_dual_encoder

from retrieval.encoders import transformers_rules as rules
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.image_tower import probe_pictures
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import render_profile_of, resolve_model
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.types import RenderProfile, Window

PICTURES = [
    probe_pictures((64, 90))[0],
    probe_pictures((51, 32))[1],
    np.stack(probe_pictures((77, 51))[:3], axis=-1),
    probe_pictures((33, 140))[3],  # 3 mod 4 columns are cropped: the two libraries round the corner apart
    probe_pictures((32, 32))[4],
    probe_pictures((35, 40))[5],
    probe_pictures((20, 23))[6],
]
TEXTS = [
    "a chest CT",
    "No effusion, no pneumonia!",
    "",
    "  x-ray (left) é ß ",
    "LEFT pleural-effusion: 3 mm\nnext line",
    "scan of the chest " * 60,
    "</s> <|endoftext|> ok [SEP]",
]
NAMES = list(ARCHITECTURES)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder by architecture and weights, each written once. Tests that change one copy it."""
    made: dict[tuple[str, str], Path] = {}

    def get(architecture: str, weights: str = "fp32") -> Path:
        key = (architecture, weights)
        if key not in made:
            made[key] = write_dual_encoder(tmp_path_factory.mktemp("model") / "model", architecture, weights)
        return made[key]

    return get


def config(folder: Path, name: str = "config.json", **values: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(EncoderError) as caught:
        ClipEncoder.load(str(folder), "cpu", "fp32")
    message = f"{caught.value} {caught.value.hint}"
    assert str(folder.parent) not in message
    assert len(message) < 900
    return message


def unit(values: torch.Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = torch.nn.functional.normalize(values.detach()).numpy()
    return found


@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize("architecture", NAMES)
def test_embeddings_are_the_librarys_own(written: Any, architecture: str, weights: str) -> None:
    """From pictures and words to vectors, by the library alone and by medlens."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = written(architecture, weights)
    encoder = ClipEncoder.load(str(folder), "cpu", "fp32")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixels = torch.cat(
        [processor(Image.fromarray(p).convert("RGB"), return_tensors="pt").pixel_values for p in PICTURES]
    )
    tokens = tokenizer(TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    if "clip as" in architecture:
        tokens = tokenizer(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    images = unit(model.get_image_features(pixel_values=pixels).pooler_output)
    texts = unit(model.get_text_features(**tokens).pooler_output)
    ours = encoder.encode_images(PICTURES), encoder.encode_text(TEXTS)
    assert (ours[0] * images).sum(axis=1).min() >= 0.9999
    assert (ours[1] * texts).sum(axis=1).min() >= 0.9999
    assert (ours[0] @ ours[0].T).min() < 0.95, "embeddings so alike would agree whatever was computed"
    assert (ours[1] @ ours[1].T).min() < 0.95
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)


@pytest.mark.parametrize("architecture", NAMES)
def test_pixels_and_tokens_are_the_librarys_own(written: Any, architecture: str) -> None:
    """Pixels exactly as its processor on Pillow, which the models were trained with, gives them. Its processor on
    torchvision rounds otherwise while it resizes: a grey level or two."""
    from transformers import AutoImageProcessor, AutoTokenizer

    folder = written(architecture)
    encoder = ClipEncoder.load(str(folder), "cpu", "fp32")
    preprocess = encoder.spec.preprocess
    levels = 255 * np.asarray(preprocess.std, np.float32)[:, None, None]
    for backend, most in (("pil", 0.01), ("torchvision", 2.01)):
        processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
        for picture in PICTURES:
            theirs = processor(Image.fromarray(picture).convert("RGB"), return_tensors="np")["pixel_values"][0]
            assert np.abs((preprocess.batch([picture])[0] - theirs) * levels).max() <= most
    tokenizer = AutoTokenizer.from_pretrained(folder)
    context = 77 if "clip as" in architecture else 64
    expected = tokenizer(TEXTS, padding="max_length", max_length=context, truncation=True)["input_ids"]
    assert encoder.tokens(TEXTS).tolist() == expected


@pytest.mark.parametrize("architecture", ["vit and bert", "siglip as MedSigLIP", "siglip as SigLIP 2"])
@pytest.mark.parametrize("masked", [False, True])
def test_padding_is_masked_where_the_librarys_tokenizer_masks_it(
    written: Any, tmp_path: Path, architecture: str, masked: bool
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = Path(shutil.copytree(written(architecture), tmp_path / "model"))
    config(folder, "tokenizer_config.json", model_input_names=["input_ids", *["attention_mask"] * masked])
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    assert ("attention_mask" in tokens) == masked
    theirs = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().get_text_features(**tokens).pooler_output
    ours = ClipEncoder.load(str(folder), "cpu", "fp32").encode_text(TEXTS[:6])
    assert (ours * unit(theirs)[:6]).sum(axis=1).min() >= 0.9999


def test_an_adapter_beside_the_model_is_told_of(written: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(written("vit and bert"), tmp_path / "model"))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    spec_of(resolve_model(str(folder)))
    assert "adapter_config.json is not applied" in caplog.text


def test_siglips_tokenizer_strips_punctuation(written: Any) -> None:
    encoder = ClipEncoder.load(str(written("siglip as MedSigLIP")), "cpu", "fp32")
    plain, marked = encoder.tokens(["no effusion no pneumonia", "No effusion, no pneumonia!"])
    assert plain.tolist() == marked.tolist()


@pytest.mark.parametrize("kind", ["clip", "siglip", "vision-text-dual-encoder"])
def test_defaults_are_those_of_the_librarys_classes(kind: str) -> None:
    """A hub's config.json leaves out what is the default."""
    import transformers

    family = rules.FAMILIES[kind]
    whole = getattr(transformers, family.model_class.replace("Model", "Config"))()
    classes = {
        "vit": transformers.ViTConfig,
        "clip_vision_model": transformers.CLIPVisionConfig,
        "bert": transformers.BertConfig,
        "roberta": transformers.RobertaConfig,
        "xlm-roberta": transformers.XLMRobertaConfig,
    }
    for tower, tables in (("vision_config", family.vision), ("text_config", family.text)):
        for name, table in tables.items():
            theirs = classes[name]() if name else getattr(whole, tower)
            for key, rule in table.items():
                if rule.default is not None and hasattr(theirs, key):
                    assert rule.default == getattr(theirs, key), f"{kind} {tower} {name} {key}"
    for key, rule in rules.TOP.items():
        if family.projects:
            assert rule.default == getattr(whole, key)


@pytest.mark.parametrize("kind", list(rules.PROCESSORS))
def test_processors_defaults_are_the_librarys(kind: str) -> None:
    import transformers

    theirs = getattr(transformers, kind)()
    for key, value in rules.PROCESSORS[kind].items():
        mine = getattr(theirs, key)
        if isinstance(value, dict):
            mine = {name: one for name, one in dict(mine).items() if one is not None}
        assert (list(mine) if isinstance(mine, tuple) else mine) == value, key


def test_settings_of_the_images_in_the_nested_file_count_first(written: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("siglip as SigLIP 2"), tmp_path / "model"))
    nested = json.loads((folder / "preprocessor_config.json").read_text("utf-8")) | {"image_mean": [0.1, 0.2, 0.3]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": nested}), encoding="utf-8")
    assert spec_of(resolve_model(str(folder))).preprocess.mean == (0.1, 0.2, 0.3)
    (folder / "preprocessor_config.json").unlink()
    assert spec_of(resolve_model(str(folder))).preprocess.mean == (0.1, 0.2, 0.3)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    assert "preprocessor_config.json and for image_processor in processor_config.json" in refused(folder)


# -- what a model is


def test_a_fingerprint_is_of_all_that_changes_an_embedding(written: Any, tmp_path: Path) -> None:
    def changed(name: str, file: str, **values: Any) -> str:
        folder = Path(shutil.copytree(written("siglip as MedSigLIP"), tmp_path / name))
        return spec_of(resolve_model(str(config(folder, file, **values)))).fingerprint

    plain = spec_of(resolve_model(str(written("siglip as MedSigLIP")))).fingerprint
    vision = json.loads((written("siglip as MedSigLIP") / "config.json").read_text("utf-8"))["vision_config"]
    same = changed("same", "config.json", transformers_version="4.0", torch_dtype="float16", _name_or_path="x/y")
    others = [
        changed("activation", "config.json", vision_config=vision | {"hidden_act": "gelu"}),
        changed("mean", "preprocessor_config.json", image_mean=[0.1, 0.5, 0.5]),
        changed("resample", "preprocessor_config.json", resample=3),
        changed("context", "tokenizer_config.json", model_max_length=32),
        changed("mask", "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"]),
        changed("case", "tokenizer_config.json", do_lower_case=False),
        spec_of(resolve_model(str(written("siglip as MedSigLIP", "fp16")))).fingerprint,
    ]
    assert same == plain
    assert len({plain, *others}) == 1 + len(others)


def test_what_a_file_leaves_out_is_the_default(written: Any, tmp_path: Path) -> None:
    """Whoever writes a config.json whole and whoever writes what differs describe one model."""
    folder = Path(shutil.copytree(written("clip as StreetCLIP"), tmp_path / "model"))
    values = json.loads((folder / "config.json").read_text("utf-8"))
    for tower in ("vision_config", "text_config"):
        for key in ("layer_norm_eps", "num_channels", "max_position_embeddings", "attention_dropout", "projection_dim"):
            values[tower].pop(key, None)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert (
        spec_of(resolve_model(str(folder))).fingerprint
        == spec_of(resolve_model(str(written("clip as StreetCLIP")))).fingerprint
    )


def test_the_older_keys_of_the_towers_win(written: Any, tmp_path: Path) -> None:
    """As in the library: `vision_config_dict`, where there is one, is taken whole."""
    folder = Path(shutil.copytree(written("clip as PubMedCLIP"), tmp_path / "model"))
    values = json.loads((folder / "config.json").read_text("utf-8"))
    config(folder, vision_config_dict=values["vision_config"], vision_config={"hidden_size": 512})
    assert spec_of(resolve_model(str(folder))).configuration["vision"]["hidden_size"] == 64


def test_shards_have_a_hash_of_their_own(written: Any) -> None:
    one, again = (spec_of(resolve_model(str(written("vit and bert", "sharded")))) for _ in range(2))
    assert one == again
    assert len(one.weights_sha256) == 64
    assert one.weights_sha256 != spec_of(resolve_model(str(written("vit and bert")))).weights_sha256


def test_name_and_render_profile_may_be_added(written: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("vit and bert"), tmp_path / "model"))
    profile = {"name": "lungs", "windows": {"CT": [{"center": -600, "width": 1500}]}}
    config(folder, medlens={"name": "ours", "render_profile": profile})
    source = resolve_model(str(folder))
    assert spec_of(source).name == "ours"
    assert render_profile_of(source) == RenderProfile("lungs", {"CT": (Window(-600, 1500),)})


def test_words_from_a_cold_start_need_torch(written: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="retrieval"):
        encoder = open_encoder(str(written("clip as StreetCLIP")))
    assert isinstance(encoder, ClipEncoder)
    assert "its text tower is one of transformers'" in caplog.text


# -- from a hub


def on_hub(cache: Path, repository: str, files: Path) -> None:
    """The layout of the hub's cache: links to blobs."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir()
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abc")
    for path in files.iterdir():
        shutil.copy(path, place / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)


@pytest.mark.parametrize("weights", ["fp32", "sharded", "sharded pickle"])
def test_a_repository_of_the_hub(written: Any, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder = written("siglip as MedSigLIP", weights)
    on_hub(cache, "google/medsiglip-448", folder)
    source = resolve_model("hf-hub:google/medsiglip-448")
    encoder = ClipEncoder.from_source(source, "cpu", "fp32")
    plain = ClipEncoder.load(str(folder), "cpu", "fp32")
    assert encoder.spec.fingerprint == plain.spec.fingerprint
    np.testing.assert_array_equal(encoder.encode_text(TEXTS), plain.encode_text(TEXTS))
    assert render_profile_of(source) == RenderProfile()
    with pytest.raises(WeightsNotFound):
        ClipEncoder.load("hf-hub:google/another", "cpu", "fp32")


def test_the_name_of_a_repository_without_its_prefix() -> None:
    with pytest.raises(WeightsNotFound) as caught:
        resolve_model("google/medsiglip-448")
    assert "hf-hub:google/medsiglip-448" in caught.value.hint


# -- what is refused


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "siglip2"}, "siglip2-base-patch16-224"),
        ({"model_type": "clip_vision_model"}, "no text tower"),
        ({"model_type": "blip"}, "medlens loads clip, siglip, vision-text-dual-encoder"),
        ({"architectures": ["CLIPForImageClassification"]}, "architectures"),
        ({"architectures": None, "auto_map": {"AutoModel": "evil.Model"}}, "code of its own"),
        ({"quantization_config": {"quant_method": "evil"}}, "quantization_config"),
        ({"projection_dim": 10**9}, "projection_dim"),
        ({"text_config": {"vocab_size": 10**12}}, "text_config.vocab_size"),
        ({"text_config": {"hidden_size": 7, "num_attention_heads": 2}}, "num_attention_heads"),
        ({"vision_config": {"image_size": 10**6}}, "image_size"),
        ({"vision_config": {"image_size": 1024, "patch_size": 1}}, "patches"),
        ({"vision_config": {"hidden_act": "evil.act"}}, "hidden_act"),
        ({"vision_config": ["evil"]}, "vision_config"),
        ({"text_config": {"num_hidden_layers": 100, "hidden_size": 4096, "num_attention_heads": 16}}, "numbers"),
    ],
)
def test_a_configuration_beyond_the_tables(written: Any, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    folder = Path(shutil.copytree(written("clip as StreetCLIP"), tmp_path / "model"))
    assert said in refused(config(folder, **values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": {"shortest_edge": 56}}, "squeezed to it or cropped"),
        ({"do_center_crop": False}, "no crop"),
        ({"crop_size": {"height": 32, "width": 40}}, "a crop to"),
        ({"do_resize": False}, "do_resize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"resample": 1}, "resample"),
        ({"image_std": [0, 0, 0]}, "image_std"),
        ({"image_processor_type": "EvilProcessor"}, "image_processor_type"),
        ({"size": {"longest_edge": 10**9}}, "size"),
    ],
)
def test_a_preprocessing_that_ours_does_not_have(
    written: Any, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    folder = Path(shutil.copytree(written("clip as StreetCLIP"), tmp_path / "model"))
    assert said in refused(config(folder, "preprocessor_config.json", **values))


def test_weights_and_configuration_of_two_models(written: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("clip as StreetCLIP"), tmp_path / "model"))
    values = json.loads((folder / "config.json").read_text("utf-8"))
    config(folder, vision_config=values["vision_config"] | {"num_hidden_layers": 3})
    assert "not in its weights, such as vision_model.encoder.layers.2" in refused(folder)
    config(folder, vision_config=values["vision_config"] | {"num_hidden_layers": 1})
    assert "in its weights and not in the model" in refused(folder)
    config(folder, vision_config=values["vision_config"] | {"intermediate_size": 32})
    assert "of another shape" in refused(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"logit_scale": "../../etc/passwd"}}, "plain names"),
        ({"weight_map": {"logit_scale": "/dev/zero"}}, "plain names"),
        ({"weight_map": {"logit_scale": "model-00009-of-00003.safetensors"}}, "are missing"),
        ({"weight_map": {"no.such.tensor": "model-00001-of-00003.safetensors"}}, "which does not hold it"),
        ({"weight_map": {}}, "0 files"),
        ({"weight_map": [1]}, "can't be read"),
        ([], "can't be read"),
    ],
)
def test_an_index_that_leads_astray(written: Any, tmp_path: Path, index: Any, said: str) -> None:
    folder = Path(shutil.copytree(written("vit and bert", "sharded"), tmp_path / "model"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert said in refused(folder)


def test_a_clip_whose_texts_are_padded_on_the_left(written: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("clip as StreetCLIP"), tmp_path / "model"))
    assert "pads on the left" in refused(config(folder, "tokenizer_config.json", padding_side="left"))


def test_no_code_of_the_folder_runs(written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(written("vit and bert"), tmp_path / "model"))
    code = "import pathlib; pathlib.Path('ran').touch()\nclass Words: ...\nclass Config: ...\nclass Model: ...\n"
    (folder / "evil.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Words", "evil.Words"]}
    config(folder, auto_map=names, attn_implementation="evil/kernel", _attn_implementation="evil/kernel")
    config(folder, "tokenizer_config.json", auto_map=names)
    config(folder, "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Words"})
    plain = ClipEncoder.load(str(written("vit and bert")), "cpu", "fp32")
    np.testing.assert_array_equal(
        ClipEncoder.load(str(folder), "cpu", "fp32").encode_text(TEXTS), plain.encode_text(TEXTS)
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "it is empty"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "merge it into its model"),
        ({"modules.json": "[]"}, "sentence-transformers"),
        ({"epoch_3.pt": "x"}, "ViT-B-16@epoch_3.pt"),
        ({"config.json": "{}"}, "it has config.json"),
        ({"config.json": '{"model_type": "clip"}'}, "no weights, expected one of model.safetensors"),
    ],
)
def test_what_was_looked_for_and_found_is_said(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(WeightsNotFound) as caught:
        resolve_model(str(tmp_path))
    assert said in f"{caught.value} {caught.value.hint}"
