"""The image tower of a model, made as fast as the machine allows where that changes nothing that counts.

- Batch normalisation is folded into the convolutions before it, and pixels are laid out channels-last. Used if the
  embeddings of probe pictures keep a cosine of SAME to the plain tower's: they do in float32, up to rounding.
- bfloat16 where the hardware multiplies it, in all layers or above the first few, whose rounding the others magnify.
  Used if the probes' embeddings keep a cosine of PROBE_COSINE to float32 and their nearest neighbours: where all
  embeddings lie close together, a good cosine alone proves little.
- On a CPU a batch is split among lanes, each a thread with its share of torch's threads. One operation split over all
  cores makes every core wait for the slowest, dozens of times per picture, and with the decoding workers on the same
  cores there always is a slow one.
- On a GPU pictures travel as uint8 from pinned memory while the batch before is computed, and are normalised there.

Not done: torch.compile (it needs a compiler at run time and 10 to 20 s, for 0.9 to 1.3 times on a ViT); CUDA graphs (at
these batch sizes the kernels, not their launches, take the time).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retrieval.encoders.faster import folded, layer_groups, lowered
from retrieval.encoders.lanes import Lanes
from retrieval.encoders.preprocess import Preprocess
from retrieval.types import Uint8Image

logger = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]  # [N, embed_dim], not normalised

SAME = 0.99999
# Of probes in bfloat16 to float32. They lose less than pictures (medlens-base, two groups kept: 0.9992 to 0.9987).
PROBE_COSINE = 0.9993
LEAST_RECALL = 0.9  # of the NEIGHBOURS nearest probes, between bfloat16 and float32
NEIGHBOURS = 3
_PROBES = 8
_MOST_KEPT = 3  # groups of layers that stay in float32
_LEAST_IN_LANE = 4  # pictures; with fewer, one lane takes them all
_CPU_BATCH = 32
_CUDA_BATCH = 256


@dataclass(frozen=True)
class Agreement:
    """How a faster tower's embeddings of the probes compare with the exact ones."""

    cosine: float  # the least
    recall: float  # share of the nearest neighbours that are the same

    def __str__(self) -> str:
        return f"cosine {self.cosine:.5f}, {self.recall:.0%} of the nearest neighbours"


