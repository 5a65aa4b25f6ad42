"""Zero-shot classification: which label's prompts lie nearest to an image.

For an exclusive label set the cosine similarities, times the model's learned logit scale, go through a softmax. What
comes out is called `score`, not probability: it is not calibrated, and it says how the labels compare with each other,
not whether any of them holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.labels import LabelSet
from retrieval.types import Embeddings, Encoder


@dataclass(frozen=True)
class LabelScore:
    """One label of one image. `score` is its share of the softmax (0 to 1), `similarity` the cosine (-1 to 1)."""

    label: str
    score: float
    similarity: float


class ZeroShotClassifier:
    """A label set turned into vectors by one model's text tower."""

    def __init__(self, labels: LabelSet, encoder: Encoder, logit_scale: float) -> None:
        """`logit_scale` is the model's learned inverse temperature (`ClipEncoder.logit_scale`), over 0."""
        if not 0 < logit_scale < math.inf:
            raise ValueError(f"logit_scale is {logit_scale}, expected a number over 0")
        self.labels = labels
        self.logit_scale = logit_scale
        self.label_vectors = np.stack([ensemble(encoder.encode_text(label.prompts)) for label in labels.labels])

    def scores(self, images: Embeddings) -> npt.NDArray[np.float32]:
        """Softmax over the labels, [N, labels] float32, rows sum to 1. `images`: [N, embed_dim], unit norm."""
        logits = self.logit_scale * (images @ self.label_vectors.T)
        logits -= logits.max(axis=1, keepdims=True)
        exp = np.exp(logits)
        scores: npt.NDArray[np.float32] = exp / exp.sum(axis=1, keepdims=True)
        return scores

    def classify(self, images: Embeddings) -> list[list[LabelScore]]:
        """Per image all labels, the best first."""
        similarity = images @ self.label_vectors.T
        names = [label.name for label in self.labels.labels]
        answers = []
        for row, cosines in zip(self.scores(images), similarity, strict=True):
            # By cosine: far behind the winner, scores underflow to 0 and tell no order.
            order = np.argsort(-cosines, kind="stable")
            answers.append([LabelScore(names[i], float(row[i]), float(cosines[i])) for i in order])
        return answers


def ensemble(prompt_vectors: Embeddings | Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The mean direction of several unit vectors, [embed_dim], unit norm."""
    mean = np.asarray(prompt_vectors, np.float32).mean(axis=0)
    vector: npt.NDArray[np.float32] = mean / np.linalg.norm(mean)
    return vector
