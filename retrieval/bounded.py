"""Reads files from strangers safely: regular files only, with a limit on bytes and on the nesting of JSON.

A refused file raises OSError, whose `strerror` gives the reason, like a file that can't be read. Callers therefore have
one kind of failure to translate. JSON that can't be parsed raises ValueError.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # opening a pipe without a writer would block
_BINARY = getattr(os, "O_BINARY", 0)
_MOST_CONTAINERS = 2_000_000  # lists and objects in one text; each needs 60 bytes of memory for 2 bytes of text


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Links are followed."""
    with open_file(path, most) as file:
        size = min(os.fstat(file.fileno()).st_size, most)
        content = file.read(size + 1)  # what is asked for is allocated at once
        if len(content) > size:  # it has grown since, or its size was not the whole truth
            content += file.read(most + 1 - len(content))
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return content


def open_file(path: Path, most: int) -> io.BufferedReader:
    """Open a regular file of at most `most` bytes for reading."""
    handle = os.open(path, os.O_RDONLY | _NO_WAITING | _BINARY)
    file = os.fdopen(handle, "rb")
    try:
        _require(os.fstat(handle), most)
    except OSError:
        file.close()
        raise
    return file


def require_file(path: Path, most: int) -> None:
    """Raises OSError unless `path` leads to a regular file of at most `most` bytes."""
    _require(path.stat(), most)


def _require(state: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise OSError(errno.EISDIR, "it is a folder, expected a file")
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, expected a file")
    if state.st_size > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")


def read_json(path: Path, most: int) -> Any:
    """The value of a JSON file of at most `most` bytes. ValueError for what is not JSON, OSError as `read_bytes`."""
    return parse_json(read_bytes(path, most))


def parse_json(content: bytes) -> Any:
    """The value of a JSON text. ValueError if it is not JSON, nested too deeply, or made of too many parts."""
    containers = content.count(b"[") + content.count(b"{")
    if containers > _MOST_CONTAINERS:
        raise ValueError(f"it has {containers:,} lists and objects, expected at most {_MOST_CONTAINERS:,}")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")
