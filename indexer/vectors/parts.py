"""The pieces of an index: rows under ascending ids, and the exact search over them.

Candidates are proposed in float32, whose rounding depends on where a row lies; the answer is scored again in float64.
Therefore equal vectors have equal scores, ties go by ascending id, and the result is that of a brute-force search.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from io import FileIO
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexer.vector_sets import VectorKind
from indexer.vectors.blocks import CheckedFile
from indexer.vectors.compressed import Compressed
from indexer.vectors.flat import Flat, Vectors, load_faiss
from indexer.vectors.proposing import Proposer, Rows
from retrieval.types import Embeddings, Ids

Hits = list[list[tuple[int, float]]]

_DIRECT = 2048  # up to this many allowed rows are scored one by one, without FAISS
_SLACK = 32  # candidates beyond k that are requested at first
_READ = 1024  # up to so many rows are read, not mapped: pages that a mapping touched stay resident
_CHUNK = 65_536  # rows that are handled at a time


class VectorSource(Protocol):
    """What an index needs from the catalog."""

    def iter_vectors(
        self, kind: VectorKind, after_id: int = 0, batch: int = 4096
    ) -> Iterator[tuple[Ids, npt.NDArray[np.float16]]]: ...

    def vectors_of(self, ids: Any, kind: VectorKind) -> tuple[Ids, npt.NDArray[np.float16]]: ...

    def deleted_since(self, kind: VectorKind, seq: int) -> tuple[int, Ids]: ...


@dataclass(frozen=True)
class Mark:
    """The state of the catalog that an index holds: its rows up to `last_id`, less the deletions up to `seq`."""

    last_id: int = 0
    seq: int = 0


@dataclass(frozen=True)
class VectorFile:
    """Vectors in an open file, one after the other. Another file may have taken its name since."""

    file: FileIO
    checked: CheckedFile
    offset: int  # bytes
    dim: int

    def require(self, rows: Rows) -> None:
        """Raise StoreCorrupt if any of the rows is damaged."""
        self.checked.require_rows(self.offset, 2 * self.dim, rows)

    def read(self, rows: Rows) -> Vectors:
        self.require(rows)
        size, handle = 2 * self.dim, self.file.fileno()
        joined = b"".join([os.pread(handle, size, self.offset + row * size) for row in rows.tolist()])
        return np.frombuffer(joined, dtype="<f2").reshape(-1, self.dim)


@dataclass(frozen=True)
class Part:
    """Vectors by position under ascending ids. Never changed once it is part of a state that searches see."""

    ids: Ids  # ascending
    flat: Flat
    dead: npt.NDArray[np.bool_]  # [len(ids)]
    vector_file: VectorFile | None = None
    compressed: Compressed | None = None
    on_device: Proposer | None = None

    @cached_property
    def alive(self) -> int:
        return len(self.ids) - int(self.dead.sum())

    @cached_property
    def alive_selector(self) -> Any:
        """The selector of the rows that FAISS may return; None if it may return all."""
        return selector(~self.dead) if self.alive < len(self.ids) else None

    def rows_of(self, ids: Ids) -> Rows:
        """Return the positions of those of `ids` (ascending) that exist and are not removed."""
        if len(self.ids) and self.ids[-1] - self.ids[0] + 1 == len(self.ids):  # no gaps: the id gives the position
            rows = ids[(ids >= self.ids[0]) & (ids <= self.ids[-1])] - self.ids[0]
            present: Rows = rows if self.alive == len(self.ids) else rows[~self.dead[rows]]
            return present
        rows = np.searchsorted(self.ids, ids)
        inside = rows < len(self.ids)
        rows, ids = rows[inside], ids[inside]
        rows = rows[self.ids[rows] == ids]
        alive: Rows = rows[~self.dead[rows]]
        return alive

    def codes(self) -> Vectors:
        """The vectors [n, D], in memory or in the mapped file, checked."""
        return self.flat.vectors

    def gather(self, rows: Rows) -> Vectors:
        if self.vector_file is not None and len(rows) <= _READ:
            return self.vector_file.read(rows)
        if self.vector_file is not None:
            self.vector_file.require(rows)
        return self.flat.unchecked[rows]

    def iter_alive(self) -> Iterator[Vectors]:
        """Yield the vectors that are not removed, in order, in chunks."""
        for start in range(0, len(self.flat), _CHUNK):
            chunk = self.flat.rows(start, start + _CHUNK)
            dead = self.dead[start : start + _CHUNK]
            yield chunk[~dead] if dead.any() else chunk

    def without(self, ids: Ids) -> tuple[Part, int]:
        """Return the part without those of `ids` (ascending) that exist, and their number."""
        rows = self.rows_of(ids)
        if not len(rows):
            return self, 0
        dead = self.dead.copy()
        dead[rows] = True
        return replace(self, dead=dead), len(rows)


@dataclass(frozen=True)
class State:
    """The rows that one search sees. `mapped` may be a memory-mapped file; `recent` is in memory, with higher ids."""

    mapped: Part
    recent: Part
    mark: Mark

    @property
    def parts(self) -> tuple[Part, Part]:
        return self.mapped, self.recent

    def ids(self) -> Ids:
        return np.concatenate([part.ids[~part.dead] if part.alive < len(part.ids) else part.ids for part in self.parts])


def search_part(part: Part, queries: Embeddings, k: int, allowed: Ids | None, exact: bool = False) -> Hits:
    """The k best rows of one part per query. With `allowed` (ascending) or `exact`, a compressed index is not used."""
    if not part.alive:
        return [[] for _ in queries]
    if allowed is not None:
        rows = part.rows_of(allowed)
        if not len(rows):
            return [[] for _ in queries]
        proposed = _among(part, queries, k, rows)
    else:
        quick = None if exact else part.on_device or part.compressed
        nothing: list[Rows | None] = [None] * len(queries)
        guesses = quick.propose(queries, k, part) if quick else nothing
        open_ones = [i for i, rows in enumerate(guesses) if rows is None]
        if open_ones:
            found = _candidates(part, queries[open_ones], k, None)
            for i, rows in zip(open_ones, found, strict=True):
                guesses[i] = rows
        proposed = [rows for rows in guesses if rows is not None]
    return [_scored(part, query, rows, k) for query, rows in zip(queries, proposed, strict=True)]


def _among(part: Part, queries: Embeddings, k: int, rows: Rows) -> list[Rows]:
    if len(rows) <= _DIRECT:
        return [rows] * len(queries)
    return _candidates(part, queries, k, None if len(rows) == part.alive else rows)


def _candidates(part: Part, queries: Embeddings, k: int, among: Rows | None) -> list[Rows]:
    """Return per query rows that certainly include the k best of `among` (None: all that are not removed)."""
    # A float32 sum of D products is off by at most about D * 2**-24 * |q| * |v|, a difference by twice; |v| is about 1.
    margins = 4 * queries.shape[1] * 2.0**-24 * np.linalg.norm(queries, axis=1) + 1e-30
    scanned = part.flat.scan(queries)
    if scanned is None:
        return _by_faiss(part, queries, k, among, margins)
    if among is None and part.alive < len(part.ids):
        among = np.flatnonzero(~part.dead)
    out = []
    for scores, margin in zip(scanned if among is None else scanned[:, among], margins, strict=True):
        best = min(k, len(scores))
        near = np.flatnonzero(scores >= np.partition(scores, -best)[-best] - margin)
        out.append(near if among is None else among[near])
    return out


def _by_faiss(part: Part, queries: Embeddings, k: int, among: Rows | None, margins: npt.NDArray[Any]) -> list[Rows]:
    """Return FAISS's best rows, and more of them until the last one is clearly worse than the k-th."""
    chosen, total = part.alive_selector, part.alive
    if among is not None:
        mask = np.zeros(len(part.ids), dtype=np.bool_)
        mask[among] = True
        chosen, total = selector(mask), len(among)
    parameters = None if chosen is None else load_faiss().SearchParameters(sel=chosen)
    out: list[Rows] = [np.empty(0, dtype=np.int64)] * len(queries)
    pending = np.arange(len(queries))
    wanted = min(k + _SLACK, total)
    while len(pending):
        scores, rows = part.flat.faiss_index.search(queries[pending], wanted, params=parameters)
        for i, its_rows in zip(pending, rows, strict=True):
            out[i] = np.sort(its_rows[its_rows >= 0])  # -1 is padding: the sentinel is removed here
        if wanted >= total:
            break
        pending = pending[scores[:, -1] >= scores[:, k - 1] - margins[pending]]
        wanted = min(wanted * 4, total)
    return out


