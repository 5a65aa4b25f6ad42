"""Warm-up: trains the image tower without captions, to recognize an image in another crop, contrast and noise.

SimCLR (Chen et al. 2020): the two views of an image are pulled together, and the views of different images are pushed
apart, except images of one patient. Masked prediction would need a decoder and suits transformers, while these towers
are mostly small convolutional networks. `schedule.chunk_size` allows the large batches that a contrastive loss needs.
The projector, a small network above the embedding, is discarded after the warm-up.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from retrieval.errors import TrainingError
from retrieval.training.augment import augment
from retrieval.training.checkpoint import load_state, preprocess_of, save_state
from retrieval.training.chunks import Chunks
from retrieval.training.config import Schedule, TrainingConfig, WarmUp
from retrieval.training.data import Progress, cache_pixels
from retrieval.training.loop import CANVAS, Loop
from retrieval.training.schedule import image_side, make_optimizer, rate_at, step_seed
from retrieval.training.unpaired import UnpairedSet

PROJECTED = 128  # the width of the projector, in which views are compared


def two_views(first: torch.Tensor, second: torch.Tensor, groups: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent: each of 2 N views has to be told by its other view, among those of other groups.

    Features are [N, D] of unit norm, row by row of the same image; `groups` [N] are numbers of patients.
    """
    count = len(first)
    views = torch.cat([first, second])
    same = groups.repeat(2)[:, None] == groups.repeat(2)[None, :]
    other = torch.arange(2 * count, device=views.device).roll(count)
    same[torch.arange(2 * count, device=views.device), other] = False
    logits = (views @ views.T / temperature).masked_fill(same, -torch.inf)
    return F.cross_entropy(logits, other)


def warm_up(loop: Loop, sets: Sequence[UnpairedSet], fingerprint: str) -> None:
    """Train the image tower of a loop on its training images and those of `sets`, or resume from the saved state.

    `fingerprint` identifies the run. Raises TrainingError if there are fewer images than one batch, or if the loss is
    not finite. KeyboardInterrupt leaves the last state on disk.
    """
    settings, context = loop.config.warm_up, loop.context
    if settings is None:
        return
    work = context.work / "warm_up"
    work.mkdir(parents=True, exist_ok=True)
    paths = [str(row.image) for each in sets for row in each.rows]
    fingerprint = hashlib.sha256(json.dumps([fingerprint, paths]).encode()).hexdigest()
    state = None if context.restart else load_state(work, fingerprint)
    context.processes.wait()  # until all have read it
    training = _WarmUp(loop, settings, sets, work)
    if state is not None:
        training.epoch, training.step = state["epoch"], state["step"]
        training.tower.load_state_dict(state["tower"])
        training.optimizer.load_state_dict(state["optimizer"])
    while training.epoch < settings.epochs:
        training.train_epoch(context.on_progress)
        if context.processes.first and (training.epoch % loop.config.schedule.evaluate_every == 0 or training.done):
            values = {"tower": training.tower.state_dict(), "optimizer": training.optimizer.state_dict()}
            save_state(work, fingerprint, values | {"epoch": training.epoch, "step": training.step})


class _Tower(torch.nn.Module):
    """The image tower under the network that the views are compared above."""

    def __init__(self, visual: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.visual = visual
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, PROJECTED)
        )


class _WarmUp:
    def __init__(self, loop: Loop, settings: WarmUp, sets: Sequence[UnpairedSet], work: Path) -> None:
        self.loop, self.settings = loop, settings
        processes, progress = loop.context.processes, loop.context.on_progress
        self.epoch = self.step = 0
        torch.manual_seed(step_seed(loop.config.seed, 0, 6))
        self.tower = _Tower(loop.model.visual, loop.config.embed_dim).to(loop.device)
        self.optimizer = make_optimizer(self.tower, _as_a_run(loop.config, settings))
        rows = [row for each in sets for row in each.rows]
        if not processes.first:
            processes.wait()
        self.more = cache_pixels(rows, preprocess_of(loop.config, CANVAS), work / "unpaired.pixels", progress)
        if processes.first:
            processes.wait()
        train = [row.group for row in loop.context.corpus.rows if row.split == "train"]
        numbers: dict[str, int] = {}
        self.groups = torch.tensor([numbers.setdefault(g, len(numbers)) for g in [*train, *(r.group for r in rows)]])
        self.steps = len(self.groups) // settings.batch_size
        if not self.steps:
            raise TrainingError(
                f"the warm-up has {len(self.groups)} images, expected at least one batch of {settings.batch_size}",
                hint="Lower warm_up.batch_size, or add images under warm_up.images.",
            )

    @property
    def done(self) -> bool:
        return self.epoch == self.settings.epochs

    def train_epoch(self, progress: Progress) -> None:
        size = self.settings.batch_size
        order = np.random.default_rng([self.loop.config.seed, self.epoch, 5]).permutation(len(self.groups))
        losses: list[float] = []
        for number in range(self.steps):
            losses.append(self._train_step(order[number * size : (number + 1) * size]))
            what = f"warm-up {self.epoch + 1} of {self.settings.epochs}, loss {np.mean(losses):.3f}"
            progress(what, number + 1, self.steps)
        self.epoch += 1

    def _train_step(self, batch: npt.NDArray[np.int64]) -> float:
        loop, seed = self.loop, self.loop.config.seed
        generator = torch.Generator().manual_seed(step_seed(seed, self.step, 7))
        torch.manual_seed(step_seed(seed, self.step, 8))  # drop path
        self.tower.train()
        for norm in loop.locked_norms:
            norm.eval()
        schedule = _as_a_run(loop.config, self.settings).schedule
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(schedule, self.step, self.steps * self.settings.epochs)

        canvas, side = self._canvas(batch), image_side(loop.config, 0)
        views = [augment(canvas, (side, side), self.settings.augmentation, generator) for _ in range(2)]
        pixels = torch.cat(views)
        chunks = Chunks(
            loop.config.schedule.chunk_size,
            self.tower,
            lambda number: step_seed(seed, self.step, 8, number),
            loop.context.processes,
        )
        found = chunks.features(lambda part: self._projected(pixels[part]), len(pixels), PROJECTED)
        first, second = found.chunk(2)
        loss = two_views(first, second, self.groups[batch].to(loop.device), self.settings.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        chunks.backward(loss)
        loop.context.processes.average_statistics(self.tower)
        torch.nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {self.step} of the warm-up", hint="Lower warm_up.learning_rate."
            )
        return value

    def _canvas(self, batch: npt.NDArray[np.int64]) -> torch.Tensor:
        """[N, 1, H, W] uint8 on the run's device: training images of the run first, then those without captions."""
        own = len(self.loop.canvas)
        images = [self.loop.canvas[i] if i < own else self.more[i - own] for i in batch]
        return torch.from_numpy(np.stack(images)).unsqueeze(1).to(self.loop.device)

    def _projected(self, pixels: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.tower.projector(self.loop.encoded_images(pixels)), dim=-1)


def _as_a_run(config: TrainingConfig, settings: WarmUp) -> TrainingConfig:
    """The configuration with the warm-up's schedule, for what is shared with the training proper."""
    schedule = Schedule(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        final_learning_rate=min(config.schedule.final_learning_rate, settings.learning_rate),
        weight_decay=config.schedule.weight_decay,
        warmup_steps=config.schedule.warmup_steps,
    )
    return config.model_copy(update={"schedule": schedule})
