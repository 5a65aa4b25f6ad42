"""How a model's text tower tells the labels of a set apart, before any image is labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labels import LabelSet


@dataclass(frozen=True)
class LabelWording:
    """How one label is worded, in cosine similarities. `odd_one` is its phrasing that is least like all of them
    together. `nearest_label` is the label whose wording lies nearest, None in a set of one."""

    label: str
    phrasings: int
    odd_one: str
    odd_one_similarity: float
    nearest_label: str | None = None
    nearest_similarity: float | None = None


@dataclass(frozen=True)
class LabelSetCheck:
    """What one model makes of a label set's wording, label by label in the set's order."""

    labels: LabelSet
    model: str
    wordings: tuple[LabelWording, ...]


def check_labels(labels: LabelSet, *, model: str | None = None, device: str = "auto") -> LabelSetCheck:
    """Compare a label set's phrasings as a model embeds them.

    A phrasing far from its label's others says something else; two labels at a similarity near 1 can't be told apart.
    `model` is a name that `resolve_model` knows, by default the shipped one. Raises WeightsNotFound or EncoderError if
    it can't be loaded.
    """
    encoder = open_encoder(model, device)
    vectors = ZeroShotClassifier(labels, encoder, encoder.logit_scale).label_vectors
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    wordings = []
    for i, label in enumerate(labels.labels):
        own = encoder.encode_text(label.prompts) @ vectors[i]
        near = int(alike[i].argmax())
        alone = len(labels.labels) == 1
        wordings.append(
            LabelWording(
                label=label.name,
                phrasings=len(label.prompts),
                odd_one=label.prompts[int(own.argmin())],
                odd_one_similarity=float(own.min()),
                nearest_label=None if alone else labels.names[near],
                nearest_similarity=None if alone else float(alike[i, near]),
            )
        )
    return LabelSetCheck(labels, encoder.name, tuple(wordings))
