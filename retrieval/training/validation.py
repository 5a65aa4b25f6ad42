"""Validates a model on the dev rows: retrieval over each source's gallery, zero-shot labels, and the table of
epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from retrieval.evaluation.retrieval import RetrievalFigures, evaluate_retrieval, judge_pairs
from retrieval.evaluation.zero_shot import ZeroShotFigures, evaluate_zero_shot
from retrieval.statistics.bootstrap import Judgement
from retrieval.training.config import TrainingConfig
from retrieval.training.data import TrainingRow, source_names
from retrieval.training.forgetting import both_ways
from retrieval.training.texts import BATCH, TextEncoder
from retrieval.zeroshot.classify import ensemble
from retrieval.zeroshot.labels import LabelSet

Floats = npt.NDArray[np.float32]
RECALL_AT = 10  # what the best epoch is chosen by


@dataclass(frozen=True)
class Figures:
    """The figures of a model on the rows of the split `dev`."""

    retrieval: dict[str, RetrievalFigures]  # by source
    zero_shot: dict[str, list[ZeroShotFigures]]  # by source

    def recall(self, source: str | None = None) -> float:
        """R@10, the mean of both ways: of one source, or the mean over all that have dev rows. At least one must."""
        found = [self.retrieval[source]] if source is not None else list(self.retrieval.values())
        ways = [way[RECALL_AT].value for each in found for way in (each.image_to_text, each.text_to_image)]
        return float(np.mean(ways))


@dataclass(frozen=True)
class Epoch:
    """A row of the run's table. `recall` is [image to text, text to image] R@10 by source, None if not evaluated."""

    number: int  # from 1
    loss: float
    recall: dict[str, tuple[float, float]] | None = None

    @classmethod
    def of(cls, number: int, loss: float, figures: Figures | None) -> Epoch:
        if figures is None:
            return cls(number, loss)
        recall = {
            name: (found.image_to_text[RECALL_AT].value, found.text_to_image[RECALL_AT].value)
            for name, found in figures.retrieval.items()
        }
        return cls(number, loss, recall)


class Validator:
    """Evaluates models on the dev rows."""

    def __init__(
        self,
        config: TrainingConfig,
        label_sets: Sequence[LabelSet],
        rows: Sequence[TrainingRow],
        pixels: npt.NDArray[np.uint8],
        texts: TextEncoder,
    ) -> None:
        """`pixels` are the rows' grey images [N, height, width] at the model's size."""
        self._config, self._label_sets, self._rows, self._pixels = config, label_sets, rows, pixels
        self._texts = texts

    def figures(self, model: Any, resamples: int = 2000) -> Figures:
        """The figures by source. `model` is in evaluation mode. With one resample, there are no intervals."""
        if not self._rows:
            return Figures({}, {})
        with torch.inference_mode():
            return self.figures_of(self._images(model), lambda texts: self._features(model, texts), resamples)

    def figures_of(self, images: Floats, features_of: Callable[[list[str]], Floats], resamples: int = 2000) -> Figures:
        """The figures of any model, from its embeddings of the rows [N, D] and a function that embeds texts, of unit
        norm."""
        retrieval, zero_shot = {}, {}
        if not self._rows:
            return Figures({}, {})
        captions = features_of([row.caption for row in self._rows])
        for number, name in enumerate(source_names(self._config.data)):
            mine = [i for i, row in enumerate(self._rows) if row.source == number]
            if not mine:
                continue
            groups = [self._rows[i].group for i in mine]
            texts = [self._rows[i].caption for i in mine]
            retrieval[name] = evaluate_retrieval(images[mine], captions[mine], texts, groups, resamples=resamples)
            found = []
            for column, labels in enumerate(self._label_sets):
                vectors = np.stack([ensemble(features_of(list(label.prompts))) for label in labels.labels])
                truth = np.array([self._rows[i].labels[column] for i in mine], np.int64)
                figures = evaluate_zero_shot(labels.name, images[mine] @ vectors.T, truth, groups, resamples=resamples)
                if figures is not None:
                    found.append(figures)
            zero_shot[name] = found
        return Figures(retrieval, zero_shot)

    def recall_by_source(self, model: Any, sources: Sequence[str]) -> dict[str, Judgement]:
        """R@10 (mean of both directions) of the sources that have dev rows, for `forgetting.compared`."""
        names = source_names(self._config.data)
        wanted = [i for i, row in enumerate(self._rows) if names[row.source] in sources]
        if not wanted:
            return {}
        out = {}
        with torch.inference_mode():
            images = self._images(model)
            captions = self._features(model, [row.caption for row in self._rows])
        for name in sources:
            mine = [i for i in wanted if names[self._rows[i].source] == name]
            if mine:
                rows = [self._rows[i] for i in mine]
                texts, groups = [row.caption for row in rows], [row.group for row in rows]
                out[name] = both_ways(*judge_pairs(images[mine], captions[mine], texts, groups))
        return out

    def _images(self, model: Any) -> Floats:
        parts = []
        for start in range(0, len(self._pixels), BATCH):
            pixels = torch.from_numpy(np.array(self._pixels[start : start + BATCH])).unsqueeze(1).float() / 255
            inputs = normalised(pixels.to(self._texts.device), self._config)
            parts.append(F.normalize(model.visual(inputs), dim=-1).cpu().numpy())
        return np.concatenate(parts)

    def _features(self, model: Any, texts: list[str]) -> Floats:
        features: Floats = self._texts.in_batches(model, texts).cpu().numpy()
        return features


def normalised(pixels: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    """Grey [N, 1, H, W] in [0, 1] to the model's input [N, 3, H, W]."""
    out = (pixels - config.image.mean) / config.image.std
    return out.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
