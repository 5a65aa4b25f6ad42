"""What can be known before a decoder runs: how large the picture is said to be, and whether the bytes can hold it.

Decoders believe the codestream and pydicom believes the header; a file in which the two disagree, or which claims more
than it holds, is refused before either allocates anything. What is left, a small codestream that honestly claims a
large picture within the limits, is held by the memory cap and the deadline of guard.py.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import UID

from indexer.dicom.safe_read import PIXEL_TAGS, UNDEFINED, Limits
from indexer.render.codestreams import parse_codestream
from retrieval.errors import DecodeGuardError, DicomError, FileUnreadable, PixelDecodeError

_ITEM = b"\xfe\xff\x00\xe0"
_VIDEO = ("1.2.840.10008.1.2.4.10",)  # MPEG-2, H.264 and H.265: all frames in one stream
_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0cjP")  # JPEG and JPEG-LS, JPEG 2000, JP2
_PEEK = 4096


class _Claim(NamedTuple):
    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int


def check_before_decoding(ds: Dataset, limits: Limits = Limits()) -> None:
    """Refuse a data set whose pixels can't be what they are said to be. Silent if there are no pixels.

    Declared rows x columns x samples x frames are held against the limits, against the length of native pixel data and
    the number of fragments (PS3.5 A.4), and against the size in every fragment that starts a codestream.

    Raises DecodeGuardError (too large, or header and codestream disagree) or PixelDecodeError (too short, no numbers).
    """
    # Not get_item: that would read a value which was left in the file.
    element = next((element for element in reversed(ds.values()) if element.tag in PIXEL_TAGS), None)
    if element is None:
        return
    claim = _claim(ds, element.tag)
    per_frame = claim.rows * claim.columns * claim.samples
    said = f"{claim.frames} frames of {claim.rows} x {claim.columns} x {claim.samples} samples"
    if per_frame > limits.frame_samples or per_frame * claim.frames > limits.total_samples:
        raise DecodeGuardError(
            f"{said} declared, expected at most {limits.frame_samples} a frame and {limits.total_samples} in all"
        )
    try:
        if _is_encapsulated(ds, element):
            _check_fragments(ds, element, claim, said)
        else:
            _check_length(ds, element, claim, said)
    except struct.error as exc:
        raise PixelDecodeError("the fragments of the pixel data are cut short") from exc
    except OSError as exc:
        raise FileUnreadable("the pixel data can't be read any more") from exc


def _claim(ds: Dataset, tag: int) -> _Claim:
    def number(keyword: str, default: int) -> int:
        value = ds.get(keyword)
        return default if value is None or value == "" else int(value)

    try:
        allocated = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag) or number("BitsAllocated", 8)
        claim = _Claim(
            number("Rows", 0),
            number("Columns", 0),
            number("SamplesPerPixel", 1),
            number("NumberOfFrames", 1) or 1,  # pydicom's reading of 0, which some writers give
            allocated,
        )
    except DicomError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, struct.error, AttributeError) as exc:
        raise PixelDecodeError("Rows, Columns, SamplesPerPixel, NumberOfFrames or BitsAllocated is no number") from exc
    if min(claim) < 1:
        raise PixelDecodeError(
            f"{claim.frames} frames of {claim.rows} x {claim.columns} x {claim.samples} samples of {claim.allocated} "
            "bits declared, expected at least one of each"
        )
    return claim


def _syntax(ds: Dataset) -> UID | None:
    value = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
    return UID(str(value)) if value else None


def _is_encapsulated(ds: Dataset, element: object) -> bool:
    if getattr(element, "length", None) == UNDEFINED or getattr(element, "is_undefined_length", False):
        return True
    syntax = _syntax(ds)
    return bool(syntax and not syntax.is_private and syntax.is_transfer_syntax and syntax.is_encapsulated)


def _check_length(ds: Dataset, element: object, claim: _Claim, said: str) -> None:
    value = getattr(element, "value", None)
    length = len(value) if value else getattr(element, "length", 0)
    samples = claim.samples
    if str(ds.get("PhotometricInterpretation", "")).strip().endswith("_422"):
        samples = 2  # PS3.3 C.7.6.3.1.2: chrominance is halved along the rows
    expected = -(-claim.rows * claim.columns * samples * claim.frames * claim.allocated // 8)
    if length < expected:
        raise PixelDecodeError(
            f"{length} bytes of pixel data, expected {expected} for {said} of {claim.allocated} bits",
            hint="The file was probably cut short; fetch it again from where it came from.",
        )


def _check_fragments(ds: Dataset, element: object, claim: _Claim, said: str) -> None:
    fragments = 0
    for head in _fragments(ds, element):
        fragments += 1
        size = parse_codestream(head)
        if size and size.codec in ("jpeg2k", "htj2k"):
            _refuse_tiny_tiles(head)
        if size and (size.rows, size.columns) != (claim.rows, claim.columns):
            raise DecodeGuardError(
                f"the codestream of fragment {fragments} is of {size.rows} x {size.columns}, "
                f"the header says {claim.rows} x {claim.columns}"
            )
        if size and size.components not in (1, 3, 4, claim.samples):
            raise DecodeGuardError(f"a codestream of {size.components} components, expected {claim.samples}")
    video = str(_syntax(ds) or "").startswith(_VIDEO)
    if fragments < claim.frames and not video:
        raise PixelDecodeError(f"{fragments} fragments of pixel data, too few for {said}")


def _fragments(ds: Dataset, element: object) -> Iterator[bytes]:
    """The first bytes of each fragment after the offset table: enough to hold the codestream's header."""
    value = getattr(element, "value", None)
    if value:
        yield from _walk(io.BytesIO(value))
        return
    with open(str(ds.filename), "rb") as file:  # noqa: PTH123 - deferred: pydicom's own name of the file
        file.seek(getattr(element, "value_tell", 0))
        yield from _walk(file)


def _walk(file: BinaryIO) -> Iterator[bytes]:
    first = True
    while (header := file.read(8))[:4] == _ITEM:
        (length,) = struct.unpack_from("<L", header, 4)
        start = file.tell()
        if not first:
            head = file.read(min(length, _PEEK))
            if length > _PEEK and head.startswith(_STARTS) and parse_codestream(head) is None:
                head += file.read(length - len(head))  # long tables or profiles stand before what is looked for
            yield head
        first = False
        file.seek(start + length)


def _refuse_tiny_tiles(head: bytes) -> None:
    """ITU T.800 A.5.1: at most 65,535 tiles. Each costs a decoder memory, however few pixels it has."""
    start = head.find(b"\xff\x4f\xff\x51")
    x1, y1, _, _, tile_x, tile_y = struct.unpack_from(">6I", head, start + 8)
    if not tile_x or not tile_y or -(-x1 // tile_x) * -(-y1 // tile_y) > 65535:
        raise DecodeGuardError("a JPEG 2000 codestream of more than 65,535 tiles, which the standard doesn't allow")
