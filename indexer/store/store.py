"""A store: catalog, vector indexes, pseudonym key, and the model that made all of its vectors.

It consists of its place (`place`), the files derived from its catalog (`derived`), and its searches (`searching`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from indexer.store.derived import CPU, DerivedFiles
from indexer.store.place import StorePlace, create_place, open_place, upgrade_place
from indexer.store.place import is_url as is_url
from retrieval.errors import StoreCorrupt

if TYPE_CHECKING:
    from indexer.catalog.erasure import Erasures
    from indexer.catalog.manifest import Manifest
    from indexer.store.searching import StoreSearch
    from indexer.vector_sets import VectorKind
    from indexer.vectors.port import StoreIndex
    from retrieval.search.bm25 import ReportIndex
    from retrieval.search.describe import SentenceHit
    from retrieval.search.query import ImagePart, PartLike, Query
    from retrieval.search.ranking import RankingStep
    from retrieval.search.refs import StoredRef
    from retrieval.types import Encoder, SearchFilter, SearchResults


_OF_WRONG_VALUES = (TypeError, ValueError, AttributeError, LookupError, OverflowError)


class Store:
    """A store. Open one with `Store.open`, create one with `Store.create`; close it, or use it in a `with`.

    Safe to use from several threads. `device` is always `auto`, `cpu`, `cuda` or `cuda:N`, for the model and the index
    alike: on a GPU that is named, both run. `auto` uses a GPU for the model if there is one, and the CPU for the index.
    """

    def __init__(self, place: StorePlace) -> None:
        self.place = place
        self.catalog = place.catalog
        self.label = place.label
        self.derived = DerivedFiles(place)
        self._search: StoreSearch | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls,
        location: str | Path,
        spec_json: Mapping[str, Any],
        *,
        local_dir: Path | None = None,
        group: str | None = None,
    ) -> Store:
        """Create a store in a directory or at a database URL, for the model that `spec_json` describes.

        `spec_json` has `name`, `weights_sha256`, `embed_dim`, and everything else that makes vectors comparable. The
        place may be an empty directory; StoreError if it contains anything. Nothing is left behind if it fails.

        Only its owner may use the store (0700, files 0600), or the users of `group` may also read it (0750, 0640, the
        key 0600). Rights that the owner changes later are kept.
        """
        create_place(location, spec_json, local_dir=local_dir, group=group)
        return cls.open(location, local_dir=local_dir)

    @classmethod
    def upgrade(cls, location: str | Path) -> bool:
        """Update a store that an older medlens wrote to the current schema. Returns whether anything had to be done.

        A store in a folder is backed up first. Raises as `SqlCatalog.upgrade` does.
        """
        return upgrade_place(location)

    @classmethod
    def open(cls, location: str | Path, *, local_dir: Path | None = None) -> Store:
        """Open a store. Raises StoreNotFound, StoreIncompatible (a newer schema), StoreCorrupt, or StoreError."""
        return cls(open_place(location, local_dir=local_dir))

    def close(self) -> None:
        self.derived.forget()
        self.place.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(exc, _OF_WRONG_VALUES):
                self._require_own_values(exc)
        finally:
            self.close()

    def _require_own_values(self, exc: BaseException) -> None:
        """StoreCorrupt if the catalog holds values that its columns can't, which may have been what failed.

        SQLite lets anybody write a text where a number belongs. To look at each value as it is read would cost every
        store what one in a million needs; so it is looked at when something went wrong.
        """
        from indexer.catalog.errors import CORRUPT_HINT

        _, found = self.catalog.checks.mistyped()
        if found:
            raise StoreCorrupt(
                f"the catalog of {self.label} holds values of another type than their column: {', '.join(found)}",
                hint=CORRUPT_HINT,
            ) from exc

    # -- properties

    @property
    def manifest(self) -> Manifest:
        """The store's settings. `model` is the description of the model; `store_id` never changes."""
        return self.place.manifest

    @property
    def model(self) -> dict[str, Any]:
        """The description of the store's model, without its location."""
        return self.place.model

    def require_model(self, spec_json: Mapping[str, Any]) -> None:
        """Raise StoreIncompatible unless the store's vectors are of this model. See `StorePlace.require_model`."""
        self.place.require_model(spec_json)

    def notes_on(self, where: SearchFilter) -> tuple[str, ...]:
        """What is to be said of a filter's answers: see `former_label_notes`."""
        from indexer.store.former_labels import former_label_notes

        return former_label_notes(self.catalog, where)

    @property
    def pseudonym_key(self) -> bytes:
        """The key, 32 bytes. Raises StoreError if it is missing, StoreIncompatible if it belongs to another store."""
        return self.place.pseudonym_key

    @property
    def erasures(self) -> Erasures:
        """The digests of erased files, made with the store's key. Raises as `pseudonym_key` does."""
        return self.place.erasures

    # -- derived files

    def index(self, kind: VectorKind, device: str = CPU) -> StoreIndex:
        """Return the index of one set of vectors, updated from the catalog. See `DerivedFiles.index`."""
        return self.derived.index(kind, device)

    def frames_index(self, device: str = CPU) -> StoreIndex:
        """The index of the frames' vectors, updated from the catalog; on `cuda` or `cuda:N` a GPU searches it."""
        return self.derived.index("frame", device)

    def sentences_index(self, device: str = CPU) -> StoreIndex:
        """Return the index of the report sentences' vectors, updated from the catalog."""
        return self.derived.index("sentence", device)

    def reports_index(self) -> ReportIndex:
        """Return the BM25 index of the studies' reports in their current state."""
        return self.derived.reports()

    def refresh(self) -> None:
        """Update the indexes and their files from the catalog. See `DerivedFiles.refresh`."""
        self.derived.refresh()

    def erase(self, where: SearchFilter, *, keep_out: bool = True) -> int:
        """Erase what a filter matches from the catalog and from every derived file. Returns the number of instances.

        With `keep_out`, `medlens index` does not add it again: see `catalog.erasure`. Without it, or once the files are
        gone from the archive, nothing of it remains. Erasing what is gone already completes an interrupted erasure.
        Raises what `SqlCatalog.delete_matching` raises, and QueryError for an invalid filter.
        """
        erased = self.erasures if keep_out else None
        gone = self.catalog.instances.delete_matching(where, erased)
        self.refresh()
        return gone

    # -- searches

    def search(
        self,
        query: Query | PartLike,
        *,
        encoder: Encoder | None = None,
        device: str | None = None,
        steps: Sequence[RankingStep] = (),
    ) -> SearchResults:
        """Return the results of a query. A text, an image file or a frame of the store can be given instead of a Query.

        `encoder` is the store's model, loaded already; without it, the model is loaded on `device` on first use, and
        kept. The index is searched on `device`, by default on the encoder's. Each of `steps` makes a ranking from the
        one before, as a reranker does. Raises QueryError for an invalid query, DicomError for a query image that can't
        be used, StoreError for a missing device.
        """
        from retrieval.search.query import Query

        request = query if isinstance(query, Query) else Query(query)
        return self._searching().search(request, encoder, device, steps)

    def describe(
        self,
        image: Path | StoredRef | ImagePart,
        *,
        k: int = 5,
        phrases: Sequence[str] = (),
        borrow: int = 0,
        encoder: Encoder | None = None,
        device: str | None = None,
    ) -> tuple[SentenceHit, ...]:
        """Return the `k` sentences of the store's reports nearest to an image, or of `phrases` if any are given.

        With `borrow`, that many more follow: the best sentence of each of the studies whose pictures are most similar
        to the image, marked as borrowed. They were written about other pictures and are not a diagnosis. `encoder`,
        `device` and errors are those of `search`.
        """
        return self._searching().describe(image, encoder, device, k=k, phrases=phrases, borrow=borrow)

    def _searching(self) -> StoreSearch:
        from indexer.store.searching import StoreSearch

        with self._lock:
            self._search = self._search or StoreSearch(self.place, self.derived)
            return self._search
