"""How an index is read from its file and updated from the catalog, and written back.

Whatever is wrong with the file, the catalog has everything: a file that is missing, damaged, of another store or of
another state of this one is rebuilt. A writer holds a lock, so the second of two writers continues from what the first
has written; readers need none, because they keep the file that they opened.
"""

from __future__ import annotations

import logging
import os
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
    """The file of an index, with the dimension, kind and store that it must have."""

    path: Path
    dim: int
    kind: VectorKind
    store_id: str


def open_index(file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """Open the index, update it from the catalog and write it back if that pays; rebuild it if it can't be used.

    Deletions are always written back, so that erased vectors leave the file; additions once they are a twentieth of it.
    Raises StoreError if deletions can't be written although this user may write there; otherwise the owner writes them.
    """
    before = _signature(file.path)
    index, caught = _caught_up(file, catalog)
    if caught.removed or caught.anew or caught.added > max(1000, len(index) // 20):
        try:
            index = _written(file, catalog, index, before)
        except StoreError as exc:
            if caught.removed and os.access(file.path.parent, os.W_OK):
                raise
            log.warning("%s; the search continues without the file", exc)
    return _renewable(index, file, catalog)


def refreshed(file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """Return the index, updated from the catalog together with its file. Raises StoreError if that can't be written."""
    before = _signature(file.path)
    index, caught = _caught_up(file, catalog)
    index = _written(file, catalog, index, before) if caught or before is None else index
    return _renewable(index, file, catalog)


def _renewable(index: CatalogIndex, file: IndexFile, catalog: VectorSource) -> CatalogIndex:
    """Return the index, which is rebuilt from the catalog if its file turns out to be damaged when it is read.

    Its file no longer contains erased vectors, so an index that can't be written may be used nevertheless.
    """

    def renewed() -> CatalogIndex:
        anew = CatalogIndex(file.dim, file.kind, file.store_id)
        anew.catch_up(catalog)
        try:
            with writing(file):
                anew.save(file.path)
            return CatalogIndex.load(file.path)
        except StoreError as exc:
            log.warning("%s; the search continues without the file", exc)
            return anew

    index.renew = renewed
    return index


def _written(
    file: IndexFile, catalog: VectorSource, index: CatalogIndex, before: tuple[int, ...] | None
) -> CatalogIndex:
    """Write the index, which was made from the file that existed `before`; if another file exists now, update that
    one.
    """
    with writing(file):
        if _signature(file.path) != before:
            index, _ = _caught_up(file, catalog)
        try:
            index.save(file.path)
        except StoreCorrupt as exc:
            log.warning("%s; it is rebuilt from the catalog", exc)
            index, _ = _from_nothing(file, catalog)
            index.save(file.path)
        return CatalogIndex.load(file.path)


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return a value that distinguishes this file from others of its name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def writing(file: IndexFile) -> Iterator[None]:
    """Hold the lock of the folder, for one process at a time, while it writes a new file of an index.

    An unfinished file that is there then belongs to a process that was killed and may contain erased vectors, so it is
    removed.
    """
    try:
        with locked(file.path.parent):
            yield
    except OSError as exc:
        raise StoreError(
            f"the index file {file.path.name} can't be written: {reason(exc, file.path)}",
            hint="Free disk space and check the permissions. Nothing is lost: the catalog has all vectors.",
        ) from exc


def _caught_up(file: IndexFile, catalog: VectorSource) -> tuple[CatalogIndex, IndexChanges]:
    """Return the index, updated from the catalog.

    A file that could not be used counts as a removal: it must be overwritten.
    """
    try:
        index = CatalogIndex.load(file.path)
        if (index.dim, index.kind, index.store_id) == (file.dim, file.kind, file.store_id):
            caught = _followed(index, catalog)
            if caught is not None:
                return index, caught
            why = f"the index file {file.path.name} does not match the current state of the catalog"
        else:
            same = index.store_id.partition("/")[0] == file.store_id.partition("/")[0]
            whose = "a model that the store had before" if same else "another store"
            why = f"the index file {file.path.name} belongs to {whose}"
    except FileNotFoundError:
        return _from_nothing(file, catalog)
    except Outdated as exc:
        log.warning(
            "%s; it is rebuilt from the catalog. If the index was compressed, run `medlens optimize` again", exc
        )
        index, caught = _from_nothing(file, catalog)
        _, erased = catalog.deleted_since(file.kind, exc.seq)
        return index, IndexChanges(caught.added, len(erased), anew=True)
    except StoreCorrupt as exc:
        why = str(exc)
    log.warning("%s; it is rebuilt from the catalog", why)
    index, caught = _from_nothing(file, catalog)
    return index, IndexChanges(caught.added, int(file.path.is_file()))


def _from_nothing(file: IndexFile, catalog: VectorSource) -> tuple[CatalogIndex, IndexChanges]:
    index = CatalogIndex(file.dim, file.kind, file.store_id)
    return index, index.catch_up(catalog)


def _followed(index: CatalogIndex, catalog: VectorSource) -> IndexChanges | None:
    """Update an index from the catalog; None if it has another state. Raises StoreCorrupt if its file is damaged."""
    caught = index.catch_up(catalog)
    while not index.agrees_with(catalog):
        since = index.catch_up(catalog)  # rows that another process deleted meanwhile do not count
        if not since.removed:
            return None
        caught = IndexChanges(caught.added + since.added, caught.removed + since.removed)
    return caught
