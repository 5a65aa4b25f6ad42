"""Work in a process of its own, which is killed (SIGKILL) at a step that it takes or after a time.

The children are forked from a process that has imported all they need and has never searched or computed anything: a
library that keeps threads for its work would miss them in the child.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

_TOO_LONG_S = 120.0
_WRITES = ("BEGIN IMMEDIATE", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "VACUUM")
_OF_FILES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "fcntl.flock"}


@dataclass(frozen=True)
class Ended:
    """How a child ended: what its work gave, or `error`, a traceback; neither if it was killed."""

    value: Any = None
    error: str = ""
    killed: bool = False
    seconds: float = 0.0

    def result(self) -> Any:
        """What the work gave. RuntimeError if it failed."""
        if self.error:
            raise RuntimeError(self.error)
        return self.value


def forked(
    work: Callable[[], Any], kill_after: float | None = None, meanwhile: Callable[[], object] = lambda: None
) -> Ended:
    """Run `work` in a child; kill it after so many seconds if it has not ended by then. `meanwhile` is called here."""
    theirs, ours = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(work, ours)
    os.close(ours)
    meanwhile()
    try:
        content, timeout = b"", _TOO_LONG_S if kill_after is None else kill_after
        while True:
            left = timeout - (time.monotonic() - started)
            if not select.select([theirs], [], [], max(left, 0.0))[0]:
                os.kill(pid, signal.SIGKILL)
                break
            piece = os.read(theirs, 1 << 20)
            if not piece:
                break
            content += piece
    finally:
        os.close(theirs)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - started
    if status == -signal.SIGKILL:
        if kill_after is None and seconds >= _TOO_LONG_S:
            return Ended(error=f"not done after {_TOO_LONG_S:.0f} s", seconds=seconds)
        return Ended(killed=True, seconds=seconds)
    value, error = pickle.loads(content) if content else (None, f"ended with {status}")
    return Ended(value, error, seconds=seconds)


def _child(work: Callable[[], Any], answers: int) -> None:
    gc.disable()
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), sys.stderr.fileno())
        try:
            said = pickle.dumps((work(), ""))
        except BaseException:  # noqa: BLE001 - told to the parent
            said = pickle.dumps((None, traceback.format_exc()))
        with os.fdopen(answers, "wb") as out:
            out.write(said)
    finally:
        os._exit(0)  # nothing of the parent's is to be ended here


class Steps:
    """Counts the steps of this process that change files or the database: statements that write, commits, what follows
    a commit, files opened to be written, made, synced, renamed, removed, or given other permissions.

    At step `fatal`, from 1, it kills this process before the step is taken. Else `before_each` is called, which must
    take no such step itself.
    """

    def __init__(self, fatal: int | None = None, before_each: Callable[[], None] = lambda: None) -> None:
        self.taken = 0
        self._fatal = fatal
        self._before_each = before_each
        self._lock = threading.Lock()
        self._here = threading.local()

    def watch(self) -> None:
        """From now on, until the process ends: such hooks can't be taken back."""
        fsync = os.fsync

        def counted_fsync(handle: int) -> None:
            self._step()
            fsync(handle)

        os.fsync = counted_fsync
        sys.addaudithook(self._audited)
        sa.event.listen(sa.Engine, "before_cursor_execute", self._statement)
        sa.event.listen(sa.Engine, "commit", self._commits)
        sa.event.listen(sa.pool.Pool, "checkin", self._committed)

    def _step(self) -> None:
        with self._lock:
            self.taken += 1
            if self.taken == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self._before_each()

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _OF_FILES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            self._step()

    def _statement(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(_WRITES):
            self._step()

    def _commits(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("medlens_writing"):
            self._step()
            self._here.committed = True

    def _committed(self, *_: object) -> None:
        if getattr(self._here, "committed", False):
            self._here.committed = False
            self._step()
