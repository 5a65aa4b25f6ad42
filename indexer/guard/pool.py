"""Decoding in supervised worker processes, so that no file can end, stall or bloat a run.

Why not `ProcessPoolExecutor`: one dead worker breaks it, it knows no deadline, and its `map` reads all items at once.
Here each worker (guard_worker.py) is behind a socket of its own. While the caller waits for a result it supervises them
itself, without a thread to hand results over; while it works on one, a thread looks after them every few milliseconds.

- A file that makes a worker die, run out of memory or miss its deadline is tried once more, as the first item of a
  fresh worker; if that fails as well, its result is a `DecodeGuardError`. The others never notice.
- Items are pulled lazily, in the thread that iterates, and at most `in_flight` are between being pulled and being
  yielded; decoding goes on while the caller works on a result.
- Workers are plain interpreters started with `-c`: they import the function's module, not the caller's `__main__`, so
  they stay light even when the caller has loaded torch.
- Their stdout and stderr go nowhere: decoders write warnings there that quote values of the file.

It contains crashes and exhaustion; it is not a sandbox against code execution. POSIX only. On macOS the memory cap is
not enforced by the system (see `guard_worker`), all else holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from indexer.guard import worker as guard_worker
from retrieval.errors import DecodeGuardError, DicomError, MedlensError

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_QUEUE_DEPTH = 2  # items handed to one worker: one at work, one waiting, so that it never waits for the parent
_TRIES = 2
_TICK_S = 0.004
_GRACE_S = 2.0  # the worker's own timer acts first; this is for a worker that is stopped or stuck in the kernel
_START_S = 120.0  # a worker imports NumPy and the decoders, perhaps from a cold network share
_MOST_FAILED_STARTS = 3
_LARGEST_ITEM = 32 << 10  # bytes; two of them fit any socket buffer, so that handing over an item never blocks
_BUFFERED = 512 << 20  # bytes of finished results waiting for earlier ones, above which no new item is started

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from indexer.guard.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _Job(Generic[T]):
    """An item in progress, and how often it has stopped a worker."""

    __slots__ = ("failures", "index", "item", "pickled")

    def __init__(self, index: int, item: T) -> None:
        self.index = index
        self.item = item
        self.failures = 0
        self.pickled = pickle.dumps(item, protocol=5)
        size = len(self.pickled)
        if size > _LARGEST_ITEM:
            raise ValueError(f"an item has {size} bytes; expected a path or request of at most {_LARGEST_ITEM} bytes")


class _Worker(Generic[T]):
    """A worker process as seen by the supervisor. `queue[0]` is its current job; `clock` is when that started."""

    def __init__(self, setup: guard_worker.Setup, first: _Job[T] | None) -> None:
        self.queue: deque[_Job[T]] = deque()
        self.first = first  # a job that needs a fresh worker: sent alone, as soon as this one is ready
        self.ready = False
        self.doomed = False  # to be replaced by the supervisor, whatever it is doing
        self.clock = time.monotonic()
        self.sock, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-c",
                    _BOOT,
                    str(theirs.fileno()),
                    str(lifeline),
                    json.dumps(sys.path),
                ],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
            )
        except BaseException:
            self.sock.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._hand_over(pickle.dumps(setup))

    def _hand_over(self, pickled: bytes) -> None:
        """Send without waiting for an answer. If the worker has ended, that is noticed where its answers are read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            guard_worker.send_pickled(self.sock, pickled)

    def accept(self, job: _Job[T]) -> None:
        if not self.queue:
            self.clock = time.monotonic()
        self.queue.append(job)
        self._hand_over(job.pickled)

    def end(self) -> str:
        """Kill the process if it still runs, and return how it ended."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it dies when it comes back
            self.process.wait(timeout=5)
        self.sock.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        code = self.process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
            return f"signal {-code}"
        return f"exit status {code}"


class GuardedPool(Generic[T, R]):
    """Runs `function(item)` in worker processes that may die without harm. A context manager.

    `function`, `initializer` and their arguments must be importable, not defined in `__main__`. `memory_limit` is in
    bytes of address space above what a worker needs after importing its modules and running the initializer;
    `deadline_s` is wall-clock seconds per item. `in_flight` bounds the items between being pulled and being yielded
    (default: 8 per worker). Raises `MedlensError` while mapping if the workers can't start.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        *,
        workers: int,
        memory_limit: int = 2 << 30,
        deadline_s: float = 20.0,
        in_flight: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if workers < 1 or memory_limit <= 0 or deadline_s <= 0 or (in_flight is not None and in_flight < 1):
            raise ValueError(
                f"workers={workers}, memory_limit={memory_limit}, deadline_s={deadline_s}, "
                f"in_flight={in_flight}; expected positive numbers"
            )
        for called in (function, initializer):
            if getattr(called, "__module__", None) == "__main__":
                raise ValueError(f"{called!r} is defined in __main__, where a worker cannot import it")
        functions = pickle.dumps((function, initializer, initargs))
        self._setup = guard_worker.Setup(functions, memory_limit, deadline_s)
        self._count = workers
        self._in_flight = in_flight or 8 * workers
        self._lock = threading.Lock()  # guards everything below
        self._workers: list[_Worker[T]] = []
        self._todo: deque[_Job[T]] = deque()
        self._done: dict[int, tuple[T, R | DicomError, int]] = {}  # by index, with its size in bytes
        self._buffered = 0
        self._wanted = 0  # index of the next result to be yielded
        self._failed_starts = 0
        self._broken: BaseException | None = None
        self._mapping = False
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._supervise, name="medlens-guard", daemon=True)
        self.restarts = 0  # workers replaced so far

    def __enter__(self) -> GuardedPool[T, R]:
        with self._lock:
            for _ in range(self._count):
                self._start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        with self._lock:
            return tuple(worker.process.pid for worker in self._workers)

    def close(self) -> None:
        """End all workers now, whatever they are doing."""
        self._closing.set()
        for worker in list(self._workers):  # without the lock: the supervisor may hold it, waiting for one of them
            worker.process.kill()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for worker in self._workers:
                worker.end()
            self._workers.clear()
            self._selector.close()

    def map(self, items: Iterable[T]) -> Iterator[tuple[T, R | DicomError]]:
        """Yield (item, the function's result or a DicomError), in the order of the items.

        `items` may be endless; it is advanced in the calling thread. Only one map at a time. Ending it early drops the
        items in flight.
        """
        if not self._thread.is_alive():
            raise ValueError("a GuardedPool can map only inside its `with` block")
        with self._lock:
            if self._mapping:
                raise ValueError("a GuardedPool can run only one map at a time")
            self._mapping = True
            self._wanted = 0
        source, pulled, exhausted = iter(items), 0, False
        try:
            while True:
                while not exhausted and pulled - self._wanted < self._in_flight:
                    try:
                        job = _Job(pulled, next(source))
                    except StopIteration:
                        exhausted = True
                        break
                    pulled += 1
                    with self._lock:
                        self._todo.append(job)
                        self._dispatch()
                if exhausted and self._wanted == pulled:
                    return
                with self._lock:
                    while self._wanted not in self._done:
                        if self._broken:
                            raise self._broken
                        if self._closing.is_set():
                            raise ValueError("the GuardedPool was closed during a map")
                        self._step(0.25)
                    item, outcome, size = self._done.pop(self._wanted)
                    self._buffered -= size
                    self._wanted += 1
                    self._dispatch()
                yield item, outcome
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Drop the items in flight, and replace the workers that are still busy with them."""
        with self._lock:
            self._todo.clear()
            self._done.clear()
            self._buffered = 0
            self._mapping = False
            if self._closing.is_set() or self._broken:
                return
            for worker in self._workers:
                worker.first = None
                if worker.queue:
                    worker.queue.clear()
                    worker.doomed = True

    # Everything below runs with the lock held, except _supervise, which acquires it.

    def _start(self, first: _Job[T] | None = None) -> None:
        worker = _Worker(self._setup, first)
        self._workers.append(worker)
        self._selector.register(worker.sock, selectors.EVENT_READ, worker)

    def _replace(self, worker: _Worker[T], retry: _Job[T] | None = None) -> str:
        """End a worker and start another, which begins with `retry`. Its other jobs come first in the queue."""
        self._selector.unregister(worker.sock)
        self._workers.remove(worker)
        how = worker.end()
        self._todo.extendleft(reversed(worker.queue))
        self._start(retry)
        self.restarts += 1
        return how

    def _dispatch(self) -> None:
        """Send waiting jobs to the workers with the shortest queues."""
        for depth in range(_QUEUE_DEPTH):
            for worker in self._workers:
                if not self._todo:
                    return
                if self._buffered > _BUFFERED and self._todo[0].index != self._wanted:
                    return
                if worker.ready and not worker.doomed and len(worker.queue) == depth:
                    worker.accept(self._todo.popleft())

    def _step(self, timeout: float) -> None:
        """Wait for answers up to `timeout` seconds, receive them, enforce the deadlines, and send waiting jobs."""
        ready = self._selector.select(timeout)
        for worker in [worker for worker in self._workers if worker.doomed]:
            self._replace(worker)
        for key, _ in ready:
            if key.data in self._workers:
                self._read(key.data)
        self._enforce_deadlines()
        self._dispatch()

    def _supervise(self) -> None:
        while not self._closing.wait(_TICK_S):
            if not self._lock.acquire(blocking=False):
                continue  # the caller is at it
            try:
                if not self._broken and not self._closing.is_set():
                    self._step(0)
            except BaseException as exc:  # noqa: BLE001 - handed to the caller of map, who would wait for ever
                self._broken = exc
            finally:
                self._lock.release()

    def _read(self, worker: _Worker[T]) -> None:
        worker.sock.settimeout(self._setup.deadline_s)
        try:
            (kind, value), size = guard_worker.receive(worker.sock, self._setup.memory_limit)
        except (EOFError, TimeoutError):
            self._lost(worker)
            return
        except guard_worker.WireError as exc:
            self._lost(worker, f"the decoding process sent an invalid answer: {exc}")
            return
        if kind == guard_worker.READY:
            worker.ready = True
            self._failed_starts = 0
            if worker.first:
                job, worker.first = worker.first, None
                worker.accept(job)
        elif kind == guard_worker.FAILED:
            raise MedlensError(f"no decoding process could start:\n{value}", hint="Is medlens installed completely?")
        elif kind == guard_worker.OUT_OF_MEMORY:
            self._lost(worker, f"decoding needs more than {_bytes(self._setup.memory_limit)} of memory")
        else:
            worker.clock = time.monotonic()
            self._finish(worker.queue.popleft(), value, size)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.ready:
                if now - worker.clock > _START_S:
                    raise MedlensError(f"a decoding process did not start within {_START_S:.0f} s")
            elif worker.queue and now - worker.clock > self._setup.deadline_s + _GRACE_S:
                self._lost(worker, self._too_slow())

    def _lost(self, worker: _Worker[T], why: str = "") -> None:
        """Handle a worker that has ended or must end. Its current job is tried once more, then given up."""
        if not worker.ready:
            self._failed_starts += 1
            how = self._replace(worker, worker.first)
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise MedlensError(
                    f"no decoding process could start: {self._failed_starts} ended with {how} before they were ready",
                    hint="Check that the machine has free memory.",
                )
            return
        culprit = worker.queue.popleft() if worker.queue else None
        retry = None
        if culprit:
            culprit.failures += 1
            retry = culprit if culprit.failures < _TRIES else None
        how = self._replace(worker, retry)
        why = why or (self._too_slow() if how == "SIGALRM" else f"the decoding process died ({how})")
        _log.debug("a decoding process was replaced: %s", why)
        if culprit and not retry:
            self._finish(
                culprit,
                DecodeGuardError(
                    f"the decoding process was stopped {_TRIES} times: {why}",
                    hint="The file is damaged, or it was made to exhaust the reader. It is left out.",
                ),
            )

    def _too_slow(self) -> str:
        return f"decoding takes more than {self._setup.deadline_s:g} s"

    def _finish(self, job: _Job[T], outcome: R | DicomError, size: int = 0) -> None:
        self._done[job.index] = job.item, outcome, size
        self._buffered += size


def _bytes(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
