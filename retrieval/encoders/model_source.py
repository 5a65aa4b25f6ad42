"""From a model's name to its weights: what is shipped, a folder, a hub, or one of open_clip's architectures.

With `training/`, the only place that imports open_clip. A model folder is what open_clip calls `local-dir:`
(open_clip_config.json, weights, tokenizer); the key "medlens" of its config adds the model's name and render profile.
"""

from __future__ import annotations

import difflib
import json
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.fingerprint import sha256_of
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import EncoderSpec, profile_from_json
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.resources import data_folder
from retrieval.types import RenderProfile

DEFAULT_MODEL = "medlens-base"
CONFIG_NAME = "open_clip_config.json"
_HUB = "hf-hub:"
WEIGHTS_NAMES = (  # the order in which open_clip prefers them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
# Hidden sizes of Devlin et al. 2018 and Turc et al. 2019, all with 64 per head. Others differ: MiniLM has 384 in 12.
BERT_SIZES = (128, 256, 512, 768, 1024)


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded. `name` is for people; `source` finds it again from anywhere.

    With a `folder`, that is a local directory; else `architecture` (and `checkpoint`: a file or an open_clip tag).
    """

    name: str
    source: str
    folder: Path | None = None
    architecture: str = ""
    checkpoint: str | None = None


def shipped_models() -> dict[str, Path]:
    """Models that came with medlens, by name."""
    folder = data_folder() / "models"
    return {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{CONFIG_NAME}"))}


def resolve_model(model: str | None = None) -> ModelSource:
    """Find a model by name. See `ClipEncoder.load` for what names there are. Raises WeightsNotFound."""
    name = model or DEFAULT_MODEL
    shipped = shipped_models()
    if name in shipped:
        return ModelSource(name, name, folder=shipped[name])
    if name.startswith(_HUB):
        return ModelSource(name, name, architecture=name)
    path = _expanded(name.removeprefix("local-dir:"))
    if name.startswith("local-dir:") or path.is_dir():
        return _resolve_folder(path.resolve())
    if "@" in name:
        architecture, _, checkpoint = name.partition("@")
        return _resolve_architecture(architecture, checkpoint)
    near = difflib.get_close_matches(name, shipped, n=1)
    raise WeightsNotFound(
        f"there is no model {name!r}: it is no shipped model ({', '.join(shipped) or 'none'}) and no folder"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="Name a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT; `medlens models` lists what is at hand.",
    )


def open_model(source: ModelSource) -> tuple[Any, Any, EncoderSpec]:
    """Load (model, tokenizer, spec) on the CPU in float32.

    Raises WeightsNotFound if a file or the hub is out of reach, EncoderError if architecture and weights don't fit.
    """
    import open_clip
    from safetensors import SafetensorError

    damaged = (SafetensorError, pickle.UnpicklingError, EOFError, StopIteration)  # what torch.load says of a torn file
    misfit = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)
    try:
        if source.folder is not None:
            model, tokenizer = _open_folder(source.folder)
        else:
            model = open_clip.create_model(source.architecture, pretrained=source.checkpoint, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(source.architecture)
        preprocess = Preprocess.from_open_clip(open_clip.get_model_preprocess_cfg(model))
        config = _config_of(source)
        spec = model_spec(source, config, _weights_path(source), _embed_dim(model, tokenizer), preprocess)
    except (*damaged, *misfit) as exc:
        raise _load_error(source, exc) from exc
    return model, tokenizer, spec


def model_spec(
    source: ModelSource, config: Mapping[str, Any], weights: Path, embed_dim: int, preprocess: Preprocess
) -> EncoderSpec:
    """What a model is; `config` is its open_clip_config.json, empty where it has none."""
    return EncoderSpec(
        name=str(config.get("medlens", {}).get("name", source.name)),
        source=source.source,
        weights_sha256=sha256_of(weights),
        embed_dim=embed_dim,
        preprocess=preprocess,
        render_profile=_profile_in(config),
    )


def render_profile_of(source: ModelSource) -> RenderProfile:
    """The render profile of a model, read from its configuration alone. Raises as `open_model` does."""
    try:
        return _profile_in(_config_of(source))
    except (OSError, ValueError) as exc:
        raise _load_error(source, exc) from exc


def _profile_in(config: Mapping[str, Any]) -> RenderProfile:
    info = config.get("medlens", {})
    return profile_from_json(info["render_profile"]) if "render_profile" in info else RenderProfile()


def _config_of(source: ModelSource) -> dict[str, Any]:
    if source.folder is not None:
        return read_config(source.folder)
    if not source.architecture.startswith(_HUB):
        return {}
    from open_clip.pretrained import download_pretrained_from_hf

    return read_config(Path(download_pretrained_from_hf(source.architecture.removeprefix(_HUB), CONFIG_NAME)).parent)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's open_clip_config.json. Raises EncoderError if it is no JSON object with a model_cfg."""
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise EncoderError(f"{CONFIG_NAME} of model {folder.name!r} can't be read: {why}") from exc
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise EncoderError(f"{CONFIG_NAME} of model {folder.name!r} has no 'model_cfg', which open_clip expects")
    return config


def _expanded(text: str) -> Path:
    """A path, `~` expanded where there is such a user."""
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as exc:  # too long for a path; no such user
        raise WeightsNotFound(f"{text[:80]!r} can be no path: {exc}") from exc
    return path


def weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS_NAMES if (folder / name).is_file()), None)


