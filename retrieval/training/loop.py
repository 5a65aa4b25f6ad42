"""The training run, from a configuration to a model folder.

Every random number is a function of the seed and of the step, so a run that is killed and goes on from its last state
gives the same weights as one that was not (on the same machine, on the CPU).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel

from retrieval.classify import ensemble
from retrieval.encoder import choose_device
from retrieval.errors import TrainingError
from retrieval.evaluation import RetrievalFigures, ZeroShotFigures, evaluate_retrieval, evaluate_zero_shot
from retrieval.labels import LabelSet, load_labels
from retrieval.model_source import CONFIG_NAME
from retrieval.training.augment import augment
from retrieval.training.card import model_card
from retrieval.training.checkpoint import export, load_state, model_config, preprocess_of, save_state
from retrieval.training.config import TrainingConfig
from retrieval.training.data import Corpus, Progress, cache_pixels, epoch_order, read_corpus, source_names
from retrieval.training.objective import multi_positive_infonce, prompt_cross_entropy
from retrieval.training.text_tower import write_text_tower

logger = logging.getLogger(__name__)

CANVAS = 1.25  # training images are kept this much larger than the model's input, for the crops
SCALE_MAX = 100.0  # CLIP's bound on the logit scale


@dataclass(frozen=True)
class Figures:
    """What the model can do on the rows of the split `dev`."""

    retrieval: dict[str, RetrievalFigures]  # by source
    zero_shot: dict[str, list[ZeroShotFigures]]  # by source


@dataclass(frozen=True)
class TrainingResult:
    folder: Path
    figures: Figures
    epochs: int
    images_per_second: float


OnEpoch = Callable[[int, float, Figures | None], None]


def train(
    config: TrainingConfig,
    *,
    device: str = "cpu",
    restart: bool = False,
    on_progress: Progress = lambda what, done, total: None,
    on_epoch: OnEpoch = lambda epoch, loss, figures: None,
) -> TrainingResult:
    """Train, or go on training, and write `config.output`.

    `device` is "auto", "cpu", "cuda" or "cuda:N". Raises TrainingError for data or a configuration that can't be used,
    EncoderError for a device that is not there. KeyboardInterrupt leaves the last state, from
    which the same call goes on.
    """
    place = torch.device(choose_device(device, "fp32").name)
    label_sets = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, label_sets)
    work = config.output.parent / f"{config.output.name}.work"
    work.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(config, corpus, label_sets)
    state = None if restart else load_state(work, fingerprint)

    run = _Run(config, corpus, label_sets, work, place, on_progress)
    if state is not None:
        run.load(state)
        logger.info("going on after epoch %d", run.epoch)
    started, seen = time.monotonic(), 0
    while run.epoch < config.schedule.epochs:
        loss, images = run.train_epoch(on_progress)
        seen += images
        last = run.epoch == config.schedule.epochs
        judged = last or run.epoch % config.schedule.evaluate_every == 0
        if judged:
            save_state(work, fingerprint, run.state())
        on_epoch(run.epoch, loss, run.evaluate(resamples=1) if judged else None)
    rate = seen / max(time.monotonic() - started, 1e-9)

    model = run.averaged()
    figures = run.evaluate()
    card, metrics = model_card(config, corpus, figures)
    folder = export(model, config, work / "text", card, metrics)
    return TrainingResult(folder, figures, run.epoch, rate)


class _Run:
    """The state of a run: model, averaged model, optimizer, and everything computed once."""

    def __init__(
        self,
        config: TrainingConfig,
        corpus: Corpus,
        label_sets: list[LabelSet],
        work: Path,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.config, self.corpus, self.label_sets, self.device = config, corpus, label_sets, device
        self.label_weights = list(config.label_sets.values())
        self.epoch = self.step = 0
        torch.manual_seed(config.seed)
        prompts = [p for s in label_sets for label in s.labels for p in label.prompts]
        self.texts = list(dict.fromkeys([t for row in corpus.rows for t, _ in row.texts] + prompts))
        self.text_id = {text: i for i, text in enumerate(self.texts)}
        write_text_tower(config.text, self.texts, work / "text")
        self.model, self.tokenizer = _build(config, work)
        self.model.to(device)
        if config.text.locked:
            self.model.text.transformer.requires_grad_(False)
        self.ema = AveragedModel(self.model, multi_avg_fn=_warmed_ema(config.schedule.ema)).requires_grad_(False)
        self.optimizer = _optimizer(self.model, config)
        self.pooled = self._pooled_texts(progress) if config.text.locked else None

        train = [row for row in corpus.rows if row.split == "train"]
        self.train_rows = {id(row): i for i, row in enumerate(train)}
        self.canvas = cache_pixels(train, preprocess_of(config, CANVAS), work / "train.pixels", progress)
        self.dev_rows = [row for row in corpus.rows if row.split == "dev"]
        self.dev_pixels = cache_pixels(self.dev_rows, preprocess_of(config), work / "dev.pixels", progress)
        self.steps_per_epoch = len(self._order(0)) // config.schedule.batch_size
        if not self.steps_per_epoch:
            raise TrainingError(
                f"an epoch has {len(self._order(0))} images, fewer than one batch of {config.schedule.batch_size}"
            )

    def train_epoch(self, progress: Progress) -> tuple[float, int]:
        """One pass over the training rows. Returns the mean loss and the number of images seen."""
        order, size = self._order(self.epoch), self.config.schedule.batch_size
        losses = []
        for number in range(self.steps_per_epoch):
            batch = order[number * size : (number + 1) * size]
            losses.append(self._train_step(batch))
            progress(f"epoch {self.epoch + 1} of {self.config.schedule.epochs}", number + 1, self.steps_per_epoch)
        self.epoch += 1
        return float(np.mean(losses)), self.steps_per_epoch * size

    def _train_step(self, batch: npt.NDArray[np.int64]) -> float:
        config, rows = self.config, [self.corpus.rows[i] for i in batch]
        generator = torch.Generator().manual_seed(_step_seed(config.seed, self.step, 0))
        torch.manual_seed(_step_seed(config.seed, self.step, 1))  # drop path
        rng = np.random.default_rng([config.seed, self.step, 2])
        self.model.train()
        if config.text.locked:
            self.model.text.transformer.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate()

        canvas = torch.from_numpy(self.canvas[[self.train_rows[id(row)] for row in rows]]).unsqueeze(1).float() / 255
        side = self._side()
        pixels = augment(canvas, (side, side), config.augmentation, generator).to(self.device)
        images = F.normalize(self.model.visual(self._normalised(pixels)), dim=-1)
        chosen = [self.text_id[_draw(rng, row.texts)] for row in rows]
        scale = self.model.logit_scale.exp()
        loss = multi_positive_infonce(
            images, self._text_features(chosen), scale, torch.tensor(chosen, device=self.device)
        )
        for number, labels in enumerate(self.label_sets):
            said = [self.text_id[label.prompts[rng.integers(len(label.prompts))]] for label in labels.labels]
            truth = torch.tensor([row.labels[number] for row in rows], device=self.device)
            weight = config.objective.prompt_weight * self.label_weights[number]
            smoothing = config.objective.label_smoothing
            loss = loss + weight * prompt_cross_entropy(images, self._text_features(said), scale, truth, smoothing)

        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
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

    def evaluate(self, resamples: int = 2000) -> Figures:
        """Figures of the averaged model on the dev rows, per source. One resample means no interval."""
        model = self.averaged()
        retrieval, zero_shot = {}, {}
        with torch.inference_mode():
            images = self._dev_images(model)
            captions = self._features_by(model, [row.caption for row in self.dev_rows])
            for number, name in enumerate(source_names(self.config.data)):
                mine = [i for i, row in enumerate(self.dev_rows) if row.source == number]
                if not mine:
                    continue
                groups = [self.dev_rows[i].group for i in mine]
                texts = [self.dev_rows[i].caption for i in mine]
                retrieval[name] = evaluate_retrieval(images[mine], captions[mine], texts, groups, resamples=resamples)
                found = []
                for column, labels in enumerate(self.label_sets):
                    vectors = np.stack(
                        [ensemble(self._features_by(model, list(label.prompts))) for label in labels.labels]
                    )
                    truth = np.array([self.dev_rows[i].labels[column] for i in mine], np.int64)
                    figures = evaluate_zero_shot(
                        labels.name, images[mine] @ vectors.T, truth, groups, resamples=resamples
                    )
                    if figures is not None:
                        found.append(figures)
                zero_shot[name] = found
        return Figures(retrieval, zero_shot)

    def averaged(self) -> Any:
        """A copy of the model with averaged weights, in evaluation mode."""
        model = deepcopy(self.ema.module)
        # Running statistics are averages already.
        for mine, theirs in zip(model.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)
        return model.eval()

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return epoch_order(self.corpus, self.config.data, self.config.seed, epoch)

    def _rate(self) -> float:
        """The learning rate of this step as a share of its peak: linear warm-up, then cosine."""
        schedule = self.config.schedule
        total = self.steps_per_epoch * schedule.epochs
        if self.step < schedule.warmup_steps:
            return (self.step + 1) / schedule.warmup_steps
        done = (self.step - schedule.warmup_steps) / max(total - schedule.warmup_steps, 1)
        floor = schedule.final_learning_rate / schedule.learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def _side(self) -> int:
        """Pixels along an edge of this epoch's training images."""
        schedule = self.config.schedule
        if schedule.small_image_size is not None and self.epoch < schedule.small_share * schedule.epochs:
            return schedule.small_image_size
        return self.config.image.image_size

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        out = (pixels - self.config.image.mean) / self.config.image.std
        return out.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def _text_features(self, ids: list[int]) -> torch.Tensor:
        if self.pooled is not None:
            return F.normalize(self.model.text.proj(self.pooled[ids]), dim=-1)
        tokens = self.tokenizer([self.texts[i] for i in ids]).to(self.device)
        return F.normalize(self.model.encode_text(tokens), dim=-1)

    def _features_by(self, model: Any, texts: list[str]) -> npt.NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.config.embed_dim), np.float32)
        if self.pooled is not None:
            out = model.text.proj(self.pooled[[self.text_id[t] for t in texts]])
        else:
            parts = [texts[i : i + 64] for i in range(0, len(texts), 64)]
            out = torch.cat([model.encode_text(self.tokenizer(part).to(self.device)) for part in parts])
        features: npt.NDArray[np.float32] = F.normalize(out, dim=-1).cpu().numpy()
        return features

    def _dev_images(self, model: Any) -> npt.NDArray[np.float32]:
        parts = []
        for start in range(0, len(self.dev_pixels), 64):
            pixels = torch.from_numpy(np.array(self.dev_pixels[start : start + 64])).unsqueeze(1).float() / 255
            parts.append(F.normalize(model.visual(self._normalised(pixels.to(self.device))), dim=-1).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.config.embed_dim), np.float32)

    def _pooled_texts(self, progress: Progress) -> torch.Tensor:
        """The locked transformer's output for every text of the run, [texts, width], computed once."""
        encoder = self.model.text.eval()
        pooled: dict[int, torch.Tensor] = {}
        by_length = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))  # batches with little padding
        with torch.inference_mode():
            for start in range(0, len(self.texts), 64):
                batch = by_length[start : start + 64]
                tokens = self.tokenizer([self.texts[i] for i in batch]).to(self.device)
                mask = (tokens != encoder.config.pad_token_id).long()
                longest = int(mask.sum(dim=1).max())
                tokens, mask = tokens[:, :longest], mask[:, :longest]
                out = encoder.pooler(encoder.transformer(input_ids=tokens, attention_mask=mask), mask)
                pooled.update(zip(batch, out, strict=True))
                progress("encoding texts", min(start + 64, len(self.texts)), len(self.texts))
        return torch.stack([pooled[i] for i in range(len(self.texts))]).clone()


