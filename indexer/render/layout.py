"""The Image Pixel module (PS3.3 C.7.6.3), checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from retrieval.errors import PixelDecodeError, UnsupportedImageError

Array = npt.NDArray[Any]

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT", "XYB")
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


@dataclass(frozen=True)
class Layout:
    """How samples are laid out. `frames` is the declared number."""

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

    def refuse_unknown_colour(self) -> None:
        """Raise UnsupportedImageError for samples that can't be shown."""
        known = _GREY if self.samples == 1 else _COLOUR
        if self.samples in (1, 3) and self.photometric in known:
            return
        seen = self.photometric if self.photometric in (*_GREY, *_COLOUR, "HSV", "ARGB", "CMYK") else "unknown"
        raise UnsupportedImageError(
            f"(0028,0002) SamplesPerPixel is {self.samples} and (0028,0004) PhotometricInterpretation "
            f"is {seen}; expected 1 with MONOCHROME1, MONOCHROME2 or PALETTE COLOR, or 3 with RGB or "
            "a YBR form"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    def shaped(self, values: Array, *, planar: bool) -> Array:
        """Return values in the order of the file as [H, W] or [H, W, samples]."""
        if planar and self.samples > 1:
            return values.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0)
        return values.reshape(self.shape)

    def used_bits(self, values: Array) -> Array:
        """Keep BitsStored bits up to HighBit and extend the sign: the others may hold anything (PS3.5 8.1.1)."""
        size = values.dtype.itemsize * 8
        if self.float_type or self.stored == size or self.allocated == 1:
            return values
        return (values << (size - 1 - self.high_bit)) >> (size - self.stored)


@dataclass(frozen=True)
class StoredFrame:
    """The stored values of one frame and their meaning.

    `values` is [H, W] or [H, W, 3], native byte order, sign-extended, unused bits cleared. `photometric` describes
    `values`: it differs from the dataset's if the decoder has reversed a colour transform.
    """

    values: Array
    photometric: str
    bits_stored: int


def number_of_frames(ds: Dataset) -> int:
    """Return (0028,0008) NumberOfFrames; 1 if it is absent, empty or zero."""
    try:
        return max(int(ds.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError) as exc:
        raise PixelDecodeError("(0028,0008) NumberOfFrames is not a number") from exc


def image_layout(ds: Dataset, keyword: str) -> Layout:
    """Read the layout of the pixel data element `keyword`. Raises UnsupportedImageError or PixelDecodeError."""

    def integer(name: str, default: int | None = None) -> int:
        value = ds.get(name)
        if value is None or value == "":
            if default is None:
                raise PixelDecodeError(f"{name} is missing, so the layout of the pixels is unknown")
            return default
        try:
            return int(value)
        except (TypeError, ValueError) as exc:
            raise PixelDecodeError(f"{name} is not a single number") from exc

    rows, columns = integer("Rows"), integer("Columns")
    samples = integer("SamplesPerPixel", 1)
    photometric = str(ds.get("PhotometricInterpretation") or "").strip().upper()
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    if not (rows > 0 and columns > 0):
        raise PixelDecodeError(f"the picture has {rows} rows and {columns} columns; expected at least 1 of each")
    frames = number_of_frames(ds)
    planar = integer("PlanarConfiguration", 0)
    if keyword != "PixelData":
        bits = 32 if keyword == "FloatPixelData" else 64
        return Layout(rows, columns, samples, photometric, planar, bits, bits, bits - 1, True, frames, keyword)
    allocated = integer("BitsAllocated")
    stored = integer("BitsStored", allocated)
    high_bit = integer("HighBit", stored - 1)
    if not (1 <= allocated <= 32 or allocated == 64) or not 1 <= stored <= allocated:
        raise UnsupportedImageError(
            f"(0028,0100) BitsAllocated is {allocated} and (0028,0101) BitsStored is {stored}; "
            "expected 1 to 32 or 64 allocated bits, and no more bits stored than allocated"
        )
    if not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
    signed = integer("PixelRepresentation", 0) == 1
    return Layout(rows, columns, samples, photometric, planar, allocated, stored, high_bit, signed, frames, keyword)


def container(bits: int) -> int:
    """Return the bits of the smallest NumPy integer that holds `bits` bits."""
    return next(size for size in (8, 16, 32, 64) if bits <= size)


def integer_type(layout: Layout) -> np.dtype[Any]:
    return np.dtype(f"{'i' if layout.signed else 'u'}{container(layout.allocated) // 8}")
