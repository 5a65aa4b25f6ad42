"""Opening files that may be anything: only regular files, only DICOM, and never more work than a limit allows.

pydicom parses faithfully, and so does whatever a file asks for: it inflates 3 MB to 6 GB, reads five million empty
sequence items, recurses into nested sequences until Python gives up, and with `force=True` takes any bytes for DICOM.
Here its callback `stop_when`, which it calls before each element's value, keeps the count: elements, bytes, and, by a
look ahead, what is inside sequences, before pydicom builds objects for them.

Values above `Limits.defer_bytes` stay in the file until they are asked for, so the size of a file doesn't matter.
What can't be seen from here (a decoder's appetite) is held by the memory cap and the deadline of guard.py.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.valuerep import VR

from indexer.sources.opening import opened
from indexer.sources.source import Where
from retrieval.errors import DecodeGuardError, DicomError, FileUnreadable, NotDicomError

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer: PS3.3 C.7.6.3, .24, .25
UNDEFINED = 0xFFFFFFFF

_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # 4 bytes of length, PS3.5 table 7.1-1
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SMALL = 1024  # bytes; a sequence this short holds at most 64 levels and 128 elements: not worth a look
_SEEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,  # RecursionError and NotImplementedError among them
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom was seen to raise while reading 10,000 broken files, by base class. MemoryError is left to the guard."""


@dataclass(frozen=True)
class Limits:
    """How much one file may ask for. The defaults refuse none of some 270 good test files by a factor of 50."""

    elements: int = 300_000  # data elements and sequence items in all; ten thousand functional groups have some 250,000
    nesting: int = 64  # sequences in sequences
    header_bytes: int = 256 << 20  # values kept in memory, in all
    defer_bytes: int = 32 << 20  # a longer value stays in the file
    encapsulated_bytes: int = 4 << 30  # all fragments of compressed pixel data
    inflated_bytes: int = 512 << 20  # of a deflated data set
    frame_samples: int = 1 << 27  # rows x columns x samples of one frame; 6,600 x 6,600 in RGB
    total_samples: int = 1 << 36  # of all frames; a whole-slide image of 300,000 tiles


def open_dicom(where: str | Where, limits: Limits = Limits()) -> FileDataset:
    """Read a DICOM file. Long values, mostly pixel data, are read from a file at a path when they are asked for.

    Raises FileUnreadable (the system refuses, or the file changes meanwhile), NotDicomError, DecodeGuardError (a limit
    is passed), or DicomError (DICOM, but broken). Accessing a value of the result can still raise what pydicom raises.
    """
    return _open(where, limits, stop_before_pixels=False)


def read_header(where: str | Where, limits: Limits = Limits()) -> FileDataset:
    """Read a DICOM file up to its pixel data. Raises as `open_dicom` does."""
    return _open(where, limits, stop_before_pixels=True)


def _open(where: str | Where, limits: Limits, *, stop_before_pixels: bool) -> FileDataset:
    with _translated("reading it"), opened(Path(where) if isinstance(where, str) else where) as file:
        before = _version(file)
        start = _start(file)
        budget = _Budget(file, limits, start.little_endian, stop_before_pixels)
        if start.transfer_syntax == DeflatedExplicitVRLittleEndian:
            ds = _read_deflated(file, start, budget)
        else:
            file.seek(0)
            defer = None if before is None else limits.defer_bytes
            ds = read_partial(file, budget, defer_size=defer, force=not start.preamble)
        if not len(ds):
            raise DicomError("no data element could be read: the file ends before or inside its data", hint=_CUT_SHORT)
        if before != _version(file):
            raise FileUnreadable("the file changed while it was read", hint="Run again when it is complete.")
        return ds


_CUT_SHORT = "The file was probably cut short; fetch it again from where it came from."


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """pydicom's and the system's errors as ours. Their text is left out: it quotes values and paths."""
    try:
        yield
    except InvalidDicomError as exc:
        raise NotDicomError("no DICOM: the prefix DICM and the file meta information are missing") from exc
    except RecursionError as exc:
        raise DecodeGuardError("sequences are nested too deeply to be read") from exc
    except _SEEN as exc:
        if isinstance(exc, OSError) and exc.errno:
            raise FileUnreadable(f"{os.strerror(exc.errno)} ({errno.errorcode.get(exc.errno, exc.errno)})") from exc
        raise DicomError(f"{action} failed ({type(exc).__name__}): the data set is broken", hint=_CUT_SHORT) from exc


