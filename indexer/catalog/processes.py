"""Processes, as far as others can tell whether they live."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, as far as others on its machine can tell whether it lives."""

    place: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        return cls(_place(), os.getpid(), _started(os.getpid()))

    def is_dead(self) -> bool:
        """Certainly dead. False where it can't be told."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is another user's, and alive
        return _started(self.pid) != self.started


def _place() -> str:
    """A digest of what a PID is good for: this machine, since it was started, this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # no Linux: the host's name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the boot; '' where the system does not say, 'ended' for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # from field 3 on; the second, the name, may hold anything
    return "ended" if fields[0] in "ZX" else fields[19]
