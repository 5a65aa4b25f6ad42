"""Exact vector search, derived from the catalog: FAISS is imported here and nowhere else.

`FlatIndex` keeps float16 vectors in a FAISS scalar-quantised flat index, the rows in ascending order of their ids. What
was loaded from a file stays memory-mapped and is never changed; rows added since live in a small index beside it, rows
removed are masked. So opening and catching up cost what changed, not what is there.

FAISS proposes candidates in float32, whose rounding depends on where a row lies; the answer is scored again in float64.
Therefore equal vectors have equal scores, ties go by ascending id, and the result is that of a brute-force search.

The file is a FAISS index (an IndexIDMap that `faiss.read_index` opens) with a trailer behind it, see `indexfile`. It
can be deleted at any time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.errors import StoreCorrupt, StoreError
from retrieval.types import Embeddings

from .indexfile import damaged, read_meta, reason, write_index_file

log = logging.getLogger(__name__)

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]  # positions in one part of an index
VectorKind = Literal["frame", "sentence"]

_DIRECT = 2048  # up to so many allowed rows are scored one by one, without FAISS
_SLACK = 32  # candidates beyond k that are asked for at first


class VectorSource(Protocol):
    """What an index asks of the catalog."""

    def iter_vectors(
        self, kind: VectorKind, after_id: int = 0, batch: int = 4096
    ) -> Iterator[tuple[Ids, npt.NDArray[np.float16]]]: ...

    def vectors_of(self, ids: Iterable[int], kind: VectorKind = "frame") -> tuple[Ids, npt.NDArray[np.float16]]: ...

    def deleted_since(self, kind: VectorKind, seq: int) -> tuple[int, Ids]: ...


@dataclass(frozen=True)
class Mark:
    """The state of the catalog that an index holds: its rows up to `last_id`, less the deletions up to `seq`."""

    last_id: int = 0
    seq: int = 0


@dataclass(frozen=True)
class CaughtUp:
    """How many rows an index took in and let go."""

    added: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


@dataclass(frozen=True)
class _Part:
    """Rows in a FAISS index by position. Never changed once it is part of a state that searches see."""

    ids: Ids  # ascending
    faiss_index: Any
    dead: npt.NDArray[np.bool_]  # [len(ids)]
    owner: Any = None  # whatever owns the memory, or the mapped file, that faiss_index looks into

    @cached_property
    def alive(self) -> int:
        return len(self.ids) - int(self.dead.sum())

    @cached_property
    def alive_selector(self) -> Any:
        """What FAISS may return; None if that is everything."""
        return _selector(~self.dead) if self.alive < len(self.ids) else None

    def rows_of(self, ids: Ids) -> Rows:
        """Positions of those of `ids` (ascending) that are here and not dead."""
        rows = np.searchsorted(self.ids, ids)
        inside = rows < len(self.ids)
        rows, ids = rows[inside], ids[inside]
        rows = rows[self.ids[rows] == ids]
        alive: Rows = rows[~self.dead[rows]]
        return alive

    def codes(self) -> npt.NDArray[np.float16]:
        """The vectors [n, D], a view of FAISS's memory or of the mapped file."""
        faiss = _faiss()

        n, dim = self.faiss_index.ntotal, self.faiss_index.d
        if not n:
            return np.empty((0, dim), dtype=np.float16)
        view: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(self.faiss_index.codes.data(), n * dim * 2)
        return view.view("<f2").reshape(n, dim)


@dataclass(frozen=True)
class _State:
    """What one search sees. `mapped` may be a memory-mapped file; `recent` is in memory, its ids all above."""

    mapped: _Part
    recent: _Part
    mark: Mark

    @property
    def parts(self) -> tuple[_Part, _Part]:
        return self.mapped, self.recent


