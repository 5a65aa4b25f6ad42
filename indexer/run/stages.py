"""Three stages that work at the same time: read, encode, commit. Each in a thread of its own, with few items between.

The caller's thread only waits, tells of progress, and takes Ctrl-C. Then, or when a stage fails, reading stops, what
waits is dropped, what the encoder has in hand is finished and committed, and the reason is raised to the caller. A
second Ctrl-C does not wait any more; a commit is a transaction, so it happens or does not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")

logger = logging.getLogger(__name__)

STAGES = ("read", "encode", "commit")
_TICK_S = 0.1
_PIPELINE = "pipeline"
_WAITING = 2  # items between two stages


class Clock:
    """Adds up how long each stage was at work and how long the pipeline ran, over all archives of a run."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys((*STAGES, _PIPELINE), 0.0)
        self._since: dict[str, float] = {}

    def loads(self) -> dict[str, float]:
        """How much of its time each stage was at work, 0 to 1, so far; the rest it waited for another.

        The one near 1 holds up the others.
        """
        now, since = time.monotonic(), dict(self._since)
        spent = {name: spent + now - since.get(name, now) for name, spent in self._spent.items()}
        return {name: min(spent[name] / max(spent[_PIPELINE], 1e-9), 1.0) for name in STAGES}

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """Count the time that is spent inside. One at a time for each name."""
        began = self._since[name] = time.monotonic()
        try:
            yield
        finally:
            del self._since[name]
            self._spent[name] += time.monotonic() - began


class _Channel(Generic[A]):
    """A bounded queue that can be ended by the giver (what is in it is still taken) or cut by anyone (it is not)."""

    def __init__(self, size: int) -> None:
        self._items: deque[A] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._ended = False

    def put(self, item: A) -> bool:
        """Waits for room. False once the channel was cut: the item is not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._size)
            if self._ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[A]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._items)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cut(self) -> None:
        with self._changed:
            self._items.clear()
            self.end()


class StagePipeline(Generic[A, B]):
    """Runs `commit(encode(item))` for every item of a source, the three overlapping. For one run at a time.

    `report_progress` is called in the caller's thread several times a second.
    """

    def __init__(
        self,
        encode: Callable[[A], B],
        commit: Callable[[B], None],
        report_progress: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self._encode = encode
        self._commit = commit
        self._report_progress = report_progress
        self._clock = clock or Clock()
        self.stopping = threading.Event()  # set when no more is wanted of the source

    def run(self, source: Iterator[A]) -> None:
        """Until the source has ended and all is committed. Raises what a stage raised; a KeyboardInterrupt once the
        item that was being encoded is committed. The source is advanced in another thread, and not closed here.
        """
        read: _Channel[A] = _Channel(_WAITING)
        encoded: _Channel[B] = _Channel(_WAITING)
        failures: list[BaseException] = []

        def stop() -> None:
            self.stopping.set()
            read.cut()

        def stage(work: Callable[[], None], out: _Channel[B] | _Channel[A] | None) -> threading.Thread:
            def guarded() -> None:
                try:
                    work()
                except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
                    failures.append(exc)
                    stop()
                    if out is None:  # nothing can be committed any more
                        encoded.cut()
                finally:
                    if out is not None:
                        out.end()

            return threading.Thread(target=guarded, name=f"medlens-{work.__name__}", daemon=True)

        def reading() -> None:
            while True:
                with self._clock.busy("read"):
                    try:
                        item = next(source)
                    except StopIteration:
                        return
                if not read.put(item):
                    return

        def encoding() -> None:
            for item in read:
                with self._clock.busy("encode"):
                    done = self._encode(item)
                if not encoded.put(done):
                    return

        def committing() -> None:
            for item in encoded:
                with self._clock.busy("commit"):
                    self._commit(item)

        threads = [stage(reading, read), stage(encoding, encoded), stage(committing, None)]
        with self._clock.busy(_PIPELINE):
            for thread in threads:
                thread.start()
            try:
                self._wait(threads, self._report_progress)
            except BaseException as exc:
                stop()
                if isinstance(exc, KeyboardInterrupt):
                    logger.warning("stopping when the batch in hand is committed; Ctrl-C again stops at once")
                self._wait(threads, lambda: None)
                if failures:
                    raise failures[0] from exc
                raise
        if failures:
            raise failures[0]

    @staticmethod
    def _wait(threads: list[threading.Thread], report_progress: Callable[[], None]) -> None:
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_S)
                report_progress()
