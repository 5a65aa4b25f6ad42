"""Clustered unit vectors in any number, the same ones every time, made in chunks and kept as float16.

A vector is the mean of its cluster plus noise of half its length: two of one cluster have a cosine of 0.8 on average.
Clusters differ in size (as one over the root of their rank), and both means and noise have a spectrum that falls, as
embeddings of pictures do. One cluster per 250 vectors: about the slices of a series. Noise is drawn from a pool, which
makes ten million cheap; that of queries is their own.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

NOISE = 0.5
PER_CLUSTER = 250
CHUNK = 65_536
POOL = 131_072


class Clustered:
    def __init__(self, count: int, dim: int = 512) -> None:
        self.count, self.dim = count, dim
        rng = np.random.default_rng(7)
        self._spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
        self._basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)
        self._means = self._shaped(rng, max(1, count // PER_CLUSTER))
        self._pool = self._shaped(rng, min(count, POOL))
        shares = np.arange(1, len(self._means) + 1) ** -0.5
        self._ends = np.cumsum(shares / shares.sum())

    def queries(self, count: int, seed: int = 3) -> npt.NDArray[np.float32]:
        """[count, dim] of unit norm, like the vectors but none of them."""
        rng = np.random.default_rng(seed)
        return self._made(rng, self._shaped(rng, count))

    def _made(self, rng: np.random.Generator, noise: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        cluster = np.minimum(np.searchsorted(self._ends, rng.random(len(noise))), len(self._means) - 1)
        return _unit(self._means[cluster] + NOISE * noise)

    def write(self, path: Path) -> npt.NDArray[np.float16]:
        """All vectors in a .npy file of float16 [count, dim], mapped."""
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(self.count, self.dim))

        def fill(start: int) -> None:
            size = min(CHUNK, self.count - start)
            rng = np.random.default_rng(100 + start)
            out[start : start + size] = self._made(rng, self._pool[rng.integers(len(self._pool), size=size)])

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            list(threads.map(fill, range(0, self.count, CHUNK)))
        out.flush()
        return np.load(path, mmap_mode="r")

    def _shaped(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        return _unit(rng.standard_normal((count, self.dim), dtype=np.float32) * self._spectrum) @ self._basis


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
