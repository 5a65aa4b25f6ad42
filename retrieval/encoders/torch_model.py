"""A model on torch, built by open_clip from parts that were checked, and filled from a weights file.

With `training/`, the only place that builds with open_clip. Its factory reads a model's folder itself, loads what the
folder names, and unpickles; here it is given values, an empty folder with checked files (`text_files.staged`), and
tensors. Nothing is allocated that the weights do not fill: the model is built without memory first, and counted.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.model_config import ModelConfig
from retrieval.encoders.model_parts import ModelParts, model_parts
from retrieval.encoders.model_source import ModelSource, load_error
from retrieval.encoders.one_tower import require_both_in
from retrieval.encoders.spec import EncoderSpec
from retrieval.encoders.tensors import BFLOAT16, Tensor, UnusableWeights
from retrieval.encoders.text_files import staged
from retrieval.encoders.tokenizing import in_linear_time, tokenizer_errors
from retrieval.encoders.transformers_config import TransformersConfig
from retrieval.errors import EncoderError

logger = logging.getLogger(__name__)

_POSITION_IDS = "text.transformer.embeddings.position_ids"  # 0, 1, 2 ...: older releases of transformers kept it
_SPARE = 64_000_000  # numbers beyond those in the file: masks, and positions that are resized
_MISFIT = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, ImportError)


def open_model(source: ModelSource) -> tuple[Any, Any, EncoderSpec]:
    """Load (model, tokenizer, spec) on the CPU in float32.

    Raises WeightsNotFound if a file or the hub is out of reach, EncoderError if architecture and weights don't fit.
    """
    try:
        with tokenizer_errors(source.name):
            parts = model_parts(source)
            with staged(parts.tokenizer, parts.text) as folder:
                if isinstance(parts.config, TransformersConfig):
                    model, tokenizer = _of_transformers(parts, parts.config, folder)
                else:
                    tokenizer = open_tokenizer(parts.config, folder)
                    model = _filled(parts, parts.config, folder)
            _require_embedding(model, tokenizer, parts)
            return model, tokenizer, parts.spec
    except _MISFIT as exc:
        raise load_error(source, exc) from exc


def build_network(config: ModelConfig, folder: Path, *, pretrained_text: bool = False, **extra: Any) -> Any:
    """The model with random weights. `folder` holds the config.json of a text tower of transformers, and with
    `pretrained_text` its weights; `extra` goes to open_clip as it is."""
    import open_clip

    values = {key: value for key, value in config.model.items() if key not in ("custom_text", "multimodal_cfg")}
    text, vision = dict(config.text), dict(config.vision)
    custom = bool(config.model.get("custom_text")) or config.hugging_face_text
    if config.hugging_face_text:
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": pretrained_text}
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    values |= {"text_cfg": text, "vision_cfg": vision, **extra}
    if not custom:
        return open_clip.CLIP(**values)
    if config.model.get("multimodal_cfg") is not None:
        return open_clip.CoCa(**values, multimodal_cfg=config.model["multimodal_cfg"])
    return open_clip.CustomTextCLIP(**values)


def open_tokenizer(config: ModelConfig, folder: Path) -> Any:
    """The tokenizer, as open_clip makes it; `folder` holds the checked files of one that is not CLIP's own."""
    from open_clip import tokenizer as kinds

    settings = dict(config.text.get("tokenizer_kwargs") or {})
    if config.own_tokenizer:
        return in_linear_time(kinds.SimpleTokenizer(context_length=config.context_length, **settings))
    return in_linear_time(
        kinds.HFTokenizer(
            str(folder),
            context_length=config.context_length,
            tokenizer_mode=config.text.get("tokenizer_mode"),
            trust_remote_code=False,
            local_files_only=True,
            **settings,
        )
    )


def require_known(model: Any, token: int, name: str) -> None:
    """EncoderError for a token that the text tower has no row for: reading on would crash, or give anything."""
    known = int(getattr(getattr(model, "text", model), "vocab_size", 0) or 0)
    if known and token >= known:
        raise EncoderError(
            f"the tokenizer of the model {name!r} gives the token {token}, its text tower has {known}",
            hint="Tokenizer and weights may be of two models.",
        )


def _of_transformers(parts: ModelParts, config: TransformersConfig, folder: Path) -> tuple[Any, Any]:
    from retrieval.encoders.transformers_model import DualEncoder, Tokenizer, empty_network, filled_network

    tokenizer = Tokenizer(config, folder)
    tensors = parts.weights.tensors()
    _require_room(parts, tensors, lambda: empty_network(config))
    return DualEncoder(filled_network(config, as_state(tensors)), config, tokenizer.padding), tokenizer


def _filled(parts: ModelParts, config: ModelConfig, folder: Path) -> Any:
    tensors = parts.weights.tensors()
    _require_room(parts, tensors, lambda: build_network(config, folder))
    model = build_network(config, folder)
    model.load_state_dict(_fitted(as_state(tensors), model))
    return model


def as_state(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors of a file as torch's, in their own number format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is mapped, and copied
        return {name: _as_torch(tensor) for name, tensor in tensors.items()}


def _require_room(parts: ModelParts, tensors: Mapping[str, Tensor], build: Callable[[], Any]) -> None:
    """EncoderError for a model of many more numbers than its weights have, and for the weights of one tower alone."""
    import torch

    if not tensors:
        raise UnusableWeights(f"{parts.weights.name} holds no tensors")
    require_both_in(tensors, parts.source.name)
    try:
        with torch.device("meta"):
            empty = build()
    except (RuntimeError, NotImplementedError) as exc:  # a network that looks at its numbers while it is built
        logger.debug("model %s can't be counted before it is built: %s", parts.source.name, exc)
        return
    wanted = sum(t.numel() for t in (*empty.parameters(), *empty.buffers()))
    given = sum(tensor.values.size for tensor in tensors.values())
    if wanted > 2 * given + _SPARE:
        raise EncoderError(
            f"the model {parts.source.name!r} can't be loaded: its configuration describes {wanted:,} numbers, its "
            f"weights have {given:,}",
            hint="Configuration and weights may be of two models.",
        )


def _as_torch(tensor: Tensor) -> Any:
    import torch

    if tensor.dtype == BFLOAT16:
        return torch.from_numpy(tensor.values.view("<i2")).view(torch.bfloat16)
    return torch.from_numpy(tensor.values)


def _fitted(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """A state dict with the names and shapes of the model, as `open_clip.factory.load_checkpoint` makes it."""
    import torch
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        mine = getattr(model, name, None)
        if name in state and mine is not None and mine.ndim != state[name].ndim:
            state[name] = state[name].reshape(mine.shape)
    if "logit_bias" not in state and getattr(model, "logit_bias", None) is not None:
        state["logit_bias"] = torch.zeros_like(model.logit_bias)
    if _POSITION_IDS not in model.state_dict():
        state.pop(_POSITION_IDS, None)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    return state


def _require_embedding(model: Any, tokenizer: Any, parts: ModelParts) -> None:
    """EncoderError unless a text comes out as its configuration says."""
    import torch

    tokens = tokenizer(["x"])
    require_known(model, int(tokens.max()), parts.source.name)
    with torch.inference_mode():
        found = int(model.eval().encode_text(tokens).shape[-1])
    if found != parts.config.embed_dim:
        raise EncoderError(
            f"the model {parts.source.name!r} can't be loaded: its text tower gives {found} numbers, its configuration "
            f"says {parts.config.embed_dim}"
        )
