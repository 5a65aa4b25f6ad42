"""Progress for people, on stderr: a bar on a terminal, a plain line every half minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_EVERY_S = 30.0


@contextmanager
def progress_bar(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int | None, str], None]]:
    """Gives `update(done, total, note)`. `total` may be unknown; `note` stands behind the rate."""
    if quiet:
        yield lambda done, total, note: None
    elif sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _plain(what)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, note="")
        started = time.monotonic()

        def update(done: int, total: int | None, note: str) -> None:
            rate = done / max(time.monotonic() - started, 1e-3)
            bar.update(task, completed=done, total=total, note=f"{rate:.0f}/s {note}")

        yield update


def _plain(what: str) -> Callable[[int, int | None, str], None]:
    started = told = time.monotonic()

    def update(done: int, total: int | None, note: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PLAIN_EVERY_S:
            told = now
            of = f" of {total}" if total is not None else ""
            print(f"{what}: {done}{of}, {done / (now - started):.0f}/s {note}", file=sys.stderr, flush=True)  # noqa: T201

    return update
