"""The markers of a compressed frame, read without decoding it.

Headers of files are often wrong, and decoders allocate what a codestream requests: both are checked here. So is what no
installed decoder is known to decode correctly (`Codestream.refusal`): a decoder that skips what it does not know gives
a wrong picture without an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from indexer.render.jpegxl import parse_jpegxl

_SYCC, _SRGB, _GREYSCALE = 18, 16, 17  # enumerated colour spaces of a JP2 box, ITU T.800 table I.10


@dataclass(frozen=True)
class Codestream:
    """The properties of a compressed frame, from its markers.

    - `transformed`: a component transform was used, which the decoder reverses
    - `start`: where the codestream begins, after any boxes
    - `colour`: RGB or YBR_FULL, if boxes around a JPEG 2000 codestream state it
    - `refusal`: a feature that is not known to be decoded correctly
    """

    codec: str  # jpeg, jpeg-lossless, jpeg-ls, jpeg2k, htj2k, jpegxl
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
    start: int = 0
    colour: str = ""
    refusal: str = ""

    def is_ybr(self, photometric: str) -> bool:
        """Whether three JPEG components are YCbCr, according to the file itself, else to the header.

        Subsampled colour is YCbCr whatever is declared, because nobody subsamples green and blue. For a stream without
        any mark, the header decides: libjpeg's rule, YCbCr for components 1, 2, 3, is for files without a header.
        """
        if self.component_ids in (b"RGB", b"rgb"):
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return self.jfif or self.subsampled or photometric != "RGB"


def parse_codestream(frame: bytes) -> Codestream | None:
    """Parse the header of a JPEG, JPEG-LS, JPEG 2000 or JPEG XL codestream without decoding; None for anything else."""
    try:
        if frame[:2] == b"\xff\xd8":
            return _parse_jpeg(frame)
        if frame[4:8] == b"jP  ":
            return _parse_jp2(frame)
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _parse_j2k(frame, 0)
        if xl := parse_jpegxl(frame):
            return Codestream(
                "jpegxl",
                xl.rows,
                xl.columns,
                xl.components,
                xl.precision,
                lossless=not xl.lossy,
                transformed=xl.lossy or xl.recompressed,
                refusal=xl.refusal,
            )
    except (IndexError, struct.error):
        return None
    return None


def _parse_jpeg(frame: bytes) -> Codestream | None:
    """ITU T.81 Annex B; JPEG-LS by ITU T.87 Annex C."""
    place, adobe, jfif, refusal = 2, None, False, ""
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
        elif marker == 0xDE:
            refusal = "hierarchical JPEG"
        elif marker == 0xF8:
            refusal = refusal or _jls_refusal(body)
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(components)]
            subsampled = len({part[1] for part in parts}) > 1
            lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF)
            codec = "jpeg-ls" if marker == 0xF7 else "jpeg-lossless" if lossless else "jpeg"
            if marker == 0xF7:
                near, after = _jls_scan(frame, place + 2 + length)
                refusal, lossless = refusal or after, near == 0
            elif marker in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF):
                refusal = "hierarchical JPEG"
            elif marker == 0xCB:
                refusal = "lossless JPEG with arithmetic coding"
            if subsampled and lossless:
                refusal = refusal or "lossless JPEG with subsampled components"
            return Codestream(
                codec,
                rows,
                columns,
                components,
                precision,
                lossless=lossless,
                component_ids=bytes(part[0] for part in parts),
                adobe_transform=adobe,
                jfif=jfif,
                subsampled=subsampled,
                refusal=refusal,
            )
        place += 2 + length
    return None


def _jls_scan(frame: bytes, place: int) -> tuple[int, str]:
    """Return NEAR of the first scan, where 0 is lossless, and what in the scan can't be decoded."""
    refusal = ""
    while frame[place] == 0xFF and frame[place + 1] != 0xDA:
        length = struct.unpack_from(">H", frame, place + 2)[0]
        if frame[place + 1] == 0xF8:
            refusal = refusal or _jls_refusal(frame[place + 4 : place + 2 + length])
        place += 2 + length
    components = frame[place + 4]
    tables = frame[place + 6 : place + 5 + 2 * components : 2]
    near, transform = struct.unpack_from("BxB", frame, place + 5 + 2 * components)
    if any(tables):
        refusal = refusal or "JPEG-LS with mapping tables"
    if transform:
        refusal = refusal or "JPEG-LS with a point transform"
    return near, refusal


def _jls_refusal(parameters: bytes) -> str:
    """ITU T.87 C.2.4.1: preset parameters of type 1 are thresholds; 2 and 3 are tables, 4 an oversize picture."""
    return "" if parameters[:1] == b"\1" else "JPEG-LS with mapping tables"


def _parse_jp2(frame: bytes) -> Codestream | None:
    """Parse ITU T.800 Annex I. DICOM does not use the boxes (PS3.5 A.4.4), but what they state about colour is kept."""
    colour, refusal = "", ""
    for kind, start, end in _boxes(frame, 0, len(frame)):
        if kind == b"jp2h":
            for inner, body, stop in _boxes(frame, start, end):
                if inner == b"colr" and frame[body] == 1 and not colour:
                    space = struct.unpack_from(">L", frame, body + 3)[0]
                    colour = {_SYCC: "YBR_FULL", _SRGB: "RGB", _GREYSCALE: ""}.get(space, "")
                elif inner in (b"pclr", b"cmap"):
                    refusal = "JPEG 2000 with a palette in its boxes"
                elif inner == b"cdef" and not _in_order(frame[body:stop]):
                    refusal = "JPEG 2000 with channels that its boxes put in another order"
        if kind == b"jp2c":
            return _parse_j2k(frame, start, colour, refusal)
    start = frame.find(b"\xff\x4f\xff\x51")
    return _parse_j2k(frame, start, colour, refusal) if start >= 0 else None


def _boxes(frame: bytes, place: int, end: int) -> list[tuple[bytes, int, int]]:
    """Yield (kind, start and end of the content) of the boxes between two places."""
    found: list[tuple[bytes, int, int]] = []
    while place + 8 <= end and len(found) < 64:
        length, kind = struct.unpack_from(">L4s", frame, place)
        start = place + 8
        if length == 1:
            length, start = struct.unpack_from(">Q", frame, start)[0], start + 8
        stop = end if length == 0 else place + length
        if stop < start:
            break
        found.append((kind, start, min(stop, end)))
        place = stop
    return found


def _in_order(definitions: bytes) -> bool:
    """Whether a channel definition box (I.5.3.6) only states that channel n is colour n + 1."""
    (count,) = struct.unpack_from(">H", definitions)
    entries = [struct.unpack_from(">3H", definitions, 2 + 6 * i) for i in range(count)]
    return all(kind == 0 and association == channel + 1 for channel, kind, association in entries)


def _parse_j2k(frame: bytes, start: int, colour: str = "", refusal: str = "") -> Codestream:
    """Parse ITU T.800 Annex A: SIZ, then COD; and ITU T.814: a CAP marker means HTJ2K."""
    x1, y1, x0, y0 = struct.unpack_from(">4I", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    parts = {frame[start + 42 + 3 * i : start + 45 + 3 * i] for i in range(min(components, 16384))}
    depth = frame[start + 42]
    if len({part[:1] for part in parts}) > 1:
        refusal = refusal or "JPEG 2000 whose components differ in bits or sign"
    elif any(part[1:] != b"\1\1" for part in parts):
        refusal = refusal or "JPEG 2000 with subsampled components"
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
        start=start,
        colour=colour,
        refusal=refusal,
    )
