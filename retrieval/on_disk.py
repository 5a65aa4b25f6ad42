"""Writes files atomically: a temporary file is written beside the target and then renamed.

A reader therefore sees the old file, the new file or none. The process that writes a temporary file holds a lock on it,
which ends with the process. So the leftovers of a killed process can be told, and are removed when the same file is
written again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".*.tmp"  # the pattern of temporary names
_NEXT_TO_NOTHING = 1 << 16  # bytes; SQLite takes 32 KiB at once for the index of its log


def unfinished_name(path: Path) -> Path:
    """A free temporary name in the folder of `path`.

    A file with this name gets the permissions of the umask. `mkstemp` would make it unreadable for other users.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def unfinished_beside(path: Path, *, folder: bool = False, private: bool = False) -> Iterator[Path]:
    """An empty, locked temporary file or folder beside `path`, removed at the end if it still has that name.

    Leftovers of the same `path` from killed processes are removed: of a file first, of a folder when the block has
    ended without an error. `private`: only the owner can read it, whatever the umask.
    """
    if not folder:
        _remove_dead(path)
    made, lock = _made_and_locked(path, folder, private)
    try:
        yield made
    finally:
        os.close(lock)
        remove(made)
    if folder:
        _remove_dead(path)


@contextmanager
def written_whole(
    path: Path, *, durable: bool = False, alone: bool = False, private: bool = False, like: Path | None = None
) -> Iterator[Path]:
    """An empty temporary file. It replaces `path` when the block ends, and is removed if the block raises.

    - `durable`: the new file survives a power cut.
    - `alone`: no other process writes the same file. A fixed temporary name is used, so that the leftover of a killed
      process is overwritten. The file is not created.
    - `private`: only the owner can read the new file, whatever the umask.
    - `like`: a file or folder whose readers may read the new file. An existing file keeps its permissions.

    The target of a link is replaced, not the link. A pipe or a device is written to directly.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield place
        return
    with _lone(place) if alone else unfinished_beside(place, private=private or like is not None) as temporary:
        yield temporary
        if like is not None:
            share(temporary, place if place.exists() else like)
        if durable:
            sync(temporary)
        temporary.replace(place)
    if durable:
        sync(place.parent)


@contextmanager
def folder_written_whole(path: Path, *, replace: bool = True, like: Path | None = None) -> Iterator[Path]:
    """As `written_whole`, for a folder: the block fills a new folder, which becomes `path` when the block ends.

    An existing folder is replaced. Without `replace`, OSError is raised if `path` exists and is not an empty folder.
    Only the owner can read the new folder until then. `like` also applies to the files in the folder.

    A process that is killed at the very end leaves the replaced folder as `.NAME.HEX.old.tmp`. It is removed when a new
    one has replaced the folder, and never without `replace`.
    """
    old = unfinished_name(path).with_suffix(".old.tmp")
    with unfinished_beside(path, folder=True, private=like is not None) as made:
        yield made
        if like is not None:
            share(made, path if path.is_dir() else like)
            for inner in made.iterdir():
                share(inner, path / inner.name if (path / inner.name).exists() else made)
        try:
            if replace and path.exists():
                path.rename(old)
            made.rename(path)
        finally:
            remove(old)
    if replace:
        _remove_dead(path, ".old.tmp")


@contextmanager
def _lone(place: Path) -> Iterator[Path]:
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _made_and_locked(path: Path, folder: bool, private: bool) -> tuple[Path, int]:
    """Create a temporary file or folder; return its path and the open handle that holds its lock."""
    while True:
        made = unfinished_name(path)
        if folder:
            made.mkdir(0o700 if private else 0o777)
        elif private:
            make_private(made)
        else:
            os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            lock = os.open(made, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process removed it as a leftover, before it was locked
        with suppress(OSError):  # a file system without locks: no other process can lock it either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return made, lock
        os.close(lock)


def _remove_dead(path: Path, suffix: str = ".tmp") -> None:
    """Remove those temporary files or folders of `path` that no process has locked, as far as that is possible."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}{re.escape(suffix)}")
    with suppress(OSError):
        for left in [entry.path for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]:
            with suppress(OSError):  # it is locked, not ours, or gone
                lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(Path(left))
                finally:
                    os.close(lock)


def make_private(path: Path) -> None:
    """Create an empty file that only its owner can open, whatever the umask. Raises OSError if the file exists."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.fchmod(handle, 0o600)
    os.close(handle)


def make_folder_like_its_parent(folder: Path) -> None:
    """Create a folder with the readers of its parent folder. The folder may exist."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        share(folder, folder.parent)


def share(path: Path, like: Path) -> None:
    """Give a file or folder the group of another and its permissions, but for those that only folders need, and for
    others' to write. Where the group can't be given, it gets no rights."""
    wanted, found = like.stat(), path.stat()
    mode = wanted.st_mode & (0o2775 if stat.S_ISDIR(found.st_mode) else 0o664)
    try:
        if found.st_gid != wanted.st_gid:
            os.chown(path, -1, wanted.st_gid)
        if os.geteuid() == 0 and found.st_uid != wanted.st_uid:
            os.chown(path, wanted.st_uid, -1)  # root at work in somebody's store
    except OSError:
        mode &= ~0o2070
    path.chmod(mode)


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has almost no free space, or no free inode."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _NEXT_TO_NOTHING or (found.f_files > 0 and found.f_favail == 0)


def advice(error: OSError) -> str:
    """Return what to do about a full disk, a quota or a limit on file sizes; empty for another error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free disk space, then run the same command again."
    if error.errno == errno.EFBIG:
        return "Raise the limit on the size of files (ulimit -f), then run the same command again."
    return ""


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content. Does nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