def _version(file: BinaryIO) -> tuple[int, int] | None:
    """What differs if a file is written to; None for bytes in memory."""
    if isinstance(file, io.BytesIO):
        return None
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _size(file: BinaryIO) -> int:
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


@dataclass(frozen=True)
class _Start:
    preamble: bool
    transfer_syntax: str = ""
    data_set: int = 0  # where it begins
    little_endian: bool = True


def _start(file: BinaryIO) -> _Start:
    """Read the preamble and walk the file meta information, which pydicom reads without asking the budget."""
    head = file.read(132)
    if not head:
        raise NotDicomError("an empty file", hint=_CUT_SHORT)
    preamble = head[128:] == b"DICM"
    if not preamble:
        if not any(_plausible(file, little) for little in (True, False)):
            raise NotDicomError(
                "no DICOM: the prefix DICM is missing at byte 128, and the file doesn't begin with DICOM data elements"
            )
        if head[:2] != b"\2\0":
            return _Start(False, little_endian=head[0] == 8)
    place, syntax = 132 if preamble else 0, ""
    for _ in range(256):  # PS3.10 table 7.1-1 has 20 elements; command sets, which some files have after it, 30
        file.seek(place)
        header = _element(file, "<")
        if header is None or header[0] >> 16 not in (0, 2):
            return _Start(preamble, syntax, place, syntax != ExplicitVRBigEndian)
        tag, _, length = header
        if length == UNDEFINED:
            raise DicomError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has an undefined length, not allowed in its group")
        if tag == 0x00020010:
            syntax = file.read(min(length, 64)).rstrip(b"\0 ").decode("ascii", "replace")
            file.seek(file.tell() - min(length, 64))
        place = file.tell() + length
        if place > _size(file):
            raise DicomError("the file ends inside its file meta information", hint=_CUT_SHORT)
    raise DecodeGuardError("more than 256 elements in the file meta information")


def _plausible(file: BinaryIO, little: bool) -> bool:
    """Whether a file without preamble begins with data elements as a writer writes them.

    The first is of group 0002 or 0008; the first five ascend, are in the dictionary, have an even length inside the
    file and, where one is given, the dictionary's kind of VR.
    """
    size = _size(file)
    place, last = 0, 0
    for n in range(5):
        file.seek(place)
        header = _element(file, "<" if little else ">")
        if header is None:
            return False
        tag, vr, length = header
        if n == 0 and tag >> 16 not in (0x0002, 0x0008):
            return False
        known = tag & 0xFFFF == 0 or dictionary_has_tag(tag)
        if (n and tag <= last) or not known or not (little or vr):
            return False
        place = file.tell()
        if length == UNDEFINED:
            return n >= 3
        if length % 2 or place + length > size:
            return False
        place, last = place + length, tag
    return True


def _element(file: BinaryIO, endian: str) -> tuple[int, bytes, int] | None:
    """Read an element's header: (tag, VR or b"" where it is implicit, length); None at the end of the file.

    A VR is taken for one only if the standard has it: writers do change to implicit in the middle.
    """
    head = file.read(8)
    if len(head) < 8:
        return None
    group, element = struct.unpack_from(f"{endian}HH", head)
    tag = group << 16 | element
    vr = head[4:6]
    if vr not in _VRS or group == 0xFFFE:
        return tag, b"", struct.unpack_from(f"{endian}L", head, 4)[0]
    if vr in _LONG_VRS:
        tail = file.read(4)
        return (tag, vr, struct.unpack(f"{endian}L", tail)[0]) if len(tail) == 4 else None
    return tag, vr, struct.unpack_from(f"{endian}H", head, 6)[0]


def _read_deflated(file: BinaryIO, start: _Start, budget: _Budget) -> FileDataset:
    """Inflate up to the limit, then read (PS3.5 A.5)."""
    file.seek(0)
    head = read_partial(io.BytesIO(file.read(start.data_set)), force=not start.preamble)
    inflater, chunks, left = zlib.decompressobj(-zlib.MAX_WBITS), [], budget.limits.inflated_bytes
    while not inflater.eof and (data := file.read(1 << 20)):
        while data:
            chunks.append(inflater.decompress(data, min(left, 1 << 24) + 1))
            left -= len(chunks[-1])
            if left < 0:
                limit = budget.limits.inflated_bytes
                raise DecodeGuardError(f"a deflated data set of more than {limit >> 20} MiB once inflated")
            data = inflater.unconsumed_tail
    inflated = io.BytesIO(b"".join(chunks))
    budget.read_from(inflated)
    body = read_dataset(inflated, False, True, stop_when=budget)
    ds = FileDataset(
        getattr(file, "name", file), body, head.preamble, head.file_meta, is_implicit_VR=False, is_little_endian=True
    )
    ds.set_original_encoding(False, True, body.original_character_set)
    return ds


