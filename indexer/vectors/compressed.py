"""A compressed index over a part's rows: lists around centres, a bit per number (IVF with RaBitQ), exact scores after.

It only proposes: the candidates are scored again from the float16 vectors in the file, so scores and order are those of
the exact search and only the choice of candidates is approximate. Of 512 numbers 72 bytes stay in memory. It is not
asked where it could mislead: with a filter, or for a large share of all rows, the search is exact.

RaBitQ: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound", SIGMOD 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.vectors.blocks import CheckedFile
from indexer.vectors.flat import load_faiss
from indexer.vectors.proposing import Proposable, Rows
from retrieval.types import Embeddings

_QUERY_BITS = 8  # of the query's numbers while it is compared with the codes
_SAMPLE_PER_LIST = 32
_MOST_LISTS = 8192
_CHUNK = 16_384
_REACH = 16  # a row is compared with this many times the average number of centres in its group


@dataclass(frozen=True)
class Tuning:
    """How far a search looks: the lists it searches, and the candidates per result that are scored exactly."""

    nprobe: int = 16
    per_answer: int = 10


class MappedLists:
    """The lists of an index that FAISS reads in a mapped file. It owns that memory."""

    def __init__(self, faiss_index: Any, content: npt.NDArray[np.uint8], checked: CheckedFile) -> None:
        self._index = faiss_index
        self._content = content
        self._checked = checked
        self._unread = np.ones(int(faiss_index.nlist), dtype=np.bool_)

    def require(self, numbers: npt.NDArray[np.int64]) -> None:
        """Raise StoreCorrupt if one of these lists (negative numbers are ignored) is damaged in the file."""
        lists, code_size = self._index.invlists, int(self._index.code_size)
        wanted = np.zeros(len(self._unread), dtype=np.bool_)
        wanted[numbers[numbers >= 0]] = True
        for number in np.flatnonzero(wanted & self._unread).tolist():
            size = lists.list_size(number)
            if size:
                self._require_at(int(lists.get_codes(number)), size * code_size)
                self._require_at(int(lists.get_ids(number)), size * 8)
            self._unread[number] = False

    def _require_at(self, address: int, size: int) -> None:
        start = address - self._content.ctypes.data
        if not 0 <= start <= self._checked.size - size:
            raise RuntimeError("FAISS copied a list; expected it to read the list in the mapped file")
        self._checked.require(start, start + size)


class Compressed:
    """Codes for all rows of a part, by position. Never changed once it is part of a state that searches see."""

    def __init__(self, faiss_index: Any, tuning: Tuning, lists: MappedLists | None = None) -> None:
        self.faiss_index = faiss_index
        self.tuning = tuning
        self._lists = lists  # where they are in a file

    @property
    def nlist(self) -> int:
        return int(self.faiss_index.nlist)

    def __len__(self) -> int:
        return int(self.faiss_index.ntotal)

    @property
    def memory_bytes(self) -> int:
        """The bytes of codes, ids and centres, all of which a search may use."""
        return self.list_bytes + self.nlist * int(self.faiss_index.d) * 4

    def tuned(self, tuning: Tuning) -> Compressed:
        return Compressed(self.faiss_index, tuning, self._lists)

    def _search(self, queries: Embeddings, wanted: int, visited: int, allowed: Any) -> Rows:
        """Return FAISS's best rows [Q, wanted], padded with -1, from the nearest lists, which are checked first."""
        faiss = load_faiss()
        parameters = faiss.IVFRaBitQSearchParameters(nprobe=visited, qb=_QUERY_BITS, sel=allowed)
        closeness, lists = self.faiss_index.quantizer.search(queries, visited)
        self.require(lists.reshape(-1))
        scores = np.empty((len(queries), wanted), dtype=np.float32)
        rows = np.empty((len(queries), wanted), dtype=np.int64)
        pointers = [faiss.swig_ptr(array) for array in (lists, closeness, scores, rows)]
        # The Python method of this name takes no parameters.
        self.faiss_index.search_preassigned_c(
            len(queries), faiss.swig_ptr(queries), wanted, *pointers, False, parameters, None
        )
        return rows

    @property
    def list_bytes(self) -> int:
        """How many bytes of the written index are its lists, which come last."""
        return len(self) * (int(self.faiss_index.code_size) + 8)

    def require(self, lists: npt.NDArray[np.int64] | None = None) -> None:
        """Raise StoreCorrupt if one of these lists (None: any list) is damaged in the mapped file."""
        if self._lists is not None:
            self._lists.require(np.arange(self.nlist) if lists is None else lists)

    def propose(self, queries: Embeddings, k: int, part: Proposable) -> list[Rows | None]:
        """Return ascending rows per query, at least min(k, alive) of them; None if an exact search is needed."""
        wanted = k * self.tuning.per_answer
        visited = max(self.tuning.nprobe, -(-4 * wanted * self.nlist // part.alive))
        if 2 * wanted > part.alive or visited > self.nlist:
            return [None] * len(queries)
        found = self._search(np.ascontiguousarray(queries, dtype=np.float32), wanted, visited, part.alive_selector)
        proposed = [np.sort(rows[rows >= 0]) for rows in found]
        return [rows if len(rows) >= min(k, part.alive) else None for rows in proposed]

    def rewritten(self, new_places: Rows, added: Iterable[npt.NDArray[np.float16]]) -> Compressed:
        """Return a copy in memory: row i is at new_places[i] (-1: left out), and the added rows [m, D] follow."""
        faiss = load_faiss()
        self.require()
        old, new = self.faiss_index, _empty_like(self.faiss_index)
        for number in range(self.nlist):
            size = old.invlists.list_size(number)
            if not size:
                continue
            places = new_places[faiss.rev_swig_ptr(old.invlists.get_ids(number), size)]
            retained = places >= 0
            codes = faiss.rev_swig_ptr(old.invlists.get_codes(number), size * old.code_size).reshape(size, -1)
            places, codes = np.ascontiguousarray(places[retained]), np.ascontiguousarray(codes[retained])
            new.invlists.add_entries(number, len(places), faiss.swig_ptr(places), faiss.swig_ptr(codes))
        new.ntotal = int((new_places >= 0).sum())
        _add(new, added)
        return Compressed(new, self.tuning)


def default_nlist(count: int) -> int:
    """Return about 4 sqrt(n), a power of two, at most 8192: every search compares its query with all centres."""
    return min(_MOST_LISTS, int(2 ** round(np.log2(4 * np.sqrt(count))))) if count >= 1000 else 1


def build(
    vectors: npt.NDArray[np.float16], nlist: int | None = None, on_progress: Callable[[int], None] | None = None
) -> Compressed:
    """Train on a sample of the vectors [n, D] (n >= 1; may be mapped) and encode them all, in chunks."""
    faiss = load_faiss()
    count, dim = vectors.shape
    nlist = min(nlist or default_nlist(count), count)
    chosen = np.random.default_rng(0).choice(count, size=min(count, _SAMPLE_PER_LIST * nlist), replace=False)
    centres = _train(vectors[np.sort(chosen)].astype(np.float32), nlist)
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centres)
    index = faiss.IndexIVFRaBitQ(quantizer, dim, nlist, faiss.METRIC_INNER_PRODUCT)
    index.train(centres[:1])
    _add(index, (vectors[start : start + _CHUNK] for start in range(0, count, _CHUNK)), on_progress)
    return Compressed(index, Tuning())


def _empty_like(old: Any) -> Any:
    faiss = load_faiss()
    centres = centres_of(old)
    quantizer = faiss.IndexFlatIP(old.d)
    quantizer.add(centres)
    new = faiss.IndexIVFRaBitQ(quantizer, old.d, old.nlist, faiss.METRIC_INNER_PRODUCT)
    new.train(centres[:1])
    return new


def centres_of(ivf: Any) -> npt.NDArray[np.float32]:
    centres: npt.NDArray[np.float32] = ivf.quantizer.reconstruct_n(0, ivf.nlist)
    return centres


def _add(
    ivf: Any, batches: Iterable[npt.NDArray[np.float16]], on_progress: Callable[[int], None] | None = None
) -> None:
    """Add vectors at the following positions, each to the list of its nearest centre."""
    faiss = load_faiss()
    nearest: _Nearest | None = None
    for batch in batches:
        if not len(batch):
            continue
        nearest = nearest or _Nearest(centres_of(ivf))
        rows = np.ascontiguousarray(batch, dtype=np.float32)
        places = np.arange(ivf.ntotal, ivf.ntotal + len(rows), dtype=np.int64)
        lists = nearest(rows)
        ivf.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(places), faiss.swig_ptr(lists))
        if on_progress:
            on_progress(len(rows))


