"""The model that is trained, built from a configuration as open_clip will build it again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.model_source import CONFIG_NAME
from retrieval.errors import TrainingError
from retrieval.training.checkpoint import model_config
from retrieval.training.config import TrainingConfig


def write_model_config(config: TrainingConfig, tower: Path) -> None:
    """What open_clip reads in the folder of the text tower."""
    (tower / CONFIG_NAME).write_text(json.dumps(model_config(config, tower)), encoding="utf-8")


def build_model(config: TrainingConfig, work: Path) -> tuple[Any, Any]:
    """The model with a fresh image tower and the text tower of work/text, and its tokenizer."""
    import open_clip

    tower = work / "text"
    values = model_config(config, tower)
    text_cfg = values["model_cfg"]["text_cfg"] | {
        "hf_model_name": str(tower),
        "hf_model_pretrained": config.continue_from is None,
    }
    vision_cfg = values["model_cfg"]["vision_cfg"] | {"timm_drop_path": config.image.drop_path}
    name = f"local-dir:{tower}"
    try:
        model = open_clip.create_model(
            name,
            load_weights=False,
            text_cfg=text_cfg,
            vision_cfg=vision_cfg,
            init_logit_scale=math.log(1 / config.objective.initial_temperature),
            init_logit_bias=config.objective.initial_bias if config.objective.loss == "siglip" else None,
        )
        sides = {config.image.image_size, config.schedule.small_image_size or config.image.image_size}
        with torch.inference_mode():
            widths = {model.visual.eval()(torch.zeros(1, 3, side, side)).shape[-1] for side in sides}
    except (RuntimeError, ValueError, TypeError, AssertionError) as exc:
        raise TrainingError(f"the model can't be built: {exc}") from exc
    if widths != {config.embed_dim}:
        raise TrainingError(f"the image tower gives {sorted(widths)} numbers an image, expected {config.embed_dim}")
    return model.to(memory_format=torch.channels_last), open_clip.get_tokenizer(name)
