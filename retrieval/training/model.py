"""Builds the model to train from a configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.model_config import config_from
from retrieval.encoders.text_files import TEXT_CONFIG, read_text_config, read_tokenizer, staged
from retrieval.encoders.torch_model import build_network, open_tokenizer
from retrieval.errors import EncoderError, TrainingError
from retrieval.training.checkpoint import model_config
from retrieval.training.config import TrainingConfig

_TEXT_WEIGHTS = "model.safetensors"


def build_model(config: TrainingConfig, work: Path) -> tuple[Any, Any]:
    """The model with a fresh image tower and the text tower of work/text, and its tokenizer."""
    tower = work / "text"
    values = model_config(config, tower)
    values["model_cfg"]["vision_cfg"]["timm_drop_path"] = config.image.drop_path
    values["model_cfg"]["init_logit_scale"] = math.log(1 / config.objective.initial_temperature)
    fresh = config.continue_from is None
    try:
        described = config_from(values, config.name)
        files = read_tokenizer(tower, config.name), read_text_config(tower / TEXT_CONFIG, config.name)
        with staged(*files) as folder:
            if fresh:
                (folder / _TEXT_WEIGHTS).symlink_to((tower / _TEXT_WEIGHTS).resolve())
            tokenizer = open_tokenizer(described, folder)
            model = build_network(described, folder, pretrained_text=fresh)
        sides = {config.image.image_size, config.schedule.small_image_size or config.image.image_size}
        with torch.inference_mode():
            widths = {model.visual.eval()(torch.zeros(1, 3, side, side)).shape[-1] for side in sides}
    except (RuntimeError, ValueError, TypeError, AssertionError, EncoderError) as exc:
        raise TrainingError(f"the model can't be built: {exc}") from exc
    if widths != {config.embed_dim}:
        raise TrainingError(f"the image tower returns vectors of {sorted(widths)} numbers, expected {config.embed_dim}")
    return model.to(memory_format=torch.channels_last), tokenizer
