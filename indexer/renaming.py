"""Giving a finished file its name, without taking the name from a file that nobody has looked at.

Between a look at a name and a rename to it, another process may put a file of its own there. A new name is therefore
given by a hard link, which fails if the name is taken meanwhile; and a file is replaced by exchanging the two, so that
what had the name is there to be compared with what was looked at, and is given it back if it is another. All of it
happens in one open folder: a folder that is exchanged for a link leads nowhere else.

What remains: where the file system knows no hard links (FAT) or no exchange (other systems than Linux, some network
folders) there is a moment between the last look and the rename; and who has a file open for writing while it is
replaced writes on into a file without a name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_NOT_KNOWN = (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK)


class NameTaken(Exception):
    """Somebody else's file has the name, or the folder is another by now."""


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """A folder, opened."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def require_same_folder(folder: Path, handle: int) -> None:
    """NameTaken unless the path leads to the folder that was opened."""
    if not os.path.samestat(folder.stat(), os.fstat(handle)):
        raise NameTaken


def seen(folder: int, name: str) -> os.stat_result | None:
    """What has a name now, links not followed; None if nothing has."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def give_name(folder: int, made: str, name: str, looked_at: os.stat_result | None) -> None:
    """Give the file `made` a name, both in an open folder, in place of what was looked at. NameTaken otherwise."""
    if looked_at is None:
        _give_new_name(folder, made, name)
    elif not _exchanged(folder, made, name):
        if not _same(looked_at, seen(folder, name)):
            raise NameTaken
        os.replace(made, name, src_dir_fd=folder, dst_dir_fd=folder)
    elif _same(looked_at, seen(folder, made)):
        os.unlink(made, dir_fd=folder)
    else:
        _exchanged(folder, made, name)
        raise NameTaken


def _give_new_name(folder: int, made: str, name: str) -> None:
    try:
        os.link(made, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as exc:
        raise NameTaken from exc
    except OSError as exc:
        if exc.errno not in _NOT_KNOWN:
            raise
        if seen(folder, name) is not None:
            raise NameTaken from exc
        os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(made, dir_fd=folder)


def _same(one: os.stat_result, other: os.stat_result | None) -> bool:
    """The same regular file with the same content, as far as the system tells."""
    if other is None or not stat.S_ISREG(other.st_mode):
        return False
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _exchanged(folder: int, one: str, other: str) -> bool:
    """Exchange two names; False where that can't be done."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    done = renameat2(folder, os.fsencode(one), folder, os.fsencode(other), _EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:  # it is gone by now
        raise NameTaken
    if number in _NOT_KNOWN:
        return False
    raise OSError(number, os.strerror(number))


@cache
def _renameat2() -> Any:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl 1.2.6
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function
