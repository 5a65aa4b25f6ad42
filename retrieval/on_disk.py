"""Writes files atomically: a temporary file is written beside the target and then renamed.

A reader therefore sees the old file, the new file or none. The name of a temporary file shows that it is unfinished.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".*.tmp"  # the pattern of temporary names


def unfinished_name(path: Path) -> Path:
    """A free temporary name in the folder of `path`.

    A file with this name gets the permissions of the umask. `mkstemp` would make it unreadable for other users.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def written_whole(
    path: Path, *, durable: bool = False, alone: bool = False, like: Path | None = None
) -> Iterator[Path]:
    """A temporary path to write to. Its file replaces `path` when the block ends, and is removed if the block raises.

    - `durable`: the new file survives a power cut.
    - `alone`: no other process writes the same file. A fixed temporary name is used, so that the leftover of a killed
      process is overwritten.
    - `like`: a file or folder whose readers may read the new file. An existing file keeps its permissions.

    The target of a link is replaced, not the link. A pipe or a device is written to directly.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield place
        return
    temporary = place.with_name(f".{place.name}.tmp") if alone else unfinished_name(place)
    try:
        if like is not None:
            make_private(temporary)
        yield temporary
        if like is not None:
            share(temporary, place if place.exists() else like)
        if durable:
            sync(temporary)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(place.parent)


@contextmanager
def folder_written_whole(path: Path, *, replace: bool = True, like: Path | None = None) -> Iterator[Path]:
    """As `written_whole`, for a folder: the block fills a new folder, which becomes `path` when the block ends.

    An existing folder is replaced. Without `replace`, OSError is raised if `path` exists and is not an empty folder.
    Only the owner can read the new folder until then. `like` also applies to the files in the folder.
    """
    made, old = unfinished_name(path), unfinished_name(path)
    try:
        made.mkdir(0o777 if like is None else 0o700)
        yield made
        if like is not None:
            share(made, path if path.is_dir() else like)
            for inner in made.iterdir():
                share(inner, path / inner.name if (path / inner.name).exists() else made)
        if replace and path.exists():
            path.rename(old)
        made.rename(path)
    finally:
        remove(made)
        remove(old)


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
