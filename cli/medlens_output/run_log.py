"""The progress of an indexing run: a note beside the bar for people, or JSON lines on stderr for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from cli.medlens_output.index_report import outcome_row
from cli.medlens_output.progress import Rate, progress_bar
from indexer.records import IndexReport
from indexer.run.options import Progress
from retrieval.encoders.clip import ClipEncoder
from retrieval.neutral import neutral_values

logger = logging.getLogger(__name__)

EVERY_S = 1.0


class RunLog(Protocol):
    """Receives the events of a run: `started` when the model is loaded, `update` several times a second, `done` at the
    end.
    """

    def started(self, encoder: ClipEncoder) -> None: ...
    def update(self, progress: Progress) -> None: ...
    def done(self, report: IndexReport) -> None: ...


@contextmanager
def run_log(archives: int, *, as_json: bool = False) -> Iterator[RunLog]:
    """Yield the log of a run on that many archives: JSON lines, a bar, or nothing if only errors are shown."""
    if as_json:
        log = JsonLog(archives)
        try:
            yield log
        except BaseException as exc:
            log.stopped(exc)
            raise
    elif logger.isEnabledFor(logging.WARNING):
        with ExitStack() as stack:
            yield BarLog(stack, loads=logger.isEnabledFor(logging.INFO))
    else:
        yield NoLog()


class NoLog:
    def started(self, encoder: ClipEncoder) -> None: ...
    def update(self, progress: Progress) -> None: ...
    def done(self, report: IndexReport) -> None: ...


class BarLog:
    """Shows a bar until the stack is closed. With `loads`, the note says how busy each stage is."""

    def __init__(self, stack: ExitStack, *, loads: bool) -> None:
        self._stack, self._loads = stack, loads
        self._frames = Rate(time.monotonic())
        self._update: Callable[[int, int | None, str], None] = lambda done, total, note: None

    def started(self, encoder: ClipEncoder) -> None:
        self._frames = Rate(time.monotonic())
        self._update = self._stack.enter_context(progress_bar("files"))

    def update(self, progress: Progress) -> None:
        self._frames.note(progress.frames, time.monotonic())
        rejected = sum(progress.rejected.values())
        note = f"{progress.frames} frames ({self._frames.per_second:.0f}/s), {rejected} rejected"
        self._update(progress.files, progress.total, f"{note}; {_busy(progress.loads)}" if self._loads else note)

    def done(self, report: IndexReport) -> None:
        self._stack.close()
        logger.info(_busy(report.loads))


class JsonLog:
    """Writes one JSON object per line to stderr.

    Each has `event` and `seconds` since the start; counts are totals so far.

    - `start`: `model`, `device`, `archives` (how many)
    - `progress`, about every second: `files` done, of `total` (null until they are counted); `frames` committed;
      `files_per_second` and `frames_per_second` over the last minute; `seconds_left` (or null); `rejected` files;
      `busy`, the share of its time that each stage (read, encode, commit) was at work
    - `rejected`, when there are more: `reasons`, a count of files for each
    - `commit`, when transactions were made: `commits`, `files`, `frames`
    - `done`: the row that `medlens index --format json` prints; or `stopped`, with the `type` of the error that ended
      the run
    """

    def __init__(self, archives: int) -> None:
        self._archives = archives
        self._started: float | None = None
        self._told = time.monotonic()
        self._files, self._frames = Rate(self._told), Rate(self._told)
        self._commits = 0
        self._reasons: dict[str, int] = {}

    def started(self, encoder: ClipEncoder) -> None:
        self._started = self._told = time.monotonic()
        self._files, self._frames = Rate(self._started), Rate(self._started)
        self._write("start", model=encoder.name, device=str(encoder.device), archives=self._archives)

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        self._files.note(progress.files, now)
        self._frames.note(progress.frames, now)
        if progress.commits != self._commits:
            self._commits = progress.commits
            self._write("commit", commits=progress.commits, files=progress.files, frames=progress.frames)
        if progress.rejected != self._reasons:
            self._reasons = dict(progress.rejected)
            self._write("rejected", reasons=self._reasons)
        if now - self._told >= EVERY_S:
            self._told = now
            left = self._files.seconds_left(progress.files, progress.total)
            self._write(
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

    def done(self, report: IndexReport) -> None:
        self._write("done", **outcome_row(report))

    def stopped(self, error: BaseException) -> None:
        """Write that the run was stopped, unless it ended before it started."""
        if self._started is not None:
            self._write("stopped", type=type(error).__name__)

    def _write(self, event: str, **values: Any) -> None:
        seconds = time.monotonic() - (self._started or 0.0)
        line = neutral_values({"event": event, **values, "seconds": round(seconds, 3)})
        print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201


def _busy(loads: Mapping[str, float]) -> str:
    """Return the share of its time that each stage was at work. The stage with the highest share limits the others."""
    return "busy: " + ", ".join(f"{name} {load:.0%}" for name, load in loads.items())
