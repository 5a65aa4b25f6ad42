"""One frame of pixel data, as stored: native, deflated, RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K and JPEG XL.

imagecodecs decodes, called directly and never through pydicom's registry of plugins: nothing global changes, no decoder
is tried that was not meant (pydicom would start with gdcm where it is installed), and no array is copied through bytes.
The codec is chosen by the codestream's own markers, because files lie about their transfer syntax: a frame that starts
as a JPEG is decoded as the JPEG it is.

A decoder is trusted with what it was seen to do exactly (tests/test_indexer_codecs_judged.py), and with nothing else.
Measured traps that are handled here:
- Lossless JPEG: ljpeg and jpegsof3 ignore restarts, further scans and the point transform, and say nothing.
  libjpeg-turbo is right on all of them, and faster.
- HTJ2K: OpenJPH through imagecodecs wraps 255 to 0 on irreversible codestreams, so those go to OpenJPEG.
- JPEG 2000: the codestream's sign may contradict PixelRepresentation; JPEG-LS has no sign at all. Round a codestream
  may be JP2 boxes, by which imagecodecs would convert colour: it never gets to see them.
- JPEG-LS: CharLS spends 9 s of CPU on a truncated 37 x 53 picture that ends in zeros, so one without an end marker is
  refused first.
- RLE: segments may be padded beyond the picture; a frame's offsets may lead out of it.
- JPEG: whether three components are RGB or YCbCr is said by component ids and markers before it is said by DICOM.

Where the number of components contradicts SamplesPerPixel, the codestream is right: it can't be of another number.
"""

from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, RLELossless

from indexer.dicom.budget import Warn, ignore
from indexer.render.codestreams import Codestream, parse_codestream
from indexer.render.colour import looks_ybr
from indexer.render.encapsulated import read_spans
from indexer.render.failures import LIBRARY_ERRORS, library_errors
from indexer.render.layout import Array, Layout, StoredFrame, number_of_frames
from indexer.render.native import frame_bits, native_frame
from indexer.render.pixels import Pixels, find_pixels, of_one_frame
from retrieval.errors import PixelDecodeError, UnsupportedImageError

__all__ = ["LIBRARY_ERRORS", "StoredFrame", "library_errors", "number_of_frames", "stored_frame"]

_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"  # Encapsulated Uncompressed Explicit VR Little Endian
_DEFLATED = "1.2.840.10008.1.2.8.1"  # Deflated Image Frame Compression


def stored_frame(ds: Dataset, frame_index: int, pixels: Pixels | None = None, warn: Warn = ignore) -> StoredFrame:
    """Decode frame `frame_index` (from 0). Of an uncompressed multi-frame file only the bytes of that frame are read.

    `pixels` are those of `ds`, if they were found before (`find_pixels`). `ds` is not changed. `warn` is called with
    each assumption. Raises UnsupportedImageError (a picture that can't be shown) or PixelDecodeError (damaged data).
    """
    if frame_index < 0:
        raise ValueError(f"frame_index is {frame_index}; expected 0 or more")
    pixels = pixels or find_pixels(ds, warn)
    pixels.layout.refuse_unknown_colour()
    with library_errors("reading the pixel data"), pixels.opened() as file:
        if frame_index >= pixels.layout.frames:
            raise UnsupportedImageError(
                f"frame {frame_index + 1} does not exist: the number of frames is {pixels.layout.frames}"
            )
        if pixels.spans is None:
            return native_frame(
                file,
                pixels.place,
                pixels.length,
                pixels.layout,
                frame_index,
                warn,
                halved=pixels.halved,
                little=pixels.little,
                word=pixels.word,
            )
        if frame_index >= pixels.frames:
            raise PixelDecodeError(
                f"frame {frame_index + 1} of {pixels.layout.frames} is missing: the pixel data contain "
                f"{pixels.frames} frames"
            )
        frame = read_spans(file, pixels.spans[frame_index])
        if pixels.syntax == RLELossless:
            return _rle(frame, pixels.layout)
        if pixels.syntax in (_UNCOMPRESSED, _DEFLATED):
            return _alone(frame, pixels, warn)
        return _codestream(frame, pixels.layout, pixels.syntax, warn)


