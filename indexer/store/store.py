"""A store: catalog, vector indexes, the key of the pseudonyms, and the model that everything in it was made with.

Put together from its place (`place`), the files derived from its catalog (`derived`), and its questions (`questions`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.store.derived import CPU, DerivedFiles
from indexer.store.place import StorePlace, create_place, open_place, upgrade_place
from indexer.store.place import is_url as is_url

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


class Store:
    """Open one with `Store.open`, make one with `Store.create`; close it, or use it in a `with`.

    Safe to use from several threads. `device`, wherever it is asked for, is `auto`, `cpu`, `cuda` or `cuda:N`, and
    means the same for the model and for the index: on a GPU that is named both work. `auto` takes a GPU for the model
    where there is one, and leaves the index on the processor.
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
        """Make a store at a directory or a database URL, for the model that `spec_json` describes.

        `spec_json` has `name`, `weights_sha256`, `embed_dim`, and whatever else makes vectors comparable. The place may
        be an empty directory; StoreError if anything is there. Nothing is left behind if it fails.

        The store is its owner's alone (0700, files 0600), or may also be read by the users of `group` (0750, 0640, the
        key 0600). Rights that the owner gives later are kept.
        """
        create_place(location, spec_json, local_dir=local_dir, group=group)
        return cls.open(location, local_dir=local_dir)

    @classmethod
    def upgrade(cls, location: str | Path) -> bool:
        """Bring a store that an older medlens wrote to the present schema; whether there was anything to do.

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

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it is

    @property
    def manifest(self) -> Manifest:
        """The store's settings. `model` is the model's description, `store_id` never changes."""
        return self.place.manifest

    @property
    def model(self) -> dict[str, Any]:
        """The model that the store belongs to: what it is, not where it lies."""
        return self.place.model

    def require_model(self, spec_json: Mapping[str, Any]) -> None:
        """StoreIncompatible unless the store's vectors are of this model. See `StorePlace.require_model`."""
        self.place.require_model(spec_json)

    def notes_on(self, where: SearchFilter) -> tuple[str, ...]:
        """What is to be said of a filter's answers. See `StorePlace.notes_on`."""
        return self.place.notes_on(where)

    @property
    def pseudonym_key(self) -> bytes:
        """32 bytes. StoreError if the key is missing, StoreIncompatible if it is another store's."""
        return self.place.pseudonym_key

    @property
    def erasures(self) -> Erasures:
        """What tells files that were erased, made with the store's key. Raises as `pseudonym_key` does."""
        return self.place.erasures

    # -- what is derived from it

    def index(self, kind: VectorKind, device: str = CPU) -> StoreIndex:
        """The index of one set of vectors, caught up with the catalog. See `DerivedFiles.index`."""
        return self.derived.index(kind, device)

    def frames_index(self, device: str = CPU) -> StoreIndex:
        """The index of the frames' vectors, caught up with the catalog; on `cuda` or `cuda:N` a GPU searches it."""
        return self.derived.index("frame", device)

    def sentences_index(self, device: str = CPU) -> StoreIndex:
        """The index of the report sentences' vectors, caught up with the catalog."""
        return self.derived.index("sentence", device)

    def reports_index(self) -> ReportIndex:
        """The BM25 index of the studies' reports, as the catalog has them now."""
        return self.derived.reports()

    def refresh(self) -> None:
        """Bring the indexes and their files up to the catalog. See `DerivedFiles.refresh`."""
        self.derived.refresh()

    def erase(self, where: SearchFilter, *, keep_out: bool = True) -> int:
        """Erase what a filter matches from the catalog and from every file derived of it; how many instances went.

        With `keep_out`, `medlens index` does not take it in again: see `catalog.erasure`. Without, or once the files
        are gone from the archive, nothing of it is remembered. Erasing what is gone already finishes an erasure that
        was interrupted. Raises what `SqlCatalog.delete_matching` raises; QueryError for a filter that makes no sense.
        """
        erased = self.erasures if keep_out else None
        gone = self.catalog.instances.delete_matching(where, erased)
        self.refresh()
        return gone

    # -- what can be asked of it

    def search(
        self,
        query: Query | PartLike,
        *,
        encoder: Encoder | None = None,
        device: str | None = None,
        steps: Sequence[RankingStep] = (),
    ) -> SearchResults:
        """The answers to a query; a text, an image file or a frame of the store alone is a query, too.

        `encoder` is the store's model, loaded already; without it the model is loaded on `device` when it is first
        needed, and kept. The index is searched on `device`; if none is named, on the encoder's. Each of `steps` makes a
        ranking of the one before, as a reranker does. Raises QueryError for what can't be asked or answered, DicomError
        for a query image that can't be used, StoreError for a device that is not there.
        """
        from retrieval.search.query import Query

        asked = query if isinstance(query, Query) else Query(query)
        return self._searching().search(asked, encoder, device, steps)

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
        """The `k` sentences of the store's reports nearest to an image, or of `phrases` if any are given.

        With `borrow`, that many more follow: the best sentence of each of the studies whose pictures are most like the
        image, marked as borrowed. They are words about other pictures, not a diagnosis. `encoder` and `device` are as
        for `search`, which it raises as.
        """
        return self._searching().describe(image, encoder, device, k=k, phrases=phrases, borrow=borrow)

    def _searching(self) -> StoreSearch:
        from indexer.store.searching import StoreSearch

        with self._lock:
            self._search = self._search or StoreSearch(self.place, self.derived)
            return self._search