def _is_sequence(tag: int) -> bool:
    return bool(dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")


class _Budget:
    """pydicom's `stop_when`: called with the file at the start of each top-level value."""

    def __init__(self, file: BinaryIO, limits: Limits, little_endian: bool, stop_before_pixels: bool) -> None:
        self.file = file
        self.limits = limits
        self._endian = "<" if little_endian else ">"
        self._stop = stop_before_pixels
        self._size = _size(file)
        self._past_pixels = False
        self._elements = 0
        self._bytes = 0

    def read_from(self, inflated: io.BytesIO) -> None:
        self.file, self._size = inflated, inflated.getbuffer().nbytes

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        place = self.file.tell()
        if tag in PIXEL_TAGS:
            self._past_pixels = True
            if self._stop:
                return True
            if length == UNDEFINED:
                self._walk_fragments()
            else:
                self._refuse_beyond_the_end(length, place)
            return False
        if self._past_pixels and self._is_beyond_the_end(length, place):
            return True  # what some writers pad the end of the file with is no element
        self._count()
        self._refuse_beyond_the_end(length, place)
        if length == UNDEFINED:
            if vr is None or vr in ("SQ", "UN"):
                self._look_into(None)
        elif length >= _SMALL and (vr == "SQ" or (vr is None and _is_sequence(tag))):
            self._look_into(length)
        elif length <= self.limits.defer_bytes:
            self._spend(length)
        return False

    def _walk_fragments(self) -> None:
        """See that encapsulated pixels end, before pydicom searches all of a large file for their end."""
        file, start = self.file, self.file.tell()
        if self._size - start <= self.limits.defer_bytes:
            return
        place = start
        while (header := _element(file, self._endian)) and header[0] == _ITEM:
            place = file.tell() + header[2]
            if place > self._size or place - start > self.limits.encapsulated_bytes:
                break
            file.seek(place)
        if header is None or header[0] != _SEQUENCE_END:
            raise DecodeGuardError(
                f"encapsulated pixel data that don't end within the file and {self.limits.encapsulated_bytes >> 20} MiB"
            )
        file.seek(start)

    def _refuse_beyond_the_end(self, length: int, place: int) -> None:
        """A short value that is cut off is pydicom's to report; for a long one it would allocate all of it first."""
        if self._is_beyond_the_end(length, place):
            raise DicomError(f"an element of {length} bytes, which is beyond the end of the file", hint=_CUT_SHORT)

    def _is_beyond_the_end(self, length: int, place: int) -> bool:
        return self.limits.defer_bytes < length < UNDEFINED and place + length > self._size

    def _count(self) -> None:
        self._elements += 1
        if self._elements > self.limits.elements:
            raise DecodeGuardError(f"more than {self.limits.elements} data elements and sequence items")

    def _spend(self, length: int) -> None:
        self._bytes += length
        if self._bytes > self.limits.header_bytes:
            raise DecodeGuardError(f"more than {self.limits.header_bytes >> 20} MiB of values beside the pixel data")

    def _look_into(self, length: int | None) -> None:
        """Walk a sequence without building anything; count what is in it. Leaves the file where it was.

        Bytes that make no sense end the walk: saying so is left to pydicom.
        """
        file, start = self.file, self.file.tell()
        # Open sequences (True) and items (False), inside out, with where they end, None if a delimiter says so.
        levels: list[tuple[bool, int | None]] = [(True, None if length is None else start + length)]
        place = start
        while levels:
            in_sequence, end = levels[-1]
            if end is not None and place >= end:
                levels.pop()
                continue
            file.seek(place)
            header = _element(file, self._endian)
            if header is None:
                break
            tag, vr, length = header
            place = file.tell()
            if tag == (_SEQUENCE_END if in_sequence else _ITEM_END):
                levels.pop()
                continue
            self._count()
            value_end = None if length == UNDEFINED else place + length
            self._refuse_beyond_the_end(length, place)
            if in_sequence:
                levels.append((False, value_end))
            elif vr == b"SQ" or (value_end is None and vr in (b"", b"UN")):
                levels.append((True, value_end))
            elif value_end is None:
                break  # encapsulated values are not nested
            else:
                place = value_end
            if len(levels) > 2 * self.limits.nesting:
                raise DecodeGuardError(f"sequences nested more than {self.limits.nesting} deep")
        self._spend(place - start)
        file.seek(start)
