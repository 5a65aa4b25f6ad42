"""The files that are derived from a store's catalog, and the indexes opened from them.

Each index is opened when it is first asked for and kept, for each device it is searched on, under a lock of its own: to
open one, to bring it up to the catalog or to refresh its file keeps nobody from searching another.
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
    """One index, made when it is first asked for and brought up to the catalog whenever that has changed since."""

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
        """Keep `value`, which is of the catalog's state or of a later one, in place of what there was."""
        with self._lock:
            self._value = value, state


class DerivedFiles:
    """The indexes of one store. Whatever is wrong with their files, the catalog has everything."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._catalog = place.catalog
        self._indexes: dict[tuple[VectorKind, str], _OpenIndex[StoreIndex]] = {}
        self._reports: _OpenIndex[tuple[list[int], ReportIndex]] = _OpenIndex()

    def index(self, kind: VectorKind, device: str = CPU) -> StoreIndex:
        """The index of one set of vectors, caught up with the catalog.

        `device` is `cpu`, `cuda` (all GPUs share the vectors) or `cuda:N`. `auto` is `cpu`: copying the vectors to a
        GPU takes longer than searching them once. StoreError for a device that FAISS does not see.
        """
        where = CPU if device == "auto" else device
        open_index_of = self._indexes.setdefault((kind, where), _OpenIndex())
        return open_index_of.get(
            self._catalog.state, lambda: self._opened(kind, where), lambda index: self._caught_up(index, kind, where)
        )

    def reports(self) -> ReportIndex:
        """The BM25 index of the studies' reports, as the catalog has them now."""
        return self._reports.get(self._catalog.state, self._opened_reports, self._caught_up_reports)[1]

    def index_file_of(self, kind: VectorKind) -> IndexFile:
        """Where the file of an index lies, and whose it is."""
        from indexer.vectors.opening import IndexFile

        path = self._place.vectors_folder / VECTOR_SETS[kind].index_file
        whose = self._place.vectors_id  # first: a file that says so was made of these vectors, or of later ones
        return IndexFile(path, int(self._place.model["embed_dim"]), kind, whose)

    def refresh(self) -> None:
        """Bring the indexes and their files up to the catalog. After a deletion this erases what they had of it.

        Unfinished files of killed processes go, too, and what a GPU holds of an index: when that is next asked for it
        is copied there anew.
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
        """Open the indexes anew when they are next asked for."""
        self._indexes.clear()
        self._reports = _OpenIndex()

    def rebuild(self) -> None:
        """Throw away all derived files and build them from the catalog."""
        self._remove(self._place.vectors_folder.glob("*"))  # the folder stays, and who may look into it
        self.refresh()

    def renew_indexes(self) -> None:
        """After a change of the model: throw away the files of the former vectors, and build those of the new."""
        self._remove(self._place.vectors_folder / each.index_file for each in VECTOR_SETS.values())
        self.refresh()

    def _remove(self, paths: Iterable[Path]) -> None:
        self.forget()
        with os_errors("the derived files"):
            for path in paths:
                remove(path)

    def leftovers(self) -> list[Path]:
        """What processes that were killed have left unfinished."""
        return unfinished(self._place.folder) + unfinished(self._place.vectors_folder)

    def remove_leftovers(self) -> None:
        """Remove them; StoreError if that is refused."""
        with os_errors("what a killed process has left"):
            with locked(self._place.vectors_folder):
                pass  # it clears the folder
            for path in unfinished(self._place.folder):
                remove(path)

    def index_file_problem(self, kind: VectorKind) -> str | None:
        """What is wrong with an index file that is there, every vector in it; None if nothing is, or there is none."""
        from indexer.vectors.file import Outdated
        from indexer.vectors.index import CatalogIndex

        try:
            index = CatalogIndex.load(self.index_file_of(kind).path)
            index.check()
        except (FileNotFoundError, Outdated):  # an outdated one is replaced when it is opened
            return None
        except StoreCorrupt as exc:
            return str(exc)
        if index.store_id != self._place.vectors_id:
            return "it belongs to another store, or to a model that this store had before"
        ids, wrong = index.ids, 0
        for start in range(0, len(ids), _COMPARED):
            found, vectors = self._catalog.vectors.vectors_of(ids[start : start + _COMPARED].tolist(), kind)
            wrong += int((vectors.view("u2") != index.vectors_of(found).view("u2")).any(axis=1).sum())
        return f"{wrong} of its vectors are not those of the catalog" if wrong else None

    def report_index_problem(self) -> str | None:
        """What is wrong with the files of the reports' words; None if nothing is, or there are none."""
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
