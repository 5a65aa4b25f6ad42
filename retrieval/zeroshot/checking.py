"""Checks how well a model's text tower separates the labels of a set, without labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labels import LabelSet


@dataclass(frozen=True)
class LabelWording:
    """The prompts of one label, compared by cosine similarity.

    `odd_one` is the prompt that is least similar to the mean of the label's prompts. `nearest_label` is the label with
    the most similar prompts; None in a set of one label.
    """

    label: str
    phrasings: int
    odd_one: str
    odd_one_similarity: float
    nearest_label: str | None = None
    nearest_similarity: float | None = None


@dataclass(frozen=True)
class LabelSetCheck:
    """How one model embeds the prompts of a label set, label by label in the order of the set."""

    labels: LabelSet
    model: str
    wordings: tuple[LabelWording, ...]


def check_labels(labels: LabelSet, *, model: str | None = None, device: str = "auto") -> LabelSetCheck:
    """Compare the prompts of a label set as a model embeds them.

    A prompt far from the other prompts of its label probably means something else. A model can't distinguish two labels
    with a similarity near 1. `model` is a name for `resolve_model`, by default the shipped model. Raises
    WeightsNotFound or EncoderError if the model can't be loaded.
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
