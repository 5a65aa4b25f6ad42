"""Open files that may contain anything: only regular files, only DICOM, and never more work than a limit allows.

pydicom parses faithfully whatever a file asks for: it inflates 3 MB to 6 GB, reads five million empty sequence items,
recurses into nested sequences until Python gives up, and with `force=True` takes any bytes for DICOM. `Budget` counts
while it reads. Two elements are read here and not by pydicom: the pixel data, with which reading ends (the standard has
only padding and signatures after it, and some writers megabytes of zeros), and large functional groups. An element
whose VR does not exist is repaired in what pydicom reads, with a warning.

Values above `Limits.defer_bytes` stay in the file until they are requested, so the size of a file does not matter.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import data_element_generator, read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from indexer.dicom.budget import (
    CUT_SHORT,
    FRAME_GROUPS,
    LONG_VRS,
    PIXEL_TAGS,
    UNDEFINED,
    VRS,
    Budget,
    Element,
    VrRepair,
    Warn,
    ignore,
)
from indexer.dicom.fragments import walk_fragments
from indexer.dicom.frame_groups import FrameGroups
from indexer.dicom.limits import Limits
from indexer.sources.opening import opened
from indexer.sources.source import Where
from retrieval.errors import DecodeGuardError, DicomError, FileUnreadable, NotDicomError

__all__ = ["PIXEL_TAGS", "UNDEFINED", "Limits", "open_dicom", "read_header"]

_MOST_REPAIRS = 32
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
    BytesLengthException,  # pydicom: the size of a value is not a multiple of what its VR needs
    zlib.error,
)
"""What pydicom was seen to raise while reading 10,000 broken files, by base class. MemoryError is left to the guard."""


def open_dicom(where: str | Where, limits: Limits = Limits(), warn: Warn = ignore) -> FileDataset:
    """Read a DICOM file. Long values, mostly pixel data, are read from a file at a path when they are accessed.

    `warn` is called with each assumption that was needed, in words that contain no value. Raises FileUnreadable (the
    system refuses, or the file changes meanwhile), NotDicomError, DecodeGuardError (a limit is exceeded), or DicomError
    (damaged DICOM). Accessing a value of the result can still raise pydicom's errors.
    """
    return _open(where, limits, warn, stop_before_pixels=False)


def read_header(where: str | Where, limits: Limits = Limits(), warn: Warn = ignore) -> FileDataset:
    """Read a DICOM file up to its pixel data. Raises as `open_dicom` does."""
    return _open(where, limits, warn, stop_before_pixels=True)


def _open(where: str | Where, limits: Limits, warn: Warn, *, stop_before_pixels: bool) -> FileDataset:
    with _translated("reading it"), opened(Path(where) if isinstance(where, str) else where) as file:
        before = _version(file)
        start = _start(file)
        deflated = start.transfer_syntax == DeflatedExplicitVRLittleEndian
        source = _inflated(file, start, limits) if deflated else file
        head = _file_meta(file, start) if deflated else None
        # Only a file at a path can be read again later.
        defer = None if deflated or before is None else limits.defer_bytes
        ds = _read_repaired(source, start, limits, warn, head, defer, stop_before_pixels=stop_before_pixels)
        if not len(ds):
            raise DicomError("no data element could be read: the file ends before or within its data", hint=CUT_SHORT)
        if before != _version(file):
            raise FileUnreadable(
                "the file changed while it was read", hint="Run the command again when the file is complete."
            )
        # pydicom would use those of the object that it read from, which may not have been the file.
        ds.filename, ds.fileobj_type = (None, None) if before is None else (file.name, open)
        ds.timestamp = None if before is None else os.fstat(file.fileno()).st_mtime
        return ds


def _read_repaired(
    source: BinaryIO,
    start: _Start,
    limits: Limits,
    warn: Warn,
    head: FileDataset | None,
    defer: int | None,
    *,
    stop_before_pixels: bool,
) -> FileDataset:
    """Read the file, and read it again after each element that has to be repaired."""
    mends: list[VrRepair] = []
    while True:
        reader = cast(BinaryIO, _RepairedFile(source, mends)) if mends else source
        try:
            ds = _read(reader, start, limits, warn, head, defer, stop_before_pixels=stop_before_pixels)
        except VrRepair as mend:
            mends.append(mend)
            if len(mends) > _MOST_REPAIRS:
                raise DicomError(
                    f"the file has more than {_MOST_REPAIRS} elements with a VR that does not exist"
                ) from None
        else:
            for mended in mends:
                warn(mended.warning)
            return ds


def _read(
    source: BinaryIO,
    start: _Start,
    limits: Limits,
    warn: Warn,
    head: FileDataset | None,
    defer: int | None,
    *,
    stop_before_pixels: bool,
) -> FileDataset:
    budget = Budget(source, _size(source), limits, start.little_endian)
    source.seek(0)
    if head is None:
        ds = read_partial(source, budget, defer_size=defer, force=not start.preamble)
    else:
        body = read_dataset(source, False, True, stop_when=budget)
        ds = FileDataset(source, body, head.preamble, head.file_meta, is_implicit_VR=False, is_little_endian=True)
        ds.set_original_encoding(False, True, body.original_character_set)
    while (element := budget.stopped_at) is not None and element.tag == FRAME_GROUPS:
        ds[element.tag], end = _frame_groups(source, budget, element, ds)
        source.seek(end)
        budget.stopped_at = None
        for following in data_element_generator(
            source,
            bool(ds.original_encoding[0]),
            start.little_endian,
            budget,
            defer,
            ds.original_character_set,
        ):
            ds[following.tag] = following
    if element is not None and not stop_before_pixels:
        ds[element.tag] = _pixel_data(source, element, ds, limits, warn, in_memory=defer is None)
    return ds


def _frame_groups(source: BinaryIO, budget: Budget, element: Element, ds: FileDataset) -> tuple[DataElement, int]:
    spans, end = budget.groups(element)
    source.seek(element.place)
    data = source.read(end - element.place)
    implicit, little = ds.original_encoding
    spans = array("Q", (place - element.place for place in spans))
    if element.vr == "UN" and spans:  # implicit by PS3.5 6.2.2, but not by all writers
        first_vr = spans[0] + 12
        implicit = data[first_vr : first_vr + 2] not in VRS
    groups = FrameGroups(
        data,
        spans,
        implicit=bool(implicit),
        little_endian=little is not False,
        encoding=cast(Any, ds.original_character_set),
    )
    return DataElement(FRAME_GROUPS, "SQ", groups), end


def _pixel_data(
    source: BinaryIO, element: Element, ds: Dataset, limits: Limits, warn: Warn, *, in_memory: bool
) -> RawDataElement:
    """Return the pixel data as pydicom would, in memory if they are short; if they are cut, the part that exists."""
    place, size = element.place, _size(source)
    if element.length == UNDEFINED:
        fragments = walk_fragments(source, place, size, limits.encapsulated_bytes)
        if not fragments.delimited:
            warn("the encapsulated pixel data have no end delimiter; the fragments that are there are read")
        length = fragments.end - place - (8 if fragments.delimited else 0)
    else:
        length = min(element.length, size - place)
        if length < element.length > limits.defer_bytes and not ds.get("NumberOfFrames"):
            raise DicomError(
                f"the pixel data declare {element.length} bytes, which is more than the file has left", hint=CUT_SHORT
            )
    value = None
    if in_memory or length <= limits.defer_bytes:
        source.seek(place)
        value = source.read(length)
    implicit, little = ds.original_encoding
    declared = UNDEFINED if element.length == UNDEFINED else length
    return RawDataElement(BaseTag(element.tag), element.vr, declared, value, place, bool(implicit), little is not False)


class _RepairedFile:
    """A file in which some bytes are replaced."""

    def __init__(self, file: BinaryIO, mends: list[VrRepair]) -> None:
        self._file, self._mends = file, mends
        self.seek, self.tell, self.name = file.seek, file.tell, getattr(file, "name", "")

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        for mend in self._mends:
            offset = mend.place - start
            if -len(mend.replacement) < offset < len(data):
                patched = bytearray(data)
                for i, byte in enumerate(mend.replacement):
                    if 0 <= offset + i < len(data):
                        patched[offset + i] = byte
                data = bytes(patched)
        return data


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Translate errors of pydicom and of the system to ours.

    Their text is left out, because it quotes values and paths.
    """
    try:
        yield
    except InvalidDicomError as exc:
        raise NotDicomError(
            "the file is not a DICOM file: the prefix DICM and the file meta information are missing"
        ) from exc
    except RecursionError as exc:
        raise DecodeGuardError("the sequences of the file are nested too deeply to be read") from exc
    except _SEEN as exc:
        if isinstance(exc, OSError) and exc.errno:
            raise FileUnreadable(f"{os.strerror(exc.errno)} ({errno.errorcode.get(exc.errno, exc.errno)})") from exc
        raise DicomError(f"{action} failed ({type(exc).__name__}): the data set is damaged", hint=CUT_SHORT) from exc


