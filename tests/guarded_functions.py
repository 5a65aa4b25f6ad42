"""What the guard's tests run inside workers: good work, and every way of going wrong."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.errors import UnsupportedImageError

SECRET = "DOE^JANE"


class PanicException(BaseException):
    """Stands for a Rust panic, which is no Exception."""


def square(x: int) -> int:
    return x * x


def pid(_: object) -> int:
    return os.getpid()


def picture(n: int) -> npt.NDArray[np.uint16]:
    """[n, n] uint16, whose content depends on n."""
    return (np.arange(n * n, dtype=np.uint32) * 7 + n).astype(np.uint16).reshape(n, n)


def many_pictures(n: int) -> dict[str, Any]:
    return {"frames": [picture(8 + i) for i in range(n)], "strided": picture(64)[::2, ::3], "empty": np.empty((0, 3))}


def misbehave(how: str) -> Any:
    """Do what is named; anything unknown comes back as it is."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "hang":
        time.sleep(600)
    elif how == "hang with the GIL":
        ctypes.PyDLL(None).sleep(600)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "memory":
        return len([np.ones(1 << 25, dtype=np.uint8) for _ in range(1 << 12)])  # 128 GiB
    elif how == "system exit":
        raise SystemExit(SECRET)
    elif how == "keyboard interrupt":
        raise KeyboardInterrupt(SECRET)
    elif how == "panic":
        raise PanicException(SECRET)
    elif how == "value error":
        raise ValueError(SECRET)
    elif how == "recursion":
        return misbehave("recursion")
    elif how == "unpicklable":
        return lambda: None
    elif how == "garbage":
        for fd in range(3, 64):
            try:
                os.write(fd, b"\xff" * 64)
            except OSError:
                continue
        time.sleep(600)
    elif how == "refused":
        raise UnsupportedImageError("no picture in it", hint="Leave it out.")
    return how


def once_then_well(marker: str) -> str:
    """Die the first time, be well the second."""
    path = Path(marker)
    if path.exists():
        return "well"
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "not reached"


def loud(how: str) -> str:
    """Write to the process's own stdout and stderr, as C decoders do."""
    os.write(1, b"noise on stdout\n")
    os.write(2, b"noise on stderr\n")
    return how


STATE: list[str] = []


def prepare(value: str) -> None:
    STATE.append(value)


def prepared(_: object) -> list[str]:
    return STATE


def broken_start() -> None:
    raise RuntimeError("the initializer failed")


def dying_start() -> None:
    os._exit(7)


def loaded_modules(_: object) -> list[str]:
    import sys

    return sorted(sys.modules)


def limits(_: object) -> dict[str, Any]:
    import resource

    return {
        "address space": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "interrupt ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    }
