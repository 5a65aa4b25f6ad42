"""From a file's row in the catalog to its bytes, whatever its source. All files are opened here."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from indexer.sources.folders import Folder
from indexer.sources.source import Source, Where
from retrieval.errors import FileUnreadable, NotDicomError


def source_at(root: str) -> Source:
    """The source of an archive, by its root in the catalog. Raises FileUnreadable for an unknown kind of source."""
    if "://" in root:
        raise FileUnreadable(
            f"this version of medlens can't read archives at {root.partition('://')[0]}://",
            hint="Name a folder on this machine, or update medlens.",
        )
    return Folder(Path(root))


def is_gone(root: str) -> bool:
    """Return whether nothing is left at the root of an archive: no folder or file, or an empty folder.

    A disk that is not mounted leaves an empty folder. False for a root that this medlens can't read from.
    """
    if "://" in root:
        return False
    try:
        with os.scandir(root) as listing:
            return next(listing, None) is None
    except NotADirectoryError:
        return not Path(root).exists()  # a file is an archive too
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it exists, but can't be listed


def locate(archive_root: str, path: str) -> Where:
    """Where the bytes of a file are now, from its row in the catalog. Raises FileUnreadable for an invalid path."""
    return source_at(archive_root).locate(path)


@dataclass(frozen=True)
class Fetched:
    """A file of another source whose bytes are in memory."""

    name: str
    data: bytes

    def open(self) -> AbstractContextManager[BinaryIO]:
        return io.BytesIO(self.data)


def fetched(where: Where) -> Path | Fetched:
    """Return the file in a form that can be read several times: a path as it is, anything else in memory.

    Raises FileUnreadable if the bytes can't be read.
    """
    if isinstance(where, Path | Fetched):
        return where
    try:
        with where.open() as file:
            return Fetched(where.name, file.read())
    except OSError as exc:
        raise FileUnreadable(f"the file can't be fetched: {exc.strerror or type(exc).__name__}") from exc


@contextmanager
def opened(where: Where) -> Iterator[BinaryIO]:
    """Open the bytes of a file, to read and seek in.

    At a path, only a regular file or a link to one is opened (NotDicomError for anything else): opening a FIFO would
    block, and a device might act. Raises OSError or FileUnreadable if the bytes can't be read.
    """
    there = fetched(where)
    if not isinstance(there, Path):
        yield io.BytesIO(there.data)
        return
    path = os.fspath(there)
    if "\0" in path:
        raise FileUnreadable("the path contains a null byte")
    _refuse_irregular(os.stat(path).st_mode)  # noqa: PTH116 - os.fspath keeps names that are not UTF-8
    # O_NONBLOCK: should a FIFO have taken the file's place since, opening it doesn't block.
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        _refuse_irregular(os.fstat(file.fileno()).st_mode)
        yield file


def digest(where: Where) -> str:
    """Return the content hash of a file, as in the catalog: BLAKE2b of the bytes, 40 hexadecimal digits.

    Raises FileUnreadable or NotDicomError.
    """
    try:
        with opened(where) as file:
            hashed = hashlib.blake2b(digest_size=20)
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
            return hashed.hexdigest()
    except OSError as exc:
        raise FileUnreadable(f"{exc.strerror or type(exc).__name__}") from exc


def _refuse_irregular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    raise NotDicomError(f"the file is {kinds.get(stat.S_IFMT(mode), 'a device')}; expected a regular file")
