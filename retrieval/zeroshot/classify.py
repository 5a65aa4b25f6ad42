"""Zero-shot classification: the label whose prompts lie nearest to an image.

Exclusive labels: the cosine similarities times the model's learned logit scale, through a softmax over the labels.
Independent findings: each finding's prompts against its absent prompts, through a sigmoid of the scaled difference.
Both are called `score`, not probability, because they are not calibrated. The score of an exclusive label compares the
labels; it does not say whether any of them is right. The score of a finding sorts images; 0.5 is not a threshold.
`retrieval.zeroshot.calibration` turns logits into probabilities.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.encoders.unread import shown, unread
from retrieval.types import Embeddings, Encoder
from retrieval.zeroshot.labels import LabelSet

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelScore:
    """One label of one image. `score` (0 to 1) is the label's share of the softmax, or the sigmoid of a finding.
    `similarity` (-1 to 1) is the cosine of image and prompts."""

    label: str
    score: float
    similarity: float


class ZeroShotClassifier:
    """A label set turned into vectors by one model's text tower."""

    def __init__(self, labels: LabelSet, encoder: Encoder, logit_scale: float) -> None:
        """`logit_scale` is the model's learned inverse temperature (`ClipEncoder.logit_scale`), over 0."""
        if not 0 < logit_scale < math.inf:
            raise ValueError(f"logit_scale is {logit_scale}, expected a finite number above 0")
        self.labels = labels
        self.logit_scale = logit_scale
        prompts = [label.prompts for label in labels.labels]
        if labels.independent:
            prompts += [label.absent_prompts for label in labels.labels]
        encoded = encoder.encode_text(
            [text for group in prompts for text in group]
        )  # one call: a model runs in batches
        _warn_of_unread(labels, encoder)
        ends = np.cumsum([len(group) for group in prompts])[:-1]
        vectors = np.stack([ensemble(part) for part in np.split(encoded, ends)])
        self.label_vectors: Embeddings = vectors[: len(labels.labels)]  # [labels, embed_dim], unit norm
        # The vectors that images are multiplied with. For independent labels, the absent prompts are subtracted.
        absent = vectors[len(labels.labels) :] if labels.independent else np.float32(0)
        self._directions: Floats = (logit_scale * (self.label_vectors - absent)).T.astype(np.float32)

    def logits(self, images: Embeddings) -> Floats:
        """[N, labels]: the scaled similarity (exclusive labels), or the scaled difference of present and absent
        (findings)."""
        found: Floats = images @ self._directions
        return found

    def scores(self, images: Embeddings) -> Floats:
        """[N, labels] float32, 0 to 1: a softmax whose rows sum to 1, or one sigmoid per finding.

        `images`: [N, embed_dim], unit norm.
        """
        return activated(self.logits(images), independent=self.labels.independent)

    def classify(self, images: Embeddings) -> list[list[LabelScore]]:
        """All labels of each image, the best first."""
        similarity = images @ self.label_vectors.T
        logits = self.logits(images)
        names = self.labels.names
        answers = []
        for row, order_by, cosines in zip(self.scores(images), logits, similarity, strict=True):
            # Ordered by logit, because low scores underflow to 0.
            order = np.argsort(-order_by, kind="stable")
            answers.append([LabelScore(names[i], float(row[i]), float(cosines[i])) for i in order])
        return answers


def activated(logits: Floats, *, independent: bool) -> Floats:
    """Scores from logits [N, labels], float32: a sigmoid for each label, or a softmax over each row."""
    if independent:
        sigmoid: Floats = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)  # tanh does not overflow
        return sigmoid
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: Floats = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)
    return softmax


def ensemble(prompt_vectors: Embeddings | Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The mean direction of several unit vectors, [embed_dim], unit norm."""
    mean = np.asarray(prompt_vectors, np.float32).mean(axis=0)
    vector: npt.NDArray[np.float32] = mean / np.linalg.norm(mean)
    return vector


def _warn_of_unread(labels: LabelSet, encoder: Encoder) -> None:
    """Say which words of a label's prompts the model does not read."""
    for label in labels.labels:
        prompts = (*label.prompts, *(label.absent_prompts if labels.independent else ()))
        for words in filter(None, unread(encoder, prompts)):
            log.warning(
                "a prompt of the label %r in %r is longer than %s reads: it did not read %s",
                label.name,
                labels.name,
                encoder.name,
                shown(words),
            )
