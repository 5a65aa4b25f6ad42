"""One changed word: whether an image lies nearer to its own sentence than to a changed version of it.

The version has its sides exchanged, or its first finding negated (or affirmed, if it was negated). Sentences come from
the texts of the rows. Negated sentences are evaluated twice: embedded as they are written, which is how most image-text
models are used, and separated into present and absent findings, which is how the search embeds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.rows import EvaluationRows
from retrieval.language.captions import exchanged, negated, sentences_of
from retrieval.language.negation import weighted_texts
from retrieval.statistics.bootstrap import Estimate, Judgement
from retrieval.statistics.measures import mean_of
from retrieval.types import Embeddings

SIDES, DENIAL = "sides exchanged", "a finding denied"
AS_WRITTEN, TAKEN_APART = "right, as said", "right, taken apart"
MOST = 1000  # sentences of each kind; more are sampled
LEAST = 10

TextsToVectors = Callable[[list[str]], Embeddings]


@dataclass(frozen=True)
class Wording:
    """The figures of one kind of change: shares of `sentences` sentences. Guessing gives 0.5."""

    name: str
    sentences: int
    judgement: Judgement
    estimates: dict[str, Estimate]


def judge_wordings(
    rows: EvaluationRows, images: Embeddings, vectors: TextsToVectors, *, resamples: int = 2000, seed: int = 0
) -> list[Wording]:
    """Evaluate both kinds of change, each if the rows have at least LEAST sentences for it. `images`: [N, D], unit
    norm."""
    out = []
    for name, version in ((SIDES, exchanged), (DENIAL, negated)):
        pairs = _pairs(rows, version, seed)
        if len(pairs) < LEAST:
            continue
        shown = images[[row for row, _, _ in pairs]]
        encodings = {AS_WRITTEN: vectors} | (
            {TAKEN_APART: lambda texts: polarity_vectors(texts, vectors)} if name == DENIAL else {}
        )
        right = {}
        for encoding, encode in encodings.items():
            own, other = (encode([pair[column] for pair in pairs]) for column in (1, 2))
            nearer, further = (shown * own).sum(axis=1), (shown * other).sum(axis=1)
            right[encoding] = mean_of(np.where(nearer == further, 0.5, nearer > further).astype(np.float64))
        judged = Judgement([rows.groups[row] for row, _, _ in pairs], right, dict.fromkeys(right, 0.5))
        out.append(Wording(name, len(pairs), judged, judged.estimates(resamples=resamples, seed=seed)))
    return out


def _pairs(rows: EvaluationRows, version: Callable[[str], str | None], seed: int) -> list[tuple[int, str, str]]:
    """(row, sentence, wrong version of the sentence) for every sentence that has such a version."""
    found = [
        (row, sentence, other)
        for row, texts in enumerate(rows.texts)
        for text in texts
        for sentence in sentences_of(text) or [text]
        if (other := version(sentence)) is not None
    ]
    if len(found) <= MOST:
        return found
    return [found[i] for i in np.sort(np.random.default_rng(seed).permutation(len(found))[:MOST])]


def polarity_vectors(texts: list[str], vectors: TextsToVectors) -> Embeddings:
    """Embed texts as the search does: a weighted sum of present and absent findings, of unit norm."""
    parts = [weighted_texts(text) for text in texts]
    found = iter(vectors([text for part in parts for text, _ in part]))
    out = np.stack([sum(weight * next(found) for _, weight in part) for part in parts])
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return (out / np.where(norms > 0, norms, 1)).astype(np.float32)
