"""Rankings made of rankings, and filters that an index works out by itself: what a caller may put around a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieval_query import PICTURE, THREE, World, frames
from test_retrieval_search import ToyCatalog, ToyIndex

from retrieval.errors import QueryError
from retrieval.search.query import Fusion, ImagePart, Query
from retrieval.search.ranking import Ranked, Ranking, RankingByParts, best_first
from retrieval.search.searcher import Searcher
from retrieval.types import Embeddings, Ids, RowFilter, SearchFilter, VectorIndex

REPORTS = {f"s{study}": text for study, text in enumerate(["effusion left", "no effusion", "cardiomegaly", "clear"])}


class Reranked:
    """Looks at the first `look` frames of another ranking again: these go by `second`, above all that lie deeper."""

    additive = False

    def __init__(self, first: Ranking, second: dict[int, float], look: int) -> None:
        self.first, self.second, self.look = first, second, look
        self.scale = f"a second opinion on the first {look} by {first.scale}"
        self.depth = first.depth

    def top(self, n: int) -> Ranked:
        candidates = [i for i, _ in self.first.top(self.look)]
        below = [i for i, _ in self.first.top(max(n, self.look))][self.look :]
        return best_first(self.scores([*candidates, *below]))[:n]

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        candidates = {i for i, _ in self.first.top(self.look)}
        scores = self.first.scores(ids)
        return {i: 10 + self.second[i] if i in candidates else score for i, score in scores.items()}

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        return {i: {"second opinion": self.second[i]} for i in self.scores(ids)}


def opinions(world: World) -> dict[int, float]:
    """Another score for every frame, all different."""
    return {i: float(score) for i, score in zip(world.rows, np.random.default_rng(7).permutation(60), strict=True)}


def expected_order(world: World, query: Query, look: int) -> list[int]:
    """The judge: the first `look` of the plain order sorted by the second opinion, the others as they were."""
    plain = sorted(scores := world.frame_scores(query), key=lambda i: (-round(scores[i], 9), i))
    second = opinions(world)
    return sorted(plain[:look], key=lambda i: -second[i]) + plain[look:]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 30),
    st.sampled_from([Fusion.EMBEDDING, Fusion.SUM, Fusion.MAX]),
    st.integers(1, 59),
    st.integers(1, 60),
)
def test_a_ranking_that_is_put_around_another_says_the_order(seed: int, fusion: Fusion, look: int, k: int) -> None:
    world = World(seed)
    query = Query(THREE, fusion=fusion, k=k)
    results = world.search(query, steps=[lambda ranking, asked: Reranked(ranking, opinions(world), look)])
    assert frames(results) == expected_order(world, query, look)[:k]
    assert results.score.startswith(f"a second opinion on the first {look} by ")
    assert [hit.breakdown for hit in results.hits] == [{"second opinion": opinions(world)[i]} for i in frames(results)]


def test_levels_filters_and_pages_are_those_of_the_last_ranking() -> None:
    world = World(3)
    step = [lambda ranking, asked: Reranked(ranking, opinions(world), 20)]
    where = SearchFilter({"modality": ("CT",)})
    order = frames(world.search(Query("chest tube", k=100, where=where), steps=step))
    assert {world.rows[i]["modality"] for i in order} == {"CT"}
    studies = world.search(Query("chest tube", level="study", k=9, where=where), steps=step)  # type: ignore[arg-type]
    by_study = [hit.attributes["study"] for hit in studies.hits]
    assert by_study == list(dict.fromkeys(world.rows[i]["study"] for i in order))
    pages = [world.search(Query("chest tube", k=7, offset=o, where=where), steps=step) for o in range(0, 60, 7)]
    assert [i for page in pages for i in frames(page)] == order


def test_steps_stand_on_each_other_and_see_the_query() -> None:
    world = World(4)
    seen: list[tuple[str, Query]] = []

    def step(look: int) -> Any:
        def put_around(ranking: Ranking, asked: Query) -> Ranking:
            assert isinstance(ranking, Ranking)
            seen.append((ranking.scale, asked))
            return Reranked(ranking, opinions(world), look)

        return put_around

    asked = Query("chest tube", k=60)
    both = world.search(asked, steps=[step(30), step(5)])
    assert frames(both) == expected_order(world, asked, 30), "the first five were in the right order already"
    assert [query for _, query in seen] == [asked, asked]
    assert [scale for scale, _ in seen] == [
        "cosine similarity",
        "a second opinion on the first 30 by cosine similarity",
    ]


def test_a_step_goes_around_hybrid_and_reciprocal_ranks_too() -> None:
    world = World(20, reports=REPORTS)
    step = [lambda ranking, asked: Reranked(ranking, opinions(world), 10)]
    for fusion in (Fusion.EMBEDDING, Fusion.RRF):
        query = Query(["pleural effusion", ImagePart(PICTURE)], fusion=fusion, k=25, depth=60)
        plain, again = world.search(query), world.search(query, steps=step)
        assert again.ranker == "hybrid" and again.score.endswith(plain.score)
        second = opinions(world)
        assert frames(again) == sorted(frames(plain)[:10], key=lambda i: -second[i]) + frames(plain)[10:]
    with pytest.raises(QueryError, match=r"below the depth of the ranking \(5\)"):
        world.search(Query("x", fusion=Fusion.RRF, ranker="dense", depth=5), steps=step)  # type: ignore[arg-type]


class HandsOnTheParts:
    """Changes nothing, and counts how often the parts were asked for."""

    additive, depth = True, None

    def __init__(self, first: RankingByParts) -> None:
        self.first, self.scale, self.names = first, first.scale, first.names
        self.lists_asked = 0

    def top(self, n: int) -> Ranked:
        return self.first.top(n)

    def top_by_part(self, n: int) -> list[Ranked]:
        self.lists_asked += 1
        return self.first.top_by_part(n)

    def scores(self, ids: Sequence[int]) -> dict[int, float]:
        return self.first.scores(ids)

    def breakdown(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        return self.first.breakdown(ids)


def test_late_interaction_reads_the_parts_of_whatever_has_parts() -> None:
    world = World(5)
    query = Query(THREE, level="study", pooling="late", fusion="sum")  # type: ignore[arg-type]
    made: list[HandsOnTheParts] = []

    def step(ranking: Ranking, asked: Query) -> Ranking:
        assert isinstance(ranking, RankingByParts)
        made.append(HandsOnTheParts(ranking))
        return made[-1]

    assert world.search(query, steps=[step]) == world.search(query)
    assert made[0].lists_asked > 0


# -- filters in the index call


class RemoteIndex(ToyIndex):
    """Has the attributes beside the vectors, as a vector database does, and never asks for ids."""

    def __init__(self, vectors: dict[int, npt.NDArray[np.float32]], rows: dict[int, dict[str, Any]]) -> None:
        super().__init__(vectors)
        self.rows = rows
        self.asked: list[RowFilter | None] = []

    def search(self, queries: Embeddings, k: int, allowed: RowFilter | None = None) -> list[list[tuple[int, float]]]:
        self.asked.append(allowed)
        passing = [i for i in self.vectors if allowed is None or self.passes(self.rows[i], allowed)]
        found = self.scores(queries, np.array(passing, np.int64))
        return [best_first(scores)[:k] for scores in found]

    def passes(self, row: dict[str, Any], allowed: RowFilter) -> bool:
        right = all(row.get(column) in values for column, values in allowed.where.equals.items())
        return right and not any(self.passes(row, other) for other in allowed.without)


@pytest.mark.parametrize("where", [SearchFilter(), SearchFilter({"modality": ("CT",)})])
@pytest.mark.parametrize("excluded", [(), ("p1", "p2")])
@pytest.mark.parametrize("words", ["left breast", "breast"])
@pytest.mark.parametrize("fusion", [Fusion.EMBEDDING, Fusion.MAX, Fusion.RRF])
def test_an_index_may_work_out_the_filter_itself(
    where: SearchFilter, excluded: tuple[str, ...], words: str, fusion: Fusion
) -> None:
    world = World(9)
    sides = np.random.default_rng(1)
    for row in world.rows.values():
        row["image_laterality"] = [None, "L", "R", "B"][sides.integers(4)]
        row["laterality"] = [None, "L", "R"][sides.integers(3)]
    catalog = ToyCatalog(world.rows, world.vectors)
    remote = RemoteIndex(world.vectors, world.rows)
    assert isinstance(remote, VectorIndex)
    query = Query([words, "chest tube"], where=where, fusion=fusion, k=60)
    found = Searcher(world.encoder, remote, catalog).search(query, excluded_patients=excluded)
    assert found == Searcher(world.encoder, ToyIndex(world.vectors), catalog).search(query, excluded_patients=excluded)
    [allowed] = set(remote.asked)
    assert (allowed is None) == (not where and not excluded and words == "breast")
    if allowed is not None:
        assert allowed.where == where
        assert len(allowed.without) == bool(excluded) + 2 * (words == "left breast")


def test_a_filter_is_looked_up_when_it_is_asked_for_and_once() -> None:
    asked: list[SearchFilter] = []

    def look_up(where: SearchFilter) -> Ids:
        asked.append(where)
        return np.array([] if "nobody" in where.equals else [2, 3, 5, 7] if where else [1, 2, 3, 4, 5, 6, 7], np.int64)

    def passing(name: str) -> RowFilter:
        return RowFilter(SearchFilter({name: ("x",)}), look_up)

    everything, primes, nobody = RowFilter(SearchFilter(), look_up), passing("prime"), passing("nobody")
    both = everything.excluding(primes).excluding(nobody)
    assert both.without == (primes, nobody) and not asked
    assert both.ids.tolist() == [1, 4, 6] and both.ids is both.ids
    assert len(asked) == 3
    assert both.passing(np.array([7, 6, 9, 1])).tolist() == [6, 1]
    assert everything.excluding(RowFilter(SearchFilter(), look_up, without=(primes,))).ids.tolist() == [2, 3, 5, 7]
    assert nobody.excluding(primes).ids.tolist() == []
