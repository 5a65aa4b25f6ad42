"""Limits and repairs while pydicom reads a file.

pydicom calls `Budget` before the value of each top-level element. Elements and bytes are counted here, with a look
ahead into sequences, before pydicom creates objects for them. Reading ends at the pixel data and at large functional
groups, which are read separately. An element with an invalid VR is repaired, or named in an error.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.valuerep import VR

from indexer.dicom.limits import Limits
from retrieval.errors import DecodeGuardError, DicomError

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer: PS3.3 C.7.6.3, .24, .25
FRAME_GROUPS = 0x52009230  # PerFrameFunctionalGroupsSequence
UNDEFINED = 0xFFFFFFFF
CUT_SHORT = "The file was probably cut short; fetch it again from where it came from."

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # 4 bytes of length, PS3.5 table 7.1-1
VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_NAMES = frozenset(vr.decode() for vr in VRS)
ITEM, _ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SMALL = 1024  # bytes; a sequence this short has at most 64 levels and 128 elements and need not be examined
_LARGE = 1 << 16  # bytes; longer per-frame groups are read frame by frame
_UN_AS_IT_IS = 0xFFFF  # bytes; pydicom leaves a longer UN alone, PS3.5 6.2.2 note 6
_AHEAD = 1 << 16


class Element(NamedTuple):
    """A data element whose value was not read. `place` is where the value begins."""

    tag: int
    vr: str | None
    length: int
    place: int


class VrRepair(Exception):
    """Internal: replacing the bytes at `place` makes the element readable; reading then starts again."""

    def __init__(self, place: int, replacement: bytes, warning: str) -> None:
        super().__init__(warning)
        self.place, self.replacement, self.warning = place, replacement, warning


def name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def is_sequence(tag: int) -> bool:
    return bool(dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")


class Budget:
    """The `stop_when` callable for pydicom. After reading, `stopped_at` is the element at which it stopped, if any."""

    def __init__(self, file: BinaryIO, size: int, limits: Limits, little_endian: bool) -> None:
        self.file = file
        self.size = size
        self.limits = limits
        self.stopped_at: Element | None = None
        self._endian = "<" if little_endian else ">"
        self._header = struct.Struct(f"{self._endian}HH2sH")
        self._long = struct.Struct(f"{self._endian}L")
        self._explicit = False
        self._elements = 0
        self._group_elements = 0
        self._bytes = 0

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        place = self.file.tell()
        self.stopped_at = None
        if vr in _NAMES:
            self._explicit = True
        elif self._explicit:
            self._settle_vr(tag, place, self.size)
        if tag in PIXEL_TAGS or (tag == FRAME_GROUPS and length >= _LARGE):
            self.stopped_at = Element(tag, vr, length, place)
            return True
        if tag == 0 and length == 0:  # zeros after the last element, which some writers pad a file with
            if self.size - place > self.limits.header_bytes:
                most = self.limits.header_bytes >> 20
                raise DecodeGuardError(f"the file has more than {most} MiB of zeros after its last element")
            return True
        self._count()
        self._refuse_beyond_the_end(length, place)
        if vr == "UN" and _UN_AS_IT_IS <= length < UNDEFINED and is_sequence(tag) and self._endian == "<":
            raise VrRepair(
                place - 8, b"SQ", f"{name(tag)} is a sequence that was written with VR UN: read as a sequence"
            )
        if length == UNDEFINED:
            if vr is None or vr in ("SQ", "UN"):
                self.look_into(None)
        elif length >= _SMALL and (vr == "SQ" or (vr in (None, "UN") and is_sequence(tag))):
            self.look_into(length)
        elif length <= self.limits.defer_bytes:
            self._spend(length)
        return False

    def groups(self, element: Element) -> tuple[array[int], int]:
        """Return start and end of each item of large functional groups, headers included, and where the next element
        begins.
        """
        self.file.seek(element.place)
        self._refuse_beyond_the_end(element.length, element.place)
        items = array("Q")
        length = None if element.length == UNDEFINED else element.length
        end = self.look_into(length, items)
        if length is not None:
            return items, element.place + length
        if end is None:
            raise DicomError(f"{name(FRAME_GROUPS)} PerFrameFunctionalGroupsSequence has no end", hint=CUT_SHORT)
        return items, end

    def look_into(self, length: int | None, items: array[int] | None = None) -> int | None:
        """Walk a sequence without creating objects, count its content, and leave the file position unchanged.

        With `items`, these are the functional groups of many frames, and the places of their items are appended to it.
        Returns where the sequence ends, or None if its bytes are invalid before that; pydicom then reports the error.
        """
        file, start = self.file, self.file.tell()
        count = self._count if items is None else self._count_group
        # Open sequences (True) and items (False), innermost last, with their end (None if a delimiter marks it)
        # and whether their elements have VRs.
        levels: list[tuple[bool, int | None, bool]] = [(True, None if length is None else start + length, False)]
        place = item_start = base = start
        ahead = b""
        fresh = explicit = False  # the next element is the first of its item, which tells whether that has VRs
        while levels:
            in_sequence, end, _ = levels[-1]
            if end is not None and place >= end:
                levels.pop()
                if items is not None and len(levels) == 1:
                    self._add(items, item_start, place)
                continue
            at = place - base
            if at + 12 > len(ahead):
                file.seek(place)
                ahead, base, at = file.read(_AHEAD), place, 0
                if len(ahead) < 8:
                    break
            group, element, vr, short = self._header.unpack_from(ahead, at)
            tag = group << 16 | element
            header = place
            if vr not in VRS or group == 0xFFFE:
                vr, value_length, place = b"", self._long.unpack_from(ahead, at + 4)[0], place + 8
            elif vr in LONG_VRS:
                if at + 12 > len(ahead):
                    break
                value_length, place = self._long.unpack_from(ahead, at + 8)[0], place + 12
            else:
                value_length, place = short, place + 8
            if tag == (SEQUENCE_END if in_sequence else _ITEM_END):
                levels.pop()
                if items is not None and len(levels) == 1:
                    self._add(items, item_start, place)
                continue
            count()
            if not in_sequence:
                if fresh:
                    explicit, fresh = bool(vr), False
                    levels[-1] = (False, end, explicit)
                elif not vr and levels[-1][2]:
                    self._settle_vr(tag, header + 8, self.size if end is None else end)
                if vr == b"UN" and _UN_AS_IT_IS <= value_length < UNDEFINED and is_sequence(tag) and header + 8 < place:
                    raise VrRepair(
                        header + 4, b"SQ", f"{name(tag)} is a sequence that was written with VR UN: read as one"
                    )
            value_end = None if value_length == UNDEFINED else place + value_length
            self._refuse_beyond_the_end(value_length, place)
            if in_sequence:
                if len(levels) == 1:
                    item_start = header
                levels.append((False, value_end, False))
                fresh = True
            elif vr == b"SQ" or (value_end is None and vr in (b"", b"UN")):
                levels.append((True, value_end, False))
            elif value_end is None:
                break  # encapsulated values are not nested
            else:
                place = value_end
            if len(levels) > 2 * self.limits.nesting:
                raise DecodeGuardError(f"the file nests sequences more than {self.limits.nesting} levels deep")
        self._spend(place - start)
        file.seek(start)
        return None if levels else place

    def _add(self, items: array[int], start: int, end: int) -> None:
        items.extend((start, end))
        if len(items) > 2 * self.limits.group_items:
            raise DecodeGuardError(f"the file has functional groups for more than {self.limits.group_items} frames")

    def _settle_vr(self, tag: int, place: int, end: int) -> None:
        """Find the length of an element of an explicit data set whose VR does not exist.

        `place` is 8 bytes after its start.

        The element may have a short length, a long one, or no VR at all, because some writers change to implicit in the
        middle. The correct form is the one that leads to another element, or exactly to the end. Returns if the element
        is implicit, which pydicom assumes. Raises VrRepair with a VR of the found form, or DicomError.
        """
        self.file.seek(place - 4)
        head = self.file.read(8)
        self.file.seek(place)
        if len(head) < 4:
            return
        short = struct.unpack_from(f"{self._endian}H", head, 2)[0]
        implicit = self._long.unpack_from(head)[0]
        letters = head[:2].isalpha()  # as a length they'd be above 16,000
        if not letters and self._leads_on(tag, place, implicit, end, with_vr=False):
            return
        if head[2:4] == b"\0\0" and len(head) == 8:
            length = self._long.unpack_from(head, 4)[0]
            if self._leads_on(tag, place + 4, length, end):
                raise self._repair_vr(tag, place, long=True)
        if self._leads_on(tag, place, short, end):
            raise self._repair_vr(tag, place, long=False)
        if implicit != UNDEFINED and place + implicit > end:
            raise DicomError(
                f"{name(tag)} has the VR {head[:2].hex()}, which does not exist, and its length does not "
                "lead to the next element",
                hint="The file was probably damaged at this element. Copy it again from its source.",
            )

    def _leads_on(self, tag: int, value: int, length: int, end: int, *, with_vr: bool = True) -> bool:
        if length == UNDEFINED:
            self.file.seek(value)
            head = self.file.read(4)
            return len(head) == 4 and struct.unpack(f"{self._endian}HH", head) == (0xFFFE, 0xE000)
        place = value + length
        if place >= end or length % 2:
            self.file.seek(value)
            return place == end
        self.file.seek(place)
        head = self.file.read(8)
        if len(head) < 8:
            return False
        group, element, vr, _ = self._header.unpack(head)
        following = group << 16 | element
        if tag in PIXEL_TAGS and not any(head):
            return True  # padding
        if following in (_ITEM_END, ITEM):
            return True
        return following > tag and (vr in VRS or (not with_vr and (group % 2 == 1 or dictionary_has_tag(following))))

    def _repair_vr(self, tag: int, place: int, *, long: bool) -> VrRepair:
        known = dictionary_VR(tag).split(" or ") if dictionary_has_tag(tag) else []
        fitting = [vr for vr in known if (vr.encode() in LONG_VRS) == long]
        vr = fitting[-1] if fitting else "UN" if long else "ST"
        self.file.seek(place)
        return VrRepair(place - 4, vr.encode(), f"{name(tag)} has a VR that does not exist: read as {vr}")

    def _refuse_beyond_the_end(self, length: int, place: int) -> None:
        """Refuse a long value that is cut off, for which pydicom would allocate all memory first.

        pydicom reports short ones.
        """
        if self.limits.defer_bytes < length < UNDEFINED and place + length > self.size:
            raise DicomError(
                f"an element declares {length} bytes, which is more than the file has left", hint=CUT_SHORT
            )

    def _count(self) -> None:
        self._elements += 1
        if self._elements > self.limits.elements:
            raise DecodeGuardError(f"the file has more than {self.limits.elements} data elements and sequence items")

    def _count_group(self) -> None:
        self._group_elements += 1
        if self._group_elements > self.limits.group_elements:
            raise DecodeGuardError(
                f"the file has more than {self.limits.group_elements} data elements in functional groups"
            )

    def _spend(self, length: int) -> None:
        self._bytes += length
        if self._bytes > self.limits.header_bytes:
            raise DecodeGuardError(
                f"the file has more than {self.limits.header_bytes >> 20} MiB of values besides the pixel data"
            )


Warn = Callable[[str], None]


def ignore(_: str) -> None:
    """The default for `warn`: ignore the message."""
