"""Threads for a model on a CPU, each with its share of torch's threads.

If one operation is split over all cores, every core waits for the slowest one, dozens of times per image; with decoding
workers on the same cores, one core is always slow. Each lane therefore gets whole pieces of work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

_MOST = 8


class Lanes:
    """`count` threads, which start with the first call that has more than one piece of work."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self.count = min(threads, _MOST)
        self._pool: ThreadPoolExecutor | None = None
        self._share = threads // self.count
        self._lock = threading.Lock()

    def map(self, function: Callable[[A], B], pieces: Sequence[A]) -> list[B]:
        """The results in order. A single piece is worked on in the calling thread, with all of torch's threads."""
        if self.count < 2 or len(pieces) < 2:
            return [function(piece) for piece in pieces]
        return list(self._threads().map(function, pieces))

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                everywhere = torch.get_num_threads()
                started = threading.Barrier(self.count)

                def begin() -> None:
                    torch.get_num_threads()  # a thread's first call takes the number that is set for all
                    torch.set_num_threads(self._share)
                    started.wait()

                self._pool = ThreadPoolExecutor(self.count, "medlens-lane")
                for each in [self._pool.submit(begin) for _ in range(self.count)]:
                    each.result()
                # What a thread sets is its own, and what threads to come begin with.
                torch.set_num_threads(everywhere)
            return self._pool
