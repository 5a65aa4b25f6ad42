"""The optimizer of a run: AdamW's groups, learning rates, averaged weights, and seeds of random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from retrieval.training.config import Schedule, TrainingConfig
from retrieval.training.image_tower import groups_above
from retrieval.training.text_tower import text_groups_above


def make_optimizer(model: Any, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; no decay for norms, biases and the temperature; the text tower and each group of the image tower's layers
    have their own rate."""
    schedule = config.schedule
    decays = {f"visual.trunk.{n}": config.image.layer_decay**g for n, g in groups_above(model.visual.trunk).items()}
    if hasattr(model, "text"):  # in the warm-up there is none
        decays |= {f"text.{n}": config.text.layer_decay**g for n, g in text_groups_above(model.text).items()}
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = schedule.text_learning_rate if name.startswith("text.") else schedule.learning_rate
        rate *= decays.get(name, 1.0)
        decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    )


def rate_at(schedule: Schedule, step: int, total: int) -> float:
    """The learning rate of a step, relative to its peak: linear warm-up, then cosine."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(total - schedule.warmup_steps, 1)
    floor = schedule.final_learning_rate / schedule.learning_rate
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def image_side(config: TrainingConfig, epoch: int) -> int:
    """The edge length in pixels of the training images of an epoch."""
    schedule = config.schedule
    if schedule.small_image_size is not None and epoch < schedule.small_share * schedule.epochs:
        return schedule.small_image_size
    return config.image.image_size


def warmed_ema(most: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average for AveragedModel whose decay rises with the number n of updates to `most`:
    min(most, (1 + n) / (10 + n)). With a fixed decay, the first evaluations would measure the initial weights."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, number: Any) -> None:
        n = int(number)
        torch._foreach_lerp_(averaged, current, 1 - min(most, (1 + n) / (10 + n)))

    return update


def step_seed(seed: int, step: int, *stream: int) -> int:
    """A seed for torch: a function of the seed of the run, the step and the purpose."""
    return int(np.random.SeedSequence([seed, step, *stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
