"""What a place that files come from has to be able to do, and where one file's bytes are.

A source is asked in the process that indexes. Decoding happens in guarded worker processes, so what goes there is small
and picklable: where the bytes are. A path stands for a file on this machine; another source gives an object that opens
itself over there, once per reading.
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
        """What messages call it: no folders."""
        ...

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes from the start, to be read once. Raises OSError, or FileUnreadable, if they can't be had."""
        ...


Where = Path | Located


class Source(Protocol):
    """An archive. `indexer.sources.folders.Folder` is the first kind."""

    @property
    def root(self) -> str:
        """What the catalog knows the archive by, whoever asks from wherever: an absolute path, or a URL."""
        ...

    @property
    def label(self) -> str:
        """What messages call it: no folders."""
        ...

    def walk(self, on_rejection: OnRejection) -> Iterator[FileStat]:
        """Every file that may be DICOM, in ascending order of its path, by code point.

        A file that is unchanged has the same FileStat again. What can't be listed or looked at goes to `on_rejection`
        under its path, or that of its folder. Raises MedlensError, at the call, if the archive can't be walked at all.
        """
        ...

    def count(self) -> int:
        """About how many files `walk` will meet, for the time that is left; cheaper than walking."""
        ...

    def stat(self, path: str) -> FileStat | None:
        """What `walk` would say of one file now; None if it is gone, or is no path of this source."""
        ...

    def locate(self, path: str) -> Where:
        """Where the bytes of a file are. FileUnreadable for a path that this source can't have given."""
        ...
