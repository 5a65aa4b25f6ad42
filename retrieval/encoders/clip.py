"""A pair of encoders that puts pictures and texts in one space: any model that open_clip loads.

The image tower runs in bfloat16 where the hardware has it (2 to 4 times faster than float32 on such CPUs) after a check
against float32 at load time (image_tower.py); the text tower stays in float32, since a query is a handful of tokens.
Importing this module does not import torch: that happens when a model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.encoders.model_source import ModelSource, resolve_model
from retrieval.encoders.spec import EncoderSpec
from retrieval.encoders.tokenizing import tokenizer_errors
from retrieval.encoders.torch_model import open_model, require_known
from retrieval.encoders.unit import unit
from retrieval.encoders.unread import words_unread
from retrieval.errors import EncoderError
from retrieval.types import Embeddings, Uint8Image

logger = logging.getLogger(__name__)

_TEXT_BATCH = 32


@dataclass(frozen=True)
class Device:
    """Where a model runs, in which number format, and why it was chosen so."""

    name: str
    precision: str  # "fp32" or "bf16"
    reason: str

    def __str__(self) -> str:
        return f"{self.name} in {self.precision} ({self.reason})"


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Resolve "auto". Raises EncoderError for a device or precision that this machine does not have."""
    import torch

    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise EncoderError(f"device {device!r} is not known", hint="Use --device auto, cpu, cuda or cuda:N.")
    if precision not in ("auto", "fp32", "bf16"):
        raise EncoderError(f"precision {precision!r} is not known", hint="Use auto, fp32 or bf16.")
    cuda = torch.cuda.is_available()
    if device.startswith("cuda") and not cuda:
        raise EncoderError(
            f"device {device!r} is not available: torch finds no CUDA device",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    if device.startswith("cuda:") and device.removeprefix("cuda:") not in map(str, range(torch.cuda.device_count())):
        raise EncoderError(
            f"device {device!r} is not available: torch finds {torch.cuda.device_count()} CUDA devices, from cuda:0 on",
            hint="`nvidia-smi` lists the devices. --device cuda uses the first one.",
        )
    if device == "auto":
        name, reason = ("cuda", "a CUDA device was found") if cuda else ("cpu", "no CUDA device found")
    else:
        name, reason = device, "as asked"
    if precision != "auto":
        return Device(name, precision, f"{reason}; precision as asked")
    if name.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(name, "bf16" if fast else "fp32", f"{reason}; bf16 {'is' if fast else 'is not'} native there")
    fast = _cpu_has_bf16()
    return Device(name, "bf16" if fast else "fp32", f"{reason}; the CPU has {'' if fast else 'no '}bf16 instructions")


class ClipEncoder:
    """An image tower and a text tower of one open_clip model. Implements `retrieval.types.Encoder`."""

    def __init__(self, model: Any, tokenizer: Any, spec: EncoderSpec, device: Device) -> None:
        from retrieval.encoders.image_tower import ImageTower

        self.spec = spec
        self.device = device
        self._model = model.to(device.name).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._pad = _padding_that_may_go(model)
        bf16 = device.precision == "bf16"
        self._images = ImageTower(self._model.visual, spec.preprocess, device.name, bf16=bf16)
        self._model.visual = self._images.visual  # the plain one can go
        if bf16 and not self._images.bf16:
            logger.warning("model %s runs in fp32: %s", spec.name, self._images.notes)
            self.device = Device(device.name, "fp32", self._images.notes)

    @classmethod
    def load(cls, model: str | None = None, device: str = "auto", precision: str = "auto") -> ClipEncoder:
        """Load by name: None for the shipped default, `hf-hub:ORG/REPO`, `local-dir:PATH`, a folder, or
        `ARCHITECTURE@CHECKPOINT` (a file, or one of open_clip's tags).

        Raises WeightsNotFound if there is no such model, EncoderError if it can't be loaded or the device is missing.
        """
        return cls.from_source(resolve_model(model), device, precision)

    @classmethod
    def from_source(cls, source: ModelSource, device: str = "auto", precision: str = "auto") -> ClipEncoder:
        chosen = choose_device(device, precision)
        module, tokenizer, spec = open_model(source)
        encoder = cls(module, tokenizer, spec, chosen)
        logger.info("model %s on %s", spec.name, encoder.device)
        return encoder

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def embed_dim(self) -> int:
        return self.spec.embed_dim

    @property
    def batch_size(self) -> int:
        """How many pictures at a time keep the device busy."""
        return self._images.batch_size

    @property
    def visual(self) -> Any:
        """The image tower as a module of torch: pixels of `spec.preprocess` in, features out."""
        return self._images.visual

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature that turns cosine similarities into logits (already exponentiated)."""
        return float(self._model.logit_scale.exp().item())

    def image_features(self, images: Sequence[Uint8Image]) -> Embeddings:
        """[N, embed_dim] float32, not normalised."""
        return self._images.features(images)

    def tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """[N, context length]: the ids that a model's tokenizer gives for texts."""
        ids: npt.NDArray[np.int64] = self._tokenizer(list(texts)).numpy()
        return ids

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Pictures are uint8 [H, W] or [H, W, 3] of any size.

        Raises NonFiniteEmbedding if the model gives NaN or infinity for one of them.
        """
        if not images:
            return np.zeros((0, self.embed_dim), np.float32)
        return unit(self._images.features(images), "image")

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Texts longer than the model's context are cut by its tokenizer."""
        import torch

        if isinstance(texts, str):
            raise TypeError("encode_text got a single text, expected a list of texts")
        if not texts:
            return np.zeros((0, self.embed_dim), np.float32)
        with tokenizer_errors(self.name):
            tokens = self._tokenizer(list(texts))
        require_known(self._model, int(tokens.max()), self.name)
        lengths = (tokens != self._pad).sum(dim=1) if self._pad is not None else torch.zeros(len(tokens))
        order = torch.argsort(lengths, stable=True)  # texts of a batch are about as long: little padding
        batches = torch.split(order, _TEXT_BATCH)

        def features(chosen: torch.Tensor) -> torch.Tensor:
            batch = tokens[chosen]
            if self._pad is not None:
                batch = batch[:, : int((batch != self._pad).any(dim=0).nonzero()[-1]) + 1]
            with torch.inference_mode():
                found: torch.Tensor = self._model.encode_text(batch.to(self.device.name)).float().cpu()
            return found

        lanes = self._images.lanes
        found = torch.cat(lanes.map(features, batches) if lanes else [features(batch) for batch in batches])
        out = np.empty(found.shape, np.float32)
        out[order.numpy()] = found.numpy()
        return unit(out, "text")

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Of each text the words that `encode_text` does not read: those behind the model's context."""

        def token_ids(text: str) -> list[int]:
            ids: list[int] = self._tokenizer([text])[0].tolist()
            return ids

        length = len(token_ids(""))
        return [words_unread(text, token_ids, length) for text in texts]


def _padding_that_may_go(model: Any) -> int | None:
    """The id of padding, if the text tower gives a text the same embedding without it; None if it wants the whole
    context. A BERT masks it; open_clip's own transformers add positions for the whole context, and are short (77)."""
    text: Any = getattr(model, "text", None)
    if hasattr(text, "removable_pad"):  # a tower of transformers, as it is wrapped here
        pad: int | None = text.removable_pad
        return pad
    config: Any = getattr(text, "config", None)
    return int(config.pad_token_id) if getattr(config, "model_type", None) == "bert" else None


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512-BF16 or AMX). Emulated bf16 is slower than fp32."""
    import torch

    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)
