"""A model folder is data: nothing in it is executed, nothing beside it is followed, nothing of it is unbounded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_retrieval_light import write_bert_clip
from tiny_models import CLIP_CONFIG, write_clip

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_config import config_from
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.errors import EncoderError, WeightsNotFound

ROOT = Path(__file__).resolve().parents[1]
SENTINEL = "it ran"
CODE = f"""
import os, pathlib
pathlib.Path(os.environ["SENTINEL_FOLDER"], "{SENTINEL}").touch()
from transformers import BertConfig, BertModel, BertTokenizer
class Config(BertConfig): ...
class Model(BertModel): ...
class Words(BertTokenizer): ...
"""
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoTokenizer": ["evil.Words", "evil.Words"],
}


@pytest.fixture(autouse=True)
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_FOLDER", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert_clip(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "model")


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def model_cfg(folder: Path, **values: Any) -> None:
    changed(folder / "open_clip_config.json", lambda c: c["model_cfg"].update(values))


def text_cfg(folder: Path, **values: Any) -> None:
    changed(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(values))


def vision_cfg(folder: Path, **values: Any) -> None:
    changed(folder / "open_clip_config.json", lambda c: c["model_cfg"]["vision_cfg"].update(values))


def config_json(folder: Path, **values: Any) -> None:
    changed(folder / "config.json", lambda c: c.update(values))


def tokenizer_config(folder: Path, **values: Any) -> None:
    changed(folder / "tokenizer_config.json", lambda c: c.update(values))


def evil_folder(folder: Path) -> Path:
    """A text model of its own beside the folder, with code that every hook points to."""
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    config_json(other, model_type="evil", auto_map=AUTO_MAP)
    tokenizer_config(other, tokenizer_class="Words", auto_map=AUTO_MAP)
    return other


def is_refused(load: Callable[[], Any]) -> str:
    with pytest.raises(EncoderError) as caught:
        load()
    message = f"{caught.value} {caught.value.hint}"
    assert len(message) < 1000
    return message


# -- nothing runs

CODE_HOOKS: dict[str, Callable[[Path], None]] = {
    "trust_remote_code for the tokenizer": lambda f: text_cfg(f, tokenizer_kwargs={"trust_remote_code": True}),
    "trust_remote_code in text_cfg": lambda f: text_cfg(f, trust_remote_code=True),
    "trust_remote_code in vision_cfg": lambda f: vision_cfg(f, trust_remote_code=True),
    "trust_remote_code in model_cfg": lambda f: model_cfg(f, trust_remote_code=True),
    "trust_remote_code deeper": lambda f: text_cfg(f, tokenizer_kwargs={"kwargs": {"trust_remote_code": True}}),
    "trust_remote_code of the towers": lambda f: text_cfg(f, act_kwargs={"trust_remote_code": True}),
    "trust_remote_code in config.json": lambda f: config_json(f, trust_remote_code=True),
    "trust_remote_code in tokenizer_config.json": lambda f: tokenizer_config(f, trust_remote_code=True),
    "everywhere": lambda f: (
        text_cfg(f, tokenizer_kwargs={"trust_remote_code": True}, trust_remote_code=True),
        config_json(f, trust_remote_code=True),
        tokenizer_config(f, trust_remote_code=True),
    ),
    "text model elsewhere": lambda f: text_cfg(f, hf_model_name=str(evil_folder(f))),
    "tokenizer elsewhere": lambda f: text_cfg(f, hf_tokenizer_name=str(evil_folder(f))),
    "a tokenizer class of its own": lambda f: tokenizer_config(f, tokenizer_class="Words"),
    "a module as tokenizer class": lambda f: tokenizer_config(f, tokenizer_class="evil.Words"),
    "the old form of auto_map": lambda f: tokenizer_config(f, auto_map=["evil.Words", "evil.Words"]),
    "another repository's code": lambda f: tokenizer_config(f, auto_map={"AutoTokenizer": ["a/b--evil.Words"] * 2}),
    "a text model of its own": lambda f: config_json(f, model_type="evil"),
    "an attention kernel from a hub": lambda f: config_json(
        f, attn_implementation="evil/kernel", _attn_implementation="evil/kernel", _attn_implementation_internal="e/k"
    ),
    "quantization": lambda f: config_json(f, quantization_config={"quant_method": "evil", "load_in_8bit": True}),
    "a file of arguments": lambda f: tokenizer_config(f, init_inputs=[str(f / "evil.py")], vocab_file="/dev/zero"),
    "other tokenizer files": lambda f: tokenizer_config(f, fast_tokenizer_files=["../evil.json", "tokenizer.9.json"]),
    "a special tokens file": lambda f: tokenizer_config(f, special_tokens_map_file="/dev/zero", name_or_path="/tmp"),
    "an adapter": lambda f: (f / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(f), "auto_mapping": AUTO_MAP, "peft_type": "LORA"})
    ),
    "a chat template": lambda f: (f / "chat_template.jinja").write_text(
        "{{ cycler.__init__.__globals__.os.getcwd() }}"
    ),
    "tokens reduced by syntax": lambda f: text_cfg(f, tokenizer_kwargs={"reduction_mask": "syntax"}),
    "a vocabulary elsewhere": lambda f: text_cfg(f, tokenizer_kwargs={"bpe_path": "/dev/zero"}),
    "a cache elsewhere": lambda f: text_cfg(f, tokenizer_kwargs={"cache_dir": str(f), "gguf_file": "evil.gguf"}),
    "a factory's argument": lambda f: model_cfg(f, pretrained_image_path=str(f / "evil.pt"), weights_only=False),
}


@pytest.mark.parametrize("hook", CODE_HOOKS)
@pytest.mark.parametrize("load", [ClipEncoder.load, open_encoder], ids=["torch", "numpy"])
def test_no_code_of_a_model_folder_runs(bert: Path, tmp_path: Path, hook: str, load: Callable[..., Any]) -> None:
    """Refused, or loaded without what it asks for; with every hook in place that transformers looks at."""
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    for name in ("evil.py", "tokenization_bert.py", "__init__.py", "sitecustomize.py", "conftest.py"):
        (folder / name).write_text(CODE)
    config_json(folder, auto_map=AUTO_MAP)
    tokenizer_config(folder, auto_map=AUTO_MAP)
    CODE_HOOKS[hook](folder)
    try:
        load(str(folder), "cpu").encode_text(["a chest"])
    except EncoderError as refused:
        assert "model" in str(refused)
    assert not (tmp_path / SENTINEL).exists()


def test_a_folder_with_idle_hooks_gives_the_same_vectors(bert: Path, tmp_path: Path) -> None:
    """Many downloads carry an auto_map that nobody needs: it is not followed, and the tokenizer is the known one."""
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / "evil.py").write_text(CODE)
    config_json(folder, auto_map=AUTO_MAP)
    tokenizer_config(folder, auto_map=AUTO_MAP)
    mine, plain = (ClipEncoder.load(str(f), "cpu", "fp32") for f in (folder, bert))
    assert (mine.encode_text(["a chest"]) == plain.encode_text(["a chest"])).all()
    assert mine.spec.fingerprint == plain.spec.fingerprint
    assert not (tmp_path / SENTINEL).exists()


def test_a_terminal_is_never_asked(bert: Path, tmp_path: Path) -> None:
    """transformers asks whether to run a repository's code, on standard input."""
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / "evil.py").write_text(CODE)
    config_json(folder, model_type="evil", auto_map=AUTO_MAP)
    tokenizer_config(folder, tokenizer_class="Words", auto_map=AUTO_MAP)
    program = (
        "import sys; from retrieval.encoders.clip import ClipEncoder\n"
        "try: ClipEncoder.load(sys.argv[1], 'cpu')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, capture_output=True, text=True, input="y\ny\ny\n"
    )
    assert "custom code" not in done.stdout + done.stderr
    assert done.stdout.startswith("EncoderError")
    assert not (tmp_path / SENTINEL).exists()


