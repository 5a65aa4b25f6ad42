"""How files come to be: made beside their place under a name of their own, then renamed.

So a reader sees the old file, the new one or none, and what a killed process leaves is known by its name.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".*.tmp"  # the names of what is not finished


def unfinished_name(path: Path) -> Path:
    """A free name in the folder of `path`. What is made there has the permissions that the umask gives: no `mkstemp`,
    whose files nobody else may read once they are renamed.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


@contextmanager
def written_whole(
    path: Path, *, durable: bool = False, alone: bool = False, like: Path | None = None
) -> Iterator[Path]:
    """A name to write to, whose file becomes `path` when the block ends well, and goes if it doesn't.

    With `durable`, it survives a power cut from then on. With `alone`, nobody else writes this file at the same time:
    what a killed process has left of it is overwritten, where nothing else clears the folder. With `like`, a file or a
    folder, it may be read by the same users, in place of whom the umask allows; one that is there keeps its own.

    What a link leads to is replaced, not the link. A pipe or a device can't be replaced and is written to as it is.
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
    """The same for a folder: a new one, to be filled, which becomes `path` when the block ends well.

    What was there goes; without `replace`, OSError if anything is there by then but an empty folder. Until then it is
    its owner's alone; `like` is as for `written_whole`, for what is in it, too.
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
    """Make an empty file that nobody but its owner can open, whatever the umask. OSError if it is there."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.fchmod(handle, 0o600)
    os.close(handle)


def make_folder_like_its_parent(folder: Path) -> None:
    """Make a folder that the same users may look into as the one it lies in. It may be there already."""
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
    """Remove a file, a link, or a folder with all in it; nothing if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or what was created or renamed in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
