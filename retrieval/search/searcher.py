"""Answers queries. Depends on protocols only: no torch, no FAISS, no SQL.

One `RowFilter` per query describes the rows that may be answers; every call of the index gets it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.errors import QueryError
from retrieval.language.header_terms import HeaderTerms, header_terms
from retrieval.language.sides import only_side
from retrieval.search.bm25 import ReportIndex
from retrieval.search.hybrid import SAMPLE, HybridRanking, ReportScores, TextRanking, UsualScores, with_reports
from retrieval.search.interpret import frames_of_other_side, reading_of, separate_negations
from retrieval.search.levels import answers
from retrieval.search.long_texts import encode_whole
from retrieval.search.preferring import PENALTY, PreferringRanking
from retrieval.search.query import Fusion, ImagePart, Pooling, Query, Ranker, TextPart
from retrieval.search.ranking import Ranking, RankingStep, ReciprocalRanks, cancelled, dense_ranking
from retrieval.search.unusual import familiarity, is_unusual
from retrieval.types import (
    Catalog,
    Embedding,
    Embeddings,
    Encoder,
    Hit,
    RowFilter,
    SearchFilter,
    SearchResults,
    Uint8Image,
    VectorIndex,
    is_picture,
)

_NO_GOOD_MATCH = (
    "no good match: these words are rare in radiology and no report has most of them, so the results may be no better "
    "than chance; try other words, or English words"
)


class Searcher:
    """Searches the frames of one catalog through one index. Both must be made with the encoder's model.

    `reports` is the BM25 index of the studies' reports; None if there are no reports.
    """

    def __init__(
        self, encoder: Encoder, index: VectorIndex, catalog: Catalog, reports: ReportIndex | None = None
    ) -> None:
        self.encoder = encoder
        self.index = index
        self.catalog = catalog
        self.reports = reports

    def search(
        self,
        query: Query,
        *,
        pictures: Sequence[Uint8Image | Embedding] | None = None,
        excluded_patients: Sequence[str] = (),
        steps: Sequence[RankingStep] = (),
    ) -> SearchResults:
        """The answers to a query.

        `pictures` are the pixels of the query's image parts, or the embeddings [D] of those parts. They are required if
        an image part is a file or a frame of a store. `excluded_patients` are the pseudonyms of patients that must not
        be among the answers. Each of `steps` wraps the ranking before it; the last ranking decides the answers.

        Raises QueryError for parts that cancel out, and for the text ranker without words or without reports.
        """
        terms = HeaderTerms() if query.literal else header_terms(p.text for p in query.texts if p.weight > 0)
        original, query = query, separate_negations(query, terms.body_parts)
        side = None if query.literal else only_side(part.text for part in query.texts if part.weight > 0)
        allowed, notes = self._of_the_side(side, self._allowed(query.where, excluded_patients))
        searched = None if allowed is None else len(allowed.ids)  # raises for an invalid filter
        ranker, found = self._ranker(query)
        vectors, unread = (None, ()) if ranker is Ranker.TEXT else self._encoded(query, pictures)
        notes += unread
        if ranker is Ranker.TEXT or query.fusion is Fusion.RRF or query.pooling is Pooling.LATE:
            terms = HeaderTerms()  # these do not use the header, and the reading of the query must not say so
        ranking = self._ranking(query, found, allowed, vectors, terms)
        for step in steps:
            ranking = step(ranking, query)
        page = answers(query, ranking, self.catalog, allowed)
        if ranking.depth is not None and len(page) < query.k:
            _require_whole(ranking.depth, len(self.index) if searched is None else searched)
        own = ranking.breakdown([answer.frame for answer in page if answer.breakdown is None])
        rows = self.catalog.get(answer.frame for answer in page)
        hits = tuple(
            Hit(rank, answer.score, *rows[answer.frame], answer.breakdown or own.get(answer.frame, {}), answer.folded)
            for rank, answer in enumerate((a for a in page if a.frame in rows), query.offset + 1)
        )
        scale, understood = _scale(query, ranking), reading_of(query, terms, side)
        good_match, remarks = self._match(original, found)
        return SearchResults(
            str(original),
            self.encoder.name,
            hits,
            searched,
            str(ranker),
            scale,
            (*notes, *remarks),
            understood,
            good_match,
        )

    def _match(self, query: Query, found: ReportScores | None) -> tuple[bool, tuple[str, ...]]:
        """Whether the words of a query can have a good match, and remarks on them."""
        texts = [part.text for part in query.texts if part.weight > 0]
        reports = self.reports
        familiar = familiarity(texts, lambda word: reports is not None and word in reports.words)
        remarks: tuple[str, ...] = ()
        if familiar.unknown:
            remarks = (f"unknown words (check their spelling): {', '.join(familiar.unknown)}",)
        if not texts or query.images or not is_unusual(familiar, found.coverage if found is not None else 0.0):
            return True, remarks
        return False, (*remarks, _NO_GOOD_MATCH)

    def search_text(self, query: str, k: int = 10, where: SearchFilter = SearchFilter()) -> SearchResults:
        """The `k` frames nearest to a text among those that pass `where`. Raises EmptyQuery for a blank text."""
        return self.search(Query(query, ranker=Ranker.DENSE, k=k, where=where))

    def search_image(self, image: Uint8Image, k: int = 10, where: SearchFilter = SearchFilter()) -> SearchResults:
        """The `k` frames nearest to an image, uint8 [H, W] or [H, W, 3]."""
        return self.search(Query(ImagePart(image), ranker=Ranker.DENSE, k=k, where=where))

    def _allowed(self, where: SearchFilter, excluded: Sequence[str]) -> RowFilter | None:
        if not where and not excluded:
            return None
        theirs = self._passing(SearchFilter({"patient_pseudonym": tuple(excluded)}))
        return self._passing(where).excluding(theirs) if excluded else self._passing(where)

    def _passing(self, where: SearchFilter) -> RowFilter:
        return RowFilter(where, self.catalog.ids_matching)

    def _of_the_side(self, side: str | None, allowed: RowFilter | None) -> tuple[RowFilter | None, tuple[str, ...]]:
        """Exclude the frames whose header names the other side than the query. Also returns notes about that.

        A model that was trained on captions hardly distinguishes the sides in an image; the header names them.
        """
        if side is None:
            return allowed, ()
        others = frames_of_other_side(side, self.catalog.ids_matching)
        if not any(len(other.ids) for other in others):
            return allowed, ()
        before = allowed or self._passing(SearchFilter())
        after = before.excluding(*others)
        gone = len(before.ids) - len(after.ids)
        if not gone:
            return allowed, ()
        note = f"{gone} frames whose header names the side opposite to {side} were left out; a literal query keeps them"
        return after, (note,)

    def _ranker(self, query: Query) -> tuple[Ranker, ReportScores | None]:
        """The ranker to use, with the reports' scores if it needs them. Hybrid becomes dense where reports can't
        help."""
        if query.ranker is Ranker.DENSE or not query.texts or self.reports is None or not len(self.reports):
            if query.ranker is Ranker.TEXT:
                lacking = "words in the query" if not query.texts else "reports in the store"
                raise QueryError(
                    f"the text ranker compares words with reports, and there are no {lacking}",
                    hint="Use the dense ranker: --ranker dense.",
                )
            return Ranker.DENSE, None
        found = ReportScores(query, self.reports)
        if query.ranker is Ranker.TEXT:
            if not found.total.any() and any(scores.any() for scores in found.parts.values()):
                raise cancelled()
            return Ranker.TEXT, found
        return (Ranker.HYBRID, found) if found else (Ranker.DENSE, None)

    def _ranking(
        self,
        query: Query,
        found: ReportScores | None,
        allowed: RowFilter | None,
        vectors: Embeddings | None,
        terms: HeaderTerms,
    ) -> Ranking:
        """The ranking by the parts' `vectors` and by the reports; by the reports alone without vectors."""
        if vectors is None:
            if found is None:
                raise ValueError("a ranking needs vectors or reports")
            return TextRanking(found, self.catalog, allowed)
        halves = self._halves(terms, allowed)
        if found is None and halves is None:
            return dense_ranking(query, vectors, self.index, allowed)
        if query.fusion is Fusion.RRF and found is not None:
            ranks = ReciprocalRanks.search(query, vectors, self.index, allowed)
            return with_reports(ranks, found, self.catalog, allowed)
        usual = UsualScores.of(dense_ranking(query, vectors, self.index, None), self.index.sample(SAMPLE))

        def ranking(of: RowFilter | None) -> Ranking:
            dense = dense_ranking(query, vectors, self.index, of)
            return dense if found is None else HybridRanking(dense, found, self.catalog, of, usual)

        if halves is None:
            return ranking(allowed)
        agreeing, rest = halves
        return PreferringRanking(ranking(agreeing), ranking(rest), PENALTY * (usual.spread if found is None else 1.0))

    def _halves(self, terms: HeaderTerms, allowed: RowFilter | None) -> tuple[RowFilter, RowFilter] | None:
        """The frames whose header contradicts none of the terms, and the rest; None if no frame contradicts any."""
        if not terms.contradictions:
            return None
        before = allowed or self._passing(SearchFilter())
        agreeing = before.excluding(*(self._passing(where) for where in terms.contradictions))
        return None if len(agreeing.ids) == len(before.ids) else (agreeing, before.excluding(agreeing))

    def _encoded(
        self, query: Query, pictures: Sequence[Uint8Image | Embedding] | None
    ) -> tuple[Embeddings, tuple[str, ...]]:
        """[parts, D], in the order of the parts, and the notes of `encode_whole`."""
        texts, notes = encode_whole(self.encoder, [part.text for part in query.texts]) if query.texts else ((), ())
        shown = [_pixels(part) for part in query.images] if pictures is None else pictures
        pixels = [picture for picture in shown if is_picture(picture)]
        encoded = iter(self.encoder.encode_images(pixels) if pixels else ())
        given, seen = iter(texts), iter([next(encoded) if is_picture(picture) else picture for picture in shown])
        vectors: Embeddings = np.stack(
            [next(given) if isinstance(part, TextPart) else next(seen) for part in query.parts]
        )
        return vectors, notes


def _pixels(part: ImagePart) -> Uint8Image:
    if not isinstance(part.image, np.ndarray):
        raise TypeError(
            "the query contains an image without pixels; expected its pixels or its embedding in `pictures`"
        )
    return part.image


def _require_whole(depth: int, searched: int) -> None:
    """Raise QueryError if a page is short because the ranking ends at its depth although more frames are searched."""
    if searched > depth:
        raise QueryError(
            f"the page lies below the depth of the ranking ({depth}) although {searched} frames are searched",
            hint="Use a greater depth, or request an earlier page.",
        )


def _scale(query: Query, ranking: Ranking) -> str:
    """What the scores of the answers mean, in words."""
    if query.pooling is Pooling.MEAN:
        return f"{ranking.scale}; the mean of a {query.level}'s best {query.best} frames"
    if query.pooling is Pooling.LATE:
        return f"{ranking.scale}; each part by the frame of the {query.level} that fits the part best"
    return ranking.scale
