"""The vector index of a store, derived from the catalog: exact search, or a compressed index where one was built.

The rows lie in ascending order of their ids as float16 vectors. What was loaded from a file stays memory-mapped and is
never changed; rows added since live in a small exact index beside it, rows removed are masked. So opening and catching
up cost what changed, not what is there, and nothing new is missed by an older compressed index.

The file can be deleted at any time: see `file`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
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
    """How many rows an index took in and let go; whether all of it was built anew."""

    added: int = 0
    removed: int = 0
    anew: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.anew)


class CatalogIndex:
    """Exact inner-product search over float16 vectors by id. A `StoreIndex`, see `port`.

    Searches may run in several threads, also while another adds or removes: each sees one state.

    What is read of its file is checked first. If it is damaged, `renew` gives the index anew, from the catalog, and
    this one goes on with that; without `renew` StoreCorrupt is raised.
    """

    renew: Callable[[], CatalogIndex] | None = None

    def __init__(self, dim: int, kind: VectorKind = "frame", store_id: str = "") -> None:
        if dim < 1:
            raise ValueError(f"dim is {dim}, expected at least 1")
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
        """Per query at most k pairs of (id, inner product), best first, equal scores by ascending id.

        `queries` is [D] or [Q, D] and finite, else ValueError. With `allowed` only the rows that pass are searched, and
        exactly. Without, a compressed index is asked where there is one, unless `exact`.
        """
        return self._nearest(queries, k, None if allowed is None else allowed.ids, exact)

    def scores(self, queries: Embeddings, ids: Ids) -> list[dict[int, float]]:
        """Per query the inner product with each of `ids` (any order) that is here. ValueError as for `search`."""
        return [dict(found) for found in self._nearest(queries, len(ids), ids, exact=True)]

    def _nearest(self, queries: Embeddings, k: int, ids: Ids | None, exact: bool) -> Hits:
        array = np.asarray(queries, dtype=np.float32)
        array = self._checked(array[None, :] if array.ndim == 1 else array, "queries")
        if k < 0:
            raise ValueError(f"k is {k}, expected 0 or more")
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
        """What `read` makes of the present state, or of the renewed one if that finds the file damaged."""
        state = self._state
        try:
            return read(state)
        except StoreCorrupt as exc:
            if self.renew is None:
                raise
            with self._writing:
                if self._state.mapped.vector_file is state.mapped.vector_file:  # else another thread has renewed it
                    log.warning("%s; building it anew from the catalog", exc)
                    self._state = self.renew()._state
        return read(self._state)

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
                self._state = State(state.mapped, self._appended(state.recent, [(new, array)]), mark)
            else:
                self._state = State(empty_part(self._dim), self._merged(state, new, array), mark)

    def remove(self, ids: Ids) -> int:
        """Remove those of `ids` that are here; how many were."""
        gone = ascending(ids)
        with self._writing:
            mapped, here = self._state.mapped.without(gone)
            recent, there = self._state.recent.without(gone)
            self._state = State(mapped, recent, self._state.mark)
            return here + there

    def catch_up(self, catalog: VectorSource) -> IndexChanges:
        """Take in what was committed to the catalog since this index's mark, and let go what was deleted there.

        Costs what changed. Additions are read before deletions, so a row that comes and goes meanwhile ends up gone.
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
        """Whether a sample of rows, the newest among them, is what the catalog holds under those ids.

        For an index that has caught up. It tells a file that belongs to another state, such as a restored backup.
        """
        ids = self.ids
        if not len(ids):
            return True
        spread = np.linspace(0, len(ids) - 1, num=min(sample, len(ids)), dtype=np.int64)
        chosen = ascending(np.concatenate([ids[spread], ids[-sample:]]))
        found, vectors = catalog.vectors_of(chosen.tolist(), self.kind)
        return np.array_equal(found, chosen) and np.array_equal(vectors, self.vectors_of(chosen))

    def vectors_of(self, ids: Ids) -> npt.NDArray[np.float16]:
        """The vectors [n, D] of those of `ids` that are here, by ascending id."""
        wanted = ascending(ids)
        return self._of_sound(lambda state: np.concatenate([part.gather(part.rows_of(wanted)) for part in state.parts]))

    def check(self) -> None:
        """Read all of the file that this index is mapped from, to find whether anything in it is damaged."""

        def read(state: State) -> None:
            vector_file = state.mapped.vector_file
            if vector_file is not None:
                vector_file.checked.require(0, vector_file.checked.size)

        self._of_sound(read)

    @property
    def tuning(self) -> Tuning | None:
        """How the compressed index is searched; None if there is none and every search is exact."""
        compressed = self._state.mapped.compressed
        return compressed.tuning if compressed else None

    @property
    def nlist(self) -> int | None:
        compressed = self._state.mapped.compressed
        return compressed.nlist if compressed else None

    @property
    def memory_bytes(self) -> int:
        """What a search without filter may touch: all vectors, or the compressed index and the rows it lacks."""
        state = self._state
        bookkeeping = sum(9 * len(part.ids) for part in state.parts)
        exact = [part for part in state.parts if part.compressed is None]
        quick = [part.compressed.memory_bytes for part in state.parts if part.compressed]
        return bookkeeping + sum(quick) + sum(2 * self._dim * len(part.ids) for part in exact)

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all: a temporary file, fsync, rename.

        Removed vectors are not in it, nor their codes; new ones are in the compressed index too, if there is one.
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
            return meta | {"kind": self.kind, "store_id": self.store_id}

        try:
            write_whole(path, write)
        except (OSError, RuntimeError) as exc:
            raise StoreError(
                f"the index file {path.name} can't be written: {reason(exc, path)}",
                hint="Make room and check permissions; the catalog has everything, nothing is lost.",
            ) from exc

    @classmethod
    def load(cls, path: Path) -> CatalogIndex:
        """Open what `save` wrote, memory-mapped. FileNotFoundError if there is none, StoreCorrupt if it is damaged."""
        opened = open_file(path)
        meta = opened.meta
        index = cls(meta["dim"], meta["kind"], meta["store_id"])
        mapped = read_part(path, opened)
        index._state = State(mapped, empty_part(index.dim), Mark(meta["last_id"], meta["seq"]))
        return index

    def compress(self, nlist: int | None = None, on_progress: Callable[[int], None] | None = None) -> None:
        """Build a compressed index over the rows of the file. Those that came since are searched beside it."""
        with self._writing:
            if len(self._state.mapped.ids):
                vectors = self._of_sound(lambda state: state.mapped.codes())
                compressed = build(vectors, nlist, on_progress)
                self._state = replace(self._state, mapped=replace(self._state.mapped, compressed=compressed))

    def tune(self, tuning: Tuning | None) -> None:
        """Search the compressed index in this way from now on; None drops it."""
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
                    f"{self.kind} vectors of the catalog have {vectors.shape[1]} numbers, expected {self._dim}",
                    hint="Index the archive into a new store.",
                )
            if not np.isfinite(vectors).all():
                raise StoreCorrupt(
                    f"{self.kind} vectors of the catalog between ids {ids[0]} and {ids[-1]} hold NaN or infinity",
                    hint="Index the archive into a new store.",
                )
            yield ids, vectors

    def _appended(self, part: Part, batches: Iterable[tuple[Ids, npt.NDArray[Any]]]) -> Part:
        """A copy of the part with rows behind it whose ids are above all others; the part itself if there are none."""
        new = list(batches)
        if not new:
            return part
        alive = ~part.dead
        ids = np.concatenate([part.ids[alive], *(ids for ids, _ in new)])
        return new_part(ids, Flat(np.concatenate([part.codes()[alive], *(vectors for _, vectors in new)])))

    def _merged(self, state: State, new: Ids, vectors: npt.NDArray[Any]) -> Part:
        """All rows of a state and new ones, in order of their ids, in memory."""
        ids = np.concatenate([state.ids(), new])
        codes = np.concatenate([part.codes()[~part.dead] for part in state.parts] + [vectors])
        order = np.argsort(ids, kind="stable")
        return new_part(ids[order], Flat(codes[order]))

    def _checked(self, array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != self._dim:
            raise ValueError(f"{what} have shape {array.shape}, expected (N, {self._dim})")
        if not np.isfinite(array).all():
            raise ValueError(f"{what} hold NaN or infinity in {int((~np.isfinite(array)).any(axis=1).sum())} rows")
        return array
