"""How an indexing run is told: to people as a note beside the bar, to programs as JSON lines on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cli.medlens_progress import Rate, progress_bar
from indexer.run.options import Progress

EVERY_S = 1.0

Tell = Callable[[Progress], None]


@contextmanager
def told_to_people(*, loads: bool = False) -> Iterator[Tell]:
    """Gives the `on_progress` of a run. With `loads`, it says how busy each stage is."""
    frames = Rate(time.monotonic())
    with progress_bar("files") as update:

        def tell(progress: Progress) -> None:
            frames.note(progress.frames, time.monotonic())
            rejected = sum(progress.rejected.values())
            note = f"{progress.frames} frames ({frames.per_second:.0f}/s), {rejected} rejected"
            update(progress.files, progress.total, f"{note}; {said(progress.loads)}" if loads else note)

        yield tell


def said(loads: Mapping[str, float]) -> str:
    """Which share of its time each stage was at work: the highest holds up the others."""
    return "busy: " + ", ".join(f"{name} {load:.0%}" for name, load in loads.items())


class JsonLog:
    """One JSON object per line on stderr. Each has `event` and `seconds` since the start; counts are totals so far.

    - `start`: `model`, `device`, `archives` (how many)
    - `progress`, about every second: `files` done, of `total` (null until they are counted); `frames` committed;
      `files_per_second` and `frames_per_second` over the last minute; `seconds_left` (or null); `rejected` files;
      `busy`, the share of its time that each stage (read, encode, commit) was at work
    - `rejected`, when there are more: `reasons`, a count of files for each
    - `commit`, when transactions were made: `commits`, `files`, `frames`
    - `done`: what `medlens index --format json` answers; or `stopped`, with the `type` of what ended the run
    """

    def __init__(self, model: str, device: str, archives: int) -> None:
        self._started = self._told = time.monotonic()
        self._files, self._frames = Rate(self._started), Rate(self._started)
        self._commits = 0
        self._reasons: dict[str, int] = {}
        self.write("start", model=model, device=device, archives=archives)

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        self._files.note(progress.files, now)
        self._frames.note(progress.frames, now)
        if progress.commits != self._commits:
            self._commits = progress.commits
            self.write("commit", commits=progress.commits, files=progress.files, frames=progress.frames)
        if progress.rejected != self._reasons:
            self._reasons = dict(progress.rejected)
            self.write("rejected", reasons=self._reasons)
        if now - self._told >= EVERY_S:
            self._told = now
            left = self._files.seconds_left(progress.files, progress.total)
            self.write(
                "progress",
                files=progress.files,
                total=progress.total,
                frames=progress.frames,
                files_per_second=round(self._files.per_second, 2),
                frames_per_second=round(self._frames.per_second, 2),
                seconds_left=None if left is None else round(left),
                rejected=sum(progress.rejected.values()),
                busy={name: round(load, 3) for name, load in progress.loads.items()},
            )

    def write(self, event: str, **values: Any) -> None:
        line = {"event": event, **values, "seconds": round(time.monotonic() - self._started, 3)}
        print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def told_to_programs(model: str, device: str, archives: int) -> Iterator[JsonLog]:
    """A log of a run that ends with `stopped` if the run does not end well."""
    log = JsonLog(model, device, archives)
    try:
        yield log
    except BaseException as exc:
        log.write("stopped", type=type(exc).__name__)
        raise
