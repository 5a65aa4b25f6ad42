"""Distillation: a small model learns from the embeddings that a large one, the teacher, has of the training rows.

Two losses are added to the loss of the training (after CLIP-KD, Yang et al. 2024). The first pulls the student's
embeddings towards the teacher's, through one linear head if their widths differ. The second makes the student's
similarities between the images and texts of a batch follow the teacher's. Images and texts share the head, so that it
can't separate them; it is discarded after the training.

The teacher encodes each image unchanged, with its own preprocessing. The student sees an augmented view. Mirrored
images with mirrored texts are left out, because the teacher has no embeddings of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import TrainingError
from retrieval.on_disk import written_whole
from retrieval.training.config import Teacher, TrainingConfig
from retrieval.training.data import Progress, TrainingRow, read_grey
from retrieval.training.processes import Processes
from retrieval.training.schedule import step_seed
from retrieval.training.texts import Texts
from retrieval.training.validation import Figures, Validator

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TeacherReport:
    """The facts about a teacher for the model card. `figures` are the teacher's on the dev rows of the student."""

    name: str
    weights_sha256: str
    embed_dim: int
    runs_on: str
    figures: Figures


def open_teacher(config: TrainingConfig, device: str) -> ClipEncoder | None:
    """The teacher that a configuration names, None if it has none. Raises TrainingError for a teacher section without a
    model, WeightsNotFound or EncoderError for one that can't be loaded."""
    if config.teacher is None:
        return None
    if config.teacher.model is None:
        raise TrainingError("the section teacher has no model", hint="Set teacher.model, or use --teacher MODEL.")
    return ClipEncoder.load(config.teacher.model, device)


class TeacherEmbeddings:
    """A teacher's embeddings of a run's texts (by their number), training images and dev images, all of unit norm."""

    def __init__(
        self,
        encoder: ClipEncoder,
        texts: Texts,
        rows: Sequence[TrainingRow],
        work: Path,
        processes: Processes,
        progress: Progress,
    ) -> None:
        """The first process computes them and stores them in `work`; all processes and resumed runs map the files."""
        self.logit_scale = encoder.logit_scale
        self.embed_dim = encoder.embed_dim
        if not processes.first:
            processes.wait()

        def images_of(split: str) -> Floats:
            mine = [row for row in rows if row.split == split]
            key = [str(row.image) for row in mine]
            said = f"the teacher's embeddings of {split} images"
            path = work / f"teacher.{split}.npy"
            return _kept(
                path, encoder, key, lambda i, j: encoder.encode_images([*map(read_grey, mine[i:j])]), said, progress
            )

        self.texts = _kept(
            work / "teacher.texts.npy",
            encoder,
            texts.all,
            lambda i, j: encoder.encode_text(texts.all[i:j]),
            "the teacher's embeddings of texts",
            progress,
        )
        self.train, self.dev = images_of("train"), images_of("dev")
        if processes.first:
            processes.wait()

    def figures(self, validator: Validator, texts: Texts) -> Figures:
        """The figures of the teacher on the rows that validate the student."""
        return validator.figures_of(self.dev, lambda said: self.texts[[texts.ids[text] for text in said]])


class Distillation(torch.nn.Module):
    """The losses of a student of `embed_dim` numbers, with the head between the two."""

    def __init__(self, embeddings: TeacherEmbeddings, config: TrainingConfig) -> None:
        super().__init__()
        self._embeddings, self._settings = embeddings, config.teacher or Teacher()
        torch.manual_seed(step_seed(config.seed, 0, 9))
        same = embeddings.embed_dim == config.embed_dim
        self.head = torch.nn.Identity() if same else torch.nn.Linear(config.embed_dim, embeddings.embed_dim, bias=False)

    def forward(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        rows: Sequence[int],
        ids: Sequence[int],
        scale: torch.Tensor,
        kept: npt.NDArray[np.bool_],
    ) -> torch.Tensor:
        """The weighted sum of both losses.

        `images` and `texts` are the student's [N, D] of unit norm, `rows` and `ids` the numbers of the training images
        and of the texts, `scale` the student's logit scale; only the pairs that are `kept` [N] count.
        """
        chosen = np.flatnonzero(kept)
        if not len(chosen):
            return images.sum() * 0.0
        images, texts = images[chosen], texts[chosen]
        seen = torch.from_numpy(np.array(self._embeddings.train[np.asarray(rows)[chosen]])).to(images.device)
        said = torch.from_numpy(np.array(self._embeddings.texts[np.asarray(ids)[chosen]])).to(images.device)
        total = self._settings.embedding_weight * (self._apart(images, seen) + self._apart(texts, said)) / 2
        temperature = self._settings.temperature
        sure = (1 / temperature if temperature is not None else self._embeddings.logit_scale) * seen @ said.T
        return total + self._settings.similarity_weight * similarity_loss(scale * images @ texts.T, sure)

    def _apart(self, mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """Mean of 1 - cosine."""
        return 1 - (F.normalize(self.head(mine), dim=-1) * theirs).sum(dim=-1).mean()


def similarity_loss(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """The divergence (Kullback-Leibler) of the student's choice from the teacher's, the mean of both ways: which text
    of the batch an image has, which image a text. Logits are [N, N], images by texts."""

    def one_way(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.kl_div(F.log_softmax(a, dim=1), F.log_softmax(b, dim=1), log_target=True, reduction="batchmean")

    return (one_way(mine, theirs) + one_way(mine.T, theirs.T)) / 2


def _kept(
    path: Path,
    encoder: ClipEncoder,
    items: Sequence[str],
    encode: Callable[[int, int], Floats],
    what: str,
    progress: Progress,
) -> Floats:
    """[len(items), D] from `path` if they are there of this teacher, else computed by `encode(start, end)` and kept."""
    if not items:
        return np.zeros((0, encoder.embed_dim), np.float32)
    about = [encoder.spec.weights_sha256, encoder.spec.preprocess.to_json(), list(items)]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    stamp = path.with_suffix(".key")
    if not (path.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key):
        stamp.unlink(missing_ok=True)
        found = np.empty((len(items), encoder.embed_dim), np.float32)
        for start in range(0, len(items), encoder.batch_size):
            end = min(start + encoder.batch_size, len(items))
            found[start:end] = encode(start, end)
            progress(what, end, len(items))
        with written_whole(path, alone=True) as made, made.open("wb") as file:
            np.save(file, found)
        stamp.write_text(key, encoding="utf-8")
    mapped: Floats = np.load(path, mmap_mode="r")
    return mapped
