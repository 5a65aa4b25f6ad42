"""One frame of pixel data, as stored: native, RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K.

pydicom finds the frame; imagecodecs decodes it, called directly and never through pydicom's registry
of plugins: nothing global changes, no decoder is tried that was not meant (pydicom would start with gdcm where it is
installed), and no array is copied through bytes. The codec is chosen by the codestream's own markers, because files
lie about their transfer syntax: a frame that starts as a JPEG is decoded as the JPEG it is.

Measured traps that are handled here:
- HTJ2K: OpenJPH through imagecodecs wraps 255 to 0 on irreversible codestreams, so those go to OpenJPEG.
- JPEG 2000: the codestream's sign may contradict PixelRepresentation; JPEG-LS has no sign at all.
- JPEG-LS: CharLS spends 9 s of CPU on a truncated 37 x 53 picture that ends in zeros, so one without an end marker is
  refused first.
- RLE: segments may be padded beyond the picture; a frame's offsets may lead out of it.
- JPEG: whether three components are RGB or YCbCr is said by component ids and markers before it is said by DICOM.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from indexer.dicom.safe_read import open_dicom
from indexer.render.codestreams import Codestream, parse_codestream
from retrieval.errors import DicomError, PixelDecodeError, UnsupportedImageError

Array = npt.NDArray[Any]

# What pydicom, imagecodecs and NumPy were seen to raise on 10,000 broken files. Not MemoryError: that is
# for the guard, which tries the file once more in a fresh worker.
LIBRARY_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # imagecodecs' errors, NotImplementedError and RecursionError among them
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
)

_PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_ENCAPSULATED = -1
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


@dataclass(frozen=True)
class StoredFrame:
    """The stored values of one frame, and what they mean.

    `values` is [H, W] or [H, W, 3], native byte order, sign-extended, unused bits cleared. `photometric` describes
    `values`: it differs from the dataset's where the decoder has already undone a colour transform.
    """

    values: Array
    photometric: str
    bits_stored: int


@contextmanager
def library_errors(action: str) -> Iterator[None]:
    """Turn whatever a library raises into a PixelDecodeError that says what was being done.

    Only the kind and the start of the message are kept; of an OSError only the system's words, as it holds a path.
    """
    try:
        yield
    except DicomError:
        raise
    except LIBRARY_ERRORS as exc:
        said = (exc.strerror or "") if isinstance(exc, OSError) else " ".join(str(exc).split())[:160]
        raise PixelDecodeError(
            f"{action}: {type(exc).__name__}{': ' + said if said else ''}; the file is probably truncated or corrupt"
        ) from exc


@dataclass(frozen=True)
class _Layout:
    """The Image Pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    frames: int
    keyword: str

    @property
    def float_type(self) -> str:
        return {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}.get(self.keyword, "")


