"""Checks before a decoder runs: the declared size of the picture, and whether the bytes can contain it.

Decoders believe the codestream and pydicom believes the header. A file in which the two disagree, or which declares
more than it has, is refused before either allocates memory. What remains, a small codestream that correctly declares a
large picture within the limits, is bounded by the memory limit and the deadline of the decoding process.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from indexer.dicom.budget import PIXEL_TAGS, Warn, ignore
from indexer.dicom.limits import Limits
from indexer.render.codestreams import parse_codestream
from indexer.render.encapsulated import STARTS, Span
from indexer.render.pixels import Pixels, find_pixels, missing_frames
from retrieval.errors import DecodeGuardError, DicomError, FileUnreadable, PixelDecodeError

_PEEK = 4096


class _DeclaredSize(NamedTuple):
    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int


def check_before_decoding(ds: Dataset, limits: Limits = Limits(), warn: Warn = ignore) -> Pixels | None:
    """Refuse a data set whose pixels can't be what the header declares. Returns None if there are no pixels.

    Declared rows x columns x samples x frames are compared with the limits, with the length of native pixel data and
    the number of fragments (PS3.5 A.4), and with the size in every fragment that starts a codestream. `warn` is called
    with each assumption about the frames. Raises DecodeGuardError (too large, or header and codestream disagree),
    PixelDecodeError (too short, no numbers) or UnsupportedImageError (not a picture that can be shown).
    """
    # Not get_item, which would read a value that was left in the file.
    element = next((element for element in reversed(ds.values()) if element.tag in PIXEL_TAGS), None)
    if element is None:
        return None
    declared = _declared(ds, element.tag)
    per_frame = declared.rows * declared.columns * declared.samples
    if per_frame > limits.frame_samples or per_frame * declared.frames > limits.total_samples:
        raise DecodeGuardError(
            f"the header declares {declared.frames} frames of {declared.rows} x {declared.columns} x "
            f"{declared.samples} samples; expected at most {limits.frame_samples} samples per frame and "
            f"{limits.total_samples} in total"
        )
    try:
        pixels = find_pixels(ds, warn, limits)
        missing_frames(pixels, warn)
        _check_codestreams(pixels, declared)
    except struct.error as exc:
        raise PixelDecodeError("the pixel data end within a fragment") from exc
    except OSError as exc:
        raise FileUnreadable("the pixel data could not be read again") from exc
    return pixels


_NOT_A_NUMBER = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def _declared(ds: Dataset, tag: int) -> _DeclaredSize:
    def number(keyword: str, default: int) -> int:
        value = ds.get(keyword)
        return default if value is None or value == "" else int(value)

    try:
        allocated = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag) or number("BitsAllocated", 8)
        declared = _DeclaredSize(
            number("Rows", 0),
            number("Columns", 0),
            number("SamplesPerPixel", 1),
            number("NumberOfFrames", 1) or 1,  # pydicom's reading of 0, which some writers give
            allocated,
        )
    except DicomError:
        raise
    except _NOT_A_NUMBER as exc:
        raise PixelDecodeError(
            "Rows, Columns, SamplesPerPixel, NumberOfFrames or BitsAllocated is not a number"
        ) from exc
    if min(declared) < 1:
        raise PixelDecodeError(
            f"the header declares {declared.frames} frames of {declared.rows} x {declared.columns} x "
            f"{declared.samples} samples of {declared.allocated} bits; expected at least 1 of each"
        )
    return declared


def _check_codestreams(pixels: Pixels, declared: _DeclaredSize) -> None:
    """Check the size in the first fragment of each frame, and in any other fragment that begins a codestream."""
    if pixels.spans is None:
        return
    with pixels.opened() as file:
        for number, span in enumerate((span for spans in pixels.spans for span in spans), start=1):
            head = _head(file, span)
            if not head.startswith(STARTS):
                continue
            size = parse_codestream(head)
            if size and size.codec in ("jpeg2k", "htj2k"):
                _refuse_tiny_tiles(head, size.start)
            if size and (size.rows, size.columns) != (declared.rows, declared.columns):
                raise DecodeGuardError(
                    f"the codestream of fragment {number} has {size.rows} x {size.columns} pixels, but the "
                    f"header declares {declared.rows} x {declared.columns}"
                )
            if size and size.components not in (1, 3, 4, declared.samples):
                raise DecodeGuardError(f"the codestream has {size.components} components; expected {declared.samples}")


def _head(file: BinaryIO, span: Span) -> bytes:
    """Return the first bytes of a fragment, enough for the codestream's header."""
    place, length = span
    file.seek(place)
    head = file.read(min(length, _PEEK))
    if length > _PEEK and head.startswith(STARTS) and parse_codestream(head) is None:
        head += file.read(length - len(head))  # long tables or profiles precede what is needed
    return head


def _refuse_tiny_tiles(head: bytes, start: int) -> None:
    """Refuse more than 65,535 tiles (ITU T.800 A.5.1): each costs a decoder memory, however few pixels it has."""
    x1, y1, _, _, tile_x, tile_y = struct.unpack_from(">6I", head, start + 8)
    if not tile_x or not tile_y or -(-x1 // tile_x) * -(-y1 // tile_y) > 65535:
        raise DecodeGuardError("the JPEG 2000 codestream has more than 65,535 tiles, which the standard does not allow")
