"""Writes the output of a run: a state for resuming, and a model folder that open_clip opens with `local-dir:`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.model_config import CONFIG_NAME
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import profile_to_json
from retrieval.errors import TrainingError
from retrieval.on_disk import written_whole
from retrieval.training.config import TrainingConfig
from retrieval.training.model_folder import TEXT_FILES, WEIGHTS_NAME
from retrieval.types import RenderProfile

STATE_NAME = "state.pt"


def work_folder(config: TrainingConfig) -> Path:
    """The folder for the state of a run and for values that it computes once."""
    return config.output.parent / f"{config.output.name}.work"


def save_state(work: Path, fingerprint: str, values: dict[str, Any]) -> None:
    """Write the state atomically: after a crash, the file is the old state or the new one."""
    with written_whole(work / STATE_NAME, durable=True, alone=True) as made:
        torch.save(values | {"fingerprint": fingerprint}, made)


def load_state(work: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state to resume from; None if there is none. Raises TrainingError for a state of another configuration."""
    path = work / STATE_NAME
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = values["fingerprint"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as exc:
        raise TrainingError(
            f"{path.parent.name}/{STATE_NAME} can't be read: {type(exc).__name__}", hint="Start again with --restart."
        ) from exc
    if found != fingerprint:
        raise TrainingError(
            f"{path.parent.name}/{STATE_NAME} was written with another configuration or other data",
            hint="Choose another output, or start again with --restart.",
        )
    return values


def model_config(config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """The content of open_clip_config.json for a model in `folder`."""
    size = config.image.image_size
    place = _place(folder)
    bias = {"init_logit_bias": config.objective.initial_bias} if config.objective.loss == "siglip" else {}
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            **bias,  # open_clip creates the parameter only if its initial value is given
            "vision_cfg": {
                "timm_model_name": config.image.timm_model,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "",
                "image_size": size,
            },
            "text_cfg": {
                "context_length": config.text.context_length,
                "hf_model_name": place,
                "hf_tokenizer_name": place,
                "hf_model_pretrained": False,
                "hf_proj_type": config.text.projection,
                "hf_pooler_type": "mean_pooler",
            },
        },
        "preprocess_cfg": {
            "size": size,
            "mean": [config.image.mean] * 3,
            "std": [config.image.std] * 3,
            "interpolation": "bicubic",
            "resize_mode": config.image.resize_mode,
            "fill_color": 0,
        },
        "medlens": {"name": config.name, "render_profile": profile_to_json(RenderProfile())},
    }


def preprocess_of(config: TrainingConfig, scale: float = 1.0) -> Preprocess:
    """The preprocessing of the model, for images that are `scale` times larger than its input."""
    size = round(config.image.image_size * scale)
    mean, std = config.image.mean, config.image.std
    return Preprocess((size, size), (mean,) * 3, (std,) * 3, resize_mode=config.image.resize_mode)


def export(model: torch.nn.Module, config: TrainingConfig, tower: Path, card: str, metrics: dict[str, Any]) -> Path:
    """Write the model folder: weights in fp16, configuration, tokenizer, figures and model card. Returns the folder."""
    from safetensors.torch import save_file

    folder = config.output
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEXT_FILES:
        (folder / name).write_bytes((tower / name).read_bytes())
    state = {k: _halved(v) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    with written_whole(folder / WEIGHTS_NAME, alone=True) as made:
        save_file(state, made)
    _write_json(folder / CONFIG_NAME, model_config(config, folder))
    _write_json(folder / "metrics.json", metrics)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _halved(values: torch.Tensor) -> torch.Tensor:
    """The tensor in fp16, unless a number is too large for fp16 (above 65504, which a variance can be)."""
    if not values.is_floating_point():
        return values.contiguous()
    half = values.half()
    return (half if bool(half.isfinite().all()) else values).contiguous()


def _place(folder: Path) -> str:
    """The path by which open_clip finds the folder: relative to the current folder if it is below it, else absolute.

    medlens itself does not need the path: it looks beside the weights.
    """
    try:
        return folder.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(folder.resolve())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