def _train(rows: npt.NDArray[np.float32], nlist: int) -> npt.NDArray[np.float32]:
    """Centres [nlist, D] of unit norm: k-means in groups of a coarser k-means, then two rounds over all.

    At 4096 lists this takes a thirtieth of the time of plain k-means.
    """
    groups = int(np.sqrt(nlist))
    coarse = _k_means(rows, groups)
    group = (rows @ coarse.T).argmax(axis=1)
    sizes = np.bincount(group, minlength=groups)
    shares = np.maximum(np.floor(nlist * sizes / len(rows)).astype(int), sizes > 0)
    shares = np.minimum(shares, sizes)
    for i in np.argsort(shares - nlist * sizes / len(rows)):  # distribute what rounding left to those that got least
        shares[i] += min(max(0, nlist - int(shares.sum())), 1, sizes[i] - shares[i])
    centres = np.concatenate([_k_means(rows[group == i], int(share)) for i, share in enumerate(shares) if share])
    if len(centres) < nlist:  # many equal rows
        centres = np.concatenate([centres, rows[: nlist - len(centres)]])
    centres = centres[:nlist]
    for _ in range(2):
        lists = _Nearest(centres)(rows)
        sums = np.zeros_like(centres)
        np.add.at(sums, lists, rows)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-30), centres)
    return np.ascontiguousarray(centres, dtype=np.float32)