@pytest.mark.parametrize(
    "name",
    ["local-dir:{folder}", "hf-hub:evil/model", "hf_hub:evil/model", "{folder}", "../model", "evil.py:Model", "a b", 7],
)
def test_an_image_tower_is_named_not_placed(clip: Path, tmp_path: Path, name: Any) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    (folder / "evil.py").write_text(CODE)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "model_args": {"evil": 1}}))
    named = name.format(folder=folder) if isinstance(name, str) else name
    vision_cfg(folder, timm_model_name=named)
    message = is_refused(lambda: ClipEncoder.load(str(folder), "cpu"))
    assert "timm_model_name" in message
    assert str(tmp_path) not in message
    assert not (tmp_path / SENTINEL).exists()


class Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.path.join(os.environ["SENTINEL_FOLDER"], SENTINEL),)  # noqa: PTH118


class Swelling:
    """Unpickling makes a hundred gigabytes of zeros. torch's own safe unpickler allows it."""

    def __reduce__(self) -> Any:
        return bytearray, (100 << 30,)


PICKLES: dict[str, Callable[[Path], None]] = {
    "torch": lambda p: torch.save({"logit_scale": Trap()}, p),
    "torch, as metadata": lambda p: torch.save({"state_dict": {"a": torch.ones(1)}, "args": Trap()}, p),
    "torch, old format": lambda p: torch.save({"logit_scale": Trap()}, p, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda p: p.write_bytes(pickle.dumps(Trap())),
    "swelling": lambda p: torch.save({"a": Swelling()}, p),
    "swelling, old format": lambda p: torch.save({"a": Swelling()}, p, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth"])
def test_no_pickle_runs(clip: Path, tmp_path: Path, kind: str, name: str) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    (folder / "open_clip_model.safetensors").unlink()
    PICKLES[kind](folder / name)
    is_refused(lambda: ClipEncoder.load(str(folder), "cpu"))
    is_refused(lambda: open_encoder(str(folder)))
    is_refused(lambda: ClipEncoder.load(f"ViT-B-32@{folder / name}", "cpu"))
    assert not (tmp_path / SENTINEL).exists()


# -- nothing is unbounded

SIZES: dict[str, Callable[[Path], None]] = {
    "context": lambda f: text_cfg(f, context_length=10**9),
    "context, as a number with a point": lambda f: text_cfg(f, context_length=1e9),
    "layers": lambda f: text_cfg(f, layers=10**7),
    "layers of the image tower": lambda f: vision_cfg(f, layers=10**7),
    "stages of a residual network": lambda f: vision_cfg(f, layers=[10**7, 3, 3, 3]),
    "width": lambda f: text_cfg(f, width=10**6),
    "heads": lambda f: text_cfg(f, heads=0),
    "vocabulary": lambda f: text_cfg(f, vocab_size=10**10),
    "image size": lambda f: vision_cfg(f, image_size=10**5),
    "image size, two numbers": lambda f: vision_cfg(f, image_size=[32, 10**5]),
    "patches of one pixel": lambda f: vision_cfg(f, image_size=2048, patch_size=1),
    "no patches": lambda f: vision_cfg(f, patch_size=0),
    "embedding": lambda f: model_cfg(f, embed_dim=10**9),
    "embedding below nothing": lambda f: model_cfg(f, embed_dim=-1),
    "embedding of another type": lambda f: model_cfg(f, embed_dim="512"),
    "embedding that is a truth": lambda f: model_cfg(f, embed_dim=True),
    "wide layers": lambda f: text_cfg(f, mlp_ratio=1e9),
    "not a number": lambda f: text_cfg(f, mlp_ratio=float("nan")),
    "as much as the bounds allow": lambda f: text_cfg(f, width=8192, layers=128, heads=64),
    "preprocessing by nothing": lambda f: changed(
        f / "open_clip_config.json", lambda c: c["preprocess_cfg"].update(std=[0, 0, 0])
    ),
    "a name of a megabyte": lambda f: changed(
        f / "open_clip_config.json", lambda c: c.update(medlens={"name": "x" * 10**6})
    ),
    "a name that moves the cursor": lambda f: changed(
        f / "open_clip_config.json", lambda c: c.update(medlens={"name": "\x1b[2J"})
    ),
    "nested": lambda f: (f / "open_clip_config.json").write_text(
        '{"model_cfg": ' + "[" * 100_000 + "]" * 100_000 + "}"
    ),
    "nested objects": lambda f: (f / "open_clip_config.json").write_text(
        '{"model_cfg": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}"
    ),
    "a number of a million digits": lambda f: (f / "open_clip_config.json").write_text(
        '{"model_cfg": {"embed_dim": ' + "9" * 10**6 + "}}"
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_bounded_before_anything_is_made(clip: Path, tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    SIZES[case](folder)
    for load in (ClipEncoder.load, open_encoder):
        message = is_refused(lambda load=load: load(str(folder), "cpu"))
        assert "'model'" in message
        assert "\x1b" not in message


def test_an_image_tower_of_four_gigabytes_on_weights_of_one_megabyte(clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    vision_cfg(folder, timm_model_name="vit_giant_patch14_224")
    assert "its weights have 1,7" in is_refused(lambda: ClipEncoder.load(str(folder), "cpu"))


BERT_SIZES: dict[str, Callable[[Path], None]] = {
    "layers": lambda f: config_json(f, num_hidden_layers=10**7),
    "width": lambda f: config_json(f, hidden_size=10**9),
    "places": lambda f: config_json(f, max_position_embeddings=10**10),
    "vocabulary": lambda f: config_json(f, vocab_size=10**10),
    "an activation of its own": lambda f: config_json(f, hidden_act="evil"),
    "family": lambda f: config_json(f, model_type="gpt_bigcode"),
    "config.json nested": lambda f: (f / "config.json").write_text("[" * 100_000 + "]" * 100_000),
    "config.json of a list": lambda f: (f / "config.json").write_text("[]"),
    "config.json of a gigabyte": lambda f: os.truncate(f / "config.json", 1 << 30),
    "tokenizer_config.json of a gigabyte": lambda f: os.truncate(f / "tokenizer_config.json", 1 << 30),
    "tokenizer.json of a gigabyte": lambda f: os.truncate(f / "tokenizer.json", 1 << 30),
    "tokenizer.json nested": lambda f: (f / "tokenizer.json").write_text("[" * 100_000 + "]" * 100_000),
    "tokenizer.json of ten million lists": lambda f: (f / "tokenizer.json").write_text(
        '{"model": [' + "[]," * 10_000_000 + "[]]}"
    ),
    "a pattern that never ends": lambda f: changed(
        f / "tokenizer.json",
        lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}),
    ),
    "a replacement that never ends": lambda f: changed(
        f / "tokenizer.json",
        lambda t: t.update(
            normalizer={"type": "Sequence", "normalizers": [
                {"type": "Replace", "pattern": {"Regex": r"(.*)*\1x"}, "content": ""}
            ]}
        ),
    ),
    "padding to a billion": lambda f: changed(
        f / "tokenizer.json",
        lambda t: t.update(
            padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "[PAD]"}
        ),
    ),
    "a step of another form": lambda f: changed(f / "tokenizer.json", lambda t: t.update(post_processor={"type": 7})),
    "truncation of another form": lambda f: changed(f / "tokenizer.json", lambda t: t.update(truncation={"evil": 1})),
    "words of a megabyte": lambda f: changed(
        f / "tokenizer.json", lambda t: t["model"].update(max_input_chars_per_word=10**6)
    ),
    "a special token of a megabyte": lambda f: tokenizer_config(f, pad_token="x" * 10**6),
    "a length of 400 digits": lambda f: tokenizer_config(f, model_max_length=10**400),
    "a fraction of 400 digits": lambda f: config_json(f, layer_norm_eps=10**400),
    "the tokenizer's side": lambda f: tokenizer_config(f, padding_side="both"),
}  # fmt: skip


@pytest.mark.parametrize("case", BERT_SIZES)
def test_a_text_models_files_are_bounded(bert: Path, tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    BERT_SIZES[case](folder)
    for load in (ClipEncoder.load, open_encoder):
        assert "'model'" in is_refused(lambda load=load: load(str(folder), "cpu"))


def test_a_tokenizer_that_fails_at_a_word(bert: Path, tmp_path: Path) -> None:
    """`tokenizers` raises plain Exception for a word that it has no pieces for, where there is no unknown piece."""
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    changed(folder / "tokenizer.json", lambda t: t["model"].update(unk_token="[gone]"))
    message = is_refused(lambda: open_encoder(str(folder), "cpu").encode_text(["\u80ba"]))
    assert "the tokenizer of the model 'model' can't be used: WordPiece error" in message


JSON_FILES = ["open_clip_config.json", "config.json", "tokenizer_config.json", "tokenizer.json"]


@pytest.mark.parametrize("name", [*JSON_FILES, "open_clip_model.safetensors"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "loop"])
def test_what_is_not_a_file_is_not_read(bert: Path, tmp_path: Path, name: str, kind: str) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / name).unlink()
    if kind == "device":
        (folder / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(folder / name)
    for load in (ClipEncoder.load, open_encoder):
        message = is_refused(lambda load=load: load(str(folder), "cpu"))
        assert str(tmp_path) not in message


def test_a_checkpoint_that_is_a_device(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="neither a file nor a tag"):
        resolve_model("ViT-B-32@/dev/zero")


def packed(path: Path) -> None:
    """torch's zip with its pickle packed: four megabytes that are five gigabytes."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(5 * 64):
            file.write(b"\0" * (1 << 24))


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "header of the whole memory": lambda p: p.write_bytes(struct.pack("<Q", 1 << 62) + b"{}"),
    "nested header": lambda p: p.write_bytes(struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000),
    "a tensor of a terabyte": lambda p: p.write_bytes(
        (lambda h: struct.pack("<Q", len(h)) + h)(
            json.dumps({"logit_scale": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}).encode()
        )
    ),
    "a tensor of negative size": lambda p: p.write_bytes(
        (lambda h: struct.pack("<Q", len(h)) + h + b"\0" * 64)(
            json.dumps({"logit_scale": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 64]}}).encode()
        )
    ),
    "no tensors": lambda p: save_file({}, p),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_claim_no_more_than_they_are(clip: Path, tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    WEIGHTS[case](folder / "open_clip_model.safetensors")
    for load in (ClipEncoder.load, open_encoder):
        is_refused(lambda load=load: load(str(folder), "cpu"))


def test_a_packed_pickle_is_not_unpacked(clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "model"))
    (folder / "open_clip_model.safetensors").unlink()
    packed(folder / "open_clip_pytorch_model.bin")
    program = (
        "import sys; from retrieval.encoders.tensors import UnusableWeights, open_tensors\n"
        "from pathlib import Path\n"
        "try: open_tensors(Path(sys.argv[1]))\n"
        "except UnusableWeights: print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    path = folder / "open_clip_pytorch_model.bin"
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) < 500_000, done.stderr  # kilobytes
    is_refused(lambda: ClipEncoder.load(str(folder), "cpu"))


def test_ids_that_the_text_tower_does_not_have(clip: Path, tmp_path: Path) -> None:
    """CLIP's own tokenizer has 49,408 tokens; a tower with fewer would be read behind its end."""
    folder = write_clip(tmp_path / "model", config={"text_cfg": CLIP_CONFIG["text_cfg"] | {"vocab_size": 500}})
    message = is_refused(lambda: ClipEncoder.load(str(folder), "cpu").encode_text(["a chest"]))
    assert "500" in message


# -- the hub


def on_hub(tmp_path: Path, repository: str, files: Path, *names: str) -> None:
    """The layout of the hub's cache, as huggingface_hub documents it: links to blobs."""
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "blobs").mkdir()
    (place / "refs" / "main").write_text("abc")
    for name in names:
        shutil.copy(files / name, place / "blobs" / name)
        (place / "snapshots" / "abc" / name).symlink_to(Path("../../blobs") / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def test_a_repository_whose_text_model_is_another_repository(bert: Path, tmp_path: Path, hub: Path) -> None:
    """BiomedCLIP's names that of its BERT: configuration and tokenizer come from there."""
    model = Path(shutil.copytree(bert, tmp_path / "model"))
    text_cfg(model, hf_model_name="some/bert", hf_tokenizer_name="some/bert")
    on_hub(tmp_path, "some/clip", model, "open_clip_config.json", "open_clip_model.safetensors")
    on_hub(tmp_path, "some/bert", model, "config.json", *TOKENIZER)
    light, whole = open_encoder("hf-hub:some/clip"), ClipEncoder.load("hf-hub:some/clip", "cpu", "fp32")
    assert type(light).__name__ == "LightEncoder"
    assert light.spec == whole.spec
    plain = ClipEncoder.load(str(bert), "cpu", "fp32")
    assert (whole.encode_text(["a chest"]) == plain.encode_text(["a chest"])).all()
    assert whole.spec.fingerprint == plain.spec.fingerprint


@pytest.mark.parametrize("name", ["{folder}", "other", "../other", "./other", "evil/other", "/", "a/b/c", ".."])
def test_a_repository_that_names_a_folder(
    bert: Path, tmp_path: Path, hub: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers takes a folder of that name where there is one, in the working directory too."""
    model = Path(shutil.copytree(bert, tmp_path / "model"))
    other = evil_folder(model)
    (other / "evil.py").write_text(CODE)
    (tmp_path / "evil").mkdir()
    shutil.copytree(other, tmp_path / "evil" / "other")
    monkeypatch.chdir(tmp_path)
    named = name.format(folder=other)
    text_cfg(model, hf_model_name=named, hf_tokenizer_name=named, tokenizer_kwargs={})
    on_hub(tmp_path, "some/clip", model, "open_clip_config.json", "open_clip_model.safetensors")
    for load in (ClipEncoder.load, open_encoder):
        is_refused(lambda load=load: load("hf-hub:some/clip", "cpu"))
    assert not (tmp_path / SENTINEL).exists()


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:../model", "hf-hub:a/b/c", "hf-hub:/etc", "hf-hub:a b"])
def test_what_is_not_a_repository(name: str) -> None:
    with pytest.raises(WeightsNotFound, match="not a repository"):
        resolve_model(name)


# -- what is not hostile


def test_every_architecture_of_open_clip_is_within_the_rules() -> None:
    import open_clip

    for name in open_clip.list_models():
        config = config_from({"model_cfg": open_clip.get_model_config(name)}, name)
        assert config.embed_dim == open_clip.get_model_config(name)["embed_dim"]
