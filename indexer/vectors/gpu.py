"""The rows of an index on one or several GPUs: float16, split among them, each searched as a whole.

A GPU proposes; the answer is scored on the CPU, as everywhere, so it is the exact one. float16 arithmetic rounds the
query, by at most 2**-11 of its length, and sums in float32: a proposal is taken when the last candidate is worse than
the k-th by more than that could hide, else more are asked for, up to FAISS's limit of 2048, and beyond that the CPU
answers. A filtered search stays on the CPU, which searches the allowed vectors alone; rows that were deleted since are
dropped from the candidates here, for a GPU index knows no selectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from indexer.vectors.flat import load_faiss
from indexer.vectors.index import CatalogIndex
from indexer.vectors.parts import Part, Rows
from retrieval.errors import StoreError
from retrieval.types import Embeddings

_MOST = 2048  # candidates that a GPU index can be asked for
_SLACK = 32
_ERROR = 2.0**-9  # of |q| |v|, twice the rounding of both terms of a difference
_CHUNK = 65_536


class DeviceRows:
    """Proposes candidates by any index with `search(queries, k)`, whose scores are off by at most _ERROR |q| |v|."""

    def __init__(self, searched: Any, most: int = _MOST) -> None:
        self._searched = searched
        self._most = most

    def propose(self, queries: Embeddings, k: int, part: Part) -> list[Rows | None]:
        proposed: list[Rows | None] = [None] * len(queries)
        pending = np.arange(len(queries))
        total = len(part.ids)
        margins = _ERROR * np.linalg.norm(queries, axis=1)
        wanted = min(k + _SLACK, total)
        while len(pending) and wanted <= self._most:
            scores, found = self._searched.search(np.ascontiguousarray(queries[pending]), wanted)
            unsettled = []
            for i, its_scores, rows in zip(pending.tolist(), scores, found, strict=True):
                valid = rows >= 0  # -1 pads: the sentinel ends here
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


def gpu_numbers(device: str) -> list[int]:
    """The GPUs that `cuda` (all) or `cuda:N` names. StoreError if there is none."""
    count = load_faiss().get_num_gpus()
    if not count:
        raise StoreError("FAISS sees no GPU here", hint="Use --device cpu; nvidia-smi tells whether a driver is there.")
    if device == "cuda":
        return list(range(count))
    number = device.removeprefix("cuda:")
    if not number.isdigit() or int(number) >= count:
        raise StoreError(f"there is no device {device!r}", hint=f"There are cuda:0 to cuda:{count - 1}.")
    return [int(number)]


def move_to_gpu(index: CatalogIndex, device: str) -> None:
    """Let GPUs search the rows of the file. Those that came since are searched on the CPU beside them."""
    numbers = gpu_numbers(device)
    index.move_to(lambda part: DeviceRows(flat_on_gpus(part, numbers)))


def flat_on_gpus(part: Part, numbers: list[int]) -> Any:
    """A flat float16 index of all rows by position: on one GPU, or in equal shares on several."""
    faiss = load_faiss()
    vectors = part.codes()
    shares = np.array_split(np.arange(len(vectors)), min(len(numbers), len(vectors)))
    pieces = []
    for number, rows in zip(numbers, shares, strict=False):
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16, config.device = True, number
        resources = faiss.StandardGpuResources()
        piece = faiss.GpuIndexFlatIP(resources, vectors.shape[1], config)
        for start in range(int(rows[0]), int(rows[-1]) + 1, _CHUNK):
            end = min(start + _CHUNK, int(rows[-1]) + 1)
            piece.add(np.ascontiguousarray(vectors[start:end], dtype=np.float32))
        pieces.append(piece)
    if len(pieces) == 1:
        return pieces[0]
    whole = faiss.IndexShards(vectors.shape[1], True, True)  # threaded, ids that follow each other
    for piece in pieces:
        whole.add_shard(piece)
    return whole