def _resolve_folder(folder: Path) -> ModelSource:
    if not (folder / CONFIG_NAME).is_file():
        what = f"has no {CONFIG_NAME}" if folder.is_dir() else "does not exist"
        raise WeightsNotFound(
            f"the model folder {folder.name!r} {what}",
            hint="A model folder is what `medlens train` writes, or a download of an open_clip model from a hub.",
        )
    if weights_in(folder) is None:
        raise WeightsNotFound(
            f"the model folder {folder.name!r} has no weights, expected one of {', '.join(WEIGHTS_NAMES)}",
            hint="The download or the training run may be unfinished.",
        )
    return ModelSource(folder.resolve().name, f"local-dir:{folder.resolve()}", folder=folder.resolve())


def _resolve_architecture(architecture: str, checkpoint: str) -> ModelSource:
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1)
        raise WeightsNotFound(
            f"open_clip has no architecture {architecture!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    path = _expanded(checkpoint)
    if path.is_file():
        checkpoint = str(path.resolve())
    elif checkpoint not in open_clip.list_pretrained_tags_by_model(architecture):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise WeightsNotFound(f"{checkpoint!r} is neither a file nor a tag of {architecture} (tags: {tags})")
    name = f"{architecture}@{Path(checkpoint).name}"
    return ModelSource(name, f"{architecture}@{checkpoint}", architecture=architecture, checkpoint=checkpoint)


def _open_folder(folder: Path) -> tuple[Any, Any]:
    import open_clip

    name = f"local-dir:{folder}"
    overrides: dict[str, Any] = {}
    text_cfg = read_config(folder)["model_cfg"].get("text_cfg", {})
    with _text_config_folder(folder, text_cfg) as config_folder:
        if config_folder is not None:
            # The name in the file points to a hub, or to where the model was trained: what is needed lies here.
            overrides["text_cfg"] = text_cfg | {"hf_model_name": str(config_folder), "hf_model_pretrained": False}
        model = open_clip.create_model(name, require_pretrained=True, **overrides)
    return model, open_clip.get_tokenizer(name)


@contextmanager
def _text_config_folder(folder: Path, text_cfg: dict[str, Any]) -> Iterator[Path | None]:
    """A folder with the config.json of a Hugging Face text tower, None if the text tower is open_clip's own.

    BiomedCLIP's repository carries no config.json (open_clip fetches it from the repository of its BERT), so a
    download of it does not load offline. For BERT, all that it says can be read off the weights.
    """
    if not text_cfg.get("hf_model_name"):
        yield None
    elif (folder / "config.json").is_file():
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="medlens-") as made:
            from open_clip.factory import load_state_dict

            state = load_state_dict(str(weights_in(folder)))
            config = bert_config(folder, {name: tuple(tensor.shape) for name, tensor in state.items()})
            (Path(made) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            yield Path(made)


def bert_config(folder: Path, state: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config.json of the BERT in a model folder, from the shapes of its weights."""
    prefix = "text.transformer."
    try:
        vocab_size, hidden = state[f"{prefix}embeddings.word_embeddings.weight"]
        positions = state[f"{prefix}embeddings.position_embeddings.weight"][0]
        types = state[f"{prefix}embeddings.token_type_embeddings.weight"][0]
        intermediate = state[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0]
    except KeyError as exc:
        raise EncoderError(
            f"model {folder.name!r} has a text tower that is no BERT, and no config.json that describes it",
            hint="Put the text model's config.json into the folder.",
        ) from exc
    if hidden not in BERT_SIZES:
        raise EncoderError(
            f"model {folder.name!r} has a BERT of hidden size {hidden}, and no config.json that gives its heads",
            hint="Put the text model's config.json into the folder.",
        )
    in_layer = f"{prefix}encoder.layer."
    layers = 1 + max(int(k.removeprefix(in_layer).split(".")[0]) for k in state if k.startswith(in_layer))
    return {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "pad_token_id": 0,
    }


def _weights_path(source: ModelSource) -> Path:
    import open_clip
    from open_clip.pretrained import download_pretrained_from_hf

    if source.folder is not None:
        path = weights_in(source.folder)
    elif source.architecture.startswith(_HUB):
        path = Path(download_pretrained_from_hf(source.architecture.removeprefix(_HUB)))
    elif source.checkpoint and Path(source.checkpoint).is_file():
        path = Path(source.checkpoint)
    else:
        config = open_clip.get_pretrained_cfg(source.architecture, source.checkpoint)
        path = Path(open_clip.download_pretrained(config))
    if path is None or not path.is_file():
        raise WeightsNotFound(f"the weights of {source.name!r} are gone")
    return path


def _embed_dim(model: Any, tokenizer: Any) -> int:
    import torch

    with torch.inference_mode():
        return int(model.eval().encode_text(tokenizer(["x"])).shape[-1])


def _load_error(source: ModelSource, exc: Exception) -> EncoderError:
    detail = " ".join(str(exc).split()) or type(exc).__name__
    for path in (source.folder, source.checkpoint):  # no full paths in messages
        detail = detail.replace(str(path), Path(path).name) if path else detail
    detail = detail[:300]
    is_file = source.checkpoint is not None and Path(source.checkpoint).is_file()
    if source.folder is None and not is_file and "state_dict" not in detail:
        return WeightsNotFound(
            f"the model {source.name!r} could not be had from its hub: {detail}",
            hint="This needs the network once; or download it elsewhere and name the folder with --model.",
        )
    return EncoderError(
        f"the model {source.name!r} can't be loaded: {detail}",
        hint="Weights and architecture may not fit, or the file may be damaged.",
    )
