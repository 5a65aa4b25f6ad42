"""A model as the library that it comes from loads and runs it, to judge our way by.

The library's own loader, preprocessing and tokenizer do the work, in an empty folder into which the checked
configuration is written and the weights are linked: nothing that a stranger's folder holds beside them is seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.encoders.model_config import CONFIG_NAME, ModelConfig
from retrieval.encoders.model_parts import ModelParts
from retrieval.encoders.text_files import TEXT_CONFIG, staged
from retrieval.encoders.torch_model import as_state
from retrieval.encoders.transformers_config import PREPROCESSOR, TransformersConfig
from retrieval.encoders.unit import unit
from retrieval.errors import EncoderError
from retrieval.types import Embeddings, Uint8Image

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OriginalModel:
    """A model in its own library. `pixels` prepares one picture as [3, height, width], `tokens` texts as [N, context];
    `images` and `texts` give embeddings [N, D] of unit norm."""

    library: str
    pixels: Callable[[Uint8Image], Floats]
    tokens: Callable[[Sequence[str]], Integers]
    images: Callable[[Sequence[Uint8Image]], Embeddings]
    texts: Callable[[Sequence[str]], Embeddings]


@contextmanager
def original_model(parts: ModelParts) -> Iterator[OriginalModel]:
    """The model on the CPU in float32, for the time of the context. Raises EncoderError if its library refuses it."""
    with staged(parts.tokenizer, parts.text) as folder:
        try:
            if isinstance(parts.config, TransformersConfig):
                model = _of_transformers(parts, parts.config, folder)
            else:
                model = _of_open_clip(parts, parts.config, folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError) as exc:
            detail = " ".join(str(exc).split()).replace(str(folder), "the folder")[:300]
            raise EncoderError(f"the library of the model {parts.source.name!r} can't load it: {detail}") from exc
        yield model


def _of_open_clip(parts: ModelParts, config: ModelConfig, folder: Path) -> OriginalModel:
    import open_clip
    import torch
    from PIL import Image

    vision, text = dict(config.vision), dict(config.text)
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    if config.hugging_face_text:
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    if not config.own_tokenizer:
        text["hf_tokenizer_name"] = str(folder)
    values = {**config.model, "vision_cfg": vision, "text_cfg": text}
    described = {"model_cfg": values, "preprocess_cfg": dict(config.stated_preprocess)}
    (folder / CONFIG_NAME).write_text(json.dumps(described), encoding="utf-8")
    _put_weights(parts, folder, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    name = f"local-dir:{folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model = model.eval().float()
    tokenizer = open_clip.get_tokenizer(name)

    def pixels(picture: Uint8Image) -> Floats:
        return np.asarray(transform(Image.fromarray(picture)), np.float32)

    def images(pictures: Sequence[Uint8Image]) -> Embeddings:
        with torch.inference_mode():
            found = [model.encode_image(torch.from_numpy(pixels(one))[None]).numpy() for one in pictures]
        return unit(np.concatenate(found), "image")

    def texts(lines: Sequence[str]) -> Embeddings:
        with torch.inference_mode():
            return unit(model.encode_text(tokenizer(list(lines))).numpy(), "text")

    def tokens(lines: Sequence[str]) -> Integers:
        return np.asarray(tokenizer(list(lines)), np.int64)

    return OriginalModel(f"open_clip {open_clip.__version__}", pixels, tokens, images, texts)


def _of_transformers(parts: ModelParts, config: TransformersConfig, folder: Path) -> OriginalModel:
    import torch
    import transformers
    from PIL import Image

    from retrieval.encoders.transformers_model import quiet

    (folder / TEXT_CONFIG).write_text(json.dumps(config.values()), encoding="utf-8")
    (folder / PREPROCESSOR).write_text(json.dumps(config.image_processor), encoding="utf-8")
    _put_weights(parts, folder, "model.safetensors", "pytorch_model.bin")
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with quiet():
        model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **local).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)

    def pixels(picture: Uint8Image) -> Floats:
        prepared = processor(Image.fromarray(picture).convert("RGB"), return_tensors="np")["pixel_values"][0]
        return np.asarray(prepared, np.float32)

    def encoded(lines: Sequence[str]) -> Any:
        length = {"padding": "max_length", "max_length": config.context_length, "truncation": True}
        return tokenizer(list(lines), return_tensors="pt", **length)

    def images(pictures: Sequence[Uint8Image]) -> Embeddings:
        with torch.inference_mode():
            found = [model.get_image_features(torch.from_numpy(pixels(one))[None]) for one in pictures]
        return unit(np.concatenate([one.pooler_output.numpy() for one in found]), "image")

    def texts(lines: Sequence[str]) -> Embeddings:
        with torch.inference_mode():
            return unit(model.get_text_features(**encoded(lines)).pooler_output.numpy(), "text")

    def tokens(lines: Sequence[str]) -> Integers:
        return np.asarray(encoded(lines)["input_ids"], np.int64)

    return OriginalModel(f"transformers {transformers.__version__}", pixels, tokens, images, texts)


def _put_weights(parts: ModelParts, folder: Path, safetensors: str, pickled: str) -> None:
    """One file under the name that a library looks for: linked, or written anew where it would not know the names."""
    from safetensors.torch import save_file

    tensors = parts.weights.tensors()
    (path, *more) = parts.weights.paths
    if not more and parts.weights.named_as(tensors):
        (folder / (safetensors if _is_safetensors(path) else pickled)).symlink_to(path.resolve())
        return
    state = {name: tensor.contiguous() for name, tensor in as_state(tensors).items()}
    save_file(state, folder / safetensors, metadata={"format": "pt"})


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) != b"PK\x03\x04"