def _version(file: BinaryIO) -> tuple[int, int] | None:
    """Return a value that changes when the file is written; None for bytes in memory."""
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
    """Read the preamble and walk the file meta information, which pydicom reads without calling the budget."""
    head = file.read(132)
    if not head:
        raise NotDicomError("the file is empty", hint=CUT_SHORT)
    preamble = head[128:] == b"DICM"
    if not preamble:
        if not any(_plausible(file, little) for little in (True, False)):
            raise NotDicomError(
                "the file is not a DICOM file: the prefix DICM is missing at byte 128, and the file "
                "doesn't begin with DICOM data elements"
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
            raise DicomError(
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has an undefined length, which is not allowed in its group"
            )
        if tag == 0x00020010:
            syntax = file.read(min(length, 64)).rstrip(b"\0 ").decode("ascii", "replace")
            file.seek(file.tell() - min(length, 64))
        place = file.tell() + length
        if place > _size(file):
            raise DicomError("the file ends within its file meta information", hint=CUT_SHORT)
    raise DecodeGuardError("the file meta information has more than 256 elements")


def _plausible(file: BinaryIO, little: bool) -> bool:
    """Whether a file without a preamble begins with data elements as a writer writes them.

    The first is of group 0002 or 0008; the first five ascend, are in the dictionary, have an even length within the
    file and, where one is given, the kind of VR of the dictionary.
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
    """Read an element's header: (tag, VR or b"" if it is implicit, length); None at the end of the file.

    Only VRs of the standard are accepted as such, because some writers change to implicit in the middle.
    """
    head = file.read(8)
    if len(head) < 8:
        return None
    group, element = struct.unpack_from(f"{endian}HH", head)
    tag = group << 16 | element
    vr = head[4:6]
    if vr not in VRS or group == 0xFFFE:
        return tag, b"", struct.unpack_from(f"{endian}L", head, 4)[0]
    if vr in LONG_VRS:
        tail = file.read(4)
        return (tag, vr, struct.unpack(f"{endian}L", tail)[0]) if len(tail) == 4 else None
    return tag, vr, struct.unpack_from(f"{endian}H", head, 6)[0]


def _file_meta(file: BinaryIO, start: _Start) -> FileDataset:
    file.seek(0)
    return read_partial(io.BytesIO(file.read(start.data_set)), force=not start.preamble)


def _inflated(file: BinaryIO, start: _Start, limits: Limits) -> BinaryIO:
    """Return the data set of a deflated file, inflated up to the limit (PS3.5 A.5)."""
    file.seek(start.data_set)
    inflater, chunks, left = zlib.decompressobj(-zlib.MAX_WBITS), [], limits.inflated_bytes
    while not inflater.eof and (data := file.read(1 << 20)):
        while data:
            chunks.append(inflater.decompress(data, min(left, 1 << 24) + 1))
            left -= len(chunks[-1])
            if left < 0:
                raise DecodeGuardError(
                    f"the deflated data set has more than {limits.inflated_bytes >> 20} MiB when it is inflated"
                )
            data = inflater.unconsumed_tail
    return io.BytesIO(b"".join(chunks))
