"""Three stages that overlap: read, encode, commit. Each has its own thread, with few items between two stages.

The caller's thread waits, reports progress and receives Ctrl-C. On Ctrl-C, or if a stage fails, reading stops, waiting
items are dropped, the item being encoded is finished and committed, and the error is raised to the caller. A second
Ctrl-C stops at once; a commit is a transaction, so it happens completely or not at all.
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
        """Return the share of its time, 0 to 1, that each stage has been at work so far; otherwise it waited for
        another stage.

        The stage with a share near 1 limits the others.
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
    """A bounded queue.

    The sender can end it (its items are still received), and anyone can cut it (they are dropped).
    """

    def __init__(self, size: int) -> None:
        self._items: deque[A] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._ended = False

    def put(self, item: A) -> bool:
        """Wait for room and add the item. Returns False if the channel was cut; the item is then dropped."""
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
    """Runs `commit(encode(item))` for every item of a source, the three stages overlapping. For one run at a time.

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
        self.stopping = threading.Event()  # set when no more items are needed from the source

    def run(self, source: Iterator[A]) -> None:
        """Run until the source has ended and everything is committed. Raises what a stage raised, and KeyboardInterrupt
        after the item being encoded is committed. The source is advanced in another thread and not closed here.
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
                    if out is None:  # nothing more can be committed
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
                    logger.warning("stopping after the current batch is committed; press Ctrl-C again to stop at once")
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
