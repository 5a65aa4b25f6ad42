"""How well images and texts find each other, and how often the zero-shot answer is right, on rows kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.metrics import Estimate, chance_recall_at_k, estimate, recall_at_k
from retrieval.types import Embeddings

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalFigures:
    """Recall both ways over a whole gallery: `image_to_text[k]`, `text_to_image[k]`."""

    images: int
    texts: int
    image_to_text: dict[int, Estimate]
    text_to_image: dict[int, Estimate]


@dataclass(frozen=True)
class ZeroShotFigures:
    """Share of right answers over the rows whose label is known. `majority` is the share of the commonest label."""

    label_set: str
    rows: int
    accuracy: Estimate
    balanced_accuracy: float
    majority: float


def evaluate_retrieval(
    image_features: Embeddings,
    text_features: Embeddings,
    texts: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
) -> RetrievalFigures:
    """Rows are pairs: image i belongs to text i and to group (patient) i. Equal texts are one gallery entry."""
    counts = len(image_features), len(text_features), len(texts), len(groups)
    if len(set(counts)) > 1 or not texts:
        raise ValueError(
            "{} images, {} text features, {} texts, {} groups: expected the same number, at least one".format(*counts)
        )
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    text_of = np.array([ids[t] for t in texts])
    first = np.array([int(np.flatnonzero(text_of == i)[0]) for i in range(len(ids))])
    similarity = image_features @ text_features[first].T  # [images, texts]
    relevant = text_of[:, None] == np.arange(len(ids))[None, :]
    owner = [groups[i] for i in first]
    to_text, to_image = {}, {}
    for k in RECALL_AT:
        to_text[k] = estimate(
            recall_at_k(similarity, relevant, k), groups, chance_recall_at_k(relevant, k), resamples=resamples
        )
        to_image[k] = estimate(
            recall_at_k(similarity.T, relevant.T, k), owner, chance_recall_at_k(relevant.T, k), resamples=resamples
        )
    return RetrievalFigures(len(texts), len(ids), to_text, to_image)


def evaluate_zero_shot(
    label_set: str,
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
) -> ZeroShotFigures | None:
    """`scores` [N, labels], `labels` [N] with -1 for unknown. Only labels that occur are offered as answers, as a
    question such as "CT or MR?" does. None where fewer than two labels occur."""
    known = np.flatnonzero(labels >= 0)
    present = np.unique(labels[known])
    if len(present) < 2:
        return None
    answer = present[scores[np.ix_(known, present)].argmax(axis=1)]
    truth = labels[known]
    right = (answer == truth).astype(np.float64)
    per_label = [right[truth == label].mean() for label in present]
    return ZeroShotFigures(
        label_set=label_set,
        rows=len(known),
        accuracy=estimate(right, [groups[int(i)] for i in known], 1 / len(present), resamples=resamples),
        balanced_accuracy=float(np.mean(per_label)),
        majority=float(np.bincount(truth).max() / len(truth)),
    )
