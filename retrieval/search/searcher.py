"""A query in, ranked answers out. Sees protocols only: no torch, no FAISS, no SQL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.errors import QueryError
from retrieval.language.sides import only_side
from retrieval.search.bm25 import ReportIndex
from retrieval.search.hybrid import HybridRanking, ReportScores, TextRanking, with_reports
from retrieval.search.interpret import frames_of_other_side, separate_negations
from retrieval.search.levels import answers
from retrieval.search.query import Fusion, ImagePart, Pooling, Query, Ranker, TextPart
from retrieval.search.ranking import Ids, Ranking, ReciprocalRanks, cancelled, dense_ranking
from retrieval.types import Catalog, Embeddings, Encoder, Hit, SearchFilter, SearchResults, Uint8Image, VectorIndex

_SCALES = {
    Fusion.EMBEDDING: "cosine similarity to the weighted sum of the parts' embeddings",
    Fusion.AVERAGE: "weighted average of the parts' cosine similarities",
    Fusion.SUM: "weighted sum of the parts' cosine similarities",
    Fusion.MAX: "best weighted cosine similarity of the parts",
    Fusion.RRF: "weighted sum of 1 / (60 + rank)",
}


class Searcher:
    """Searches the frames of one catalog through one index, both made with the encoder's model.

    `reports` is the BM25 index of the studies' reports, or what gives it when it is needed; None without reports.
    """

    def __init__(
        self, encoder: Encoder, index: VectorIndex, catalog: Catalog, reports: ReportIndex | None = None
    ) -> None:
        self.encoder = encoder
        self.index = index
        self.catalog = catalog
        self.reports = reports

    def search(
        self, query: Query, *, pictures: Sequence[Uint8Image] | None = None, excluded_patients: Sequence[str] = ()
    ) -> SearchResults:
        """The answers to a query.

        `pictures` are the pixels of its image parts, needed where those are files. `excluded_patients` are pseudonyms
        of those who may not be among the answers.

        Raises QueryError for parts that cancel out, and for the text ranker without words or without reports.
        """
        said, query = query, separate_negations(query)
        ids = self._allowed(query.where, excluded_patients)
        ids, notes = self._of_the_side(query, ids)
        ranker, found = self._ranker(query)
        ranking = self._ranking(query, ranker, found, ids, pictures)
        page = answers(query, ranking, self.catalog, ids)
        if isinstance(ranking, ReciprocalRanks) and len(page) < query.k:
            self._require_whole(query, len(self.index) if ids is None else len(ids))
        own = ranking.breakdown([answer.frame for answer in page if answer.breakdown is None])
        rows = self.catalog.get(answer.frame for answer in page)
        hits = tuple(
            Hit(rank, answer.score, *rows[answer.frame], answer.breakdown or own.get(answer.frame, {}), answer.folded)
            for rank, answer in enumerate((a for a in page if a.frame in rows), query.offset + 1)
        )
        searched = None if ids is None else len(ids)
        return SearchResults(str(said), self.encoder.name, hits, searched, str(ranker), _scale(query, ranker), notes)

    def search_text(self, query: str, k: int = 10, where: SearchFilter = SearchFilter()) -> SearchResults:
        """The `k` frames nearest to a text among those that pass `where`. Raises EmptyQuery for blanks."""
        return self.search(Query(query, ranker=Ranker.DENSE, k=k, where=where))

    def search_image(self, image: Uint8Image, k: int = 10, where: SearchFilter = SearchFilter()) -> SearchResults:
        """The `k` frames nearest to a picture, uint8 [H, W] or [H, W, 3]."""
        return self.search(Query(ImagePart(image), ranker=Ranker.DENSE, k=k, where=where))

    def _allowed(self, where: SearchFilter, excluded: Sequence[str]) -> Ids | None:
        if not where and not excluded:
            return None
        ids = self.catalog.ids_matching(where)
        if not excluded:
            return ids
        gone = self.catalog.ids_matching(SearchFilter({"patient_pseudonym": tuple(excluded)}))
        return ids[~np.isin(ids, gone)]

    def _of_the_side(self, query: Query, ids: Ids | None) -> tuple[Ids | None, tuple[str, ...]]:
        """Without the frames whose header says the side that the query does not ask for; and what is to be said of it.

        A model that was trained on captions hardly tells sides in pictures; the header knows, where it says."""
        side = None if query.literal else only_side(part.text for part in query.texts if part.weight > 0)
        if side is None:
            return ids, ()
        other = frames_of_other_side(side, self.catalog)
        if not len(other):
            return ids, ()
        kept = self.catalog.ids_matching(SearchFilter()) if ids is None else ids
        left = kept[~np.isin(kept, other)]
        gone = len(kept) - len(left)
        if not gone:
            return ids, ()
        said = f"{gone} frames whose header says the other side than {side} were left out; a literal query keeps them"
        return left, (said,)

    @staticmethod
    def _require_whole(query: Query, searched: int) -> None:
        """QueryError if a page is short because ranks end at a depth, and not because there is nothing more."""
        if searched > query.depth:
            raise QueryError(
                f"reciprocal ranks go to a depth of {query.depth}, and this page lies deeper: {searched} are searched",
                hint="Ask with a greater depth, or for an earlier page.",
            )

    def _ranker(self, query: Query) -> tuple[Ranker, ReportScores | None]:
        """Which ranker answers, with the reports' scores if it needs them. What is missing is skipped if it can be."""
        if query.ranker is Ranker.DENSE or not query.texts or self.reports is None or not len(self.reports):
            if query.ranker is Ranker.TEXT:
                lacking = "words in the query" if not query.texts else "reports in the store"
                raise QueryError(
                    f"the text ranker compares words with reports, and there are no {lacking}",
                    hint="Use the ranker dense.",
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
        ranker: Ranker,
        found: ReportScores | None,
        ids: Ids | None,
        pictures: Sequence[Uint8Image] | None,
    ) -> Ranking:
        if ranker is Ranker.TEXT and found is not None:
            return TextRanking(found, self.catalog, ids)
        dense = dense_ranking(query, self._encoded(query, pictures), self.index, ids)
        if found is None:
            return dense
        if isinstance(dense, ReciprocalRanks):
            return with_reports(dense, found, self.catalog, ids, query.depth)
        return HybridRanking(dense, found, self.catalog, ids, query.depth)

    def _encoded(self, query: Query, pictures: Sequence[Uint8Image] | None) -> Embeddings:
        """[parts, D], in the order of the parts."""
        texts = self.encoder.encode_text([part.text for part in query.texts]) if query.texts else ()
        shown = [_pixels(part) for part in query.images] if pictures is None else pictures
        images = self.encoder.encode_images(shown) if shown else ()
        given, seen = iter(texts), iter(images)
        return np.stack([next(given) if isinstance(part, TextPart) else next(seen) for part in query.parts])


def _pixels(part: ImagePart) -> Uint8Image:
    if not isinstance(part.image, np.ndarray):
        raise TypeError("the query names an image file, and its pixels are not given")
    return part.image


def _scale(query: Query, ranker: Ranker) -> str:
    """What a score is, in words."""
    if ranker is Ranker.TEXT:
        scale = "BM25 of the study's report"
    elif ranker is Ranker.HYBRID and query.fusion is not Fusion.RRF:
        scale = (
            "half the picture's and half the report's score, each from 0 to 1; the picture's where there is no report"
        )
    else:
        parts = query.parts
        one = len(parts) == 1 and (parts[0].weight == 1 or query.fusion in (Fusion.EMBEDDING, Fusion.AVERAGE))
        scale = "cosine similarity" if one and query.fusion is not Fusion.RRF else _SCALES[query.fusion]
    if query.pooling is Pooling.MEAN:
        return f"{scale}; the mean of a {query.level}'s best {query.best} frames"
    if query.pooling is Pooling.LATE:
        return f"{scale}; each part by the frame of the {query.level} that fits it best"
    return scale
