"""The vector index of a store, derived from the catalog: exact, or compressed if a compressed index was built.

The rows are float16 vectors in ascending order of their ids. What was loaded from a file stays memory-mapped and is
never changed; rows added since are in a small exact index beside it, and removed rows are masked. So opening and
updating cost only what changed, and a compressed index misses no newer row. The file can be deleted at any time: see
`file`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from indexer.vector_sets import VectorKind
from indexer.vectors.compressed import Tuning, build
from indexer.vectors.file import WritableFile, open_file, read_part, reason, write_compressed, write_flat, write_whole
from indexer.vectors.flat import Flat
from indexer.vectors.parts import (
    Hits,
    Mark,
    Part,
    State,
    VectorSource,
    ascending,
    empty_part,
    new_part,
    search_part,
)
from indexer.vectors.proposing import Proposer
from retrieval.errors import StoreCorrupt, StoreError
from retrieval.types import Embeddings, Ids, RowFilter

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class IndexChanges:
    """How many rows an index added and removed, and whether it was rebuilt."""

    added: int = 0
    removed: int = 0
    anew: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.anew)


class CatalogIndex:
    """Exact inner-product search over float16 vectors by id. A `StoreIndex`, see `port`.

    Searches may run in several threads, also while another thread adds or removes rows: each sees one state.

    What is read from its file is checked first. If it is damaged, `renew` returns the index rebuilt from the catalog,
    and this one continues with that; without `renew`, StoreCorrupt is raised.
    """

    renew: Callable[[], CatalogIndex] | None = None
    measured: Mapping[str, Any] | None = None  # what was found of the compressed index; kept in its file

    def __init__(self, dim: int, kind: VectorKind = "frame", store_id: str = "") -> None:
        if dim < 1:
            raise ValueError(f"dim is {dim}; expected 1 or more")
        self._dim = dim
        self.kind: VectorKind = kind
        self.store_id = store_id
        self._writing = threading.RLock()
        self._state = State(empty_part(dim), empty_part(dim), Mark())

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
        return self._state.ids()

    def search(self, queries: Embeddings, k: int, allowed: RowFilter | None = None, *, exact: bool = False) -> Hits:
        """Return per query at most k pairs of (id, inner product), best first, equal scores by ascending id.

        `queries` is [D] or [Q, D] and finite, else ValueError. With `allowed`, only these rows are searched, and
        exactly. Without it, a compressed index is used if there is one, unless `exact`.
        """
        return self._nearest(queries, k, None if allowed is None else allowed.ids, exact)

    def scores(self, queries: Embeddings, ids: Ids) -> list[dict[int, float]]:
        """Return per query the inner product with each of `ids` (any order) that exists. ValueError as for `search`."""
        return [dict(found) for found in self._nearest(queries, len(ids), ids, exact=True)]

    def sample(self, n: int) -> Ids:
        """At most n ids, ascending, spread evenly over the index."""
        ids = self.ids
        return ids if len(ids) <= n else ids[np.linspace(0, len(ids) - 1, num=n, dtype=np.int64)]

    def _nearest(self, queries: Embeddings, k: int, ids: Ids | None, exact: bool) -> Hits:
        array = np.asarray(queries, dtype=np.float32)
        array = self._checked(array[None, :] if array.ndim == 1 else array, "queries")
        if k < 0:
            raise ValueError(f"k is {k}; expected 0 or more")
        allowed = None if ids is None else ascending(ids)
        if k == 0:
            return [[] for _ in array]

        def search(state: State) -> Hits:
            hits: Hits = [[] for _ in array]
            for part in state.parts:
                for found, query_hits in zip(search_part(part, array, k, allowed, exact), hits, strict=True):
                    query_hits += found
            return [sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k] for found in hits]

        return self._of_sound(search)

    def _of_sound(self, read: Callable[[State], T]) -> T:
        """Return the result of `read` on the current state, or on the renewed one if the file is damaged."""
        state = self._state
        try:
            return read(state)
        except StoreCorrupt as exc:
            if self.renew is None:
                raise
            with self._writing:
                if self._state.mapped.vector_file is state.mapped.vector_file:  # else another thread has renewed it
                    log.warning("%s; it is rebuilt from the catalog", exc)
                    self._state = self.renew()._state
        return read(self._state)

    def add(self, ids: Ids, vectors: npt.NDArray[np.floating[Any]]) -> None:
        """Add vectors [n, D] under ids [n].

        Raises ValueError for ids that exist or occur twice, a wrong shape, or NaN.
        """
        new = np.asarray(ids, dtype=np.int64).reshape(-1)
        with np.errstate(over="ignore"):  # a value that float16 can't represent becomes infinity and is refused
            array = self._checked(np.asarray(vectors).astype("<f2"), "vectors as float16")
        if len(new) != len(array):
            raise ValueError(f"there are {len(new)} ids for {len(array)} vectors")
        order = np.argsort(new, kind="stable")
        new, array = new[order], array[order]
        twice = new[1:][new[1:] == new[:-1]]
        if len(twice):
            raise ValueError(f"the id {twice[0]} occurs twice")
        with self._writing:
            state = self._state
            there = [part.ids[part.rows_of(new)] for part in state.parts]
            known = np.concatenate(there)
            if len(known):
                raise ValueError(f"the id {known[0]} is in the index already, and so are {len(known) - 1} others")
            if not len(new):
                return
            highest = max((int(part.ids[-1]) for part in state.parts if len(part.ids)), default=-(2**63))
            mark = replace(state.mark, last_id=max(state.mark.last_id, int(new[-1])))
            if int(new[0]) > highest:
                self._state = State(state.mapped, self._appended(state.recent, [(new, array)]), mark)
            else:
                self._state = State(empty_part(self._dim), self._merged(state, new, array), mark)

    def remove(self, ids: Ids) -> int:
        """Remove those of `ids` that exist. Returns their number."""
        gone = ascending(ids)
        with self._writing:
            mapped, here = self._state.mapped.without(gone)
            recent, there = self._state.recent.without(gone)
            self._state = State(mapped, recent, self._state.mark)
            return here + there

    def catch_up(self, catalog: VectorSource) -> IndexChanges:
        """Add what was committed to the catalog since this index's mark, and remove what was deleted there.

        Costs only what changed. Additions are read before deletions, so a row that was added and deleted meanwhile is
        removed.
        """
        with self._writing:
            state = self._state
            recent = self._appended(state.recent, self._batches(catalog, state.mark.last_id))
            last_id = int(recent.ids[-1]) if recent is not state.recent else state.mark.last_id
            added = recent.alive - state.recent.alive
            seq, gone = catalog.deleted_since(self.kind, state.mark.seq)
            self._state = State(state.mapped, recent, Mark(last_id, state.mark.seq))
            removed = self.remove(gone) if len(gone) else 0
            self._state = replace(self._state, mark=Mark(last_id, seq))
            return IndexChanges(added, removed)

    def agrees_with(self, catalog: VectorSource, sample: int = 32) -> bool:
        """Whether a sample of rows, the newest among them, equals the rows of the catalog under those ids.

        For an index that was just updated. It detects a file of another state, such as a restored backup.
        """
        ids = self.ids
        if not len(ids):
            return True
        chosen = ascending(np.concatenate([self.sample(sample), ids[-sample:]]))
        found, vectors = catalog.vectors_of(chosen.tolist(), self.kind)
        return np.array_equal(found, chosen) and np.array_equal(vectors, self.vectors_of(chosen))

    def vectors_of(self, ids: Ids) -> npt.NDArray[np.float16]:
        """Return the vectors [n, D] of those of `ids` that exist, by ascending id."""
        wanted = ascending(ids)
        return self._of_sound(lambda state: np.concatenate([part.gather(part.rows_of(wanted)) for part in state.parts]))

    def check(self) -> None:
        """Read all of the mapped file. Raises StoreCorrupt if anything in it is damaged."""

        def read(state: State) -> None:
            vector_file = state.mapped.vector_file
            if vector_file is not None:
                vector_file.checked.require(0, vector_file.checked.size)

        self._of_sound(read)

    @property
    def tuning(self) -> Tuning | None:
        """The search settings of the compressed index; None if there is none and every search is exact."""
        compressed = self._state.mapped.compressed
        return compressed.tuning if compressed else None

    @property
    def nlist(self) -> int | None:
        compressed = self._state.mapped.compressed
        return compressed.nlist if compressed else None

    @property
    def memory_bytes(self) -> int:
        """The bytes that a search without a filter may use: all vectors, or the compressed index and the rows it
        lacks.
        """
        state = self._state
        bookkeeping = sum(9 * len(part.ids) for part in state.parts)
        exact = [part for part in state.parts if part.compressed is None]
        quick = [part.compressed.memory_bytes for part in state.parts if part.compressed]
        return bookkeeping + sum(quick) + sum(2 * self._dim * len(part.ids) for part in exact)

    def save(self, path: Path) -> None:
        """Write the index to a file, completely or not at all: a temporary file, fsync, rename.

        Removed vectors and their codes are not in it; new ones are in the compressed index too, if there is one. Raises
        StoreError if it can't be written.
        """
        self._of_sound(lambda state: self._save(state, path))

    def _save(self, state: State, path: Path) -> None:
        ids = state.ids()
        compressed = state.mapped.compressed
        if compressed is not None:
            compressed.require()
        if compressed is not None and (state.mapped.alive < len(state.mapped.ids) or len(state.recent.ids)):
            alive = ~state.mapped.dead
            places = np.where(alive, np.cumsum(alive) - 1, -1)
            compressed = compressed.rewritten(places, state.recent.iter_alive())

        def write(file: WritableFile) -> dict[str, Any]:
            vectors = (batch for part in state.parts for batch in part.iter_alive())
            meta = write_flat(file, self._dim, ids, vectors) | asdict(state.mark)
            if compressed is not None and len(compressed):
                meta |= write_compressed(file, compressed)
                meta |= {"measured": dict(self.measured)} if self.measured else {}
            return meta | {"kind": self.kind, "store_id": self.store_id}

        try:
            write_whole(path, write)
        except (OSError, RuntimeError) as exc:
            raise StoreError(
                f"the index file {path.name} can't be written: {reason(exc, path)}",
                hint="Free disk space and check the permissions. Nothing is lost: the catalog has all vectors.",
            ) from exc

    @classmethod
    def load(cls, path: Path) -> CatalogIndex:
        """Open what `save` wrote, memory-mapped.

        Raises FileNotFoundError if there is none, StoreCorrupt if it is damaged.
        """
        opened = open_file(path)
        meta = opened.meta
        index = cls(meta["dim"], meta["kind"], meta["store_id"])
        mapped = read_part(path, opened)
        index._state = State(mapped, empty_part(index.dim), Mark(meta["last_id"], meta["seq"]))
        measured = meta.get("measured")
        index.measured = measured if isinstance(measured, dict) else None
        return index

    def compress(self, nlist: int | None = None, on_progress: Callable[[int], None] | None = None) -> None:
        """Build a compressed index over the rows of the file. Rows that were added since are searched beside it."""
        with self._writing:
            if len(self._state.mapped.ids):
                vectors = self._of_sound(lambda state: state.mapped.codes())
                compressed = build(vectors, nlist, on_progress)
                self._state = replace(self._state, mapped=replace(self._state.mapped, compressed=compressed))

    def tune(self, tuning: Tuning | None) -> None:
        """Search the compressed index with these settings from now on; None removes it."""
        with self._writing:
            mapped = self._state.mapped
            compressed = mapped.compressed.tuned(tuning) if tuning and mapped.compressed else None
            self._state = replace(self._state, mapped=replace(mapped, compressed=compressed))

    @property
    def on_device(self) -> bool:
        """Whether a device searches the rows of the file."""
        return self._state.mapped.on_device is not None

    def move_to(self, make: Callable[[Part], Proposer]) -> None:
        """Let a device search the rows of the file: `make` copies them there, see `gpu`."""
        with self._writing:
            if len(self._state.mapped.ids):
                on_device = self._of_sound(lambda state: make(state.mapped))
                self._state = replace(self._state, mapped=replace(self._state.mapped, on_device=on_device))

    def _batches(self, catalog: VectorSource, after_id: int) -> Iterator[tuple[Ids, npt.NDArray[Any]]]:
        for ids, vectors in catalog.iter_vectors(self.kind, after_id=after_id):
            if vectors.shape[1] != self._dim:
                raise StoreCorrupt(
                    f"the {self.kind} vectors of the catalog have {vectors.shape[1]} numbers; expected {self._dim}",
                    hint="Index the archive into a new store.",
                )
            if not np.isfinite(vectors).all():
                raise StoreCorrupt(
                    f"{self.kind} vectors of the catalog with ids from {ids[0]} to {ids[-1]} contain NaN or infinity",
                    hint="Index the archive into a new store.",
                )
            yield ids, vectors

    def _appended(self, part: Part, batches: Iterable[tuple[Ids, npt.NDArray[Any]]]) -> Part:
        """Return a copy of the part with further rows whose ids are higher than all others; the part itself if there
        are none.
        """
        new = list(batches)
        if not new:
            return part
        alive = ~part.dead
        ids = np.concatenate([part.ids[alive], *(ids for ids, _ in new)])
        return new_part(ids, Flat(np.concatenate([part.codes()[alive], *(vectors for _, vectors in new)])))

    def _merged(self, state: State, new: Ids, vectors: npt.NDArray[Any]) -> Part:
        """Return all rows of a state and new ones, in order of their ids, in memory."""
        ids = np.concatenate([state.ids(), new])
        codes = np.concatenate([part.codes()[~part.dead] for part in state.parts] + [vectors])
        order = np.argsort(ids, kind="stable")
        return new_part(ids[order], Flat(codes[order]))

    def _checked(self, array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != self._dim:
            raise ValueError(f"the {what} have shape {array.shape}; expected (N, {self._dim})")
        if not np.isfinite(array).all():
            raise ValueError(
                f"{int((~np.isfinite(array)).any(axis=1).sum())} rows of the {what} contain NaN or infinity"
            )
        return array
