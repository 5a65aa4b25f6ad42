"""Where a data set's pixel data are, and which of their frames exist."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from indexer.dicom.budget import Warn, ignore
from indexer.dicom.fragments import walk_fragments
from indexer.dicom.limits import Limits
from indexer.dicom.safe_read import open_dicom
from indexer.render.encapsulated import Span, frame_spans
from indexer.render.failures import library_errors
from indexer.render.layout import Layout, image_layout
from indexer.render.native import frames_there, settle
from retrieval.errors import PixelDecodeError, UnsupportedImageError

_PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_ENCAPSULATED = -1
_GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"  # implicit little endian, but for the pixels
_VIDEO = "1.2.840.10008.1.2.4.10"  # MPEG-2, H.264 and H.265 begin so: all frames in one stream
_FEWEST = 100  # see `encapsulated`


@dataclass(frozen=True)
class Pixels:
    """The pixel data of one data set. `frames` is the number that exists, which can be lower than declared.

    `spans` are the fragments of each frame; None for native pixel data, of which `length` bytes are at `place`.
    `source` contains them: bytes, the name of a file, or a file.
    """

    layout: Layout
    syntax: UID
    source: Any
    place: int
    length: int
    frames: int
    spans: Sequence[Sequence[Span]] | None = None
    halved: bool = False
    little: bool = True
    word: bool = False

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        with _opened(self.source) as file:
            yield file


def find_pixels(ds: Dataset, warn: Warn = ignore, limits: Limits = Limits()) -> Pixels:
    """Find the frames of `ds` without decoding any.

    `ds` may have its pixel data in memory, deferred (`dcmread(defer_size=)`) or left out (`stop_before_pixels=`): the
    latter two are read from its file. `ds` is not changed. `warn` is called with each assumption. Raises
    UnsupportedImageError (a picture that can't be shown) or PixelDecodeError (damaged data).
    """
    with library_errors("reading the pixel data"):
        ds, keyword, source, place, length = _locate(ds)
        layout, syntax = image_layout(ds, keyword), _transfer_syntax(ds)
        if length == _ENCAPSULATED or (not syntax.is_private and syntax.is_encapsulated):
            return _encapsulated(ds, layout, syntax, source, place, length, warn, limits)
        if syntax.is_private and syntax != _GE_BIG_ENDIAN_PIXELS:
            raise UnsupportedImageError(f"the transfer syntax {syntax} is private; no decoder is known for it")
        layout, halved = settle(layout, length, layout.frames, warn)
        there = frames_there(layout, length, halved=halved)
        return Pixels(
            layout,
            syntax,
            source,
            place,
            length,
            min(there, layout.frames),
            halved=halved,
            little=bool(syntax.is_little_endian) if not syntax.is_private else False,
            word=keyword == "PixelData" and ds.get_item(0x7FE00010, keep_deferred=True).VR == "OW",
        )


def _encapsulated(
    ds: Dataset, layout: Layout, syntax: UID, source: Any, place: int, length: int, warn: Warn, limits: Limits
) -> Pixels:
    with _opened(source) as file:
        end = file.seek(0, io.SEEK_END) if length == _ENCAPSULATED else place + length
        fragments = walk_fragments(file, place, end, limits.encapsulated_bytes)
        extended = bytes(ds.ExtendedOffsetTable) if ds.get("ExtendedOffsetTable") else None
        if syntax.startswith(_VIDEO):
            spans: Sequence[Sequence[Span]] = [fragments.spans] * layout.frames
        else:
            spans = frame_spans(file, fragments, layout.frames, extended, warn, rle=syntax == RLELossless)
    return Pixels(layout, syntax, source, place, length, len(spans), spans)


def missing_frames(pixels: Pixels, warn: Warn) -> None:
    """Warn that native pixel data have fewer frames than declared. Raises PixelDecodeError if hardly one exists."""
    layout, there = pixels.layout, pixels.frames
    if pixels.spans is not None or there >= layout.frames:
        return
    expected = -(-layout.rows * layout.columns * layout.samples * layout.frames * layout.allocated // 8)
    if there * _FEWEST < layout.frames:
        raise PixelDecodeError(
            f"the pixel data have {pixels.length} bytes; expected {expected} for {layout.frames} "
            f"frames of {layout.rows} x {layout.columns} x {layout.samples} samples of "
            f"{layout.allocated} bits",
            hint="The file is probably incomplete. Copy it again from its source.",
        )
    warn(
        "the pixel data contain fewer frames than (0028,0008) NumberOfFrames declares; the "
        "frames that are there are read"
    )


def _locate(ds: Dataset) -> tuple[Dataset, str, Any, int, int]:
    """Return where the pixel data are: (dataset, keyword, bytes or file or file name, place, length).

    The length is _ENCAPSULATED if the element states none, whatever the transfer syntax is.
    """
    for tag, keyword in _PIXEL_TAGS.items():
        if tag not in ds:
            continue
        element = ds.get_item(tag, keep_deferred=True)
        value = element.value
        length = getattr(element, "length", 0)
        encapsulated = length == 0xFFFFFFFF or getattr(element, "is_undefined_length", False)
        if value is None and length:
            # Deferred: the value is at value_tell of the file, unless the file was inflated while reading.
            if _transfer_syntax(ds) == DeflatedExplicitVRLittleEndian:
                return _locate(open_dicom(ds.filename))
            source = ds.filename or ds.buffer
            return ds, keyword, source, element.value_tell, _ENCAPSULATED if encapsulated else length
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
    raise UnsupportedImageError("the file has no pixel data; expected (7FE0,0010) PixelData or one of its float forms")


def _transfer_syntax(ds: Dataset) -> UID:
    """Return the declared transfer syntax; without one, the encoding that the dataset was read with or is meant for."""
    declared = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
    if declared:
        return UID(declared)
    implicit, little = ds.original_encoding
    if little is False:
        return UID(pydicom.uid.ExplicitVRBigEndian)
    return UID(ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian)


@contextmanager
def _opened(source: Any) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield file
    else:
        before = source.tell()
        try:
            yield source
        finally:
            source.seek(before)


def of_one_frame(pixels: Pixels, length: int) -> tuple[Layout, bool]:
    """Return the layout of one frame whose bytes are separate, given what the length of all frames revealed."""
    layout = replace(pixels.layout, frames=1)
    return settle(layout, length, 1, ignore)
