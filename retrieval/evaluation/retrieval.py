"""Retrieval in both directions over a whole gallery: the texts of an image, and the images of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.evaluation.ranking import QueryFigures, chance_median, judge
from retrieval.statistics.bootstrap import Estimate, Judgement, Spread
from retrieval.statistics.measures import Bools, Floats, Ints, Statistic, mean_where, median_of
from retrieval.types import Embeddings

RECALL_AT = (1, 5, 10)
MEDIAN = "median rank"
CELLS = 8_000_000  # scores processed at a time


@dataclass(frozen=True)
class Pairing:
    """Which texts belong to which images. Equal texts are one entry, and all images with that text are right."""

    texts: tuple[str, ...]  # each once
    image_of: Ints  # [pairs] of image and text, each pair once
    text_of: Ints
    image_groups: tuple[str, ...]
    text_groups: tuple[str, ...]  # of the first image that has the text

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]], groups: Sequence[str]) -> Pairing:
        """`texts` has the texts of each image, `groups` its patient or case. An image without a text can't be a query,
        but it can be in a gallery."""
        if len(texts) != len(groups) or not texts:
            raise ValueError(
                f"{len(texts)} images have texts and {len(groups)} have groups, expected the same number, at least one"
            )
        ids: dict[str, int] = {}
        owners: list[str] = []
        image_of, text_of = [], []
        for image, own in enumerate(texts):
            for text in dict.fromkeys(own):
                if text not in ids:
                    ids[text] = len(ids)
                    owners.append(groups[image])
                image_of.append(image)
                text_of.append(ids[text])
        return cls(tuple(ids), np.array(image_of, np.int64), np.array(text_of, np.int64), tuple(groups), tuple(owners))

    @property
    def images(self) -> int:
        return len(self.image_groups)

    def shuffled(self, seed: int) -> Pairing:
        """The control: each text is assigned to the images of a random other text. Figures should be at chance
        level."""
        moved = np.random.default_rng(seed).permutation(len(self.texts))
        return Pairing(self.texts, self.image_of, moved[self.text_of], self.image_groups, self.text_groups)

    def turned(self) -> Pairing:
        """The pairing with images and texts exchanged, for the other direction. `texts` then has the images' groups."""
        return Pairing(self.image_groups, self.text_of, self.image_of, self.text_groups, self.image_groups)

    def relevant(self, images: slice) -> Bools:
        """Whether a text belongs to an image: [images of the slice, texts]."""
        start, stop, _ = images.indices(self.images)
        out = np.zeros((stop - start, len(self.texts)), bool)
        mine = (self.image_of >= start) & (self.image_of < stop)
        out[self.image_of[mine] - start, self.text_of[mine]] = True
        return out