def _build(config: TrainingConfig, work: Path) -> tuple[Any, Any]:
    """The model with a fresh image tower and the text tower of work/text, and its tokenizer."""
    import open_clip

    tower = work / "text"
    values = model_config(config, tower)
    (tower / CONFIG_NAME).write_text(json.dumps(values), encoding="utf-8")
    text_cfg = values["model_cfg"]["text_cfg"] | {"hf_model_name": str(tower), "hf_model_pretrained": True}
    vision_cfg = values["model_cfg"]["vision_cfg"] | {"timm_drop_path": config.image.drop_path}
    name = f"local-dir:{tower}"
    try:
        model = open_clip.create_model(
            name,
            load_weights=False,
            text_cfg=text_cfg,
            vision_cfg=vision_cfg,
            init_logit_scale=math.log(1 / config.objective.initial_temperature),
        )
        sides = {config.image.image_size, config.schedule.small_image_size or config.image.image_size}
        with torch.inference_mode():
            widths = {model.visual.eval()(torch.zeros(1, 3, side, side)).shape[-1] for side in sides}
    except (RuntimeError, ValueError, TypeError, AssertionError) as exc:
        raise TrainingError(f"the model can't be built: {exc}") from exc
    if widths != {config.embed_dim}:
        raise TrainingError(f"the image tower gives {sorted(widths)} numbers an image, expected {config.embed_dim}")
    return model.to(memory_format=torch.channels_last), open_clip.get_tokenizer(name)


