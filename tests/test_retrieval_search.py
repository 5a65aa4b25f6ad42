"""Search over fakes in plain numpy: ranking, filters, rows that are gone, and no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.errors import EmptyQuery, QueryError
from retrieval.search.query import Query, Ranker
from retrieval.search.searcher import Searcher
from retrieval.types import (
    Catalog,
    Embeddings,
    Encoder,
    FrameKey,
    Ids,
    Lineage,
    RowFilter,
    SearchFilter,
    Uint8Image,
    VectorIndex,
)

DIM = 4


class ToyEncoder:
    """A text of digits "1 0 0 0" is that direction; an image is the direction of its first pixels."""

    embed_dim, name = DIM, "toy"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        self.asked += texts
        return np.stack([self._unit([float(t) for t in text.split()]) for text in texts])

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        return np.stack([self._unit(image.reshape(-1)[:DIM].astype(float)) for image in images])

    @staticmethod
    def _unit(values: Any) -> npt.NDArray[np.float32]:
        vector = np.asarray(values, np.float32)
        return vector / np.linalg.norm(vector)


class ToyIndex:
    def __init__(self, vectors: dict[int, npt.NDArray[np.float32]]) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Embeddings, k: int, allowed: RowFilter | None = None) -> list[list[tuple[int, float]]]:
        found = self.scores(queries, np.array(list(self.vectors), np.int64) if allowed is None else allowed.ids)
        return [sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k] for scores in found]

    def scores(self, queries: Embeddings, ids: Ids) -> list[dict[int, float]]:
        there = self.vectors.keys() & set(ids.tolist())
        return [{i: float(self.vectors[i] @ query) for i in there} for query in queries]

    def sample(self, n: int) -> Ids:
        return np.array(sorted(self.vectors)[:n], np.int64)


class ToyCatalog:
    def __init__(self, rows: dict[int, dict[str, Any]], vectors: dict[int, npt.NDArray[np.float32]]) -> None:
        self.rows = rows
        self.vectors = vectors

    def ids_matching(self, where: SearchFilter) -> npt.NDArray[np.int64]:
        found = [i for i, row in self.rows.items() if all(row.get(k) in v for k, v in where.equals.items())]
        return np.array(found, np.int64)

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]:
        names = ("instance", "series", "study", "patient")
        return {i: Lineage(*(self.rows[i].get(name, f"{name} {i}") for name in names)) for i in ids if i in self.rows}

    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]:
        field = column.removesuffix("_instance_uid")
        lineage = self.lineage(sorted(self.rows))
        found = {uid: [i for i, of in lineage.items() if getattr(of, field) == uid] for uid in uids}
        return {uid: frames for uid, frames in found.items() if frames}

    def vectors_of(self, ids: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        there = sorted(i for i in ids if i in self.rows)
        return np.array(there, np.int64), np.stack([self.vectors[i] for i in there]).astype(np.float16)

    def get(self, ids: Iterable[int]) -> Mapping[int, tuple[FrameKey, Mapping[str, Any]]]:
        return {i: (FrameKey(f"1.2.{i}", i), self.rows[i]) for i in ids if i in self.rows}


@pytest.fixture
def searcher() -> Searcher:
    vectors = {
        10: [1, 0, 0, 0],
        11: [0.8, 0.6, 0, 0],
        12: [0, 1, 0, 0],
        13: [0.8, 0.6, 0, 0],
        14: [-1, 0, 0, 0],
    }
    rows = {i: {"modality": "CT" if i % 2 else "MR"} for i in vectors}
    index = ToyIndex({i: np.array(v, np.float32) for i, v in vectors.items()})
    return Searcher(ToyEncoder(), index, ToyCatalog(rows, index.vectors))


def ids(results: Any) -> list[int]:
    return [hit.key.frame_number for hit in results.hits]


def test_the_fakes_keep_the_protocols(searcher: Searcher) -> None:
    assert isinstance(searcher.encoder, Encoder)
    assert isinstance(searcher.index, VectorIndex)
    assert isinstance(searcher.catalog, Catalog)


def test_text_search_ranks_by_cosine(searcher: Searcher) -> None:
    results = searcher.search_text("1 0 0 0", k=4)
    assert ids(results) == [10, 11, 13, 12]
    assert [hit.rank for hit in results.hits] == [1, 2, 3, 4]
    assert [hit.score for hit in results.hits] == pytest.approx([1, 0.8, 0.8, 0])
    assert results.hits[0].key == FrameKey("1.2.10", 10)
    assert results.hits[1].attributes == {"modality": "CT"}
    assert (results.query, results.model, results.searched) == ("1 0 0 0", "toy", None)


def test_image_search(searcher: Searcher) -> None:
    results = searcher.search_image(np.array([[0, 255], [0, 0]], np.uint8), k=1)
    assert ids(results) == [12]
    assert results.query == "image"


def test_a_filter_holds_before_the_ranking(searcher: Searcher) -> None:
    results = searcher.search_text("1 0 0 0", k=2, where=SearchFilter({"modality": ("CT",)}))
    assert ids(results) == [11, 13]
    assert results.searched == 2


def test_a_filter_that_nothing_passes_finds_nothing(searcher: Searcher) -> None:
    results = searcher.search_text("1 0 0 0", where=SearchFilter({"modality": ("US",)}))
    assert results.hits == ()
    assert results.searched == 0


class ReadingEncoder(ToyEncoder):
    """Any words at all are the direction [1, 0, 0, 0]."""

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_text(["1 0 0 0" for _ in texts])


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        ("mass of the left breast", {11, 13}),
        ("RT knee", {10}),
        ("left and right breast", set()),
        ("bilateral effusion", set()),
        ("effusion, no left mass", set()),
        ("the patient left the hospital", set()),
        ("a breast", set()),
    ],
)
def test_who_asks_for_a_side_gets_no_picture_whose_header_says_the_other(
    searcher: Searcher, words: str, left_out: set[int]
) -> None:
    assert isinstance(searcher.catalog, ToyCatalog)
    rows = searcher.catalog.rows
    rows[10] |= {"image_laterality": "L"}
    rows[11] |= {"image_laterality": "R", "laterality": "L"}  # the image's own word counts
    rows[12] |= {"image_laterality": "B", "laterality": "R"}
    rows[13] |= {"laterality": "R"}
    searcher.encoder = ReadingEncoder()
    asked = Query(words, ranker=Ranker.DENSE)
    results = searcher.search(asked)
    assert set(ids(results)) == set(rows) - left_out
    assert bool(results.notes) == bool(left_out)
    assert all(note.startswith(f"{len(left_out)} frames") for note in results.notes)
    literal = searcher.search(Query(words, ranker=Ranker.DENSE, literal=True))
    assert set(ids(literal)) == set(rows) and not literal.notes
    searched = searcher.search(Query(words, ranker=Ranker.DENSE, where=SearchFilter({"modality": ("MR",)}))).searched
    assert searched == 3 - len(left_out & {10, 12, 14})


def test_rows_that_are_gone_leave_no_gap_in_the_ranks(searcher: Searcher) -> None:
    assert isinstance(searcher.catalog, ToyCatalog)
    del searcher.catalog.rows[11]
    results = searcher.search_text("1 0 0 0", k=3)
    assert ids(results) == [10, 13, 12]
    assert [hit.rank for hit in results.hits] == [1, 2, 3]


def test_k_beyond_the_index_gives_all(searcher: Searcher) -> None:
    assert len(searcher.search_text("1 0 0 0", k=1000).hits) == 5


@pytest.mark.parametrize("k", [0, -3])
def test_k_must_be_positive(searcher: Searcher, k: int) -> None:
    with pytest.raises(QueryError, match=f"k is {k}"):
        searcher.search_text("1 0 0 0", k=k)


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\u00a0\u2003"])
def test_blank_queries_are_refused_before_encoding(searcher: Searcher, query: str) -> None:
    with pytest.raises(EmptyQuery) as caught:
        searcher.search_text(query)
    assert "medlens search" in caught.value.hint
    assert isinstance(searcher.encoder, ToyEncoder)
    assert searcher.encoder.asked == []


def test_blanks_within_a_query_are_one(searcher: Searcher) -> None:
    assert searcher.search_text("  1 0\n 0\t0 ", k=1).query == "1 0 0 0"


def test_searching_and_loading_the_encoder_module_import_no_torch() -> None:
    code = (
        "import sys\n"
        "import retrieval.search.searcher, retrieval.search.describe, retrieval.types\n"
        "import retrieval.zeroshot.labels, retrieval.zeroshot.classify\n"
        "import retrieval.encoders.spec, retrieval.encoders.clip, retrieval.encoders.preprocess\n"
        "import retrieval.evaluation.retrieval, retrieval.evaluation.zero_shot\n"
        "heavy = {'torch', 'faiss', 'open_clip', 'sqlalchemy', 'pydicom', 'bm25s', 'Stemmer', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
