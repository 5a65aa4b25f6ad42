"""Rows kept beside an output file until it is complete, so that a stopped run can continue."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from indexer.output_formats import json_lines
from indexer.outputs import Output, not_written
from retrieval.errors import OutputError

Row = Mapping[str, Any]


class Spool:
    """Rows by file, kept beside an output until it is complete, so that the same command continues where it stopped.

    `stamp` identifies what made the rows; a spool with another stamp is started again. Only one process can have it
    open: others get an OutputError. Used in a `with`; a spool without rows is removed.
    """

    def __init__(self, output: Output, stamp: str) -> None:
        self._path = output.path.with_name(f".{output.path.name}.partial.jsonl")
        Output(self._path, json_lines("rows of a run that was stopped", ("stamp",)), force=True).require()
        with self._os_errors():
            self._file = self._path.open("a+b", buffering=0)  # what did not fit on the disk is not tried again
        try:
            with self._os_errors():
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as exc:
                    raise OutputError(
                        f"another run is writing {output.path.name!r}",
                        hint="Wait until it ends, or name another file with -o.",
                    ) from exc
                self.done = self._kept(stamp)
                self._empty = not self.done
        except BaseException:
            self._file.close()
            raise

    def _kept(self, stamp: str) -> set[str]:
        """Return the names of the files whose rows are in the spool, and cut off an incomplete last line."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            first, *rest = (json.loads(line) for line in whole.splitlines())
            if first == {"stamp": stamp}:
                done = {str(row["file"]) for row in rest}
                self._file.truncate(len(whole))
                return done
        except (ValueError, LookupError, TypeError):
            pass  # empty, or not a spool
        self._file.truncate(0)
        try:
            self._append([{"stamp": stamp}])
        except OSError:
            self.drop()
            raise
        return set()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._empty:
            self.drop()
        self._file.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows with a key `file`. They are on disk when this returns."""
        with self._os_errors():
            self._append(rows)

    def _append(self, rows: Iterable[Row]) -> None:
        for row in rows:
            line = json.dumps(row).encode() + b"\n"
            while line:
                line = line[self._file.write(line) :]
            self._empty = False

    def rows(self) -> Iterator[Row]:
        """Yield all rows so far, in the order in which they were added."""
        with self._path.open("rb") as file:
            file.readline()
            yield from map(json.loads, file)

    def drop(self) -> None:
        """Remove the spool, because the output is complete."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise not_written(self._path, exc) from exc