def _alone(frame: bytes, pixels: Pixels, warn: Warn) -> StoredFrame:
    """A frame of native samples in fragments of its own, perhaps deflated (PS3.5 A.4.13, A.4.14)."""
    if pixels.syntax == _DEFLATED:
        frame = _inflated(frame, frame_bits(pixels.layout, halved=False) // 8 + 2)
    layout, halved = of_one_frame(pixels, len(frame))
    return native_frame(
        io.BytesIO(frame), 0, len(frame), layout, 0, warn, halved=halved, little=True, word=layout.allocated > 8
    )


def _inflated(frame: bytes, most: int) -> bytes:
    """Inflate up to `most` bytes: a raw deflate stream (RFC 1951), or one in zlib's wrapping, which some write."""
    wrapped = frame[:1] == b"\x78" and int.from_bytes(frame[:2], "big") % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    return inflater.decompress(frame, most)


def _rle(frame: bytes, layout: Layout) -> StoredFrame:
    """PS3.5 Annex G: a header of 16 numbers, then one segment for each byte of a sample, all of a sample's together."""
    segments = layout.samples * layout.allocated // 8
    if layout.allocated not in (8, 16, 32, 64) or segments > 15:
        raise UnsupportedImageError(
            f"RLE with (0028,0100) BitsAllocated {layout.allocated} and (0028,0002) SamplesPerPixel "
            f"{layout.samples}; expected a multiple of 8 bits and at most 15 bytes per pixel"
        )
    header = frame[:64].ljust(64, b"\0")
    bounds = [*struct.unpack("<15I", header[4:])[:segments], len(frame)]
    if bounds[0] != 64 or any(start >= stop for start, stop in pairwise(bounds)):
        raise PixelDecodeError(
            f"the RLE frame of {len(frame)} bytes has its {segments} segments at {bounds[:-1]}; "
            "expected offsets that rise from 64 and stay within the frame; the file is probably "
            "truncated or corrupt"
        )
    # The Image Pixel module determines how many segments there are, whatever the header counts.
    pixels = layout.rows * layout.columns
    planes = [imagecodecs.packbits_decode(frame[start:stop])[:pixels] for start, stop in pairwise(bounds)]
    if short := min(len(plane) for plane in planes) - pixels:
        raise PixelDecodeError(f"an RLE segment has {pixels + short} bytes; expected {pixels}")
    # Shape: (samples, bytes of a sample, most significant first, pixels)
    split = np.frombuffer(b"".join(planes), "u1").reshape(layout.samples, -1, pixels)
    kind = f"{'i' if layout.signed else 'u'}{layout.allocated // 8}"
    values = np.ascontiguousarray(split.transpose(0, 2, 1)).view(f">{kind}").astype(kind)
    values = layout.used_bits(values)
    return StoredFrame(layout.shaped(values, planar=True), layout.photometric, layout.stored)  # planes, PS3.5 G.2


def _codestream(frame: bytes, layout: Layout, syntax: UID, warn: Warn) -> StoredFrame:
    info = parse_codestream(frame)
    if info is None:
        raise UnsupportedImageError(
            f"the transfer syntax is {syntax.name if not syntax.is_private else syntax}, but the "
            f"frame starts with {frame[:4].hex() or 'nothing'}; expected a JPEG, JPEG-LS, JPEG 2000 "
            "or JPEG XL codestream"
        )
    if info.refusal:
        raise UnsupportedImageError(f"{info.refusal}; none of the installed decoders is known to read it correctly")
    if info.components not in (1, 3):
        raise UnsupportedImageError(f"the {info.codec} codestream has {info.components} components; expected 1 or 3")
    photometric = _photometric(info, layout, warn)
    decoded, photometric = _decoded(frame, info, photometric, warn)
    values = np.squeeze(decoded)
    shape = (layout.rows, layout.columns) + ((3,) if info.components == 3 else ())
    if values.size == np.prod(shape):
        values = values.reshape(shape)  # one row or column was squeezed
    if values.shape != shape:
        raise PixelDecodeError(f"the codestream has samples of shape {values.shape}, but the header declares {shape}")
    return StoredFrame(_conform(values, info, layout), photometric, layout.stored)


def _photometric(info: Codestream, layout: Layout, warn: Warn) -> str:
    """Return the photometric interpretation of the codestream's samples before the decoder changes them."""
    if info.components == layout.samples:
        return layout.photometric
    if info.components == 1:
        warn(f"(0028,0002) SamplesPerPixel is {layout.samples}, but the codestream is grey; it is shown in grey")
        return "MONOCHROME2"
    warn(
        f"(0028,0004) PhotometricInterpretation is {layout.photometric}, but the codestream has "
        "three components; it is shown in colour"
    )
    return info.colour or "RGB"


def _decoded(frame: bytes, info: Codestream, photometric: str, warn: Warn) -> tuple[Array, str]:
    """Return the samples and their photometric interpretation: RGB if the decoder has reversed a colour transform."""
    if info.codec in ("jpeg", "jpeg-lossless"):
        if b"\xff\xd9" not in frame[-4096:] and b"\xff\xd9" not in frame:
            warn("a JPEG codestream has no end marker; its last rows may be missing")
        if info.components == 1:
            return imagecodecs.jpeg8_decode(frame), photometric
        if info.codec == "jpeg-lossless":  # as it is
            return imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB"), photometric
        space = "YCBCR" if info.is_ybr(photometric) else "RGB"
        if space == "RGB" and not info.component_ids.isalpha() and info.adobe_transform is None:
            warn("a JPEG codestream does not say whether it is RGB or YBR; it is read as RGB, as the header declares")
        return imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB"), "RGB"
    if info.codec == "jpeg-ls":
        end = frame.rfind(b"\xff\xd9")  # no other FF stands before a byte above 7F, ITU T.87 C.2.1
        if end < 0:
            raise PixelDecodeError("the JPEG-LS codestream has no end marker; the file is truncated")
        return imagecodecs.jpegls_decode(frame[: end + 2]), photometric
    if info.codec == "jpegxl":
        ybr = photometric.startswith("YBR_FULL") and not info.transformed
        return imagecodecs.jpegxl_decode(frame), photometric if ybr or info.components == 1 else "RGB"
    decode = imagecodecs.htj2k_decode if info.codec == "htj2k" else imagecodecs.jpeg2k_decode
    values = decode(frame[info.start :])
    if info.components == 1:
        return values, photometric
    if info.transformed:
        return values, "RGB"  # the component transform is undone by the decoder, PS3.3 C.7.6.3.1.2
    actual = {"RGB": "RGB", "YBR_FULL": "YBR_FULL", "YBR_FULL_422": "YBR_FULL"}.get(photometric, info.colour or "RGB")
    if info.colour and info.colour != actual:
        actual = "YBR_FULL" if looks_ybr(values, info.precision) else "RGB"
        warn(
            "(0028,0004) PhotometricInterpretation and the JP2 boxes contradict each other; judging "
            f"by the colours, it is {actual}"
        )
    return values, actual


def _conform(values: Array, info: Codestream, layout: Layout) -> Array:
    """Give decoded values the sign and range that header and codestream together declare.

    Samples are signed if either says so: JPEG-LS and many JPEG 2000 encoders drop the sign (then BitsStored bits are
    sign-extended), while a signed codestream under PixelRepresentation 0 was found to contain true negative values.
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
        # A lossy codec overshoots; a lossless one keeps the content of unused bits, such as an overlay.
        values = values & top if info.lossless else np.minimum(values, top)
    return values
