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
from indexer.vectors.index import CatalogIndex, IndexChanges
from indexer.vectors.parts import VectorSource
from retrieval.errors import StoreCorrupt, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexFile:
    """Whose index it is and where its file lies."""

    path: Path
    dim: int
    kind: VectorKind
    store_id: str


def open_index(file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """The index in the file, caught up with the catalog and written back where that pays; rebuilt if it is no good.

    Deletions are always written back, so that erased vectors leave the file; additions once they are a twentieth of it.
    """
    before = _signature(file.path)
    index, caught = _caught_up(file, catalog)
    if caught.removed:
        index = _written(file, catalog, index, before)
    elif caught.anew or caught.added > max(1000, len(index) // 20):
        try:
            index = _written(file, catalog, index, before)
        except StoreError as exc:
            log.warning("%s; searching goes on without it", exc)
    return _renewable(index, file, catalog)


def refreshed(file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """The index caught up with the catalog, and its file too. StoreError if that can't be written."""
    before = _signature(file.path)
    index, caught = _caught_up(file, catalog)
    index = _written(file, catalog, index, before) if caught or before is None else index
    return _renewable(index, file, catalog)


def _renewable(index: CatalogIndex, file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """The index, which is built anew from the catalog should its file turn out to be damaged when it is read.

    Its file has let go what was erased, so that an index that can't be written is used all the same.
    """

    def renewed() -> CatalogIndex:
        anew = CatalogIndex(file.dim, file.kind, file.store_id)
        anew.catch_up(catalog)
        try:
            with writing(file):
                anew.save(file.path)
            return CatalogIndex.load(file.path)
        except StoreError as exc:
            log.warning("%s; searching goes on without it", exc)
            return anew

    index.renew = renewed
    return index


def _written(
    file: IndexFile, catalog: VectorSource, index: CatalogIndex, before: tuple[int, ...] | None
) -> CatalogIndex:
    """Write the index, which was made from the file that was there `before`; if another is there, from that one."""
    with writing(file):
        if _signature(file.path) != before:
            index, _ = _caught_up(file, catalog)
        try:
            index.save(file.path)
        except StoreCorrupt as exc:
            log.warning("%s; building it anew from the catalog", exc)
            index, _ = _from_nothing(file, catalog)
            index.save(file.path)
        return CatalogIndex.load(file.path)


def _signature(path: Path) -> tuple[int, ...] | None:
    """What tells one file of this name from another; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def writing(file: IndexFile) -> Iterator[None]:
    """Held by one process at a time, for as long as it makes a new file of an index.

    An unfinished file that is there then is of a process that was killed, and may hold what was erased since: it goes.
    """
    try:
        with locked(file.path.parent):
            yield
    except OSError as exc:
        raise StoreError(
            f"the index file {file.path.name} can't be written: {reason(exc, file.path)}",
            hint="Make room and check permissions; the catalog has everything, nothing is lost.",
        ) from exc


def _caught_up(file: IndexFile, catalog: VectorSource) -> tuple[CatalogIndex, IndexChanges]:
    """The index as the catalog has it. A file that was no good counts as a removal: it has to be overwritten."""
    try:
        index = CatalogIndex.load(file.path)
        if (index.dim, index.kind, index.store_id) == (file.dim, file.kind, file.store_id):
            caught = _followed(index, catalog)
            if caught is not None:
                return index, caught
            why = f"the index file {file.path.name} is not of this catalog's present state"
        else:
            why = f"the index file {file.path.name} belongs to another store, or to a model that this one had before"
    except FileNotFoundError:
        return _from_nothing(file, catalog)
    except Outdated as exc:
        log.warning("%s; building it anew from the catalog. If it was compressed, run `medlens optimize` again", exc)
        index, caught = _from_nothing(file, catalog)
        _, erased = catalog.deleted_since(file.kind, exc.seq)
        return index, IndexChanges(caught.added, len(erased), anew=True)
    except StoreCorrupt as exc:
        why = str(exc)
    log.warning("%s; building it anew from the catalog", why)
    index, caught = _from_nothing(file, catalog)
    return index, IndexChanges(caught.added, int(file.path.is_file()))


def _from_nothing(file: IndexFile, catalog: VectorSource) -> tuple[CatalogIndex, IndexChanges]:
    index = CatalogIndex(file.dim, file.kind, file.store_id)
    return index, index.catch_up(catalog)


def _followed(index: CatalogIndex, catalog: VectorSource) -> IndexChanges | None:
    """Bring an index up to the catalog; None if it is of another state. StoreCorrupt if its file is damaged."""
    caught = index.catch_up(catalog)
    while not index.agrees_with(catalog):
        since = index.catch_up(catalog)  # what another process deleted meanwhile is no disagreement
        if not since.removed:
            return None
        caught = IndexChanges(caught.added + since.added, caught.removed + since.removed)
    return caught
