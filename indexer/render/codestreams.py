"""What the first markers of a compressed frame say, read without decoding it.

Files lie in their headers, and decoders allocate what a codestream asks for: both are found out here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Codestream:
    """What the first markers of a compressed frame say. `transformed`: JPEG 2000's component transform was used."""

    codec: str  # jpeg, jpeg-lossless, jpeg-ls, jpeg2k, htj2k
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    lossless: bool = False
    component_ids: bytes = b""
    adobe_transform: int | None = None
    jfif: bool = False
    subsampled: bool = False
    transformed: bool = False

    def is_ybr(self, photometric: str) -> bool:
        """Whether three JPEG components are YCbCr, by libjpeg's rules, then by the header.

        Colour that is subsampled is YCbCr whatever is declared: nobody subsamples green and blue.
        """
        if self.component_ids in (b"RGB", b"rgb"):
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return self.jfif or self.subsampled or self.component_ids == b"\1\2\3" or photometric != "RGB"


def parse_codestream(frame: bytes) -> Codestream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream, without decoding; None if it is none of them."""
    try:
        if frame[:2] == b"\xff\xd8":
            return _parse_jpeg(frame)
        if frame[4:8] == b"jP  ":
            start = frame.find(b"\xff\x4f\xff\x51")
            return _parse_j2k(frame, start) if start >= 0 else None
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _parse_j2k(frame, 0)
    except (IndexError, struct.error):
        return None
    return None


def _parse_jpeg(frame: bytes) -> Codestream | None:
    """ITU T.81 Annex B; JPEG-LS by ITU T.87 Annex C."""
    place, adobe, jfif = 2, None, False
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in (0xD9, 0xDA):  # end, or a scan without a frame header
            return None
        (length,) = struct.unpack_from(">H", frame, place + 2)
        body = frame[place + 4 : place + 2 + length]
        if marker == 0xE0 and body[:4] == b"JFIF":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(components)]
            lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF)
            codec = "jpeg-ls" if marker == 0xF7 else "jpeg-lossless" if lossless else "jpeg"
            return Codestream(
                codec,
                rows,
                columns,
                components,
                precision,
                lossless=lossless or (marker == 0xF7 and _jls_near(frame, place + 2 + length) == 0),
                component_ids=bytes(part[0] for part in parts),
                adobe_transform=adobe,
                jfif=jfif,
                subsampled=len({part[1] for part in parts}) > 1,
            )
        place += 2 + length
    return None


def _jls_near(frame: bytes, place: int) -> int:
    """NEAR of the first scan: 0 is lossless."""
    while frame[place] == 0xFF and frame[place + 1] != 0xDA:
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return frame[place + 5 + 2 * frame[place + 4]]


def _parse_j2k(frame: bytes, start: int) -> Codestream:
    """ITU T.800 Annex A: SIZ, then COD; ITU T.814: a CAP marker says HTJ2K."""
    x1, y1, x0, y0 = struct.unpack_from(">4I", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    depth = frame[start + 42]
    place = start + 4 + struct.unpack_from(">H", frame, start + 4)[0]
    high_throughput, reversible, transformed = False, False, False
    while frame[place] == 0xFF and frame[place + 1] not in (0x90, 0x93, 0xD9):
        if frame[place + 1] == 0x50:
            high_throughput = True
        if frame[place + 1] == 0x52:
            transformed, reversible = frame[place + 8] == 1, frame[place + 13] == 1
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return Codestream(
        "htj2k" if high_throughput and reversible else "jpeg2k",
        y1 - y0,
        x1 - x0,
        components,
        (depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossless=reversible,
        transformed=transformed,
    )
