"""A pair of encoders that puts pictures and texts in one space: any model that open_clip loads.

The image tower runs in bfloat16 where the hardware has it (2 to 4 times faster than float32 on such CPUs) after a check
against float32 at load time; the text tower stays in float32, since a query is a handful of tokens.
Importing this module does not import torch: that happens when a model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval.errors import EncoderError, NonFiniteEmbedding
from retrieval.model_source import ModelSource, open_model, resolve_model
from retrieval.spec import EncoderSpec
from retrieval.types import Embeddings, Uint8Image

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LEAST_COSINE = 0.999  # a faster path whose embeddings agree less than this with float32 is not used
IMAGE_BATCH = 32


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
            f"device {device!r} was asked for, but torch sees no CUDA device",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    if device.startswith("cuda:") and device.removeprefix("cuda:") not in map(str, range(torch.cuda.device_count())):
        raise EncoderError(
            f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices, from cuda:0 on",
            hint="`nvidia-smi` lists them; --device cuda takes the first.",
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
        self.spec = spec
        self.device = device
        self._model = model.to(device.name).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._visual = self._model.visual
        if device.precision == "bf16":
            self._visual, self.device = self._checked_bf16(device)

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
    def logit_scale(self) -> float:
        """The learned inverse temperature that turns cosine similarities into logits (already exponentiated)."""
        return float(self._model.logit_scale.exp().item())

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Pictures are uint8 [H, W] or [H, W, 3] of any size.

        Raises NonFiniteEmbedding if the model gives NaN or infinity for one of them.
        """
        import torch

        if not images:
            return np.zeros((0, self.embed_dim), np.float32)
        parts = []
        for start in range(0, len(images), IMAGE_BATCH):
            pixels = torch.from_numpy(self.spec.preprocess.batch(images[start : start + IMAGE_BATCH]))
            parts.append(_run_visual(self._visual, pixels, self.device))
        return _unit(np.concatenate(parts), "image")

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Texts longer than the model's context are cut by its tokenizer."""
        import torch

        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, and got one text")
        if not texts:
            return np.zeros((0, self.embed_dim), np.float32)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), 64):
                tokens = self._tokenizer(list(texts[start : start + 64])).to(self.device.name)
                parts.append(self._model.encode_text(tokens).float().cpu().numpy())
        return _unit(np.concatenate(parts), "text")

    def _checked_bf16(self, device: Device) -> tuple[Any, Device]:
        """The image tower in bf16 if it agrees with fp32 on two synthetic pictures, else the fp32 tower, with why."""
        import copy

        import torch

        height, width = self.spec.preprocess.size
        rng = np.random.default_rng(0)
        ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
        probes = [ramp.astype(np.uint8), rng.integers(0, 256, (height, width), np.uint8)]
        pixels = torch.from_numpy(self.spec.preprocess.batch(probes))
        expected = _unit(_run_visual(self._model.visual, pixels, Device(device.name, "fp32", "")), "probe image")
        fast = copy.deepcopy(self._model.visual).to(torch.bfloat16)
        try:
            got = _unit(_run_visual(fast, pixels, device), "probe image")
        except (NonFiniteEmbedding, RuntimeError) as exc:  # RuntimeError: a layer that insists on float32
            reason = f"bf16 does not work there: {' '.join(str(exc).split())[:200]}"
        else:
            cosine = float((expected * got).sum(axis=1).min())
            if cosine >= LEAST_COSINE:
                return fast, device
            reason = f"bf16 gave a cosine of {cosine:.4f} to fp32, at least {LEAST_COSINE} is wanted"
        logger.warning("model %s runs in fp32: %s", self.name, reason)
        return self._model.visual, Device(device.name, "fp32", reason)


def _run_visual(visual: Any, pixels: torch.Tensor, device: Device) -> npt.NDArray[np.float32]:
    """[N, embed_dim] float32, not normalised."""
    import torch

    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    with torch.inference_mode():
        out = visual(pixels.to(device.name, dtype, memory_format=torch.channels_last))
    features: npt.NDArray[np.float32] = out.float().cpu().numpy()
    return features


def _unit(features: npt.NDArray[np.float32], what: str) -> Embeddings:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if bad.size:
        raise NonFiniteEmbedding(
            f"the model gave no usable embedding for {bad.size} of {len(features)} {what}s (first at index {bad[0]})",
            hint="The weights may be damaged or not fit the architecture; try --device cpu, or another model.",
        )
    unit: Embeddings = (features / norms).astype(np.float32)
    return unit


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512-BF16 or AMX). Emulated bf16 is slower than fp32."""
    import torch

    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)