def _scored(part: Part, query: Embeddings, rows: Rows, k: int) -> list[tuple[int, float]]:
    """Return the k best of the rows (ascending), by their inner product in float64, rounded to float32."""
    # einsum without optimisation sums each row alone and alike: equal rows, equal sums. A BLAS product would not.
    exact = query.astype(np.float64)
    scores = np.empty(len(rows), dtype=np.float32)
    for i in range(0, len(rows), 4096):
        vectors = part.gather(rows[i : i + 4096]).astype(np.float64)
        scores[i : i + 4096] = np.einsum("nd,d->n", vectors, exact, optimize=False)
    best = np.argsort(-scores, kind="stable")[:k]
    return [(int(part.ids[rows[i]]), float(scores[i])) for i in best]


def selector(mask: npt.NDArray[np.bool_]) -> Any:
    """Return an IDSelector that accepts the rows whose mask [n] is true."""
    return load_faiss().IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def new_part(ids: Ids, flat: Flat, **more: Any) -> Part:
    return Part(ids, flat, np.zeros(len(ids), dtype=np.bool_), **more)


def empty_part(dim: int) -> Part:
    return new_part(np.empty(0, dtype=np.int64), Flat(np.empty((0, dim), dtype="<f2")))


def ascending(ids: Ids) -> Ids:
    """The ids sorted, each once. Not np.unique: its first call imports numpy.ma, a tenth of a cold search's time."""
    array = np.asarray(ids, dtype=np.int64).reshape(-1)
    if not np.all(array[1:] > array[:-1]):
        array = np.sort(array)
        array = array[np.append(True, array[1:] != array[:-1])] if len(array) else array
    return array
