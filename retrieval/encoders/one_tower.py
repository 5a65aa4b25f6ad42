"""Models of one tower: an image encoder or a text encoder alone, which can't compare images with words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrieval.errors import EncoderError

# model_type of transformers, for what people try most
_IMAGE = (
    "beit",
    "clip_vision_model",
    "convnext",
    "convnextv2",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "efficientnet",
    "resnet",
    "siglip2_vision_model",
    "siglip_vision_model",
    "swin",
    "swinv2",
    "vit",
    "vit_mae",
)
_TEXT = (
    "albert",
    "bert",
    "clip_text_model",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "gpt2",
    "llama",
    "longformer",
    "modernbert",
    "mpnet",
    "roberta",
    "siglip2_text_model",
    "siglip_text_model",
    "t5",
    "xlm-roberta",
)
# How the tensors of a tower begin: of open_clip, and of transformers.
_IMAGE_TENSORS = ("visual.", "vision_model.", "visual_projection.")
_TEXT_TENSORS = (
    "text.",
    "text_model.",
    "text_projection",
    "token_embedding.",
    "transformer.",
    "positional_embedding",
    "ln_final.",
)
_WHOLE = "Name the folder of the whole model: medlens needs an image tower and a text tower that were trained together."


def of_one_tower(model_type: str) -> str:
    """What a family of transformers has, in words; empty for one that is not known to be a single tower."""
    if model_type in _IMAGE:
        return f"It has an image tower and no text tower. {_WHOLE}"
    return f"It has a text tower and no image tower. {_WHOLE}" if model_type in _TEXT else ""


def require_both_configured(model_cfg: Mapping[str, Any], model: str) -> None:
    """EncoderError for open_clip's configuration of one tower."""
    there = [name for name in ("vision_cfg", "text_cfg") if isinstance(model_cfg.get(name), dict)]
    if len(there) == 1 and any(model_cfg.get(name) is None for name in ("vision_cfg", "text_cfg")):
        _refuse(model, f"its configuration has {there[0]} alone", there == ["vision_cfg"])


def require_both_in(tensors: Iterable[str], model: str) -> None:
    """EncoderError for weights, by the names of their tensors, that are of one tower."""
    names = [name.removeprefix("module.") for name in tensors]
    images = sum(name.startswith(_IMAGE_TENSORS) for name in names)
    texts = sum(name.startswith(_TEXT_TENSORS) for name in names)
    if bool(images) != bool(texts):
        _refuse(model, f"its weights have {images} tensors of images and {texts} of text", bool(images))


def _refuse(model: str, found: str, has_images: bool) -> None:
    has, lacks = ("an image", "text") if has_images else ("a text", "image")
    raise EncoderError(f"the model {model!r} has {has} tower and no {lacks} tower: {found}", hint=_WHOLE)
