"""Random changes that keep the text of an image true: small rotations, crops, contrast and noise, but no flips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone reads

from retrieval.training.config import Augmentation

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
        out = (out ** gamma[at] - 0.5) * contrast[at] + 0.5 + brightness[at]
        changed[at] = out + level[at] * torch.randn(out.shape, generator=noise, device=device)
    return changed
