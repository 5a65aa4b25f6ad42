"""Progress for people, on stderr: a bar on a terminal, else a line every half minute."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_EVERY_S = 30.0
_RATE_OVER_S = 60.0


class Rate:
    """The rate per second over the last minute, so that a fast start does not count for the whole run."""

    def __init__(self, now: float) -> None:
        self._points = deque([(now, 0.0)])

    def note(self, amount: float, now: float) -> None:
        if amount < self._points[-1][1]:  # another task, counted from its start
            self._points = deque([(self._points[-1][0], 0.0)])
        if len(self._points) > 1 and now - self._points[-2][0] < 1:
            self._points.pop()  # one point a second is enough
        self._points.append((now, amount))
        while len(self._points) > 2 and now - self._points[1][0] >= _RATE_OVER_S:
            self._points.popleft()

    @property
    def per_second(self) -> float:
        (then, before), (now, amount) = self._points[0], self._points[-1]
        return (amount - before) / max(now - then, 1e-3)

    def seconds_left(self, done: float, total: float | None) -> float | None:
        """Return the estimated seconds that are left, or None if they are unknown."""
        return max(total - done, 0) / self.per_second if total is not None and self.per_second > 0 else None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Yield `update(done, total, note)`. `total` is None while it is unknown; `note` is shown after the rate."""
    if sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _plain(what)


def duration(seconds: float) -> str:
    """Return a duration for people: 12.3 s, or hours, minutes and seconds."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, note="")
        rate = Rate(time.monotonic())

        def update(done: int, total: int | None, note: str) -> None:
            rate.note(done, time.monotonic())
            left = rate.seconds_left(done, total)
            said = f"{rate.per_second:.0f}/s" + (f", {duration(left)} left" if left is not None else "")
            bar.update(task, completed=done, total=total, note=f"{said}, {note}")

        yield update


def _plain(what: str) -> Callable[[int, int | None, str], None]:
    told = time.monotonic()
    rate = Rate(told)

    def update(done: int, total: int | None, note: str) -> None:
        nonlocal told
        now = time.monotonic()
        rate.note(done, now)
        if now - told >= PLAIN_EVERY_S:
            told = now
            of = f" of {total}" if total is not None else ""
            left = rate.seconds_left(done, total)
            until = f", {duration(left)} left" if left is not None else ""
            print(f"{what}: {done}{of}, {rate.per_second:.0f}/s{until}, {note}", file=sys.stderr, flush=True)  # noqa: T201

    return update
