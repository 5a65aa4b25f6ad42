"""Size, depth and colour of a JPEG XL codestream, from its first bits (ISO/IEC 18181-1 clauses D and 18181-2)."""

from __future__ import annotations

import struct
from typing import NamedTuple

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
_GREY = 1


class XlHeader(NamedTuple):
    rows: int
    columns: int
    components: int
    precision: int
    lossy: bool  # XYB: the decoder gives RGB
    recompressed: bool  # from a JPEG, whose colour transform the decoder undoes
    refusal: str


def parse_jpegxl(frame: bytes) -> XlHeader | None:
    """Parse the header; None if it is not JPEG XL. Raises IndexError or struct.error if it ends too early."""
    if frame[:2] == b"\xff\x0a":
        return _codestream(frame, 2, recompressed=False)
    if frame[:8] != b"\0\0\0\x0cJXL ":
        return None
    place, recompressed = 12, False
    while True:
        length, kind = struct.unpack_from(">L4s", frame, place)
        start = place + 8
        if length == 1:
            length, start = struct.unpack_from(">Q", frame, start)[0], start + 8
        if kind == b"jbrd":
            recompressed = True
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the number of the part
            return _codestream(frame, start + 2, recompressed=recompressed) if frame[start] == 0xFF else None
        if length < 8:
            return None
        place += length


class _Bits:
    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.bit = data, 8 * place

    def u(self, count: int) -> int:
        value = 0
        for i in range(count):
            value |= (self.data[self.bit >> 3] >> (self.bit & 7) & 1) << i
            self.bit += 1
        return value

    def choice(self, *options: tuple[int, int]) -> int:
        """U32 of the standard: two bits choose (bits, offset)."""
        bits, offset = options[self.u(2)]
        return self.u(bits) + offset


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.u(1)

    def side() -> int:
        return (bits.u(5) + 1) * 8 if small else bits.choice((9, 1), (13, 1), (18, 1), (30, 1))

    rows = side()
    ratio = bits.u(3)
    if not ratio:
        return rows, side()
    width, height = _RATIOS[ratio - 1]
    return rows, rows * width // height


def _codestream(frame: bytes, place: int, *, recompressed: bool) -> XlHeader:
    bits = _Bits(frame, place)
    rows, columns = _size(bits)
    if bits.u(1):  # all as by default
        return XlHeader(rows, columns, 3, 8, True, recompressed, "")
    if bits.u(1):  # extra fields
        orientation = bits.u(3) + 1
        intrinsic, refusal = bits.u(1), "" if orientation == 1 else "JPEG XL with a rotated picture"
        if intrinsic:
            _size(bits)
        if bits.u(1) or bits.u(1):
            return XlHeader(rows, columns, 3, 8, True, recompressed, "JPEG XL with a preview or an animation")
    else:
        refusal = ""
    if bits.u(1):
        return XlHeader(rows, columns, 3, 32, False, recompressed, "JPEG XL of floating-point samples")
    precision = bits.choice((0, 8), (0, 10), (0, 12), (6, 1))
    bits.u(1)  # whether 16 bits are enough in the decoder
    if bits.choice((0, 0), (0, 1), (4, 2), (12, 1)):
        return XlHeader(rows, columns, 4, precision, False, recompressed, "JPEG XL with extra channels")
    lossy = bool(bits.u(1))
    components = 3
    if not bits.u(1):  # a colour encoding that is not the default, sRGB
        bits.u(1)  # an ICC profile
        components = 1 if bits.choice((0, 0), (0, 1), (4, 2), (6, 18)) == _GREY else 3
    return XlHeader(rows, columns, components, precision, lossy, recompressed, refusal)
