"""What runs inside a decoding worker, and how messages cross the socket between it and its pool (guard.py).

A worker is an interpreter of its own that imports what the decoding function needs and nothing else. It gives itself
the limits: address space, a kernel timer per item, no core dumps (they would hold patients' pixels), first in line for
the kernel's out-of-memory killer, and death as soon as its parent is gone.

Frames on the wire: magic, number of buffers, their lengths, the pickle (protocol 5), then the raw buffers of its
arrays, which are therefore never copied into a pickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from retrieval.errors import DicomError, PixelDecodeError

READY, FAILED, RESULT, ERROR, OUT_OF_MEMORY = range(5)
"""Kinds of answer: the first two once per worker, the other three once per item."""

_MAGIC = b"mlG1"
_PREFIX = struct.Struct("<4sIQ")  # magic, number of buffers, length of the pickle
_MOST_BUFFERS = 4096


class WireError(Exception):
    """The bytes on the socket are not a frame: the other side has failed."""


class Setup(NamedTuple):
    """The first message to a worker. The three callables are unpickled within the worker's own limits."""

    pickled_functions: bytes  # (function, initializer or None, initargs)
    memory_limit: int  # bytes of address space above what the worker needs when it is ready
    deadline_s: float


def send(sock: socket.socket, message: object) -> None:
    """Write one message. Blocks until it is received. Errors of pickling are raised before anything is written."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    if len(buffers) > _MOST_BUFFERS:
        buffers, body = [], pickle.dumps(message, protocol=5)
    views = [buffer.raw() for buffer in buffers]
    lengths = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    sock.sendall(_PREFIX.pack(_MAGIC, len(views), len(body)) + lengths + body)
    for view in views:
        sock.sendall(view)


def send_pickled(sock: socket.socket, body: bytes) -> None:
    """Write a message that is pickled already."""
    sock.sendall(_PREFIX.pack(_MAGIC, 0, len(body)) + body)


def receive(sock: socket.socket, limit: int) -> tuple[Any, int]:
    """Read one message. Returns it and its number of bytes. Arrays in it are writable and own their memory.

    Raises EOFError if the other side has ended, WireError if the bytes are not a frame or are more than `limit`.
    """
    magic, count, body_length = _PREFIX.unpack(_exactly(sock, _PREFIX.size))
    if magic != _MAGIC or count > _MOST_BUFFERS or body_length > limit:
        raise WireError("the bytes on the socket are not a frame of this protocol")
    lengths = struct.unpack(f"<{count}Q", _exactly(sock, 8 * count)) if count else ()
    total = body_length + sum(lengths)
    if total > limit:
        raise WireError(f"a frame has {total} bytes; expected at most {limit}")
    body = _exactly(sock, body_length)
    buffers = [_exactly(sock, length) for length in lengths]
    try:
        return pickle.loads(body, buffers=buffers), total
    except (pickle.UnpicklingError, AttributeError, ImportError, IndexError, TypeError, ValueError, EOFError) as exc:
        raise WireError(f"a frame could not be unpickled ({type(exc).__name__})") from exc


def _exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            got = sock.recv_into(view)
        except ConnectionResetError:
            got = 0
        if not got:
            raise EOFError("the process at the other end of the socket has ended")
        view = view[got:]
    return data


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Serve items until the pool closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends its workers itself
    _die_with_parent(lifeline_fd)
    os.set_inheritable(socket_fd, False)
    with socket.socket(fileno=socket_fd) as sock:
        try:
            _serve(sock)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the pool has ended


def _serve(sock: socket.socket) -> None:
    setup: Setup = receive(sock, 1 << 30)[0]
    try:
        function, initializer, initargs = pickle.loads(setup.pickled_functions)
        if initializer is not None:
            initializer(*initargs)
        _limit_resources(setup.memory_limit)
    except BaseException:  # noqa: BLE001 - whatever keeps a worker from starting is told to the pool, which raises
        send(sock, (FAILED, traceback.format_exc(limit=-3)))
        return
    send(sock, (READY, None))
    while True:
        item = receive(sock, 1 << 30)[0]
        kind, value = _run(function, item, setup.deadline_s)
        try:
            send(sock, (kind, value))
        except MemoryError:
            kind = OUT_OF_MEMORY
            send(sock, (kind, None))
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as exc:
            send(sock, (ERROR, _unexpected(exc)))
        if kind == OUT_OF_MEMORY:
            return  # whatever failed to allocate may be in any state, so the pool starts a fresh worker


def _run(function: Callable[[Any], Any], item: Any, deadline_s: float) -> tuple[int, Any]:
    # The kernel's timer ends a decoder that never returns, even one that holds the GIL. Its action is the default:
    # death by SIGALRM, which the pool recognises by the exit status.
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        return RESULT, function(item)
    except DicomError as exc:
        return ERROR, exc
    except MemoryError:
        return OUT_OF_MEMORY, None
    except BaseException as exc:  # noqa: BLE001 - the outermost guard: Rust's PanicException is not an Exception
        return ERROR, _unexpected(exc)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _unexpected(exc: BaseException) -> PixelDecodeError:
    """Name the type and the place of an error, never its text: texts of decoders' errors quote values of the file."""
    frames = [frame.f_globals.get("__name__", "?") + f":{line}" for frame, line in traceback.walk_tb(exc.__traceback__)]
    return PixelDecodeError(
        f"decoding failed with an unexpected {type(exc).__name__} at {frames[-1] if frames else '?'}",
        hint=("The file is probably damaged, or its encoder breaks the standard. Try to open it in another viewer."),
    )


def _die_with_parent(lifeline_fd: int) -> None:
    """Have the kernel end this process when the last write end of the lifeline closes.

    PR_SET_PDEATHSIG would do so when the *thread* that started the worker ends, which may be long before the process.
    SIGIO needs neither the GIL nor a thread here, so it also ends a worker that is inside a decoder.
    """
    os.set_inheritable(lifeline_fd, False)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        if not os.read(lifeline_fd, 1):
            sys.exit(1)  # the parent was gone before the signal was armed


def _limit_resources(memory_limit: int) -> None:
    """Limit the address space to `memory_limit` above what is in use now (Linux).

    macOS has RLIMIT_AS but does not enforce it: there, the checks before decoding and the deadline are the limits.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    cap = in_use + memory_limit
    cap = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    with contextlib.suppress(OSError):  # not allowed everywhere, and not essential
        Path("/proc/self/oom_score_adj").write_text("800")
