"""Image to text: the sentences of the archive's own reports, or of a list, that lie nearest to an image.

Nothing is generated. Unless a hit says otherwise, its sentence was written about another image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.errors import QueryError
from retrieval.search.ranking import best_first
from retrieval.types import VectorIndex

Vector = npt.NDArray[np.float32]


class SentenceRow(Protocol):
    """One sentence of a report in the catalog."""

    @property
    def text(self) -> str: ...
    @property
    def study_instance_uid(self) -> str | None: ...
    @property
    def patient_pseudonym(self) -> str | None: ...


class SentenceCatalog(Protocol):
    def sentence_rows(self, ids: Iterable[int]) -> Mapping[int, SentenceRow]: ...


@dataclass(frozen=True)
class Neighbour:
    """A study with a similar image: the cosine similarity, and the sentences of the study's report."""

    study: str
    score: float
    sentences: npt.NDArray[np.int64]  # ids


@dataclass(frozen=True)
class SentenceHit:
    """One sentence that was found. `score` is the cosine similarity of image and sentence.

    `studies` are the studies whose reports contain the sentence, the nearest first; empty for a phrase of a list.
    `same_study` and `same_patient` say whether one of them is the study or the patient of the image; None if that is
    not known. `borrowed` is set if the sentence comes from the report of a similar image: the cosine similarity of the
    two images.
    """

    rank: int
    score: float
    text: str
    studies: tuple[str, ...] = ()
    same_study: bool | None = None
    same_patient: bool | None = None
    borrowed: float | None = None


def nearest_sentences(
    vector: Vector,
    k: int,
    index: VectorIndex,
    catalog: SentenceCatalog,
    *,
    study: str | None = None,
    patient: str | None = None,
) -> tuple[SentenceHit, ...]:
    """The `k` different sentences nearest to a vector [embed_dim] of unit norm, best first. Equal sentences are one
    hit.

    `study` and `patient` (a pseudonym) belong to the image, where they are known.
    """
    if k < 1:
        raise QueryError(f"k is {k}, expected a whole number from 1")
    limit = 4 * k
    while True:
        ranked = index.search(vector[None, :], limit)[0]
        rows = catalog.sentence_rows(i for i, _ in ranked)
        folded: dict[str, tuple[float, str, list[SentenceRow]]] = {}
        for i, score in ranked:
            row = rows.get(i)
            if row is not None:  # None: deleted since the index was read
                folded.setdefault(row.text.casefold(), (score, row.text, []))[2].append(row)
        if len(folded) >= k or len(ranked) < limit:
            break
        limit *= 4
    best = list(folded.values())[:k]
    return tuple(_hit(rank, score, text, rows, study, patient) for rank, (score, text, rows) in enumerate(best, 1))


def borrowed_sentences(
    vector: Vector,
    neighbours: Sequence[Neighbour],
    index: VectorIndex,
    catalog: SentenceCatalog,
    *,
    patient: str | None = None,
) -> tuple[SentenceHit, ...]:
    """For each neighbour, in their order, the sentence of its report that is nearest to the image."""
    hits: list[SentenceHit] = []
    for neighbour in neighbours:
        nearest = best_first(index.scores(vector[None, :], neighbour.sentences)[0])[:1]
        rows = catalog.sentence_rows(i for i, _ in nearest)
        for i, score in nearest:
            if i in rows:
                row = rows[i]
                hit = _hit(len(hits) + 1, score, row.text, [row], None, patient)
                hits.append(SentenceHit(**(vars(hit) | {"same_study": False, "borrowed": neighbour.score})))
    return tuple(hits)


def nearest_phrases(vector: Vector, k: int, phrases: Sequence[str], vectors: Vector) -> tuple[SentenceHit, ...]:
    """The `k` phrases of a list nearest to an image. `vectors` [phrases, embed_dim] are the embeddings of the
    phrases."""
    if k < 1:
        raise QueryError(f"k is {k}, expected a whole number from 1")
    scores = vectors @ vector
    order = np.argsort(-scores, kind="stable")[:k]
    return tuple(SentenceHit(rank, float(scores[i]), phrases[i]) for rank, i in enumerate(order, 1))


def read_phrases(path: Path) -> tuple[str, ...]:
    """The different phrases in a UTF-8 file, one per line. Blank lines and lines that begin with # are skipped.

    Raises QueryError for a file that can't be read or that has no phrases.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise QueryError(
            f"the file of phrases {path.name!r} can't be read: {exc.strerror or type(exc).__name__}"
        ) from exc
    except UnicodeDecodeError as exc:
        raise QueryError(
            f"the file of phrases {path.name!r} is not UTF-8 text", hint="Save the file as UTF-8."
        ) from exc
    texts = (" ".join(line.split()) for line in lines)
    phrases = tuple(dict.fromkeys(text for text in texts if text and not text.startswith("#")))
    if not phrases:
        raise QueryError(f"the file of phrases {path.name!r} has no phrases", hint="Write one phrase per line.")
    return phrases


def _hit(
    rank: int, score: float, text: str, rows: Sequence[SentenceRow], study: str | None, patient: str | None
) -> SentenceHit:
    studies = tuple(dict.fromkeys(row.study_instance_uid for row in rows if row.study_instance_uid))
    same_study = None if study is None else study in studies
    same_patient = None if patient is None else any(row.patient_pseudonym == patient for row in rows)
    return SentenceHit(rank, score, text, studies, same_study, same_patient)
