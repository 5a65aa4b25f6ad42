"""Processes, and whether other processes can tell that they have ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """The identity of a process, by which others on its machine can tell whether it still runs."""

    place: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        return cls(_place(), os.getpid(), _started(os.getpid()))

    def is_dead(self) -> bool:
        """Whether the process has certainly ended. False if that is unknown."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # the process belongs to another user, and it runs
        return _started(self.pid) != self.started


def _place() -> str:
    """Return a digest of the scope in which a PID is unique: this machine since its start, and this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # not Linux: only the host's name is known
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the boot; '' if the system does not say, 'ended' for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # from field 3 on; the second, the name, may hold anything
    return "ended" if fields[0] in "ZX" else fields[19]