def _k_means(rows: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    faiss = load_faiss()
    if k >= len(rows):
        return rows
    clustering = faiss.Clustering(rows.shape[1], k)
    clustering.niter, clustering.seed, clustering.spherical = 10, 1, True
    clustering.min_points_per_centroid = 1
    clustering.train(np.ascontiguousarray(rows), faiss.IndexFlatIP(rows.shape[1]))
    return np.asarray(faiss.vector_to_array(clustering.centroids)).reshape(k, -1)


class _Nearest:
    """Finds the centre of highest inner product for each row, among the centres near the row's group.

    At 4096 centres this takes a third of the time of comparing with all. The search itself compares with all, so a row
    in another list than its nearest costs recall: at a reach of 6 one row in six, and twice as many lists had to be
    searched.
    """

    def __init__(self, centres: npt.NDArray[np.float32]) -> None:
        self._centres = centres
        groups = int(np.sqrt(len(centres))) if len(centres) >= 256 else 1
        self._tops = _k_means(centres, groups)
        reach = len(centres) if groups == 1 else _REACH * len(centres) // groups
        closeness = self._tops @ centres.T
        self._members = np.argpartition(-closeness, reach - 1, axis=1)[:, :reach]

    def __call__(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        group = (rows @ self._tops.T).argmax(axis=1)
        out = np.empty(len(rows), dtype=np.int64)
        for number in np.unique(group):
            chosen = np.flatnonzero(group == number)
            members = self._members[number]
            out[chosen] = members[(rows[chosen] @ self._centres[members].T).argmax(axis=1)]
        return out
