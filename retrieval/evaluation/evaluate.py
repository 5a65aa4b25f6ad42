"""Evaluates one model on one set of rows, or compares two models on the same rows.

Retrieval is evaluated in both directions over the whole gallery. A text baseline gets the same queries as the model.
Zero-shot labels are compared with the plain softmax over the labels' bare names. Sentences with one changed word show
how well the model distinguishes sides and negations. Every figure has an interval over patients and its chance level.
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
MOST_ENTRIES = 20_000  # the size of a gallery, since scores are a full matrix

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    `rankers` answer the second texts (`EvaluationRows.queries`). `grade_by` names the fields whose agreement is the
    gain of nDCG. `shuffles` is the number of random pairings in the control.
    """

    rankers: tuple[str, ...] = RANKERS
    grade_by: tuple[str, ...] = ()
    resamples: int = 2000
    seed: int = 0
    shuffles: int = 10


@dataclass(frozen=True)
class RetrievalResult:
    """The figures of one retrieval task with one ranker. `control` has the spread of the figures with shuffled
    pairs."""

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
    """Two models on the same rows. Differences are the second model's figures minus the first's, by task and figure."""

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
    """Evaluate a model on rows.

    `images` are the model's vectors of the rows: [N, D], unit norm. Each of `label_sets` comes with the field that has
    its ground truth. `known_texts` are vectors of texts that need not be encoded. `calibrations` of this model are by
    the fingerprint of their label set.

    Raises EvaluationError for rows that can't be evaluated, NonFiniteEmbedding for vectors that are not finite.
    """
    if len(images) != len(rows):
        raise ValueError(f"{len(images)} vectors for {len(rows)} rows")
    _require_finite(images, encoder.name, "images")
    notes = list(rows.notes)
    results: list[RetrievalResult] = []
    steps = 3 * bool(retrieval) + len(label_sets)
    vectors = TextVectors(encoder, known_texts)
    if retrieval:
        results += _both_ways(rows, images, vectors, options, notes, lambda done: progress("evaluating", done, steps))
        results += _second_text_to_image(rows, images, vectors, options, notes)
        progress("evaluating", 3, steps)
    zero_shot = []
    for labels, truth in label_sets:
        settings = {"resamples": options.resamples, "seed": options.seed}
        kept = calibrations.get(labels.fingerprint)
        found = judge_labels(rows, encoder, images, labels, truth, calibration=kept, **settings)
        if found.calibrated and not found.calibrated.estimates:
            notes.append(
                f"calibrated probabilities of {labels.name!r} have no figures: only {found.calibrated.rows} of "
                f"{found.rows} images are of patients that the calibration has not seen"
            )
        zero_shot.append(found)
        progress("evaluating", steps - len(label_sets) + len(zero_shot), steps)
    wordings = judge_wordings(rows, images, vectors.of, resamples=options.resamples, seed=options.seed)
    notes += vectors.notes()
    return Evaluation(encoder.name, rows, options, results, zero_shot, wordings, notes)


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two models by the paired differences of every figure that depends on the model."""
    if first.rows != second.rows or first.options != second.options:
        raise ValueError("the two models were evaluated on different rows or with different options")
    settings = {"resamples": first.options.resamples, "seed": first.options.seed}
    found = {}
    for a, b in zip(first.retrieval, second.retrieval, strict=True):
        if a.ranker != TEXT:  # depends on no image, so it is the same for both models
            found[f"{a.name}, {a.ranker}"] = differences(a.direction.judgement, b.direction.judgement, **settings)
    for x, y in zip(first.zero_shot, second.zero_shot, strict=True):
        found[f"zero-shot {x.labels.name}"] = differences(x.judgement, y.judgement, **settings)
    for one, other in zip(first.wordings, second.wordings, strict=True):
        found[one.name] = differences(one.judgement, other.judgement, **settings)
    return Comparison(first, second, found)


class TextVectors:
    """A model's vectors of texts. Each text is encoded once."""

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
        notes.append(f"{len(rows) - len(chosen)} of {len(rows)} images have no text and are left out of retrieval")
    pairing = Pairing.of([rows.texts[int(i)] for i in chosen], of_rows(rows.groups, chosen)) if len(chosen) else None
    if pairing is None or len(pairing.texts) < LEAST:
        texts = 0 if pairing is None else len(pairing.texts)
        raise EvaluationError(
            f"{len(chosen)} images with {texts} different texts can't be ranked, expected at least {LEAST} texts",
            hint="Name the field with the texts with --text, or evaluate labels alone with --zero-shot.",
        )
    most = max(pairing.images, len(pairing.texts))
    if most > MOST_ENTRIES:
        raise EvaluationError(
            f"the gallery has {most} entries, expected at most {MOST_ENTRIES}",
            hint="Evaluate a sample of whole patients with --limit.",
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
    """Retrieve images by their second texts: the model compares images, BM25 compares what is written about them."""
    if rows.queries is None or rows.documents is None:
        notes.append("there is no text baseline: the rows have no second text that could be a query for the first")
        return []
    chosen = np.array([i for i, document in enumerate(rows.documents) if document], np.int64)
    queries = [rows.queries[int(i)] for i in chosen]
    pairing = Pairing.of([[text] if text else [] for text in queries], of_rows(rows.groups, chosen))
    if len(pairing.texts) < LEAST:
        notes.append(
            f"there is no text baseline: only {len(pairing.texts)} different queries have a text that can be found"
        )
        return []
    back = pairing.turned()
    dense = CosineScores(vectors.of(pairing.texts), images[chosen])
    text = bm25_scores(pairing.texts, of_rows(rows.documents, chosen))
    scores: dict[str, CosineScores | PrecomputedScores] = {DENSE: dense, TEXT: PrecomputedScores(text.scores)}
    scores[HYBRID] = PrecomputedScores(fused(dense.rows(slice(0, len(text.scores))), text))
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
    """The depths at which recall is plotted: those of the table, and more up to half the gallery."""
    steps = np.unique(np.geomspace(1, max(2, gallery // 2), 16).round().astype(int))
    return tuple(sorted({*RECALL_AT, *map(int, steps)}))


def _require_finite(vectors: Embeddings, model: str, what: str) -> None:
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise NonFiniteEmbedding(
            f"{bad} of {len(vectors)} vectors of {what} by {model} are not finite",
            hint="The weights may be damaged. Download or export the model again.",
        )
