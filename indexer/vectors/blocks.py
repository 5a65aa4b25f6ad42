"""Checksums of a file by blocks, compared when a block is first read.

A file of gigabytes is mapped in milliseconds because nothing of it is read; checking all of it when it is opened would
take a third of a second per gigabyte. So each block is checked once, when a byte of it is first needed.
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
    """Passes bytes on to a file and computes the checksum of each block.

    For a file that is written from start to end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sums: list[int] = []
        self._open = 0  # the sum of the block that is not full yet
        self._size = 0

    def write(self, data: Any) -> int:
        """Write anything that has a buffer. Returns its number of bytes."""
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
        """Return the checksums of all blocks [n]; the last block may be incomplete."""
        last = [self._open] if self._size % BLOCK else []
        return np.array(self._sums + last, dtype="<u4")


class CheckedFile:
    """The first `size` bytes of an open file, with the checksums of their blocks. `error` creates the exception."""

    def __init__(self, file: FileIO, size: int, sums: Sums, error: Callable[[], Exception]) -> None:
        if len(sums) != blocks_of(size):
            raise ValueError(f"there are {len(sums)} checksums for {size} bytes; expected {blocks_of(size)}")
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
        """Raise `error` unless these rows of `row_size` bytes, the first at `offset`, are those that were written."""
        starts = offset + rows * row_size
        if row_size <= BLOCK:  # such a row is in two blocks at most
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
    """Return the number of blocks of a file with so many bytes."""
    return -(-size // BLOCK)
