"""Which kind of index a store needs, measured on its own vectors.

Exact while that is fast; else compressed, searching as few lists as still find what the exact search finds. The trial
uses vectors of the index itself as queries, without the row that each came from, and vectors of the other modality: a
sentence lies elsewhere than the pictures it describes, and lists made for pictures serve it less well. Both recalls
must be high enough.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.vectors.compressed import Tuning
from indexer.vectors.index import CatalogIndex
from indexer.vectors.opening import IndexFile, open_index, refreshed, writing
from indexer.vectors.parts import VectorSource
from retrieval.errors import StoreError

log = logging.getLogger(__name__)

IndexKind = Literal["flat", "ivf-rabitq"]
QUICK_MS = 20.0
RECALL = 0.99
_K = 10
_TIMED = 30  # single searches per figure
_PER_ANSWER = (4, 8, 12, 16, 32)

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Measured:
    """The result of a trial. Times are of one query at a time; recall is of the worse of the two kinds of queries."""

    kind: IndexKind
    rows: int
    recall_at_10: float
    median_ms: float
    p95_ms: float
    exact_median_ms: float
    memory_bytes: int
    build_seconds: float
    queries: int
    nlist: int | None = None
    nprobe: int | None = None
    per_answer: int | None = None

    def figures(self) -> dict[str, Any]:
        """All that is known of it, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class _Trial:
    queries: npt.NDArray[np.float32]  # [Q, D]
    own: npt.NDArray[np.int64]  # [Q] the id that a query came from, -1 for none
    truth: list[set[int]]

    def recall(self, index: CatalogIndex) -> float:
        """Return the share of the nearest ten that is found; the lower one of own and foreign queries."""
        shares = np.array(
            [
                len(true & found) / max(1, len(true))
                for true, found in zip(self.truth, _answers(index, self.queries, self.own, exact=False), strict=True)
            ]
        )
        groups = [shares[self.own >= 0], shares[self.own < 0]]
        return min(float(group.mean()) for group in groups if len(group))


def optimize(
    file: IndexFile,
    catalog: VectorSource,
    other: Vectors,
    *,
    kind: IndexKind | None = None,
    memory: int | None = None,
    sample: int = 200,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[CatalogIndex, Measured] | None:
    """Measure, build what is needed, and write the file. Returns None if there are no vectors.

    `other` are vectors [m, D] of the other modality, used as queries (m may be 0). `memory` is in bytes and bounds what
    searches use repeatedly. `kind` forces a kind. Raises StoreError if nothing fits.
    """
    index = refreshed(file, catalog)
    if not len(index):
        return None
    index.check()  # all of it is read below
    with writing(file):
        index = CatalogIndex.load(file.path)
        had = index.tuning is not None
        index.tune(None)
        trial = _make_trial(index, other, sample)
        exact_ms, exact_p95, _ = _timed(index, trial)
        flat = Measured("flat", len(index), 1.0, exact_ms, exact_p95, exact_ms, index.memory_bytes, 0.0, len(trial.own))
        chosen = flat
        if kind != "flat" and (kind is not None or exact_ms >= QUICK_MS or not _fits(flat, memory)):
            chosen = _compressed(index, trial, flat, on_progress) or flat
            if chosen is flat:
                index.tune(None)
                log.warning(
                    "no compressed index reaches a recall of %.2f on these vectors, so the index stays exact", RECALL
                )
        if not _fits(chosen, memory):
            raise StoreError(
                f"as {chosen.kind}, the {file.kind} index would use {chosen.memory_bytes / 2**20:.0f} MiB "
                f"of memory; at most {(memory or 0) / 2**20:.0f} MiB are allowed",
                hint="Allow more with --memory, or leave out --kind. Nothing was changed.",
            )
        if had or chosen.kind != "flat":
            index.measured = chosen.figures()
            index.save(file.path)
    return open_index(file, catalog), chosen


def _fits(measured: Measured, memory: int | None) -> bool:
    return memory is None or measured.memory_bytes <= memory


def _make_trial(index: CatalogIndex, other: Vectors, sample: int) -> _Trial:
    own = np.sort(np.random.default_rng(0).choice(index.ids, size=min(sample, len(index)), replace=False))
    queries = np.concatenate([index.vectors_of(own), other[:sample]]).astype(np.float32)
    ids = np.concatenate([own, np.full(len(queries) - len(own), -1, dtype=np.int64)])
    return _Trial(queries, ids, _answers(index, queries, ids, exact=True))


def _answers(index: CatalogIndex, queries: Any, own: npt.NDArray[np.int64], *, exact: bool) -> list[set[int]]:
    hits = index.search(queries, _K + 1, exact=exact)
    found = [[i for i, _ in answers if i != itself] for answers, itself in zip(hits, own.tolist(), strict=True)]
    return [set(answers[:_K]) for answers in found]


def _timed(index: CatalogIndex, trial: _Trial) -> tuple[float, float, float]:
    """Return milliseconds of one search, after one that is not counted: median, 95th percentile, and the median of the
    CPU time, which other programs on the machine affect least.
    """
    seconds, used = [], []
    for query in np.resize(trial.queries, (_TIMED + 1, trial.queries.shape[1])):
        start, before = time.perf_counter(), time.process_time()
        index.search(query, _K)
        seconds.append(time.perf_counter() - start)
        used.append(time.process_time() - before)
    median, p95 = np.percentile(1000 * np.array(seconds[1:]), [50, 95])
    return round(float(median), 3), round(float(p95), 3), 1000 * float(np.median(used[1:]))


def _compressed(
    index: CatalogIndex, trial: _Trial, flat: Measured, on_progress: Callable[[int], None] | None
) -> Measured | None:
    """Build it and find the fastest setting with enough recall; None if no setting has enough."""
    start = time.perf_counter()
    index.compress(on_progress=on_progress)
    seconds = round(time.perf_counter() - start, 1)
    best: Measured | None = None
    least = math.inf
    nlist = index.nlist or 1
    for per_answer in _PER_ANSWER:
        for nprobe in [2**i for i in range(1, 11) if 2**i <= max(2, nlist // 8)]:
            if best and best.nprobe and nprobe > best.nprobe:
                break
            index.tune(Tuning(nprobe, per_answer))
            recall = trial.recall(index)
            if recall < RECALL:
                continue
            median, p95, used = _timed(index, trial)
            if used < least:
                least = used
                shape = {"nlist": nlist, "nprobe": nprobe, "per_answer": per_answer}
                best = Measured(
                    "ivf-rabitq",
                    flat.rows,
                    round(recall, 4),
                    median,
                    p95,
                    flat.exact_median_ms,
                    index.memory_bytes,
                    seconds,
                    flat.queries,
                    **shape,
                )
            break
    if best and best.nprobe and best.per_answer:
        index.tune(Tuning(best.nprobe, best.per_answer))
    return best
