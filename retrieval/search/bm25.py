"""BM25 over the reports of the studies, built with bm25s (its "lucene" variant) and stored as memory-mapped arrays.

bm25s computes the weight of every word in every report when the index is built. A query then adds up a few columns of
a sparse matrix. This module adds them up itself, so that a search imports neither bm25s nor its dependencies.

Words are lower-cased, stripped of accents and stemmed by Snowball's English rules (most words of a report in another
language stay as they are). The commonest function words are dropped, but not "no" and "without". BM25 has no notion of
negation, so findings that a report excludes are left out of its words. It has no notion of sides either, so a word that
belongs to a side is indexed a second time together with that side (see `sides`).

The first reader builds the index, so no report may delay that: the time is linear in the length of the texts. The
longest text that a catalog stores (200,000 characters) took half a second in the worst case (66,000 times "no").
"""

from __future__ import annotations

import json
import logging
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.bounded import parse_json
from retrieval.language.letters import without_accents
from retrieval.language.negation import affirmed
from retrieval.language.sides import clauses, sided

K1, B = 1.5, 0.75
_FILES = {"weights": "weights.npy", "documents": "documents.npy", "starts": "starts.npy", "studies": "studies.npy"}
_WORDS = "words.json"
_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)*")
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can for from had has have he her his i if in into is it its may of on or "
        "our she so that the their them then there these they this those to was we were which who will with you",
    )
)

Words = Callable[[str], list[str]]


@dataclass(frozen=True)
class ReportIndex:
    """The BM25 weights of all words in all reports, as a sparse matrix.

    `studies` [n] are the UIDs of the studies that have a report, ascending. Column w of the matrix belongs to word w:
    it has the `weights` [nnz] of the `documents` [nnz] from starts[w] to starts[w + 1].
    """

    studies: npt.NDArray[np.str_]
    words: dict[str, int]
    weights: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.studies)

    def scores(self, text: str, words: Words | None = None) -> npt.NDArray[np.float32]:
        """The BM25 score of each study's report for a text: [n], 0 or more. `words` splits texts, as it did for the
        index."""
        out = np.zeros(len(self.studies), dtype=np.float32)
        for word in (words or terms)(text):
            column = self.words.get(word)
            if column is not None:
                part = slice(int(self.starts[column]), int(self.starts[column + 1]))
                out[self.documents[part]] += self.weights[part]  # a column has a document at most once
        return out

    def information(self, text: str, words: Words | None = None) -> float:
        """What a report could score at most: the sum of the words' inverse document frequencies. A word that no report
        has counts as the rarest.
        """
        total = 0.0
        for word in (words or terms)(text):
            column = self.words.get(word)
            having = 0 if column is None else int(self.starts[column + 1] - self.starts[column])
            total += math.log1p((len(self) - having + 0.5) / (having + 0.5))
        return total

    def save(self, folder: Path) -> dict[str, int]:
        """Write the arrays into an existing folder. Returns the checksums of the files, which `load` needs."""
        for name, file in _FILES.items():
            np.save(folder / file, getattr(self, name), allow_pickle=False)
        (folder / _WORDS).write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        return {name: _checksum(folder / name) for name in (*_FILES.values(), _WORDS)}

    @classmethod
    def load(cls, folder: Path, checksums: Mapping[str, int]) -> ReportIndex:
        """Map the files that `save` wrote. Raises OSError or ValueError if they are missing or damaged.

        The checksums need one pass over the files, a third of a second per gigabyte.
        """
        for name in (*_FILES.values(), _WORDS):
            if _checksum(folder / name) != checksums.get(name):
                raise ValueError(f"the checksum of {name} does not match")
        arrays = {name: np.load(folder / file, mmap_mode="r", allow_pickle=False) for name, file in _FILES.items()}
        index = cls(words=parse_json((folder / _WORDS).read_bytes()), **arrays)
        index.require_consistent()
        return index

    def require_consistent(self) -> None:
        """ValueError for parts that do not belong together. Checksums tell an accident, not what a stranger made."""
        kinds = [
            (values.dtype.kind, values.ndim) for values in (self.studies, self.weights, self.documents, self.starts)
        ]
        if kinds != [("U", 1), ("f", 1), ("i", 1), ("i", 1)] or not isinstance(self.words, dict):
            raise ValueError("the parts of the report index are not of the types they should be")
        starts, documents, count = self.starts, self.documents, len(self.words)
        if (
            len(starts) != count + 1
            or len(documents) != len(self.weights)
            or (starts[0], starts[-1]) != (0, len(documents))
        ):
            raise ValueError("the parts of the report index do not belong together")
        if np.any(starts[1:] < starts[:-1]) or any(
            type(n) is not int or not 0 <= n < count for n in self.words.values()
        ):
            raise ValueError("the words of the report index lead nowhere")
        if len(documents) and not 0 <= int(documents.min()) <= int(documents.max()) < len(self.studies):
            raise ValueError("the words of the report index are of reports that are not there")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            value = zlib.crc32(piece, value)
    return value


def build_report_index(texts: Mapping[str, str], words: Words | None = None) -> ReportIndex:
    """Build the index of one text per study UID, without the findings that the texts exclude.

    A study whose text has no words counts as a study without a report.
    """
    words_of = {study: found for study in sorted(texts) if (found := (words or terms)(affirmed(texts[study])))}
    documents = list(words_of.values())
    if not documents:
        nothing = np.empty(0, np.float32)
        return ReportIndex(np.array([], np.str_), {}, nothing, nothing.astype(np.int32), np.zeros(1, np.int64))
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing bm25s sets the level to DEBUG
    numbers = {word: i for i, word in enumerate(dict.fromkeys(word for document in documents for word in document))}
    model = bm25s.BM25(k1=K1, b=B, method="lucene")
    model.index(([[numbers[w] for w in document] for document in documents], dict(numbers)), show_progress=False)
    built = model.scores
    return ReportIndex(
        np.array(list(words_of), np.str_),
        numbers,
        np.asarray(built["data"], np.float32),
        np.asarray(built["indices"], np.int32),
        np.asarray(built["indptr"], np.int64)[: len(numbers) + 1],
    )


def terms(text: str) -> list[str]:
    """The index terms of a text: its words, its pairs of neighbouring words, and again with their side the words that
    belong to one.
    """
    plain = _plain(text)
    words = _words(plain)
    of_sides = [pair for clause in clauses(plain) for pair in sided(_words(clause))]
    stems = _stemmed([*words, *(word for _, word in of_sides)])
    with_side = zip(of_sides, stems[len(words) :], strict=True)
    own = stems[: len(words)]
    pairs = (f"{first} {second}" for first, second in pairwise(own))
    return [*own, *pairs, *(f"{side}_{stem}" for (side, _), stem in with_side)]


def tokens(text: str) -> list[str]:
    """The words of a text in the form that the index has."""
    return _stemmed(_words(_plain(text)))


def _plain(text: str) -> str:
    return without_accents(text.casefold())


def _words(plain: str) -> list[str]:
    return [word for word in _WORD.findall(plain) if word not in _FUNCTION_WORDS]


def _stemmed(words: list[str]) -> list[str]:
    import Stemmer

    stemmed: list[str] = Stemmer.Stemmer("english").stemWords(words)
    return stemmed
