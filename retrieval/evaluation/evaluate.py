"""The yardstick: one model on one set of rows, or two models on the same.

Retrieval runs both ways over the whole gallery. A text baseline answers the same second texts that the model answers.
Zero-shot labels are set beside the plain softmax over the labels' bare names. Sentences with one word changed show what
the model hears of sides and denials. Every figure has an interval over patients, and what guessing gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from retrieval.encoders.unread import shown, unread
from retrieval.errors import EvaluationError, NonFiniteEmbedding
from retrieval.evaluation.label_sets import ScaledEncoder, ZeroShot, judge_labels
from retrieval.evaluation.retrieval import (
    RECALL_AT,
    CosineScores,
    Direction,
    Grades,
    Pairing,
    PrecomputedScores,
    judge_direction,
    shuffled_control,
)
from retrieval.evaluation.rows import LEAST, EvaluationRows, of_rows
from retrieval.evaluation.text_ranking import bm25_scores, fused
from retrieval.evaluation.wording import Wording, judge_wordings
from retrieval.statistics.bootstrap import Difference, Estimate, Spread, differences
from retrieval.types import Embeddings, Encoder
from retrieval.zeroshot.calibration import Calibration
from retrieval.zeroshot.labels import LabelSet

IMAGE_TO_TEXT, TEXT_TO_IMAGE, SECOND_TEXT_TO_IMAGE = "image to text", "text to image", "second text to image"
DENSE, TEXT, HYBRID = RANKERS = ("dense", "text", "hybrid")
MOST_ENTRIES = 20_000  # of a gallery; scores are a full matrix

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """`rankers` answer the second texts (`EvaluationRows.queries`); `grade_by` names the fields whose agreement grades
    nDCG; `shuffles` is how often the control pairs at random."""

    rankers: tuple[str, ...] = RANKERS
    grade_by: tuple[str, ...] = ()
    resamples: int = 2000
    seed: int = 0
    shuffles: int = 10


@dataclass(frozen=True)
class RetrievalResult:
    """One way of asking, by one ranker. `control` is least, mean and greatest of figures with shuffled pairs."""

    name: str
    ranker: str
    direction: Direction
    estimates: dict[str, Estimate]
    control: dict[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All figures of one model on one set of rows."""

    model: str
    rows: EvaluationRows
    options: Options
    retrieval: list[RetrievalResult]
    zero_shot: list[ZeroShot]
    wordings: list[Wording]
    notes: list[str]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. Differences are the second's less the first's, by task and figure."""

    first: Evaluation
    second: Evaluation
    differences: dict[str, dict[str, Difference]]


def evaluate(
    rows: EvaluationRows,
    encoder: ScaledEncoder,
    images: Embeddings,
    *,
    label_sets: Sequence[tuple[LabelSet, str]] = (),
    known_texts: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({}),
    calibrations: Mapping[str, Calibration] = MappingProxyType({}),
    retrieval: bool = True,
    options: Options = Options(),
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Judge a model. `images` are its vectors of the rows [N, D], unit norm; `label_sets` come with the field that says
    the truth; `known_texts` are vectors that need no encoding; `calibrations` are of this model, by the label sets'
    fingerprints.

    Raises EvaluationError for rows that can't be judged, NonFiniteEmbedding for vectors that are not finite.
    """
    if len(images) != len(rows):
        raise ValueError(f"{len(images)} vectors for {len(rows)} rows")
    _require_finite(images, encoder.name, "images")
    notes = list(rows.notes)
    results: list[RetrievalResult] = []
    steps = 3 * bool(retrieval) + len(label_sets)
    vectors = TextVectors(encoder, known_texts)
    if retrieval:
        results += _both_ways(rows, images, vectors, options, notes, lambda done: progress("judging", done, steps))
        results += _second_text_to_image(rows, images, vectors, options, notes)
        progress("judging", 3, steps)
    zero_shot = []
    for labels, truth in label_sets:
        settings = {"resamples": options.resamples, "seed": options.seed}
        kept = calibrations.get(labels.fingerprint)
        found = judge_labels(rows, encoder, images, labels, truth, calibration=kept, **settings)
        if found.calibrated and not found.calibrated.estimates:
            notes.append(
                f"no figures of calibrated probabilities of {labels.name!r}: only {found.calibrated.rows} of "
                f"{found.rows} images are of patients that the calibration has not seen"
            )
        zero_shot.append(found)
        progress("judging", steps - len(label_sets) + len(zero_shot), steps)
    wordings = judge_wordings(rows, images, vectors.of, resamples=options.resamples, seed=options.seed)
    notes += vectors.notes()
    return Evaluation(encoder.name, rows, options, results, zero_shot, wordings, notes)


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired differences of every figure that a model has a part in."""
    if first.rows != second.rows or first.options != second.options:
        raise ValueError("the two models were judged on different rows or in different ways")
    settings = {"resamples": first.options.resamples, "seed": first.options.seed}
    found = {}
    for a, b in zip(first.retrieval, second.retrieval, strict=True):
        if a.ranker != TEXT:  # sees no image: the same for both
            found[f"{a.name}, {a.ranker}"] = differences(a.direction.judgement, b.direction.judgement, **settings)
    for x, y in zip(first.zero_shot, second.zero_shot, strict=True):
        found[f"zero-shot {x.labels.name}"] = differences(x.judgement, y.judgement, **settings)
    for one, other in zip(first.wordings, second.wordings, strict=True):
        found[one.name] = differences(one.judgement, other.judgement, **settings)
    return Comparison(first, second, found)


class TextVectors:
    """A model's vectors of texts, each encoded once."""

    def __init__(self, encoder: Encoder, known: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._encoder = encoder
        self._known = dict(known)
        self._unread: list[str] = []  # the words of each text that is too long

    def of(self, texts: Sequence[str]) -> Embeddings:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            found = self._encoder.encode_text(new)
            self._unread += filter(None, unread(self._encoder, new))
            _require_finite(found, self._encoder.name, "texts")
            self._known.update(zip(new, found, strict=True))
        return np.stack([self._known[text] for text in texts])

    def notes(self) -> list[str]:
        """What is to be said of texts that the model did not read to their end."""
        if not self._unread:
            return []
        return [
            f"{len(self._unread)} texts are longer than {self._encoder.name} reads: of the first it did not read "
            f"{shown(self._unread[0])}"
        ]


def _both_ways(
    rows: EvaluationRows,
    images: Embeddings,
    vectors: TextVectors,
    options: Options,
    notes: list[str],
    done: Callable[[int], None],
) -> list[RetrievalResult]:
    chosen = rows.with_text
    if len(chosen) < len(rows):
        notes.append(f"{len(rows) - len(chosen)} of {len(rows)} images have no text: left out of retrieval")
    pairing = Pairing.of([rows.texts[int(i)] for i in chosen], of_rows(rows.groups, chosen)) if len(chosen) else None
    if pairing is None or len(pairing.texts) < LEAST:
        texts = 0 if pairing is None else len(pairing.texts)
        raise EvaluationError(
            f"{len(chosen)} images with {texts} different texts: there is nothing to rank",
            hint=f"Retrieval needs at least {LEAST} different texts: name their field with --text, or judge labels "
            "alone with --zero-shot.",
        )
    most = max(pairing.images, len(pairing.texts))
    if most > MOST_ENTRIES:
        raise EvaluationError(
            f"the gallery has {most} entries, at most {MOST_ENTRIES} can be judged",
            hint="Judge a sample of whole patients with --limit.",
        )
    mine, theirs = images[chosen], vectors.of(pairing.texts)
    fields = {name: [rows.fields[name][int(i)] for i in chosen] for name in options.grade_by}
    grades = Grades.of(fields, pairing)
    forth = _retrieval_result(IMAGE_TO_TEXT, DENSE, CosineScores(mine, theirs), pairing, grades, options)
    done(1)
    turned = grades.turned() if grades else None
    back = _retrieval_result(TEXT_TO_IMAGE, DENSE, CosineScores(theirs, mine), pairing.turned(), turned, options)
    done(2)
    return [forth, back]


def _second_text_to_image(
    rows: EvaluationRows, images: Embeddings, vectors: TextVectors, options: Options, notes: list[str]
) -> list[RetrievalResult]:
    """Second texts ask for the images: the model by what the images show, BM25 by what is written of them."""
    if rows.queries is None or rows.documents is None:
        notes.append("no text baseline: the rows have no second text that asks for the first")
        return []
    chosen = np.array([i for i, document in enumerate(rows.documents) if document], np.int64)
    queries = [rows.queries[int(i)] for i in chosen]
    pairing = Pairing.of([[text] if text else [] for text in queries], of_rows(rows.groups, chosen))
    if len(pairing.texts) < LEAST:
        notes.append(f"no text baseline: {len(pairing.texts)} different queries with a text to be found")
        return []
    back = pairing.turned()
    dense = CosineScores(vectors.of(pairing.texts), images[chosen])
    text = bm25_scores(pairing.texts, of_rows(rows.documents, chosen))
    scores: dict[str, CosineScores | PrecomputedScores] = {DENSE: dense, TEXT: PrecomputedScores(text)}
    scores[HYBRID] = PrecomputedScores(fused(dense.rows(slice(0, len(text))), text))
    return [
        _retrieval_result(SECOND_TEXT_TO_IMAGE, ranker, scores[ranker], back, None, options)
        for ranker in options.rankers
    ]


def _retrieval_result(
    name: str,
    ranker: str,
    scores: CosineScores | PrecomputedScores,
    pairing: Pairing,
    grades: Grades | None,
    options: Options,
) -> RetrievalResult:
    direction = judge_direction(scores, pairing, ks=curve_depths(len(pairing.texts)), grades=grades)
    estimates = direction.judgement.estimates(resamples=options.resamples, seed=options.seed)
    return RetrievalResult(
        name, ranker, direction, estimates, shuffled_control(scores, pairing, times=options.shuffles)
    )


def curve_depths(gallery: int) -> tuple[int, ...]:
    """The depths at which recall is drawn: those of the table, and some to half the gallery."""
    steps = np.unique(np.geomspace(1, max(2, gallery // 2), 16).round().astype(int))
    return tuple(sorted({*RECALL_AT, *map(int, steps)}))


def _require_finite(vectors: Embeddings, model: str, what: str) -> None:
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise NonFiniteEmbedding(
            f"{bad} of {len(vectors)} vectors of {what} by {model} are not finite",
            hint="The weights may be damaged; nothing can be judged by them.",
        )