class FlatIndex:
    """Exact inner-product search over float16 vectors by id. See `retrieval.types.VectorIndex`.

    Searches may run in several threads, also while another adds or removes: each sees one state.
    """

    def __init__(self, dim: int, kind: VectorKind = "frame", store_id: str = "") -> None:
        if dim < 1:
            raise ValueError(f"dim is {dim}, expected at least 1")
        self._dim = dim
        self.kind: VectorKind = kind
        self.store_id = store_id
        self._writing = threading.RLock()
        self._state = _State(_empty(dim), _empty(dim), Mark())

    @property
    def dim(self) -> int:
        return self._dim

    def __len__(self) -> int:
        return sum(part.alive for part in self._state.parts)

    @property
    def mark(self) -> Mark:
        return self._state.mark

    @property
    def ids(self) -> Ids:
        """Ascending ids of all vectors [n]."""
        return np.concatenate([part.ids[~part.dead] for part in self._state.parts])

    def search(self, queries: Embeddings, k: int, ids: Ids | None = None) -> list[list[tuple[int, float]]]:
        """Per query at most k pairs of (id, inner product), best first, equal scores by ascending id.

        `queries` is [D] or [Q, D] and finite, else ValueError. With `ids` (any order) only those are searched.
        """
        array = np.asarray(queries, dtype=np.float32)
        array = self._checked(array[None, :] if array.ndim == 1 else array, "queries")
        if k < 0:
            raise ValueError(f"k is {k}, expected 0 or more")
        state = self._state
        allowed = None if ids is None else _ascending(ids)
        hits: list[list[tuple[int, float]]] = [[] for _ in array]
        if k == 0:
            return hits
        for part in state.parts:
            for found, query_hits in zip(_search_part(part, array, k, allowed), hits, strict=True):
                query_hits += found
        return [sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k] for found in hits]

    def add(self, ids: Ids, vectors: npt.NDArray[np.floating[Any]]) -> None:
        """Add vectors [n, D] under ids [n]. ValueError for ids there already or twice, a wrong shape, NaN."""
        new = np.asarray(ids, dtype=np.int64).reshape(-1)
        with np.errstate(over="ignore"):  # what float16 can't hold becomes infinity, and is refused
            array = self._checked(np.asarray(vectors).astype("<f2"), "vectors, as float16,")
        if len(new) != len(array):
            raise ValueError(f"{len(new)} ids for {len(array)} vectors")
        order = np.argsort(new, kind="stable")
        new, array = new[order], array[order]
        twice = new[1:][new[1:] == new[:-1]]
        if len(twice):
            raise ValueError(f"id {twice[0]} is given twice")
        with self._writing:
            state = self._state
            there = [part.ids[part.rows_of(new)] for part in state.parts]
            known = np.concatenate(there)
            if len(known):
                raise ValueError(f"id {known[0]} is in the index already, and {len(known) - 1} more")
            if not len(new):
                return
            highest = max((int(part.ids[-1]) for part in state.parts if len(part.ids)), default=-(2**63))
            mark = replace(state.mark, last_id=max(state.mark.last_id, int(new[-1])))
            if int(new[0]) > highest:
                self._state = _State(state.mapped, self._appended(state.recent, [(new, array)]), mark)
            else:
                self._state = _State(_empty(self._dim), self._merged(state, new, array), mark)

    def remove(self, ids: Ids) -> int:
        """Remove those of `ids` that are here; how many were."""
        gone = np.unique(np.asarray(ids, dtype=np.int64))
        with self._writing:
            mapped, here = _without(self._state.mapped, gone)
            recent, there = _without(self._state.recent, gone)
            self._state = _State(mapped, recent, self._state.mark)
            return here + there

    def catch_up(self, catalog: VectorSource) -> CaughtUp:
        """Take in what was committed to the catalog since this index's mark, and let go what was deleted there.

        Costs what changed. Additions are read before deletions, so a row that comes and goes meanwhile ends up gone.
        """
        with self._writing:
            state = self._state
            recent = self._appended(state.recent, self._batches(catalog, state.mark.last_id))
            last_id = int(recent.ids[-1]) if recent is not state.recent else state.mark.last_id
            added = recent.alive - state.recent.alive
            seq, gone = catalog.deleted_since(self.kind, state.mark.seq)
            self._state = _State(state.mapped, recent, Mark(last_id, state.mark.seq))
            removed = self.remove(gone) if len(gone) else 0
            self._state = replace(self._state, mark=Mark(last_id, seq))
            return CaughtUp(added, removed)

    def agrees_with(self, catalog: VectorSource, sample: int = 32) -> bool:
        """Whether a sample of rows, the newest among them, is what the catalog holds under those ids.

        For an index that has caught up. It tells a file that belongs to another state, such as a restored backup.
        """
        ids = self.ids
        if not len(ids):
            return True
        spread = np.linspace(0, len(ids) - 1, num=min(sample, len(ids)), dtype=np.int64)
        chosen = np.unique(np.concatenate([ids[spread], ids[-sample:]]))
        found, vectors = catalog.vectors_of(chosen.tolist(), self.kind)
        return np.array_equal(found, chosen) and np.array_equal(vectors, self.vectors_of(chosen))

    def vectors_of(self, ids: Ids) -> npt.NDArray[np.float16]:
        """The vectors [n, D] of those of `ids` that are here, by ascending id."""
        wanted = np.unique(np.asarray(ids, dtype=np.int64))
        return np.concatenate([part.codes()[part.rows_of(wanted)] for part in self._state.parts])

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all: a temporary file, fsync, rename.

        Removed vectors are not in it. StoreError if it can't be written.
        """
        faiss = _faiss()

        state = self._state
        merged = _new_faiss(self._dim)
        for part in state.parts:
            _append(merged, part.codes() if part.alive == len(part.ids) else part.codes()[~part.dead])
        whole = faiss.IndexIDMap(_new_faiss(self._dim))
        whole.index = merged
        whole.ntotal = merged.ntotal
        faiss.copy_array_to_vector(self._ids_of(state), whole.id_map)
        meta = {"kind": self.kind, "dim": self._dim, "store_id": self.store_id, "count": merged.ntotal}
        try:
            write_index_file(path, lambda name: faiss.write_index(whole, name), meta | asdict(state.mark))
        except (OSError, RuntimeError) as exc:
            raise StoreError(
                f"the index file {path.name} can't be written: {reason(exc, path)}",
                hint="Make room and check permissions; the catalog has everything, nothing is lost.",
            ) from exc

    @classmethod
    def load(cls, path: Path) -> FlatIndex:
        """Open what `save` wrote, memory-mapped. FileNotFoundError if there is none, StoreCorrupt if it is damaged."""
        faiss = _faiss()

        meta = read_meta(path)
        try:
            whole = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            inner = faiss.downcast_index(whole.index)
            ids = faiss.vector_to_array(whole.id_map).astype(np.int64, copy=False)
        except (RuntimeError, AttributeError) as exc:
            raise damaged(path, reason(exc, path)) from exc
        seen = (type(inner).__name__, inner.d, inner.ntotal, len(ids), inner.code_size)
        expected = ("IndexScalarQuantizer", meta["dim"], meta["count"], meta["count"], 2 * meta["dim"])
        if seen != expected or np.any(ids[1:] <= ids[:-1]):
            raise damaged(path, f"its index is {seen}, expected {expected} and ascending ids")
        index = cls(meta["dim"], meta["kind"], meta["store_id"])
        mapped = _part(ids, inner, owner=whole)
        index._state = _State(mapped, _empty(index.dim), Mark(meta["last_id"], meta["seq"]))
        return index

    def _batches(self, catalog: VectorSource, after_id: int) -> Iterator[tuple[Ids, npt.NDArray[Any]]]:
        for ids, vectors in catalog.iter_vectors(self.kind, after_id=after_id):
            if vectors.shape[1] != self._dim:
                raise StoreCorrupt(
                    f"{self.kind} vectors of the catalog have {vectors.shape[1]} numbers, expected {self._dim}",
                    hint="Index the archive into a new store.",
                )
            if not np.isfinite(vectors).all():
                raise StoreCorrupt(
                    f"{self.kind} vectors of the catalog between ids {ids[0]} and {ids[-1]} hold NaN or infinity",
                    hint="Index the archive into a new store.",
                )
            yield ids, vectors

    def _appended(self, part: _Part, batches: Iterable[tuple[Ids, npt.NDArray[Any]]]) -> _Part:
        """A copy of the part with rows behind it whose ids are above all others; the part itself if there are none."""
        grown, ids = None, [part.ids[~part.dead]]
        for new, vectors in batches:
            if grown is None:
                grown = _new_faiss(self._dim, part.codes()[~part.dead])
            _append(grown, vectors)
            ids.append(new)
        return part if grown is None else _part(np.concatenate(ids), grown)

    def _merged(self, state: _State, new: Ids, vectors: npt.NDArray[Any]) -> _Part:
        """All rows of a state and new ones, in order of their ids, in memory."""
        ids = np.concatenate([self._ids_of(state), new])
        codes = np.concatenate([part.codes()[~part.dead] for part in state.parts] + [vectors])
        order = np.argsort(ids, kind="stable")
        return _part(ids[order], _new_faiss(self._dim, codes[order]))

    @staticmethod
    def _ids_of(state: _State) -> Ids:
        return np.concatenate([part.ids[~part.dead] for part in state.parts])

    def _checked(self, array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != self._dim:
            raise ValueError(f"{what} have shape {array.shape}, expected (N, {self._dim})")
        if not np.isfinite(array).all():
            raise ValueError(f"{what} hold NaN or infinity in {int((~np.isfinite(array)).any(axis=1).sum())} rows")
        return array


def open_index(path: Path, catalog: VectorSource, dim: int, kind: VectorKind, store_id: str) -> FlatIndex:
    """The index in the file, caught up with the catalog and written back where that pays; rebuilt if it is no good.

    Deletions are always written back, so that erased vectors leave the file; additions once they are a twentieth of it.
    """
    index = _load_if_usable(path, dim, kind, store_id)
    caught = index.catch_up(catalog)
    if not index.agrees_with(catalog):
        log.warning("the index file %s is not of this catalog's present state; building it anew", path.name)
        index = FlatIndex(dim, kind, store_id)
        caught = index.catch_up(catalog)
        caught = replace(caught, removed=1)  # whatever the old file held is overwritten
    if caught.removed or caught.added > max(1000, len(index) // 20):
        try:
            index.save(path)
        except StoreError as exc:
            if caught.removed:
                raise
            log.warning("%s; searching goes on without it", exc)
    return index


def _load_if_usable(path: Path, dim: int, kind: VectorKind, store_id: str) -> FlatIndex:
    try:
        index = FlatIndex.load(path)
    except FileNotFoundError:
        return FlatIndex(dim, kind, store_id)
    except StoreCorrupt as exc:
        log.warning("%s; building it anew from the catalog", exc)
        return FlatIndex(dim, kind, store_id)
    if (index.dim, index.kind, index.store_id) != (dim, kind, store_id):
        log.warning("the index file %s belongs to another store; building it anew from the catalog", path.name)
        return FlatIndex(dim, kind, store_id)
    return index


def _search_part(part: _Part, queries: Embeddings, k: int, allowed: Ids | None) -> list[list[tuple[int, float]]]:
    if not len(part.ids):
        return [[] for _ in queries]
    rows, total, selector = None, part.alive, part.alive_selector
    if allowed is not None:
        rows = part.rows_of(allowed)
        total = len(rows)
        if total > _DIRECT:
            mask = np.zeros(len(part.ids), dtype=np.bool_)
            mask[rows] = True
            rows, selector = None, _selector(mask)
    if not total:
        return [[] for _ in queries]
    proposed = [rows] * len(queries) if rows is not None else _candidates(part, queries, k, total, selector)
    codes = part.codes()
    return [_scored(part.ids, codes, query, rows, k) for query, rows in zip(queries, proposed, strict=True)]


def _candidates(part: _Part, queries: Embeddings, k: int, total: int, selector: Any) -> list[Rows]:
    """Per query, rows among which the k best certainly are: FAISS's, until the last is clearly worse than the k-th."""
    faiss = _faiss()
    parameters = None if selector is None else faiss.SearchParameters(sel=selector)
    # A float32 sum of D products is off by at most about D * 2**-24 * |q| * |v|, a difference by twice; |v| is about 1.
    margins = 4 * queries.shape[1] * 2.0**-24 * np.linalg.norm(queries, axis=1) + 1e-30
    out: list[Rows] = [np.empty(0, dtype=np.int64)] * len(queries)
    pending = np.arange(len(queries))
    wanted = min(k + _SLACK, total)
    while len(pending):
        scores, rows = part.faiss_index.search(queries[pending], wanted, params=parameters)
        for i, its_rows in zip(pending, rows, strict=True):
            out[i] = np.sort(its_rows[its_rows >= 0])  # -1 pads: the sentinel ends here
        if wanted >= total:
            break
        pending = pending[scores[:, -1] >= scores[:, k - 1] - margins[pending]]
        wanted = min(wanted * 4, total)
    return out


