"""The files that are derived from a store's catalog, and the indexes opened from them.

Each index is opened when it is first requested, for each device that searches it, and is kept under a lock of its own.
So opening an index, updating it or refreshing its file does not block searches of another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from indexer.on_disk import locked, unfinished
from indexer.store.place import StorePlace, os_errors
from indexer.vector_sets import VECTOR_SETS, VectorKind
from retrieval.errors import StoreCorrupt
from retrieval.on_disk import remove

if TYPE_CHECKING:
    from indexer.vectors.opening import IndexFile
    from indexer.vectors.port import StoreIndex
    from retrieval.search.bm25 import ReportIndex

T = TypeVar("T")

CPU = "cpu"
_COMPARED = 4096  # vectors at a time


class _OpenIndex(Generic[T]):
    """One index, opened when it is first requested and updated whenever the catalog has changed since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: tuple[T, Hashable] | None = None

    def get(self, state: Callable[[], Hashable], make: Callable[[], T], update: Callable[[T], T]) -> T:
        with self._lock:
            now = state()
            if self._value is None:
                value = make()
            else:
                value, seen = self._value
                value = value if seen == now else update(value)
            self._value = value, now
            return value

    def put(self, value: T, state: Hashable) -> None:
        """Replace the index by `value`, which has the catalog's state `state` or a later one."""
        with self._lock:
            self._value = value, state


class DerivedFiles:
    """The indexes of one store. If anything is wrong with their files, they are rebuilt from the catalog."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._catalog = place.catalog
        self._indexes: dict[tuple[VectorKind, str], _OpenIndex[StoreIndex]] = {}
        self._reports: _OpenIndex[tuple[list[int], ReportIndex]] = _OpenIndex()

    def index(self, kind: VectorKind, device: str = CPU) -> StoreIndex:
        """Return the index of one set of vectors, updated from the catalog.

        `device` is `cpu`, `cuda` (all GPUs share the vectors) or `cuda:N`. `auto` is `cpu`: copying the vectors to a
        GPU takes longer than searching them once. Raises StoreError for a device that FAISS does not find.
        """
        where = CPU if device == "auto" else device
        open_index_of = self._indexes.setdefault((kind, where), _OpenIndex())
        return open_index_of.get(
            self._catalog.state, lambda: self._opened(kind, where), lambda index: self._caught_up(index, kind, where)
        )

    def reports(self) -> ReportIndex:
        """Return the BM25 index of the studies' reports in their current state."""
        return self._reports.get(self._catalog.state, self._opened_reports, self._caught_up_reports)[1]

    def index_file_of(self, kind: VectorKind) -> IndexFile:
        """Return the file of an index, with its dimension, kind and store."""
        from indexer.vectors.opening import IndexFile

        path = self._place.vectors_folder / VECTOR_SETS[kind].index_file
        whose = self._place.vectors_id  # first: a file that says so was made of these vectors, or of later ones
        return IndexFile(path, int(self._place.model["embed_dim"]), kind, whose)

    def refresh(self) -> None:
        """Update the indexes and their files from the catalog.

        After a deletion this removes the deleted rows from them.

        Unfinished files of killed processes are removed too, and so are copies of an index on a GPU, which are made
        again on the next request.
        """
        from indexer.store.report_index import refresh_report_index
        from indexer.vectors.opening import refreshed

        self.remove_leftovers()
        refresh_report_index(self._place.vectors_folder, self._catalog, self._place.store_id)
        for kind in VECTOR_SETS:
            state = self._catalog.state()
            index = refreshed(self.index_file_of(kind), self._catalog.vectors)
            self._indexes.setdefault((kind, CPU), _OpenIndex()).put(index, state)
        for kind, device in list(self._indexes):
            if device != CPU:
                self._indexes.pop((kind, device), None)

    def forget(self) -> None:
        """Open the indexes again on the next request."""
        self._indexes.clear()
        self._reports = _OpenIndex()

    def rebuild(self) -> None:
        """Delete all derived files and build them from the catalog."""
        self._remove(self._place.vectors_folder.glob("*"))  # the folder and its permissions stay
        self.refresh()

    def renew_indexes(self) -> None:
        """Delete the index files of the former model and build those of the new one."""
        self._remove(self._place.vectors_folder / each.index_file for each in VECTOR_SETS.values())
        self.refresh()

    def _remove(self, paths: Iterable[Path]) -> None:
        self.forget()
        with os_errors("the derived files"):
            for path in paths:
                remove(path)

    def leftovers(self) -> list[Path]:
        """Return the unfinished files of killed processes."""
        return unfinished(self._place.folder) + unfinished(self._place.vectors_folder)

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of killed processes. Raises StoreError if the system refuses."""
        with os_errors("the unfinished files of a killed process"):
            with locked(self._place.vectors_folder):
                pass  # taking the lock removes unfinished files
            for path in unfinished(self._place.folder):
                remove(path)

    def index_file_problem(self, kind: VectorKind) -> str | None:
        """What is wrong with an index file, after reading every vector; None if it is sound or missing."""
        from indexer.vectors.file import Outdated
        from indexer.vectors.index import CatalogIndex

        try:
            index = CatalogIndex.load(self.index_file_of(kind).path)
            index.check()
        except (FileNotFoundError, Outdated):  # an outdated one is replaced when it is opened
            return None
        except StoreCorrupt as exc:
            return str(exc)
        if index.store_id.partition("/")[0] != self._place.store_id:
            return "it belongs to another store"
        if index.store_id != self._place.vectors_id:  # of a former model: it is replaced when it is opened, too
            return None
        ids, wrong = index.ids, 0
        for start in range(0, len(ids), _COMPARED):
            found, vectors = self._catalog.vectors.vectors_of(ids[start : start + _COMPARED].tolist(), kind)
            wrong += int((vectors.view("u2") != index.vectors_of(found).view("u2")).any(axis=1).sum())
        return f"{wrong} of its vectors differ from those in the catalog" if wrong else None

    def report_index_problem(self) -> str | None:
        """Return what is wrong with the files of the report index; None if nothing is, or there are none."""
        from indexer.store.report_index import report_index_problem

        return report_index_problem(self._place.vectors_folder, self._catalog, self._place.store_id)

    def _opened(self, kind: VectorKind, device: str) -> StoreIndex:
        from indexer.vectors.opening import open_index

        index = open_index(self.index_file_of(kind), self._catalog.vectors)
        if device != CPU:
            from indexer.vectors.gpu import move_to_gpu

            move_to_gpu(index, device)
        return index

    def _caught_up(self, index: StoreIndex, kind: VectorKind, device: str) -> StoreIndex:
        if index.store_id != self._place.vectors_id:  # the model of the store was changed
            return self._opened(kind, device)
        index.catch_up(self._catalog.vectors)
        return index

    def _opened_reports(self) -> tuple[list[int], ReportIndex]:
        from indexer.store.report_index import open_report_index

        mark = self._catalog.reports.mark()
        return mark, open_report_index(self._place.vectors_folder, self._catalog, self._place.store_id)

    def _caught_up_reports(self, had: tuple[list[int], ReportIndex]) -> tuple[list[int], ReportIndex]:
        return had if had[0] == self._catalog.reports.mark() else self._opened_reports()