def number_of_frames(ds: Dataset) -> int:
    """(0028,0008) NumberOfFrames; 1 where it is absent, empty or zero."""
    try:
        return max(int(ds.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError) as exc:
        raise PixelDecodeError("(0028,0008) NumberOfFrames is no number") from exc


def stored_frame(ds: Dataset, frame_index: int) -> StoredFrame:
    """Decode frame `frame_index` (from 0); of an uncompressed multi-frame file only that frame's bytes are read.

    `ds` may have its pixel data in memory, deferred (`dcmread(defer_size=)`) or left out (`stop_before_pixels=`): the
    latter two are read from the file that it came from. `ds` is not changed.

    Raises UnsupportedImageError (no picture that can be shown) or PixelDecodeError (broken).
    """
    if frame_index < 0:
        raise ValueError(f"frame_index {frame_index}, expected 0 or more")
    with library_errors("reading the pixel data"):
        source, keyword, value, offset, length = _locate(ds)
        layout = _layout(source, keyword)
        if frame_index >= layout.frames:
            raise UnsupportedImageError(f"frame {frame_index + 1} was asked for, the file has {layout.frames}")
        syntax = _transfer_syntax(source)
        if isinstance(value, bytes | bytearray):
            return _decode(source, layout, syntax, io.BytesIO(value), offset, length, frame_index)
        if isinstance(value, str):
            with Path(value).open("rb") as file:
                return _decode(source, layout, syntax, file, offset, length, frame_index)
        before = value.tell()
        try:
            return _decode(source, layout, syntax, value, offset, length, frame_index)
        finally:
            value.seek(before)


def _locate(ds: Dataset) -> tuple[Dataset, str, Any, int, int]:
    """Where the pixel data is: (dataset, keyword, bytes or file or file name, offset, length).

    The length is _ENCAPSULATED where the element has none, whatever the transfer syntax says.
    """
    for tag, keyword in _PIXEL_TAGS.items():
        if tag not in ds:
            continue
        element = ds.get_item(tag)
        value = element.value
        length = getattr(element, "length", 0)
        encapsulated = length == 0xFFFFFFFF or getattr(element, "is_undefined_length", False)
        if value is None and length:
            # Deferred: the value stands at value_tell of the file, unless the file was inflated while reading.
            if _transfer_syntax(ds) == DeflatedExplicitVRLittleEndian:
                return _locate(open_dicom(ds.filename))
            place = ds.filename or ds.buffer
            return ds, keyword, place, element.value_tell, _ENCAPSULATED if encapsulated else length
        if not value:
            raise PixelDecodeError(f"{keyword} is empty")
        if isinstance(value, bytes | bytearray):
            return ds, keyword, value, 0, _ENCAPSULATED if encapsulated else len(value)
        before = value.tell()
        length = value.seek(0, io.SEEK_END)
        value.seek(before)
        return ds, keyword, value, 0, _ENCAPSULATED if encapsulated else length
    filename = getattr(ds, "filename", None)
    if filename and "Rows" in ds:  # perhaps read with stop_before_pixels
        whole = open_dicom(filename)
        if any(tag in whole for tag in _PIXEL_TAGS):
            return _locate(whole)
    raise UnsupportedImageError("no pixel data: expected (7FE0,0010) PixelData or its float forms")


def _transfer_syntax(ds: Dataset) -> UID:
    """The declared transfer syntax; without one, the encoding that the dataset was read or is meant with."""
    declared = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return UID(declared)
    implicit, little = ds.original_encoding
    if little is False:
        return UID(pydicom.uid.ExplicitVRBigEndian)
    return UID(ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian)


def _layout(ds: Dataset, keyword: str) -> _Layout:
    def integer(name: str, default: int | None = None) -> int:
        value = ds.get(name)
        if value is None or value == "":
            if default is None:
                raise PixelDecodeError(f"{name} is missing; the picture can't be laid out without it")
            return default
        try:
            return int(value)
        except (TypeError, ValueError) as exc:
            raise PixelDecodeError(f"{name} is no single number") from exc

    rows, columns = integer("Rows"), integer("Columns")
    samples = integer("SamplesPerPixel", 1)
    photometric = str(ds.get("PhotometricInterpretation") or "").strip().upper()
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    if not (rows > 0 and columns > 0):
        raise PixelDecodeError(f"{rows} rows x {columns} columns, expected at least one of each")
    known = _GREY if samples == 1 else _COLOUR
    if samples not in (1, 3) or photometric not in known:
        seen = photometric if photometric in (*_GREY, *_COLOUR, "HSV", "ARGB", "CMYK") else "unknown"
        raise UnsupportedImageError(
            f"(0028,0002) SamplesPerPixel {samples} with (0028,0004) PhotometricInterpretation {seen}; "
            "expected 1 with MONOCHROME1, MONOCHROME2 or PALETTE COLOR, or 3 with RGB or a YBR form"
        )
    frames = number_of_frames(ds)
    planar = integer("PlanarConfiguration", 0)
    if keyword != "PixelData":
        bits = 32 if keyword == "FloatPixelData" else 64
        return _Layout(rows, columns, samples, photometric, planar, bits, bits, bits - 1, True, frames, keyword)
    allocated = integer("BitsAllocated")
    stored = integer("BitsStored", allocated)
    high_bit = integer("HighBit", stored - 1)
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated:
        raise UnsupportedImageError(
            f"(0028,0100) BitsAllocated {allocated}, (0028,0101) BitsStored {stored}; "
            "expected 1, 8, 16, 32 or 64 allocated and no more stored"
        )
    if not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
    signed = integer("PixelRepresentation", 0) == 1
    return _Layout(rows, columns, samples, photometric, planar, allocated, stored, high_bit, signed, frames, keyword)


def _decode(
    ds: Dataset, layout: _Layout, syntax: UID, file: BinaryIO, offset: int, length: int, index: int
) -> StoredFrame:
    file.seek(offset)
    if length == _ENCAPSULATED or (not syntax.is_private and syntax.is_encapsulated):
        tables = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in ds else None
        frame = get_frame(file, index, number_of_frames=layout.frames, extended_offsets=tables)
        if syntax == RLELossless:
            return _rle(frame, layout)
        return _codestream(frame, layout, syntax)
    if syntax.is_private and syntax != "1.2.840.113619.5.2":
        raise UnsupportedImageError(f"private transfer syntax {syntax}; no decoder is known for it")
    # GE's private syntax is implicit little endian but for the pixels, which are big endian.
    little = syntax.is_little_endian if not syntax.is_private else False
    word = _pixel_vr(ds) == "OW"
    return _native(file, offset, length, layout, index, little=bool(little), word=word)


def _pixel_vr(ds: Dataset) -> str:
    return str(ds.get_item(0x7FE00010).VR or "") if 0x7FE00010 in ds else ""


def _native(
    file: BinaryIO, offset: int, length: int, layout: _Layout, index: int, *, little: bool, word: bool
) -> StoredFrame:
    pixels = layout.rows * layout.columns
    subsampled = layout.photometric.endswith("_422")  # PS3.3 C.7.6.3.1.2: two samples a pixel, always by pixel
    samples = pixels * (2 if subsampled else layout.samples)
    first, bits = index * samples * layout.allocated, samples * layout.allocated
    start, stop = first // 8, -(-(first + bits) // 8)
    swapped = not little and layout.allocated <= 8 and word  # 8-bit samples in big endian words: pairs are swapped
    if swapped:
        start, stop = start - start % 2, stop + stop % 2
    if stop > length + length % 2:
        raise PixelDecodeError(
            f"{length} bytes of pixel data, expected {stop} for frame {index + 1} of "
            f"{layout.rows} x {layout.columns} x {layout.samples} at {layout.allocated} bits; the file is truncated"
        )
    file.seek(offset + start)
    data = file.read(stop - start)
    if len(data) < stop - start:
        if len(data) < stop - start - 1 or not swapped:
            raise PixelDecodeError(f"{len(data)} bytes of pixel data could be read, expected {stop - start}")
        data += b"\0"
    if swapped:
        data = np.frombuffer(data, "u2").byteswap().tobytes()
        data = data[first // 8 - start :]
    if layout.allocated == 1:  # PS3.5 8.2: frames follow each other without padding, least significant bit first
        unpacked = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")
        values: Array = unpacked[first % 8 : first % 8 + samples]
    else:
        kind = layout.float_type or f"{'i' if layout.signed else 'u'}{layout.allocated // 8}"
        values = np.frombuffer(data, ("<" if little else ">") + kind, count=samples)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        values = _used_bits(values, layout)
    if subsampled:  # Y1 Y2 B R
        pairs = values.reshape(-1, 4)
        values = np.stack([pairs[:, 0], pairs[:, 2], pairs[:, 3], pairs[:, 1], pairs[:, 2], pairs[:, 3]], axis=1)
        planar = 0
    else:
        planar = layout.planar
    photometric = "RGB" if layout.photometric in ("YBR_ICT", "YBR_RCT") else layout.photometric
    return StoredFrame(_shape(values, layout, planar), photometric, layout.stored)


def _shape(values: Array, layout: _Layout, planar: int) -> Array:
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if planar:
        return values.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
    return values.reshape(layout.rows, layout.columns, layout.samples)


def _used_bits(values: Array, layout: _Layout) -> Array:
    """Keep BitsStored bits up to HighBit and extend the sign: the others may hold anything (PS3.5 8.1.1)."""
    if layout.float_type or layout.stored == layout.allocated or layout.allocated == 1:
        return values
    up, down = layout.allocated - 1 - layout.high_bit, layout.allocated - layout.stored
    return (values << up) >> down


def _rle(frame: bytes, layout: _Layout) -> StoredFrame:
    """PS3.5 Annex G: a header of 16 numbers, then one segment for each byte of a sample, all of a sample's together."""
    segments = layout.samples * layout.allocated // 8
    if layout.allocated == 1 or segments > 15:
        raise UnsupportedImageError(
            f"RLE with (0028,0100) BitsAllocated {layout.allocated} and (0028,0002) SamplesPerPixel {layout.samples}; "
            "expected a multiple of 8 bits and at most 15 bytes a pixel"
        )
    header = frame[:64].ljust(64, b"\0")
    bounds = [*struct.unpack("<15I", header[4:])[:segments], len(frame)]
    if bounds[0] != 64 or any(start >= stop for start, stop in pairwise(bounds)):
        raise PixelDecodeError(
            f"the RLE frame of {len(frame)} bytes has its {segments} segments at {bounds[:-1]}; expected offsets that "
            "rise from 64 and stay within the frame; the file is probably truncated or corrupt"
        )
    # How many segments there are, the Image Pixel module says, whatever the header counts.
    pixels = layout.rows * layout.columns
    planes = [imagecodecs.packbits_decode(frame[start:stop])[:pixels] for start, stop in pairwise(bounds)]
    if short := min(len(plane) for plane in planes) - pixels:
        raise PixelDecodeError(f"an RLE segment holds {pixels + short} bytes, expected {pixels}")
    # Shape: (samples, bytes of a sample, most significant first, pixels)
    split = np.frombuffer(b"".join(planes), "u1").reshape(layout.samples, -1, pixels)
    kind = f"{'i' if layout.signed else 'u'}{layout.allocated // 8}"
    values = np.ascontiguousarray(split.transpose(0, 2, 1)).view(f">{kind}").astype(kind)
    return StoredFrame(_shape(_used_bits(values, layout), layout, 1), layout.photometric, layout.stored)  # PS3.5 G.2


def _codestream(frame: bytes, layout: _Layout, syntax: UID) -> StoredFrame:
    info = parse_codestream(frame)
    if info is None:
        raise UnsupportedImageError(
            f"transfer syntax {syntax.name if not syntax.is_private else syntax}: the frame starts with "
            f"{frame[:4].hex() or 'nothing'}, expected a JPEG, JPEG-LS or JPEG 2000 codestream"
        )
    photometric = layout.photometric
    if info.codec == "jpeg":
        space = "RGB" if layout.samples == 3 and not info.is_ybr(photometric) else "YCBCR"
        if layout.samples == 1:
            values = imagecodecs.jpeg8_decode(frame)
        else:
            values = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB")
            photometric = "RGB"
    elif info.codec == "jpeg-lossless":
        values = imagecodecs.ljpeg_decode(frame) if info.components == 1 else imagecodecs.jpegsof3_decode(frame)
    elif info.codec == "jpeg-ls":
        end = frame.rfind(b"\xff\xd9")  # no other FF stands before a byte above 7F, ITU T.87 C.2.1
        if end < 0:
            raise PixelDecodeError("the JPEG-LS codestream has no end marker; the file is truncated")
        values = imagecodecs.jpegls_decode(frame[: end + 2])
    elif info.codec == "htj2k":
        values = imagecodecs.htj2k_decode(frame)
    else:
        values = imagecodecs.jpeg2k_decode(frame)
    if info.codec in ("jpeg2k", "htj2k") and layout.samples == 3 and (info.transformed or photometric[:6] != "YBR_FU"):
        photometric = "RGB"  # the component transform is undone by the decoder, PS3.3 C.7.6.3.1.2
    values = np.squeeze(values)
    shape = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
    if values.size == np.prod(shape):
        values = values.reshape(shape)  # one row or column was squeezed
    if values.shape != shape:
        raise PixelDecodeError(f"the codestream holds {values.shape} samples, the header says {shape}")
    return StoredFrame(_conform(values, info, layout), photometric, layout.stored)


def _conform(values: Array, info: Codestream, layout: _Layout) -> Array:
    """Give decoded values the sign and range that header and codestream together mean.

    Samples are signed if either says so: JPEG-LS and many JPEG 2000 encoders drop the sign (then BitsStored bits are
    sign-extended), while a signed codestream under PixelRepresentation 0 was seen to hold true negative values.
    """
    if values.dtype.kind == "i":
        return values
    if layout.signed:
        size = values.dtype.itemsize * 8
        shift = size - min(info.precision, layout.stored)
        values = values.view(f"i{size // 8}")
        return (values << shift) >> shift
    if info.precision > layout.stored:
        top = np.array((1 << layout.stored) - 1, values.dtype)
        # A lossy codec overshoots; a lossless one carries what was in the unused bits, an overlay perhaps.
        values = values & top if info.lossless else np.minimum(values, top)
    return values
