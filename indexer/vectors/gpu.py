"""The rows of an index on one or several GPUs, split among them, each searched as a whole.

A GPU proposes; the answer is scored on the CPU from the float16 vectors, as everywhere. What it is asked:

- All rows, as float16: the answer is the exact one. float16 arithmetic rounds the query, by at most 2**-11 of its
  length, and sums in float32: a proposal is taken when the last candidate is worse than the k-th by more than that
  could hide, else more are asked for, up to FAISS's limit of 2048, and beyond that the CPU answers.
- Where those don't fit, an inverted file of 8 bits a number, half the memory. As many lists are visited as find
  RECALL of what the exact search finds, measured when it is made.

On an H200 a search of all rows took 3.9 ms among a million vectors of 512 numbers and 35 ms among ten million. FAISS's
lists in float16 are ten times quicker there, but no exact answer, and take longer to fill at each start; those of the
compressed index on the processor take 0.7 and 6 ms. So lists are for want of memory only. CAGRA's graph can't forget a
vector.

A filtered search stays on the CPU, which searches the allowed vectors alone; rows that were deleted since are
dropped from the candidates here, for a GPU index knows no selectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from indexer.vectors.compressed import default_nlist
from indexer.vectors.flat import load_faiss
from indexer.vectors.index import CatalogIndex
from indexer.vectors.parts import Part, search_part
from indexer.vectors.proposing import Proposable, Proposer, Rows
from retrieval.errors import StoreError
from retrieval.types import Embeddings

log = logging.getLogger(__name__)

RECALL = 0.99  # of the nearest ten, where a GPU's memory allows lists only
_AIM = 0.995  # of a sample, for RECALL of all
_MOST = 2048  # candidates that a GPU index can be asked for
_SLACK = 32
_ERROR = 2.0**-9  # of |q| |v|, twice the rounding of both terms of a difference
_PER_ANSWER = 4  # candidates of 8-bit codes that are scored for an answer
_CHUNK = 65_536
_PER_LIST = 64  # vectors that the centres are made of
_TRIED = 128  # own vectors used as queries to find how many lists to search
_K = 10


class FlatGpuSearch:
    """Proposes candidates from any index with `search(queries, k)` whose scores are off by at most _ERROR |q| |v|."""

    def __init__(self, searched: Any, most: int = _MOST) -> None:
        self._searched = searched
        self._most = most

    def propose(self, queries: Embeddings, k: int, part: Proposable) -> list[Rows | None]:
        proposed: list[Rows | None] = [None] * len(queries)
        pending = np.arange(len(queries))
        total = len(part.ids)
        margins = _ERROR * np.linalg.norm(queries, axis=1)
        wanted = min(k + _SLACK, total)
        while len(pending) and wanted <= self._most:
            scores, found = self._searched.search(np.ascontiguousarray(queries[pending]), wanted)
            unsettled = []
            for i, its_scores, rows in zip(pending.tolist(), scores, found, strict=True):
                valid = rows >= 0  # -1 is padding: the sentinel is removed here
                alive = valid & ~part.dead[np.where(valid, rows, 0)]
                enough = wanted >= total
                if not enough and alive.sum() >= k:
                    enough = its_scores[-1] < its_scores[alive][k - 1] - margins[i]
                if enough:
                    proposed[i] = np.sort(rows[alive])
                else:
                    unsettled.append(i)
            pending = np.array(unsettled, dtype=np.int64)
            if wanted == total:
                break
            wanted = min(wanted * 4, total) if wanted * 4 <= self._most else min(max(self._most, wanted + 1), total)
        return proposed


class ListGpuSearch:
    """Proposes candidates from an inverted file, searching `nprobe` of its lists: not all that an exact search
    finds.
    """

    def __init__(self, searched: Any, nprobe: int = 1) -> None:
        self._searched = searched
        self.nprobe = nprobe

    def propose(self, queries: Embeddings, k: int, part: Proposable) -> list[Rows | None]:
        wanted = min(_PER_ANSWER * k + _SLACK, len(part.ids))
        if wanted > _MOST:
            return [None] * len(queries)
        visited = load_faiss().SearchParametersIVF(nprobe=self.nprobe)
        _, found = self._searched.search(np.ascontiguousarray(queries), wanted, params=visited)
        proposed: list[Rows | None] = []
        for rows in found:
            rows = np.sort(rows[rows >= 0])
            alive = rows[~part.dead[rows]]
            proposed.append(alive if len(alive) >= min(k, part.alive) else None)
        return proposed

    def tune(self, part: Part, nlist: int) -> float:
        """Search the fewest lists, by powers of two, that find _AIM of the exact results.

        Returns the recall that this gave.

        The queries are rows of the part itself, each without itself.
        """
        rows = np.sort(np.random.default_rng(0).choice(len(part.ids), min(_TRIED, len(part.ids)), replace=False))
        own, queries = part.ids[rows].tolist(), part.gather(rows).astype(np.float32)

        def answers(searched_part: Part, exact: bool) -> list[set[int]]:
            hits = search_part(searched_part, queries, _K + 1, None, exact)
            return [{i for i, _ in found if i != mine} for found, mine in zip(hits, own, strict=True)]

        truth = answers(part, True)
        while True:
            found = answers(replace(part, on_device=self), False)
            recall = float(np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found, truth, strict=True)]))
            if recall >= _AIM or self.nprobe >= nlist:
                return recall
            self.nprobe = min(2 * self.nprobe, nlist)


def gpu_numbers(device: str) -> list[int]:
    """Return the GPUs that `cuda` (all) or `cuda:N` names. Raises StoreError if there is none."""
    count = load_faiss().get_num_gpus()
    if not count:
        raise StoreError(
            "FAISS does not find a GPU on this machine", hint="Use --device cpu. Run nvidia-smi to check the driver."
        )
    if device == "cuda":
        return list(range(count))
    number = device.removeprefix("cuda:")
    if not number.isdigit() or int(number) >= count:
        raise StoreError(
            f"there is no device {device!r} on this machine", hint=f"Use one of cuda:0 to cuda:{count - 1}."
        )
    return [int(number)]


def move_to_gpu(index: CatalogIndex, device: str) -> None:
    """Let GPUs search the rows of the file. Rows that were added since are searched on the CPU.

    Raises StoreError if there is no such GPU, or if the rows fit on it in no form.
    """
    numbers = gpu_numbers(device)
    index.move_to(lambda part: fitting(part, lambda: flat_on_gpus(part, numbers), lambda: ivf_on_gpus(part, numbers)))


def fitting(part: Part, flat: Callable[[], Any], lists: Callable[[], Any]) -> Proposer:
    """Return all rows by `flat`, else by `lists`, tuned; FAISS raises a RuntimeError if its memory is not enough."""
    count, dim = part.codes().shape
    try:
        return FlatGpuSearch(flat())
    except RuntimeError as exc:
        log.warning(
            "%.1f GB of vectors do not fit on the GPU; it keeps half of that, as 8-bit codes in lists",
            count * dim * 2 / 1e9,
        )
        log.debug("FAISS reported: %s", exc)
    try:
        listed = ListGpuSearch(lists())
        recall = listed.tune(part, default_nlist(count))
    except RuntimeError as exc:
        raise StoreError(
            f"{count * dim / 1e9:.1f} GB of vectors do not fit on the GPU",
            hint="Use --device cpu, or --device cuda to share the vectors among all GPUs.",
        ) from exc
    log.info(
        "the GPU searches %d lists of an inverted file, with a recall@10 of %.3f of the exact search",
        listed.nprobe,
        recall,
    )
    return listed


def flat_on_gpus(part: Part, numbers: list[int]) -> Any:
    """Return a flat float16 index of all rows by position: on one GPU, or in equal shares on several."""
    faiss = load_faiss()

    def made(number: int, vectors: Any) -> Any:
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16, config.device = True, number
        return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), vectors.shape[1], config)

    return _shared(part, numbers, made)


def ivf_on_gpus(part: Part, numbers: list[int]) -> Any:
    """Return an inverted file of 8-bit codes of all rows by position: on one GPU, or in equal shares on several."""
    faiss = load_faiss()

    def made(number: int, vectors: Any) -> Any:
        config = faiss.GpuIndexIVFScalarQuantizerConfig()
        config.device = number
        count, dim = vectors.shape
        nlist = default_nlist(count)
        index = faiss.GpuIndexIVFScalarQuantizer(
            faiss.StandardGpuResources(),
            dim,
            nlist,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,  # codes of the vectors themselves, not of their residuals at a centre
            config,
        )
        chosen = np.random.default_rng(0).choice(count, size=min(count, _PER_LIST * nlist), replace=False)
        index.train(vectors[np.sort(chosen)].astype(np.float32))
        return index

    return _shared(part, numbers, made)


def _shared(part: Part, numbers: list[int], made: Callable[[int, Any], Any]) -> Any:
    """The rows of a part in indexes that `made` creates for a GPU and its share of the vectors, searched as one."""
    faiss = load_faiss()
    vectors = part.codes()
    shares = np.array_split(np.arange(len(vectors)), min(len(numbers), len(vectors)))
    pieces = []
    for number, rows in zip(numbers, shares, strict=False):
        share = vectors[int(rows[0]) : int(rows[-1]) + 1]
        piece = made(number, share)
        for start in range(0, len(share), _CHUNK):
            piece.add(np.ascontiguousarray(share[start : start + _CHUNK], dtype=np.float32))
        pieces.append(piece)
    if len(pieces) == 1:
        return pieces[0]
    whole = faiss.IndexShards(vectors.shape[1], True, True)  # threaded, ids that follow each other
    for piece in pieces:
        whole.add_shard(piece)
    return whole
