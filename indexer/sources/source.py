"""The interface of a place that files come from, and of the location of one file's bytes.

A source is used in the process that indexes. Decoding happens in guarded processes, so what is sent there is small and
picklable: the location of the bytes. A path is a file on this machine; another source gives an object that opens itself
in the other process, once per reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from indexer.records import FileStat, Rejection

OnRejection = Callable[[Rejection], None]


class Located(Protocol):
    """Where the bytes of one file are, if not at a path here. Picklable, and equal for the same file."""

    @property
    def name(self) -> str:
        """The name in messages, without folders."""
        ...

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the bytes from the start, to be read once. Raises OSError or FileUnreadable if they can't be read."""
        ...


Where = Path | Located


class Source(Protocol):
    """An archive. `indexer.sources.folders.Folder` is the first kind."""

    @property
    def root(self) -> str:
        """The identity of the archive in the catalog, for every process and machine: an absolute path, or a URL."""
        ...

    @property
    def label(self) -> str:
        """The name in messages, without folders."""
        ...

    def walk(self, on_rejection: OnRejection) -> Iterator[FileStat]:
        """Yield every file that may be DICOM, in ascending order of its path, by code point.

        An unchanged file has the same FileStat again. What can't be listed or examined goes to `on_rejection` under its
        path, or that of its folder. Raises MedlensError, at the call, if the archive can't be walked at all.
        """
        ...

    def count(self) -> int:
        """Return about how many files `walk` will find, to estimate the remaining time; cheaper than walking."""
        ...

    def stat(self, path: str) -> FileStat | None:
        """Return what `walk` would yield for one file now; None if it is gone, or not a path of this source."""
        ...

    def locate(self, path: str) -> Where:
        """Where the bytes of a file are. Raises FileUnreadable for a path that this source can't have produced."""
        ...