def _scored(ids: Ids, codes: npt.NDArray[np.float16], query: Embeddings, rows: Rows, k: int) -> list[tuple[int, float]]:
    """The k best of the rows (ascending), by their inner product in float64, rounded to float32."""
    # einsum without optimisation sums each row alone and alike: equal rows, equal sums. A BLAS product would not.
    exact = query.astype(np.float64)
    scores = np.empty(len(rows), dtype=np.float32)
    for i in range(0, len(rows), 4096):
        vectors = codes[rows[i : i + 4096]].astype(np.float64)
        scores[i : i + 4096] = np.einsum("nd,d->n", vectors, exact, optimize=False)
    best = np.argsort(-scores, kind="stable")[:k]
    return [(int(ids[rows[i]]), float(scores[i])) for i in best]


def _faiss() -> Any:
    """FAISS, imported when it is first needed. Untyped: its stubs know neither downcasts nor the Python additions."""
    import faiss

    return faiss


def _selector(mask: npt.NDArray[np.bool_]) -> Any:
    faiss = _faiss()

    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _without(part: _Part, ids: Ids) -> tuple[_Part, int]:
    rows = part.rows_of(ids)
    if not len(rows):
        return part, 0
    dead = part.dead.copy()
    dead[rows] = True
    return replace(part, dead=dead), len(rows)


def _new_faiss(dim: int, vectors: npt.NDArray[Any] | None = None) -> Any:
    faiss = _faiss()
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if vectors is not None:
        _append(index, vectors)
    return index


def _append(faiss_index: Any, vectors: npt.NDArray[Any]) -> None:
    """FAISS's float16 codes are the float16 numbers themselves."""
    if len(vectors):
        faiss_index.add_sa_codes(np.ascontiguousarray(vectors, dtype="<f2").view(np.uint8))


def _part(ids: Ids, faiss_index: Any, owner: Any = None) -> _Part:
    return _Part(ids, faiss_index, np.zeros(len(ids), dtype=np.bool_), owner)


def _empty(dim: int) -> _Part:
    return _part(np.empty(0, dtype=np.int64), _new_faiss(dim))


def _ascending(ids: Ids) -> Ids:
    array = np.asarray(ids, dtype=np.int64).reshape(-1)
    return array if np.all(array[1:] > array[:-1]) else np.unique(array)
