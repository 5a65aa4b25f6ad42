"""The loop of a training run: its state, one epoch, one step.

Every random number is a function of the seed and the step. A run that was killed and resumed from its last state gives
the same weights as an uninterrupted run (on the same machine, on the CPU).
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel

from retrieval.errors import TrainingError
from retrieval.training.augment import augment
from retrieval.training.chunks import Chunks
from retrieval.training.config import TrainingConfig
from retrieval.training.context import TrainingContext
from retrieval.training.data import TrainingRow
from retrieval.training.objective import (
    HardNegatives,
    Mirrored,
    multi_positive_infonce,
    pairwise_sigmoid,
    positive_pairs,
    prompt_cross_entropy,
)
from retrieval.training.other_findings import OtherFindings
from retrieval.training.scalars import Scalars
from retrieval.training.schedule import image_side, rate_at, step_seed
from retrieval.training.teacher import Distillation, TeacherEmbeddings
from retrieval.training.texts import TextEncoder, Texts
from retrieval.training.validation import Validator, normalised

CANVAS = 1.25  # the size of cached training images relative to the model's input, to allow crops
MIRRORED = 1 / 8  # of a batch, at most, are encoded a second time as mirrored images
SCALE_MAX = 100.0  # CLIP's bound on the logit scale


@dataclass(eq=False)
class Loop:
    """The state of a run (model, averaged model, optimizer, counts) and its precomputed values. `set_up.set_up` creates
    it.

    `train_numbers` are the rows of the corpus that are trained on, ascending, and `canvas` their grey images. `start`
    are the weights of the model that the run went on from, where the result keeps a share of them.
    """

    context: TrainingContext
    texts: Texts
    encode_texts: TextEncoder
    model: Any
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    locked_norms: list[torch.nn.Module]
    train_numbers: npt.NDArray[np.int64]
    canvas: npt.NDArray[np.uint8]
    validator: Validator
    steps_per_epoch: int
    start: dict[str, torch.Tensor] | None = None
    other_findings: OtherFindings | None = None
    distillation: Distillation | None = None
    epoch: int = 0
    step: int = 0

    @property
    def config(self) -> TrainingConfig:
        return self.context.config

    @property
    def device(self) -> torch.device:
        return self.context.device

    def distil_from(self, embeddings: TeacherEmbeddings) -> None:
        """Add the distillation losses to the objective. Call it before the first step and before `load`."""
        self.distillation = Distillation(embeddings, self.config).to(self.device)
        peak = self.config.schedule.learning_rate
        if head := list(self.distillation.parameters()):
            self.optimizer.add_param_group({"params": head, "lr": peak, "peak": peak, "weight_decay": 0.0})

    def train_epoch(self, scalars: Scalars) -> tuple[float, int]:
        """One pass over the training rows. Returns the mean loss and the number of images seen."""
        order, size = self.context.order_of_epoch(self.epoch), self.config.schedule.batch_size
        losses = []
        for number in range(self.steps_per_epoch):
            batch = order[number * size : (number + 1) * size]
            losses.append(self._train_step(batch))
            scalars.step(self.step, {"loss": losses[-1]} | self._pace())
            self.context.on_progress(
                f"epoch {self.epoch + 1} of {self.config.schedule.epochs}", number + 1, self.steps_per_epoch
            )
        self.epoch += 1
        return float(np.mean(losses)), self.steps_per_epoch * size

    def _train_step(self, batch: npt.NDArray[np.int64]) -> float:
        config, rows = self.config, [self.context.corpus.rows[i] for i in batch]
        generator = torch.Generator().manual_seed(step_seed(config.seed, self.step, 0))
        torch.manual_seed(step_seed(config.seed, self.step, 1))  # drop path
        rng = np.random.default_rng([config.seed, self.step, 2])
        self.model.train()
        if config.text.locked:
            self.model.text.transformer.eval()
        for norm in self.locked_norms:
            norm.eval()
        rate = rate_at(config.schedule, self.step, self.steps_per_epoch * config.schedule.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate

        numbers = np.searchsorted(self.train_numbers, batch)
        canvas = torch.from_numpy(self.canvas[numbers]).unsqueeze(1).to(self.device)
        side = image_side(config, self.epoch)
        chosen = [self.texts.ids[_draw(rng, row.texts)] for row in rows]
        straight = np.ones(len(rows), bool)
        if config.augmentation.flip:
            straight = ~self._flips(chosen)
            canvas, chosen = self._flipped(canvas, chosen)
        pixels = augment(canvas, (side, side), config.augmentation, generator)
        turned = self._to_mirror(chosen)
        if turned:
            pixels = torch.cat([pixels, pixels[turned].flip(-1)])  # one pass: batch norm sees one batch
        chunks = Chunks(
            config.schedule.chunk_size,
            self.model,
            lambda number: step_seed(config.seed, self.step, 1, number),
            self.context.processes,
        )
        encoded = chunks.features(
            lambda part: self.encoded_images(pixels[part]),
            len(pixels),
            config.embed_dim,
        )
        images = encoded[: len(rows)]
        scale = self.model.logit_scale.exp()
        captions = self._encoded(chosen, chunks)
        mirror = Mirrored(encoded[len(rows) :], torch.tensor(turned, device=self.device)) if turned else None
        loss = self._contrast(images, captions, chosen, self._wrong(rows, chosen), mirror, scale, chunks)
        if self.distillation is not None:
            loss = loss + self.distillation(images, captions, numbers, chosen, scale, straight)
        weights = list(config.label_sets.values())
        for number, labels in enumerate(self.context.label_sets):
            said = [self.texts.ids[label.prompts[rng.integers(len(label.prompts))]] for label in labels.labels]
            truth = torch.tensor([row.labels[number] for row in rows], device=self.device)
            weight = config.objective.prompt_weight * weights[number]
            smoothing = config.objective.label_smoothing
            loss = loss + weight * prompt_cross_entropy(images, self._encoded(said, chunks), scale, truth, smoothing)

        self.optimizer.zero_grad(set_to_none=True)
        chunks.backward(loss)
        self.context.processes.average_statistics(self.model)
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(SCALE_MAX))
        self.ema.update_parameters(self.model)
        self.step += 1
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} at step {self.step}", hint="Lower the learning rate.")
        return value

    def _pace(self) -> dict[str, float]:
        """The rates of the last step, of what learns fastest in each tower, and the temperature after it."""
        schedule, group = self.config.schedule, self.optimizer.param_groups[0]
        share = group["lr"] / group["peak"]
        return {
            "learning_rate": share * schedule.learning_rate,
            "text_learning_rate": share * schedule.text_learning_rate,
            "temperature": math.exp(-float(self.model.logit_scale.item())),
        }

    def _flipped(self, canvas: torch.Tensor, chosen: list[int]) -> tuple[torch.Tensor, list[int]]:
        """Mirror some of the images, and replace their texts by the mirrored texts."""
        flips = self._flips(chosen)
        turned = torch.where(torch.from_numpy(flips).to(canvas.device)[:, None, None, None], canvas.flip(-1), canvas)
        return turned, [self.texts.mirrored[t] if flip else t for t, flip in zip(chosen, flips, strict=True)]

    def _flips(self, chosen: list[int]) -> npt.NDArray[np.bool_]:
        """Which images of the step are mirrored. Only images with a mirrored text are."""
        rng = np.random.default_rng([self.config.seed, self.step, 3])
        able = np.array([text in self.texts.mirrored for text in chosen], bool)
        flips: npt.NDArray[np.bool_] = able & (rng.random(len(chosen)) < self.config.augmentation.flip)
        return flips

    def _encoded(self, ids: list[int], chunks: Chunks) -> torch.Tensor:
        def encode(part: slice) -> torch.Tensor:
            with self._autocast():
                return self.encode_texts(self.model, ids[part])

        return chunks.features(encode, len(ids), self.config.embed_dim)

    def encoded_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, D] float32 of unit norm."""
        with self._autocast():
            return F.normalize(self.model.visual(normalised(pixels, self.config)).float(), dim=-1)

    def _autocast(self) -> torch.autocast:
        """A new one for each pass: it keeps the weights it has cast, and those of a pass without a graph have none."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.schedule.precision == "bf16")

    def _wrong(self, rows: list[TrainingRow], chosen: list[int]) -> list[tuple[int, int]]:
        """The hard negatives of a batch: (number of the image in it, number of the text)."""
        wrong = [(i, other) for i, text in enumerate(chosen) for other in self.texts.hard.get(text, ())]
        if self.other_findings is not None:
            rng = np.random.default_rng([self.config.seed, self.step, 4])
            drawn = [self.other_findings.draw(row, rng) for row in rows]
            wrong += [(i, other) for i, other in enumerate(drawn) if other is not None]
        return wrong

    def _to_mirror(self, chosen: list[int]) -> list[int]:
        """Numbers of images whose mirrored copies are wrong of their texts: of those whose text names a side."""
        sided = [i for i, text in enumerate(chosen) if text in self.texts.sided]
        rng = np.random.default_rng([self.config.seed, self.step, 5])
        drawn: list[int] = rng.permutation(sided)[: max(round(len(chosen) * MIRRORED), 1)].tolist() if sided else []
        return drawn

    def _contrast(
        self,
        images: torch.Tensor,
        captions: torch.Tensor,
        chosen: list[int],
        wrong: list[tuple[int, int]],
        mirror: Mirrored | None,
        scale: torch.Tensor,
        chunks: Chunks,
    ) -> torch.Tensor:
        """The loss between the images and their texts, with hard negatives."""
        objective, ids = self.config.objective, torch.tensor(chosen, device=self.device)
        if objective.near_equal is None or self.encode_texts.pooled is None:
            positive = positive_pairs(ids)
        else:
            assertions = torch.tensor([self.texts.assertions[text] for text in chosen], device=self.device)
            positive = positive_pairs(ids, self.encode_texts.pooled[chosen], assertions, objective.near_equal)
        hard = None
        if wrong:
            owners = torch.tensor([i for i, _ in wrong], device=self.device)
            hard = HardNegatives(self._encoded([other for _, other in wrong], chunks), owners)
        if objective.loss == "siglip":
            return pairwise_sigmoid(images, captions, scale, self.model.logit_bias, positive, hard, mirror)
        return multi_positive_infonce(images, captions, scale, positive, hard, mirror)

    def averaged(self) -> Any:
        """A copy of the model with averaged weights, and its share of those it started from, in evaluation mode."""
        model = deepcopy(self.ema.module)
        # Running statistics are averages already.
        for mine, theirs in zip(model.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)
        if self.start is not None:
            for name, values in model.state_dict().items():
                if values.is_floating_point():
                    values.lerp_(self.start[name], self.config.schedule.start_share)
        return model.eval()

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "distillation": self.distillation.state_dict() if self.distillation is not None else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillation"])


def _draw(rng: np.random.Generator, texts: tuple[tuple[str, float], ...]) -> str:
    weights = np.array([w for _, w in texts])
    return texts[int(rng.choice(len(texts), p=weights / weights.sum()))][0]
