"""What can be asked, and what the answers must be: every rule judged by a plain sort over all frames."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieval_search import ToyCatalog, ToyIndex

from retrieval.errors import EmptyQuery, MedlensError, QueryError
from retrieval.language.negation import affirmed
from retrieval.search.bm25 import ReportIndex, build_report_index, terms, tokens
from retrieval.search.hybrid import ReportScores, TextRanking
from retrieval.search.interpret import separate_negations
from retrieval.search.query import Fusion, ImagePart, Query, TextPart
from retrieval.search.searcher import Searcher
from retrieval.types import Embeddings, SearchFilter, SearchResults

DIM = 6
PICTURE = np.zeros((2, 2), np.uint8)


class Directions:
    """An encoder whose texts and pictures are named directions."""

    embed_dim, name = DIM, "directions"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.known: dict[str, npt.NDArray[np.float32]] = {}

    def of(self, name: str) -> npt.NDArray[np.float32]:
        if name not in self.known:
            vector = self.rng.normal(size=DIM)
            self.known[name] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return self.known[name]

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return np.stack([self.of(text) for text in texts])

    def encode_images(self, images: Sequence[Any]) -> Embeddings:
        return np.stack([self.of(f"image {image.shape}") for image in images])


class World:
    """Frames 1..n of studies of several series and images, some twice, some of patients that nobody can tell."""

    def __init__(self, seed: int, count: int = 60, reports: dict[str, str] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.vectors: dict[int, npt.NDArray[np.float32]] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        for i in range(1, count + 1):
            if i > 3 and rng.random() < 0.2:
                vector = self.vectors[int(rng.integers(1, i))].copy()
            else:
                vector = rng.normal(size=DIM)
                vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            study = int(rng.integers(0, 9))
            patient = None if study == 0 else f"p{study // 2}"
            series = f"{study}.{rng.integers(0, 3)}"
            self.vectors[i] = vector
            self.rows[i] = {
                "instance": f"i{i // 2}",
                "series": series,
                "study": f"s{study}",
                "patient": patient,
                "patient_pseudonym": patient,
                "modality": "CT" if rng.random() < 0.6 else "MR",
            }
        self.encoder = Directions(seed + 1)
        self.reports = build_report_index(reports) if reports is not None else None

    def search(self, query: Query, **more: Any) -> SearchResults:
        catalog = ToyCatalog(self.rows, self.vectors)
        return Searcher(self.encoder, ToyIndex(self.vectors), catalog, self.reports).search(query, **more)

    def part_scores(self, query: Query) -> npt.NDArray[np.float64]:
        """[frames, parts] cosines, frames in ascending order of their ids."""
        names = [p.text if isinstance(p, TextPart) else f"image {p.image.shape}" for p in query.parts]
        frames = np.stack([self.vectors[i] for i in sorted(self.vectors)]).astype(np.float64)
        return frames @ np.stack([self.encoder.of(name) for name in names]).T.astype(np.float64)

    def frame_scores(self, query: Query) -> dict[int, float]:
        """The judge: the formulas as the documentation has them, over everything."""
        weights = np.array([part.weight for part in query.parts])
        cosines = self.part_scores(query)
        each = cosines * weights
        if query.fusion is Fusion.EMBEDDING:
            vectors = [
                self.encoder.of(p.text if isinstance(p, TextPart) else f"image {p.image.shape}") for p in query.parts
            ]
            total = (np.stack(vectors) * weights[:, None]).sum(axis=0)
            scores = each.sum(axis=1) / np.linalg.norm(total)
        elif query.fusion is Fusion.AVERAGE:
            scores = each.sum(axis=1) / np.abs(weights).sum()
        elif query.fusion is Fusion.SUM:
            scores = each.sum(axis=1)
        elif query.fusion is Fusion.MAX:
            scores = each[:, weights > 0].max(axis=1) + each[:, weights < 0].sum(axis=1)
        else:
            ranks = np.argsort(np.argsort(-cosines, axis=0, kind="stable"), axis=0) + 1
            gains = np.where(ranks <= query.depth, weights / (60 + ranks), 0)
            ranked = (ranks[:, weights > 0] <= query.depth).any(axis=1)
            return {i: float(gains[row].sum()) for row, i in enumerate(sorted(self.vectors)) if ranked[row]}
        return {i: float(scores[row]) for row, i in enumerate(sorted(self.vectors))}


THREE = ("chest tube", ImagePart(PICTURE, 0.7), TextPart("cardiomegaly", -0.4))


def frames(results: SearchResults) -> list[int]:
    return [int(hit.key.frame_number) for hit in results.hits]


def in_order(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda i: (-round(scores[i], 9), i))


@pytest.mark.parametrize("fusion", Fusion)
@pytest.mark.parametrize("seed", range(4))
def test_every_fusion_is_the_sort_of_all_frames(fusion: Fusion, seed: int) -> None:
    world = World(seed)
    query = Query(THREE, fusion=fusion, k=25, depth=20 if fusion is Fusion.RRF else 1000)
    results = world.search(query)
    expected = world.frame_scores(query)
    got = {i: hit.score for i, hit in zip(frames(results), results.hits, strict=True)}
    best = sorted(expected.values(), reverse=True)[:25]
    assert [hit.score for hit in results.hits] == pytest.approx(best, abs=1e-6)
    assert got == pytest.approx({i: expected[i] for i in got}, abs=1e-6)


@pytest.mark.parametrize("fusion", [Fusion.EMBEDDING, Fusion.AVERAGE, Fusion.SUM, Fusion.RRF])
def test_a_breakdown_has_one_number_per_part_and_adds_up(fusion: Fusion) -> None:
    for hit in World(5).search(Query(THREE, fusion=fusion)).hits:
        assert list(hit.breakdown) == ["text", "image", "not"]
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score, abs=1e-6)


def test_under_max_the_breakdown_has_each_parts_weighted_score() -> None:
    for hit in World(5).search(Query(THREE, fusion=Fusion.MAX)).hits:
        assert hit.score == pytest.approx(
            max(hit.breakdown["text"], hit.breakdown["image"]) + hit.breakdown["not"], abs=1e-6
        )


def test_one_part_scores_as_its_cosine_and_says_so() -> None:
    world = World(6)
    for fusion in (Fusion.EMBEDDING, Fusion.AVERAGE, Fusion.SUM, Fusion.MAX):
        results = world.search(Query("chest tube", fusion=fusion, k=3))
        cosines = world.part_scores(Query("chest tube"))[:, 0]
        assert [hit.score for hit in results.hits] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=1e-6)
        assert results.score == "cosine similarity"


# -- levels, holders, folding, pages


def group_scores(world: World, query: Query, pool: Callable[[list[int]], float]) -> dict[str, float]:
    groups: dict[str, list[int]] = {}
    for i, row in world.rows.items():
        groups.setdefault(row[query.level], []).append(i)
    return {name: pool(members) for name, members in groups.items()}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.sampled_from(["series", "study"]), st.integers(1, 5), st.integers(1, 12))
def test_the_mean_of_the_best_is_exact(seed: int, level: Any, best: int, k: int) -> None:
    world = World(seed)
    query = Query(THREE, level=level, pooling="mean", best=best, k=k)  # type: ignore[arg-type]
    scores = world.frame_scores(query)
    pooled = group_scores(
        world, query, lambda members: float(np.mean(sorted((scores[i] for i in members), reverse=True)[:best]))
    )
    results = world.search(query)
    assert [hit.score for hit in results.hits] == pytest.approx(sorted(pooled.values(), reverse=True)[:k], abs=1e-6)
    for hit in results.hits:
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score, abs=1e-6)
        assert pooled[hit.attributes[level]] == pytest.approx(hit.score, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.sampled_from(["series", "study"]), st.integers(1, 12))
def test_late_interaction_is_exact(seed: int, level: Any, k: int) -> None:
    world = World(seed)
    query = Query(THREE, level=level, pooling="late", fusion="sum", k=k)  # type: ignore[arg-type]
    each = world.part_scores(query) * np.array([part.weight for part in query.parts])
    rows = {i: row for row, i in enumerate(sorted(world.vectors))}

    def pool(members: list[int]) -> float:
        own = each[[rows[i] for i in members]]
        return float(own[:, 0].max() + own[:, 1].max() + own[:, 2].min())

    pooled = group_scores(world, query, pool)
    results = world.search(query)
    assert [hit.score for hit in results.hits] == pytest.approx(sorted(pooled.values(), reverse=True)[:k], abs=1e-6)
    for hit in results.hits:
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score, abs=1e-6)


@pytest.mark.parametrize("level", ["frame", "instance", "series", "study"])
@pytest.mark.parametrize("one_per", [None, "patient", "study", "series"])
@pytest.mark.parametrize("fold", [None, 0.999])
def test_groups_holders_and_folds_are_those_of_a_walk_down_the_whole_ranking(
    level: Any, one_per: Any, fold: Any
) -> None:
    world = World(11)
    asked = Query(THREE, level=level, one_per=one_per, fold=fold, k=100)
    taken: list[int] = []
    folded: dict[int, int] = {}
    seen_groups, seen_holders = set(), set()
    for i in frames(world.search(Query(THREE, k=1000))):
        row = world.rows[i]
        group = i if level == "frame" else row[level]
        if group in seen_groups:
            continue
        seen_groups.add(group)
        holder = row[one_per] if one_per else None
        if one_per == "patient" and holder is None:
            holder = row["study"]
        if holder is not None and holder in seen_holders:
            continue
        near = [j for j in taken if fold and float(world.vectors[i] @ world.vectors[j]) >= fold]
        if near:
            folded[near[0]] = folded.get(near[0], 0) + 1
            continue
        taken.append(i)
        seen_holders.add(holder)
    whole = world.search(asked)
    assert frames(whole) == taken
    assert {i: hit.folded for i, hit in zip(taken, whole.hits, strict=True) if hit.folded} == folded
    pages = [
        world.search(Query(THREE, level=level, one_per=one_per, fold=fold, k=3, offset=o)) for o in range(0, 60, 3)
    ]
    assert [i for page in pages for i in frames(page)] == taken
    assert [hit.rank for page in pages for hit in page.hits] == list(range(1, len(taken) + 1))
    assert [hit.folded for page in pages for hit in page.hits] == [hit.folded for hit in whole.hits]


def test_many_frames_of_one_study_do_not_crowd_out_the_others() -> None:
    world = World(0, count=400)
    for i in range(1, 391):  # all but ten frames are one study's, and nearest of all
        world.rows[i]["study"] = "big"
        world.vectors[i] = world.encoder.of("chest tube")
    results = world.search(Query("chest tube", level="study", k=4))  # type: ignore[arg-type]
    assert len({hit.attributes["study"] for hit in results.hits}) == 4


def test_k_beyond_the_store_gives_all_and_an_offset_beyond_it_none() -> None:
    world = World(3)
    assert len(world.search(Query("x", k=10_000)).hits) == 60
    assert world.search(Query("x", offset=10_000)).hits == ()


def test_rrf_says_when_its_depth_is_too_small_for_the_page() -> None:
    world = World(3)
    with pytest.raises(QueryError, match="depth") as caught:
        world.search(Query("x", fusion=Fusion.RRF, depth=5, k=10))
    assert "depth" in caught.value.hint
    assert len(world.search(Query("x", fusion=Fusion.RRF, depth=60, k=100)).hits) == 60


def test_excluded_patients_and_filters_hold_at_every_level() -> None:
    world = World(12)
    for level in ("frame", "study"):
        query = Query(THREE, level=level, k=100, where=SearchFilter({"modality": ("CT",)}))  # type: ignore[arg-type]
        results = world.search(query, excluded_patients=["p1", "p2"])
        assert results.hits
        assert all(hit.attributes["modality"] == "CT" for hit in results.hits)
        assert not {hit.attributes["patient"] for hit in results.hits} & {"p1", "p2"}
    mean = Query(THREE, level="study", pooling="mean", where=SearchFilter({"modality": ("CT",)}))  # type: ignore[arg-type]
    scores = world.frame_scores(mean)
    ct = [i for i, row in world.rows.items() if row["modality"] == "CT"]
    for hit in world.search(mean).hits:
        own = sorted((scores[i] for i in ct if world.rows[i]["study"] == hit.attributes["study"]), reverse=True)
        assert hit.score == pytest.approx(np.mean(own[:3]), abs=1e-6)


# -- reports

REPORTS = {
    "s1": "Large left pleural effusion.",
    "s2": "No pleural effusion. Heart size normal.",
    "s3": "Fracture of the left clavicle.",
    "s5": "Pleural effusions, both sides. Chest tube in place. Cardiomegaly.",
    "s7": "Normal.",
}


def test_words_are_folded_and_stemmed_and_negations_kept() -> None:
    assert tokens("The Effusions, of 3.5 cm; ÖDEM") == ["effus", "3.5", "cm", "odem"]
    assert "no" in tokens("no effusion") and "without" in tokens("without effusion")


def test_bm25_is_the_formula() -> None:
    index = build_report_index(REPORTS)
    documents = {study: terms(affirmed(text)) for study, text in REPORTS.items()}
    mean = np.mean([len(words) for words in documents.values()])
    scores = dict(zip(index.studies.tolist(), index.scores("left pleural effusion"), strict=True))
    for study, words in documents.items():
        expected = 0.0
        for word in terms("left pleural effusion"):
            count, containing = words.count(word), sum(word in other for other in documents.values())
            idf = np.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            expected += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean))
        assert scores[study] == pytest.approx(expected, rel=1e-4)


def test_what_a_report_rules_out_is_none_of_its_words() -> None:
    index = build_report_index(REPORTS | {"s8": "No pneumothorax.", "s9": "Lungs\nno effusion\nheart large"})
    found = dict(zip(index.studies, index.scores("pleural effusion"), strict=True))
    assert found["s1"] > 0 and found["s5"] > 0
    assert found["s2"] == found["s9"] == 0
    assert dict(zip(index.studies, index.scores("large heart"), strict=True))["s9"] > 0, "a line ends what is negated"
    assert "s8" in found, "a report that only rules out is a report"


def test_absence_is_a_negative_part_in_pictures_and_reports() -> None:
    query = separate_negations(Query(["cardiomegaly, no pleural effusion", TextPart("chest tube", -1.0)]))
    said = [(part.text, part.weight, part.in_reports) for part in query.texts]
    assert said == [("cardiomegaly", 1.0, True), ("pleural effusion", -0.25, True), ("chest tube", -1.0, True)]
    alone = separate_negations(Query("no pneumonia"))
    assert [(p.text, p.weight, p.in_reports) for p in alone.texts] == [("normal", 1, False), ("pneumonia", -1, True)]
    for kept in (Query("no pneumonia", literal=True), Query("pneumonia"), Query("CT without contrast")):
        assert separate_negations(kept) is kept
    world = World(1)
    plain = world.search(Query("no pneumonia"))
    assert plain.query == "no pneumonia"
    assert plain.hits[0].breakdown.keys() == {"text", "not"}
    assert frames(plain) != frames(world.search(Query("no pneumonia", literal=True)))


def test_a_saved_report_index_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    index = build_report_index(REPORTS)
    checksums = index.save(tmp_path)
    loaded = ReportIndex.load(tmp_path, checksums)
    assert isinstance(loaded.weights, np.memmap)
    for text in ("pleural effusion", "nothing of the kind", "left"):
        assert np.array_equal(index.scores(text), loaded.scores(text))
    (tmp_path / "words.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the checksum of words\.json does not match"):
        ReportIndex.load(tmp_path, checksums)
    with pytest.raises(ValueError, match="belong together"):
        ReportIndex.load(tmp_path, checksums | {"words.json": zlib.crc32(b"{}")})


def test_an_index_of_no_reports_scores_nothing() -> None:
    assert len(build_report_index({})) == 0
    assert build_report_index({"s": "the of"}).scores("x").shape == (0,)


def test_the_text_ranker_goes_by_the_reports_alone_and_needs_no_encoder() -> None:
    world = World(20, reports=REPORTS)
    world.encoder.encode_text = None  # type: ignore[method-assign,assignment]
    query = Query(["pleural effusion", TextPart("cardiomegaly", -0.5)], ranker="text", level="study")  # type: ignore[arg-type]
    results = world.search(query)
    assert results.ranker == "text" and "BM25" in results.score
    assert world.reports is not None
    plain = world.reports.scores("pleural effusion") - 0.5 * world.reports.scores("cardiomegaly")
    expected = sorted(((s, u) for u, s in zip(world.reports.studies, plain, strict=True) if s > 0), reverse=True)
    assert [hit.attributes["study"] for hit in results.hits] == [study for _, study in expected]
    assert [hit.score for hit in results.hits] == pytest.approx([score for score, _ in expected])
    for hit in results.hits:
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score)


def test_pages_of_equal_reports_fit_together() -> None:
    """A template that half the archive says: its studies are many more than are fetched at a time."""

    class Frames:
        def frames_of(self, column: str, uids: Iterable[str]) -> dict[str, list[int]]:
            return {uid: [1000 - int(uid)] for uid in uids}

    reports = build_report_index({f"{n:03d}": "normal chest" for n in range(500)})
    found = ReportScores(Query("normal"), reports)
    whole = [i for i, _ in TextRanking(found, Frames(), None).top(500)]
    assert whole == sorted(whole) and len(whole) == 500
    for n in (1, 10, 63, 64, 65, 300):
        assert [i for i, _ in TextRanking(found, Frames(), None).top(n)] == whole[:n]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 60), st.integers(1, 30), st.sampled_from([Fusion.EMBEDDING, Fusion.MAX, Fusion.SUM]))
def test_hybrid_is_the_sort_of_all_frames_by_its_formula(seed: int, k: int, fusion: Fusion) -> None:
    world = World(seed, count=150, reports=REPORTS)
    query = Query(["pleural effusion", ImagePart(PICTURE)], fusion=fusion, k=k)
    assert world.reports is not None
    totals = world.reports.scores("pleural effusion")
    share = 8 * totals / world.reports.information("pleural effusion")
    deviations = (totals - totals.mean()) / totals.std()
    evidence = dict(zip(world.reports.studies.tolist(), share + 0.3 * deviations, strict=True))
    dense = world.frame_scores(query)
    mean, spread = np.mean(list(dense.values())), np.std(list(dense.values()))
    expected = {i: (score - mean) / spread + evidence.get(world.rows[i]["study"], 0) for i, score in dense.items()}
    results = world.search(query)
    assert results.ranker == "hybrid"
    assert [hit.score for hit in results.hits] == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-5)
    for hit in results.hits:
        assert hit.score == pytest.approx(expected[int(hit.key.frame_number)], abs=1e-5)
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score, abs=1e-5)
        assert ("report" in hit.breakdown) == (hit.attributes["study"] in evidence)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 60), st.integers(1, 150), st.booleans())
def test_frames_whose_header_contradicts_fall_behind_by_four_deviations(seed: int, k: int, reports: bool) -> None:
    world = World(seed, count=150, reports=REPORTS if reports else None)
    query = Query("pleural effusion CT", k=k)
    plain = {hit.key: hit.score for hit in world.search(replace(query, literal=True, k=150)).hits}
    spread = 1.0 if reports else float(np.std(list(plain.values())))
    results = world.search(query)
    expected = {
        key: score - 4 * spread * (world.rows[int(key.frame_number)]["modality"] == "MR")
        for key, score in plain.items()
    }
    assert [hit.score for hit in results.hits] == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-5)
    for hit in results.hits:
        assert hit.score == pytest.approx(expected[hit.key], abs=1e-5)
        assert sum(hit.breakdown.values()) == pytest.approx(hit.score, abs=1e-5)
        assert ("header" in hit.breakdown) == (hit.attributes["modality"] == "MR")
    assert results.understood == "searched for: pleural effusion CT; prefers: CT, chest"


def test_what_was_understood_is_said() -> None:
    world = World(1)

    def said(ask: Any, **settings: Any) -> str:
        return world.search(Query(ask, **settings)).understood

    assert said("cardiomegaly, no pleural effusion") == (
        "searched for: cardiomegaly; without: pleural effusion; prefers: chest"
    )
    assert said("no pneumothorax") == "without: pneumothorax; prefers: chest"
    assert said("left breast") == "searched for: left breast; prefers: breast; side: left"
    assert said(["a nodule", TextPart("CT", -1)]) == "searched for: a nodule; without: CT"
    assert said("no pneumothorax", literal=True) == "searched for: no pneumothorax"
    assert said("left chest nodule", fusion=Fusion.RRF) == "searched for: left chest nodule; side: left"
    assert said(["a nodule", ImagePart(PICTURE)]) == "searched for: a nodule + image"


def test_neither_the_depth_nor_the_number_of_answers_changes_the_order() -> None:
    world = World(7, count=150, reports=REPORTS)
    whole = world.search(Query("pleural effusion", k=150))
    assert whole.ranker == "hybrid" and len(whole.hits) == 150
    for k, depth in ((10, 1), (10, 1000), (50, 20)):
        some = world.search(Query("pleural effusion", k=k, depth=depth))
        assert [(hit.key, hit.score) for hit in some.hits] == [(hit.key, hit.score) for hit in whole.hits[:k]]


def test_a_filter_changes_no_score_of_what_passes() -> None:
    world = World(8, count=150, reports=REPORTS)
    scores = {hit.key: hit.score for hit in world.search(Query("pleural effusion", k=150)).hits}
    only = world.search(Query("pleural effusion", k=150, where=SearchFilter({"modality": ("CT",)})))
    assert 0 < len(only.hits) < 150
    for hit in only.hits:
        assert hit.score == pytest.approx(scores[hit.key], abs=1e-6)


def test_reports_join_reciprocal_ranks_as_one_more_list() -> None:
    world = World(31, reports=REPORTS)
    results = world.search(Query("pleural effusion", fusion=Fusion.RRF, k=60, depth=60))
    assert world.reports is not None
    bm25 = dict(zip(world.reports.studies.tolist(), world.reports.scores("pleural effusion"), strict=True))
    order = sorted((study for study in bm25 if bm25[study] > 0), key=lambda study: (-bm25[study], study))
    dense = world.frame_scores(Query("pleural effusion", fusion=Fusion.RRF, depth=60))
    for hit in results.hits:
        i, study = int(hit.key.frame_number), hit.attributes["study"]
        report = 1 / (61 + order.index(study)) if study in order else dense[i] if study not in bm25 else 0
        assert hit.breakdown == pytest.approx({"text": dense[i], "report": report})
        assert hit.score == pytest.approx(dense[i] + report)


def test_a_missing_modality_is_skipped_and_what_can_not_be_answered_is_said() -> None:
    world = World(20, reports=REPORTS)
    assert world.search(Query(ImagePart(PICTURE))).ranker == "dense"
    assert world.search(Query("zebra")).ranker == "dense"  # in no report
    assert World(20).search(Query("effusion", ranker="hybrid")).ranker == "dense"  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="no reports in the store"):
        World(20).search(Query("effusion", ranker="text"))  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="no words in the query"):
        world.search(Query(ImagePart(PICTURE), ranker="text"))  # type: ignore[arg-type]
    assert world.search(Query("zebra", ranker="text")).hits == ()  # type: ignore[arg-type]


# -- what can't be asked


@pytest.mark.parametrize(
    ("values", "said", "hinted"),
    [
        ({"ask": ""}, "empty", "medlens search"),
        ({"ask": []}, "empty", "medlens search"),
        ({"ask": ["x", TextPart(" \n", -1)]}, "negative part of the query is empty", ""),
        ({"ask": TextPart("x", -1)}, "every part of the query is negative", "--not"),
        ({"ask": TextPart("x", 0)}, "a weight is 0", "Leave"),
        ({"ask": TextPart("x", float("nan"))}, "a weight is nan", ""),
        ({"ask": "x", "k": 0}, "k is 0", ""),
        ({"ask": "x", "k": 2.5}, "k is 2.5", ""),
        ({"ask": "x", "k": True}, "k is True", ""),
        ({"ask": "x", "offset": -1}, "offset is -1", ""),
        ({"ask": "x", "fold": 1.5}, "fold is 1.5", ""),
        ({"ask": "x", "ranker": "hybird"}, "ranker is 'hybird'", "'hybrid'"),
        ({"ask": "x", "fusion": "summ"}, "fusion is 'summ'", "'sum'"),
        ({"ask": "x", "level": "studies"}, "level is 'studies'", "'study'"),
        ({"ask": "x", "one_per": "patients"}, "one_per is 'patients'", "'patient'"),
        ({"ask": "x", "pooling": "mean"}, "the level is frame", "study"),
        ({"ask": "x", "pooling": "late", "level": "study", "fusion": "max"}, "the fusion max can't do", "sum"),
        ({"ask": ImagePart(PICTURE, frame_number=0)}, "the frame number of a query image is 0", ""),
    ],
)
def test_what_can_not_be_asked_is_refused_with_a_reason(values: dict[str, Any], said: str, hinted: str) -> None:
    with pytest.raises(QueryError, match=said.replace("(", r"\(")) as caught:
        Query(**values)
    assert hinted in caught.value.hint


def test_weights_that_cancel_out_are_refused() -> None:
    for fusion in (Fusion.EMBEDDING, Fusion.AVERAGE, Fusion.SUM, Fusion.RRF):
        with pytest.raises(QueryError, match="cancel out"):
            World(1).search(Query(["x", TextPart("x", -1)], fusion=fusion))


def test_a_part_of_another_type_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="int"):
        Query([7])  # type: ignore[list-item]
    assert issubclass(EmptyQuery, MedlensError)


def test_a_query_says_itself_without_folders() -> None:
    query = Query(["chest tube", Path("/data/DOE^JOHN/prior.dcm"), TextPart("cardiomegaly", -0.5)])
    assert str(query) == '"chest tube" + image prior.dcm - 0.5 "cardiomegaly"'
    assert query.names == ("text", "image", "not")
    assert str(Query("  chest \n tube ")) == "chest tube"


def test_a_number_that_python_does_not_read_is_refused() -> None:
    assert Query("&#" + "9" * 4000 + ";").names == ("text",)
    with pytest.raises(QueryError, match="more than 4,000 digits"):
        Query("mass &#" + "9" * 4001 + ";")
