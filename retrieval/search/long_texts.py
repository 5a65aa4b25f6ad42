"""Texts longer than a model reads at once: sentence by sentence, as the sentences of reports are, and pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.encoders.unread import shown, unread
from retrieval.language.sentences import sentences
from retrieval.types import Embedding, Embeddings, Encoder


def encode_whole(encoder: Encoder, texts: Sequence[str]) -> tuple[Embeddings, tuple[str, ...]]:
    """Texts to vectors [N, embed_dim] of unit norm, and what is to be said of them.

    A text that the model does not read to its end is split into sentences: its vector is the mean of theirs. Of a
    sentence that is longer still, the end is not read: those words are said.
    """
    parts = [
        (sentences(text) or [text]) if rest else [text]
        for text, rest in zip(texts, unread(encoder, texts), strict=True)
    ]
    flat = [part for its in parts for part in its]
    vectors = encoder.encode_text(flat)
    left_over = iter(unread(encoder, flat))
    notes = []
    for text, its in zip(texts, parts, strict=True):
        missed = " ".join(filter(None, (next(left_over) for _ in its)))
        if len(its) > 1:
            notes.append(
                f"a text of {len(text.split())} words is longer than {encoder.name} reads at once: its {len(its)} "
                "sentences were read one by one, and the mean of their vectors was taken"
            )
        if missed:
            notes.append(f"{encoder.name} reads no text that long: it did not read {shown(missed)}")
    ends = np.cumsum([len(its) for its in parts])[:-1]
    return np.stack([_pooled(part) for part in np.split(vectors, ends)]), tuple(notes)


def _pooled(vectors: Embeddings) -> Embedding:
    if len(vectors) == 1:
        only: Embedding = vectors[0]
        return only
    mean = vectors.mean(axis=0)
    pooled: Embedding = mean / np.linalg.norm(mean)
    return pooled
