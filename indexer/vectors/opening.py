"""How an index comes from its file and the catalog, and goes back to the file.

Whatever is wrong with the file, the catalog has everything: a file that is missing, damaged, of another store or of
another state of this one is built anew. Who writes holds a lock, so that of two writers the second goes on from what
the first has written; readers need none, for they keep the file that they opened.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.on_disk import locked
from indexer.vector_sets import VectorKind
from indexer.vectors.file import Outdated, reason
from indexer.vectors.index import CatalogIndex, CaughtUp
from indexer.vectors.parts import VectorSource
from retrieval.errors import StoreCorrupt, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Whose index it is and where its file lies."""

    path: Path
    dim: int
    kind: VectorKind
    store_id: str


def open_index(place: Place, catalog: VectorSource) -> CatalogIndex:
    """The index in the file, caught up with the catalog and written back where that pays; rebuilt if it is no good.

    Deletions are always written back, so that erased vectors leave the file; additions once they are a twentieth of it.
    """
    before = _signature(place.path)
    index, caught = _caught_up(place, catalog)
    if caught.removed:
        index = _written(place, catalog, index, before)
    elif caught.anew or caught.added > max(1000, len(index) // 20):
        try:
            index = _written(place, catalog, index, before)
        except StoreError as exc:
            log.warning("%s; searching goes on without it", exc)
    return _renewable(index, place, catalog)


def refreshed(place: Place, catalog: VectorSource) -> CatalogIndex:
    """The index caught up with the catalog, and its file too. StoreError if that can't be written."""
    before = _signature(place.path)
    index, caught = _caught_up(place, catalog)
    index = _written(place, catalog, index, before) if caught or before is None else index
    return _renewable(index, place, catalog)


def _renewable(index: CatalogIndex, place: Place, catalog: VectorSource) -> CatalogIndex:
    """The index, which is built anew from the catalog should its file turn out to be damaged when it is read.

    Its file has let go what was erased, so that an index that can't be written is used all the same.
    """

    def renewed() -> CatalogIndex:
        anew = CatalogIndex(place.dim, place.kind, place.store_id)
        anew.catch_up(catalog)
        try:
            with writing(place):
                anew.save(place.path)
            return CatalogIndex.load(place.path)
        except StoreError as exc:
            log.warning("%s; searching goes on without it", exc)
            return anew

    index.renew = renewed
    return index


def _written(place: Place, catalog: VectorSource, index: CatalogIndex, before: tuple[int, ...] | None) -> CatalogIndex:
    """Write the index, which was made from the file that was there `before`; if another is there, from that one."""
    with writing(place):
        if _signature(place.path) != before:
            index, _ = _caught_up(place, catalog)
        try:
            index.save(place.path)
        except StoreCorrupt as exc:
            log.warning("%s; building it anew from the catalog", exc)
            index, _ = _from_nothing(place, catalog)
            index.save(place.path)
        return CatalogIndex.load(place.path)


def _signature(path: Path) -> tuple[int, ...] | None:
    """What tells one file of this name from another; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def writing(place: Place) -> Iterator[None]:
    """Held by one process at a time, for as long as it makes a new file of an index.

    An unfinished file that is there then is of a process that was killed, and may hold what was erased since: it goes.
    """
    try:
        with locked(place.path.parent):
            yield
    except OSError as exc:
        raise StoreError(
            f"the index file {place.path.name} can't be written: {reason(exc, place.path)}",
            hint="Make room and check permissions; the catalog has everything, nothing is lost.",
        ) from exc


def _caught_up(place: Place, catalog: VectorSource) -> tuple[CatalogIndex, CaughtUp]:
    """The index as the catalog has it. A file that was no good counts as a removal: it has to be overwritten."""
    try:
        index = CatalogIndex.load(place.path)
        if (index.dim, index.kind, index.store_id) == (place.dim, place.kind, place.store_id):
            caught = _followed(index, catalog)
            if caught is not None:
                return index, caught
            why = f"the index file {place.path.name} is not of this catalog's present state"
        else:
            why = f"the index file {place.path.name} belongs to another store, or to a model that this one had before"
    except FileNotFoundError:
        return _from_nothing(place, catalog)
    except Outdated as exc:
        log.warning("%s; building it anew from the catalog. If it was compressed, run `medlens optimize` again", exc)
        index, caught = _from_nothing(place, catalog)
        _, erased = catalog.deleted_since(place.kind, exc.seq)
        return index, CaughtUp(caught.added, len(erased), anew=True)
    except StoreCorrupt as exc:
        why = str(exc)
    log.warning("%s; building it anew from the catalog", why)
    index, caught = _from_nothing(place, catalog)
    return index, CaughtUp(caught.added, int(place.path.is_file()))


def _from_nothing(place: Place, catalog: VectorSource) -> tuple[CatalogIndex, CaughtUp]:
    index = CatalogIndex(place.dim, place.kind, place.store_id)
    return index, index.catch_up(catalog)


def _followed(index: CatalogIndex, catalog: VectorSource) -> CaughtUp | None:
    """Bring an index up to the catalog; None if it is of another state. StoreCorrupt if its file is damaged."""
    caught = index.catch_up(catalog)
    while not index.agrees_with(catalog):
        since = index.catch_up(catalog)  # what another process deleted meanwhile is no disagreement
        if not since.removed:
            return None
        caught = CaughtUp(caught.added + since.added, caught.removed + since.removed)
    return caught
