"""Checksums of a file by blocks, compared when a block is first read.

A file of gigabytes is mapped in milliseconds because nothing of it is read; to sum all of it at the opening would take
a third of a second a gigabyte. So each block is summed when something first wants a byte of it, and then not again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from io import FileIO
from typing import IO, Any

import numpy as np
import numpy.typing as npt

BLOCK = 16_384
_AT_ONCE = 64  # blocks that are read together

Sums = npt.NDArray[np.uint32]


class ChecksumWriter:
    """Passes bytes on to a file and sums each block of them. For a file that is written from its start to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sums: list[int] = []
        self._open = 0  # the sum of the block that is not full yet
        self._size = 0

    def write(self, data: Any) -> int:
        """Write anything that has a buffer; how many bytes it had."""
        view = memoryview(data)
        if not view.nbytes:
            return 0
        view = view.cast("B")
        self._file.write(view)
        start = 0
        while start < len(view):
            piece = view[start : start + BLOCK - self._size % BLOCK]
            self._open = zlib.crc32(piece, self._open)
            self._size += len(piece)
            start += len(piece)
            if self._size % BLOCK == 0:
                self._sums.append(self._open)
                self._open = 0
        return len(view)

    def tell(self) -> int:
        return self._size

    def sums(self) -> Sums:
        """The checksums of all blocks [n], of the last one as far as it goes."""
        last = [self._open] if self._size % BLOCK else []
        return np.array(self._sums + last, dtype="<u4")


class CheckedFile:
    """The first `size` bytes of an open file, with the checksums of their blocks. `error` makes what is raised."""

    def __init__(self, file: FileIO, size: int, sums: Sums, error: Callable[[], Exception]) -> None:
        if len(sums) != blocks_of(size):
            raise ValueError(f"{len(sums)} checksums for {size} bytes, expected {blocks_of(size)}")
        self.size = size
        self._file = file
        self._sums = sums
        self._error = error
        self._sound = np.zeros(len(sums), dtype=np.bool_)

    def require(self, start: int, stop: int) -> None:
        """Raise `error` unless the bytes from `start` to `stop` are those that were written."""
        first = start // BLOCK
        unread = np.flatnonzero(~self._sound[first : blocks_of(stop)]) + first
        if not len(unread):
            return
        for some in np.split(unread, np.flatnonzero(np.diff(unread) > 1) + 1):
            for begin in range(int(some[0]), int(some[-1]) + 1, _AT_ONCE):
                self._compare(begin, min(begin + _AT_ONCE, int(some[-1]) + 1))

    def require_rows(self, offset: int, row_size: int, rows: npt.NDArray[np.int64]) -> None:
        """The same for rows of `row_size` bytes, of which the first lies at `offset`."""
        starts = offset + rows * row_size
        if row_size <= BLOCK:  # such a row lies in two blocks at most
            starts = starts[~(self._sound[starts // BLOCK] & self._sound[(starts + row_size - 1) // BLOCK])]
        for start in starts.tolist():
            self.require(start, start + row_size)

    def _compare(self, first: int, end: int) -> None:
        """Read and compare the blocks from `first` to before `end`."""
        start, stop = first * BLOCK, min(end * BLOCK, self.size)
        content = memoryview(os.pread(self._file.fileno(), stop - start, start))
        for number in range(first, end):
            at = (number - first) * BLOCK
            if zlib.crc32(content[at : at + BLOCK]) != self._sums[number]:
                raise self._error()
        self._sound[first:end] = True


def blocks_of(size: int) -> int:
    """How many blocks so many bytes have."""
    return -(-size // BLOCK)
