"""Text or image in, ranked frames out. Sees protocols only: no torch, no FAISS, no SQL."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.errors import EmptyQuery
from retrieval.types import Catalog, Encoder, Hit, SearchFilter, SearchResults, Uint8Image, VectorIndex


class Searcher:
    """Searches the frames of one catalog through one index, both made with the encoder's model."""

    def __init__(self, encoder: Encoder, index: VectorIndex, catalog: Catalog) -> None:
        self.encoder = encoder
        self.index = index
        self.catalog = catalog

    def search_text(self, query: str, k: int = 10, where: SearchFilter = SearchFilter()) -> SearchResults:
        """The `k` frames nearest to a text among those that pass `where`. Raises EmptyQuery for blanks."""
        text = " ".join(query.split())
        if not text:
            raise EmptyQuery("the query is empty")
        return self.search_vector(self.encoder.encode_text([text])[0], k, where, query=text)

    def search_image(
        self,
        image: Uint8Image,
        k: int = 10,
        where: SearchFilter = SearchFilter(),
        *,
        query: str = "image",
    ) -> SearchResults:
        """The `k` frames nearest to a picture, uint8 [H, W] or [H, W, 3]. `query` names it in the results."""
        return self.search_vector(self.encoder.encode_images([image])[0], k, where, query=query)

    def search_vector(
        self,
        vector: npt.NDArray[np.float32],
        k: int,
        where: SearchFilter = SearchFilter(),
        *,
        query: str,
    ) -> SearchResults:
        """The same for a vector [embed_dim] of unit norm."""
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        ids = self.catalog.ids_matching(where) if where else None
        ranked = self.index.search(vector[None, :], k, ids)[0]
        found = self.catalog.get(i for i, _ in ranked)
        # A row that was deleted after the index was read has no place among the answers.
        alive = [(found[i], score) for i, score in ranked if i in found]
        hits = tuple(Hit(rank, score, key, values) for rank, ((key, values), score) in enumerate(alive, 1))
        return SearchResults(query, self.encoder.name, hits, None if ids is None else len(ids))
