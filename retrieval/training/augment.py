"""Random changes that keep the text of an image true: small rotations, crops, contrast and noise, but no flips.

Other changes hide the source of an image: its resolution, its borders, its marks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone reads

from retrieval.training.config import Augmentation

STEPS = 4  # sizes of coarse images
PIECE = 64  # images changed at a time, which limits the memory for intermediate values


def augment(
    pixels: torch.Tensor, size: tuple[int, int], ranges: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """[N, 1, H, W] uint8, or float in [0, 1], to [N, 1, *size] on the same device, values around [0, 1].

    Random numbers come from `generator`, a generator on the CPU. A GPU draws the noise itself, from a seed of it."""

    def uniform(width: float) -> torch.Tensor:
        return (torch.rand(len(pixels), generator=generator) * 2 - 1) * width

    angle = uniform(math.radians(ranges.rotation_degrees))
    low, high = ranges.scale
    scale = low + (high - low) * torch.rand(len(pixels), generator=generator)
    stretch = 1 + uniform(ranges.stretch)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch, -sin, uniform(ranges.shift)], 1),
            torch.stack([sin, cos / stretch, uniform(ranges.shift)], 1),
        ],
        1,
    )  # [N, 2, 3]
    gamma = torch.exp(uniform(ranges.gamma)).view(-1, 1, 1, 1)
    contrast = 1 + uniform(ranges.contrast).view(-1, 1, 1, 1)
    brightness = uniform(ranges.brightness).view(-1, 1, 1, 1)
    level = ranges.noise * torch.rand(len(pixels), generator=generator).view(-1, 1, 1, 1)
    hiding = _Hiding.drawn(len(pixels), ranges, generator)
    device, noise = pixels.device, generator
    if device.type != "cpu":
        noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        theta, gamma, contrast, brightness, level = (
            numbers.to(device, non_blocking=True) for numbers in (theta, gamma, contrast, brightness, level)
        )
    changed = torch.empty(len(pixels), 1, *size, device=device)
    for start in range(0, len(pixels), PIECE):
        at = slice(start, start + PIECE)
        piece = pixels[at].float() / 255 if pixels.dtype == torch.uint8 else pixels[at]
        grid = F.affine_grid(theta[at], [len(piece), 1, *size], align_corners=False)
        out = F.grid_sample(piece, grid, align_corners=False).clamp(0, 1)
        hiding.apply(out, start)
        out = (out ** gamma[at] - 0.5) * contrast[at] + 0.5 + brightness[at]
        changed[at] = out + level[at] * torch.randn(out.shape, generator=noise, device=device)
    return changed


class _Hiding:
    """The random changes of a batch that hide the source of its images.

    Only changes with a range draw random numbers, so the random numbers of other runs stay the same.
    """

    def __init__(self) -> None:
        self.coarse: dict[int, float] = {}  # share of the resolution by image
        self.bars: list[tuple[int, tuple[float, float, float, float], float]] = []  # image, edges as shares, grey
        self.inverted: list[int] = []

    @classmethod
    def drawn(cls, count: int, ranges: Augmentation, generator: torch.Generator) -> _Hiding:
        hiding = cls()

        def chosen(share: float) -> list[int]:
            return torch.nonzero(torch.rand(count, generator=generator) < share).flatten().tolist() if share else []

        for i in chosen(ranges.coarse):
            step = int(torch.randint(STEPS, (1,), generator=generator))
            hiding.coarse[i] = ranges.coarsest ** ((step + 1) / STEPS)
        for i in chosen(ranges.borders):
            grey = float(torch.rand(1, generator=generator))
            grey = 0.0 if grey < 0.4 else 1.0 if grey < 0.6 else grey
            for side, width in enumerate((torch.rand(4, generator=generator) * 0.24 - 0.12).tolist()):
                if width > 0:
                    edges = [(0, width, 0, 1), (1 - width, 1, 0, 1), (0, 1, 0, width), (0, 1, 1 - width, 1)][side]
                    hiding.bars.append((i, edges, grey))
        for i in chosen(ranges.marks):
            for _ in range(2):
                height, width, down, right, grey = torch.rand(5, generator=generator).tolist()
                height, width = 0.04 + 0.1 * height, 0.04 + 0.2 * width
                top = 0.25 * down if down < 0.5 else 1 - height - 0.25 * (down - 0.5)
                left = 0.25 * right if right < 0.5 else 1 - width - 0.25 * (right - 0.5)
                hiding.bars.append((i, (top, top + height, left, left + width), round(grey)))
        hiding.inverted = chosen(ranges.inverted)
        return hiding

    def apply(self, out: torch.Tensor, start: int) -> None:
        """Change the images of a piece, [N, 1, H, W] in [0, 1], in place. `start` is the first one's number."""
        height, width = out.shape[-2:]
        end = start + len(out)
        for share in sorted(set(self.coarse.values())):
            mine = [i - start for i, own in self.coarse.items() if own == share and start <= i < end]
            if mine:
                size = (max(round(height * share), 1), max(round(width * share), 1))
                small = F.interpolate(out[mine], size, mode="area")
                out[mine] = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
        for i, (top, bottom, left, right), grey in self.bars:
            if start <= i < end:
                rows = slice(round(top * height), round(bottom * height))
                out[i - start, :, rows, round(left * width) : round(right * width)] = grey
        turned = [i - start for i in self.inverted if start <= i < end]
        if turned:
            out[turned] = 1 - out[turned]