class ImageTower:
    """Runs the visual part of a model on a device. `bf16` says whether it runs in bfloat16, `notes` why not."""

    def __init__(self, visual: Any, preprocess: Preprocess, device: str, *, bf16: bool) -> None:
        self._preprocess = preprocess
        self._device = torch.device(device)
        self._dtype = torch.float32
        self._visual = visual
        self.lanes = Lanes() if self._device.type == "cpu" else None
        self.bf16 = False
        self.notes = ""
        foldable = any(isinstance(module, torch.nn.BatchNorm2d) for module in visual.modules())
        if not bf16 and not foldable:
            return
        probes = probe_pictures(preprocess.size)
        expected = self.features(probes)
        if bf16:
            self._lower(probes, expected)
        if foldable and not self.bf16:
            self._fold(probes, expected)

    @property
    def visual(self) -> Any:
        return self._visual

    @property
    def batch_size(self) -> int:
        """How many pictures at a time keep the device busy."""
        return _CUDA_BATCH if self.lanes is None else _CPU_BATCH * self.lanes.count

    def features(self, images: Sequence[Uint8Image]) -> Features:
        """[N, embed_dim] float32, not normalised. Pictures of any size, at least one."""
        if self.lanes is not None:
            parts = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
            return np.concatenate(
                [piece for part in parts for piece in self.lanes.map(self._on_cpu, self._shares(part))]
            )
        parts_ = [images[i : i + _CUDA_BATCH] for i in range(0, len(images), _CUDA_BATCH)]
        with torch.inference_mode():
            # Nothing here waits for the device before the last line: the next batch is fitted and sent meanwhile.
            out = [self._embedded(self._pixels(self._stacked(part).pin_memory())).float() for part in parts_]
            features: Features = torch.cat(out).cpu().numpy()
        return features

    def _shares(self, images: Sequence[Uint8Image]) -> list[Sequence[Uint8Image]]:
        count = max(1, min(self.lanes.count if self.lanes else 1, len(images) // _LEAST_IN_LANE))
        return [images[i * len(images) // count : (i + 1) * len(images) // count] for i in range(count)]

    def _on_cpu(self, images: Sequence[Uint8Image]) -> Features:
        with torch.inference_mode():
            features: Features = self._embedded(self._pixels(self._stacked(images))).float().numpy()
        return features

    def _embedded(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor | tuple[torch.Tensor, ...] = self._visual(pixels)
        return out[0] if isinstance(out, tuple) else out  # a CoCa's gives the tokens of its patches, too

    def _stacked(self, images: Sequence[Uint8Image]) -> torch.Tensor:
        """[N, 1 or 3, height, width] uint8, fitted to the model's size."""
        fitted = [self._preprocess.fit(image) for image in images]
        if all(image.ndim == 2 for image in fitted):
            return torch.from_numpy(np.stack(fitted)[:, None])
        rgb = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in fitted]
        return torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2)

    def _pixels(self, stacked: torch.Tensor) -> torch.Tensor:
        """[N, 3, height, width] on the device, normalised, channels-last: the numbers of `Preprocess.batch`."""
        stacked = stacked.to(self._device, non_blocking=True)
        shape = (len(stacked), 3, *self._preprocess.size)
        pixels = torch.empty(shape, device=self._device, memory_format=torch.channels_last)
        pixels.copy_(stacked)  # grey becomes three equal channels
        pixels /= 255
        pixels -= torch.tensor(self._preprocess.mean, device=self._device)[:, None, None]
        pixels /= torch.tensor(self._preprocess.std, device=self._device)[:, None, None]
        return pixels.to(self._dtype)

    def _fold(self, probes: Sequence[Uint8Image], expected: Features) -> None:
        plain = self._visual
        self._visual = folded(plain).to(memory_format=torch.channels_last)
        try:
            found = agreement(expected, self.features(probes))
        except (RuntimeError, TypeError, AttributeError) as exc:  # a tower that looks inside its own layers
            self._visual = plain
            logger.info("batch normalisation is not folded: %s", type(exc).__name__)
            return
        if not found.cosine >= SAME:  # also for NaN
            self._visual = plain
            logger.info("batch normalisation is not folded: it gave a %s", found)

    def _lower(self, probes: Sequence[Uint8Image], expected: Features) -> None:
        """All of it in bfloat16, or all but the first layers, as few as do."""
        exact = self._visual
        trunk = getattr(exact, "trunk", None)
        most = min(_MOST_KEPT, len(layer_groups(trunk)) // 2) if hasattr(trunk, "group_matcher") else 0
        for kept in range(most + 1):
            self._visual, self._dtype = lowered(exact, kept), torch.float32 if kept else torch.bfloat16
            try:
                found = agreement(expected, self.features(probes))
            except RuntimeError as exc:  # a layer that insists on float32
                self.notes = f"bf16 does not work there: {' '.join(str(exc).split())[:200]}"
                continue
            if found.cosine >= PROBE_COSINE and found.recall >= LEAST_RECALL:
                above = f" above the first {kept} groups of layers" if kept else ""
                logger.info("bf16%s keeps %s of fp32 on probe pictures", above, found)
                self.bf16, self.notes = True, ""
                return
            self.notes = (
                f"bf16 gave a {found} of fp32 on probe pictures; "
                f"at least {PROBE_COSINE} and {LEAST_RECALL:.0%} are wanted"
            )
        self._visual, self._dtype = exact, torch.float32


def agreement(expected: Features, got: Features) -> Agreement:
    """Compare embeddings of the same pictures, at least NEIGHBOURS + 2 of them. NaN where an embedding is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in (expected, got))
    cosine = float((a * b).sum(axis=1).min())
    if not np.isfinite(cosine):
        return Agreement(float("nan"), 0.0)
    nearest = []
    for vectors in (a, b):
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -np.inf)
        nearest.append(np.argsort(-similar, axis=1)[:, :NEIGHBOURS])
    shared = sum(len(np.intersect1d(x, y)) for x, y in zip(*nearest, strict=True))
    return Agreement(cosine, shared / nearest[0].size)


def probe_pictures(size: tuple[int, int]) -> list[Uint8Image]:
    """Grey pictures of bright and dark bodies with organs, edges and noise: unlike each other, always the same."""
    height, width = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pictures = []
    for seed in range(_PROBES):
        rng = np.random.default_rng(seed)
        values = np.full(size, rng.uniform(0, 60))
        for radius in (*rng.uniform(0.6, 0.95, 2), *rng.uniform(0.05, 0.4, 2 + 3 * seed)):
            center = rng.uniform(-0.5, 0.5, 2) * (radius < 0.5)  # large ones in the middle
            stretch = rng.uniform(0.6, 1.4)
            inside = ((x - center[0]) * stretch) ** 2 + ((y - center[1]) / stretch) ** 2 < radius**2
            values[inside] += rng.uniform(-80, 140)
        values += rng.normal(0, rng.uniform(0, 20), size) + 40 * rng.uniform(-1, 1) * x
        pictures.append(values.clip(0, 255).astype(np.uint8))
    return pictures