def _optimizer(model: Any, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; no decay for norms, biases and the temperature; the text tower has its own rate."""
    schedule = config.schedule
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = schedule.text_learning_rate if name.startswith("text.") else schedule.learning_rate
        decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    )


def _warmed_ema(most: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average for AveragedModel whose decay rises with the number n of updates to `most`:
    min(most, (1 + n) / (10 + n)). With a fixed decay the first evaluations would judge the random start."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, number: Any) -> None:
        n = int(number)
        torch._foreach_lerp_(averaged, current, 1 - min(most, (1 + n) / (10 + n)))

    return update


def _draw(rng: np.random.Generator, texts: tuple[tuple[str, float], ...]) -> str:
    weights = np.array([w for _, w in texts])
    return texts[int(rng.choice(len(texts), p=weights / weights.sum()))][0]


def _step_seed(seed: int, step: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _fingerprint(config: TrainingConfig, corpus: Corpus, label_sets: list[LabelSet]) -> str:
    """What must agree for a state to go on: the configuration but for where the result goes, data and labels."""
    values = config.model_dump(mode="json", exclude={"output", "description"})
    labels = [label_set.model_dump(mode="json") for label_set in label_sets]
    return hashlib.sha256(json.dumps([values, corpus.digests, labels], sort_keys=True).encode()).hexdigest()