@dataclass(frozen=True)
class Grades:
    """Label relevance: how far a gallery entry and a query agree in their attributes (modality, region, label ...).

    For each attribute there is one row of flags per query and per entry, which mark the values it has. A grade (0 to 1)
    is the share of the query's known attributes in which query and entry have a value in common.
    """

    queries: tuple[Bools, ...]
    gallery: tuple[Bools, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str | None]], pairing: Pairing) -> Grades | None:
        """Grades for images as queries. A text has the values of all its images. None if no attribute is known."""
        images, texts = [], []
        for values in fields.values():
            known = {value: i for i, value in enumerate(dict.fromkeys(v.casefold() for v in values if v))}
            if not known:
                continue
            flags = np.zeros((len(values), len(known)), bool)
            for row, value in enumerate(values):
                if value:
                    flags[row, known[value.casefold()]] = True
            images.append(flags)
            of_text = np.zeros((len(pairing.texts), len(known)), bool)
            np.logical_or.at(of_text, pairing.text_of, flags[pairing.image_of])
            texts.append(of_text)
        return cls(tuple(images), tuple(texts)) if images else None

    def turned(self) -> Grades:
        return Grades(self.gallery, self.queries)

    def rows(self, queries: slice) -> Floats:
        """The grades [queries of the slice, gallery]; all 0 for a query without known attributes."""
        agreed = sum((q[queries] @ g.T).astype(np.float64) for q, g in zip(self.queries, self.gallery, strict=True))
        known = np.sum([q[queries].any(axis=1) for q in self.queries], axis=0, dtype=np.float64)
        share: Floats = agreed / np.maximum(known, 1)[:, None]
        return share


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval: every query against the whole gallery."""

    queries: int
    gallery: int
    judgement: Judgement
    figures: QueryFigures


@dataclass(frozen=True)
class CosineScores:
    """Scores of unit vectors [queries, D] and [gallery, D], computed a few queries at a time."""

    queries: Embeddings
    gallery: Embeddings

    def rows(self, queries: slice) -> npt.NDArray[np.floating]:
        found: Floats = self.queries[queries].astype(np.float64) @ self.gallery.T.astype(np.float64)
        return found


@dataclass(frozen=True)
class PrecomputedScores:
    """Scores [queries, gallery] that were computed before; higher is better."""

    scores: npt.NDArray[np.floating]

    def rows(self, queries: slice) -> npt.NDArray[np.floating]:
        return self.scores[queries]


def judge_direction(
    scores: CosineScores | PrecomputedScores,
    pairing: Pairing,
    *,
    ks: Sequence[int] = RECALL_AT,
    grades: Grades | None = None,
) -> Direction:
    """Evaluate retrieval of texts by images (turn the pairing for the other direction). `ks` are the depths of
    recall."""
    depths = tuple(sorted(set(ks)))
    parts: list[QueryFigures] = []
    guesses: list[QueryFigures] = []
    for chunk in _chunks(pairing):
        relevant = pairing.relevant(chunk)
        graded = grades.rows(chunk) if grades else None
        parts.append(judge(scores.rows(chunk), relevant, depths, graded))
        guesses.append(judge(np.zeros(relevant.shape), relevant, depths, graded))
    figures, guess = _joined(parts), _joined(guesses)
    chance = {name: float(np.mean(v[np.isfinite(v)])) for name, v in guess.named().items() if np.isfinite(v).any()}
    chance[MEDIAN] = chance_median(len(pairing.texts), np.bincount(pairing.image_of, minlength=pairing.images))
    return Direction(
        pairing.images, len(pairing.texts), Judgement(pairing.image_groups, _statistics(figures), chance), figures
    )


def shuffled_control(
    scores: CosineScores | PrecomputedScores, pairing: Pairing, *, ks: Sequence[int] = RECALL_AT, times: int = 10
) -> dict[str, Spread]:
    """The spread of each figure over several random pairings of texts and images. It should lie around chance."""
    depths = tuple(sorted(set(ks)))
    found: dict[str, list[float]] = {}
    for seed in range(times):
        mixed = pairing.shuffled(seed)
        figures = _joined([judge(scores.rows(c), mixed.relevant(c), depths) for c in _chunks(mixed)])
        for name, values in figures.named().items():
            found.setdefault(name, []).append(float(np.median(values) if name == MEDIAN else np.mean(values)))
    return {name: Spread.of(values) for name, values in found.items()}


@dataclass(frozen=True)
class RetrievalFigures:
    """Recall in both directions over a whole gallery, for a model card: `image_to_text[k]`, `text_to_image[k]`."""

    images: int
    texts: int
    image_to_text: dict[int, Estimate]
    text_to_image: dict[int, Estimate]


def evaluate_retrieval(
    image_features: Embeddings,
    text_features: Embeddings,
    texts: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
) -> RetrievalFigures:
    """Evaluate pairs: image i belongs to text i and to group (patient) i. Equal texts are one gallery entry."""
    directions = judge_pairs(image_features, text_features, texts, groups)
    found = [direction.judgement.estimates(resamples=resamples) for direction in directions]
    recall = [{k: figures[f"R@{k}"] for k in RECALL_AT} for figures in found]
    return RetrievalFigures(directions[0].queries, directions[0].gallery, *recall)


def judge_pairs(
    image_features: Embeddings, text_features: Embeddings, texts: Sequence[str], groups: Sequence[str]
) -> tuple[Direction, Direction]:
    """Both directions, image to text and text to image. Arguments are as for `evaluate_retrieval`."""
    counts = len(image_features), len(text_features), len(texts), len(groups)
    if len(set(counts)) > 1 or not texts:
        raise ValueError(
            "{} images, {} text features, {} texts, {} groups: expected the same number, at least one".format(*counts)
        )
    pairing = Pairing.of([[text] for text in texts], groups)
    _, first = np.unique(pairing.text_of, return_index=True)
    entries = text_features[first]
    forth = judge_direction(CosineScores(image_features, entries), pairing)
    return forth, judge_direction(CosineScores(entries, image_features), pairing.turned())


def _statistics(figures: QueryFigures) -> dict[str, Statistic]:
    out: dict[str, Statistic] = {}
    for name, values in figures.named().items():
        known = np.isfinite(values)
        if known.any():  # nDCG: some queries have no known label
            out[name] = median_of(values) if name == MEDIAN else mean_where(values, known)
    return out


def _chunks(pairing: Pairing) -> Iterator[slice]:
    size = max(1, CELLS // len(pairing.texts))
    for start in range(0, pairing.images, size):
        yield slice(start, min(start + size, pairing.images))


def _joined(parts: Sequence[QueryFigures]) -> QueryFigures:
    graded = [part.ndcg for part in parts if part.ndcg is not None]
    return QueryFigures(
        {k: np.concatenate([part.hits[k] for part in parts]) for k in parts[0].hits},
        np.concatenate([part.reciprocal_rank for part in parts]),
        np.concatenate([part.average_precision for part in parts]),
        np.concatenate([part.rank for part in parts]),
        np.concatenate(graded) if graded else None,
    )
