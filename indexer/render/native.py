"""Uncompressed frames: any number of bits, either byte order, subsampled colour, a few missing bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

import numpy as np

from indexer.dicom.budget import Warn
from indexer.render.colour import looks_ybr
from indexer.render.layout import Array, Layout, StoredFrame, container, integer_type
from retrieval.errors import PixelDecodeError

_WHOLE = (1, 8, 16, 32, 64)  # bits allocated; others are packed without gaps
_FEW = 16  # bytes that may be missing at a frame's end, if they are less than a row: wrong padding


def settle(layout: Layout, length: int, frames: int, warn: Warn) -> tuple[Layout, bool]:
    """Return the layout that `length` bytes for `frames` frames really have, and whether chrominance is halved.

    A 4:2:2 photometric interpretation with three whole samples per pixel occurs in ultrasound; a layout of 9 to 15 bits
    in 16-bit words too. The length decides.
    """
    pixels = layout.rows * layout.columns * frames
    if layout.allocated not in _WHOLE and length >= pixels * layout.samples * container(layout.allocated) // 8:
        warn(
            "(0028,0100) BitsAllocated declares packed bits, but the length of the pixel data is "
            "that of whole bytes; they are read as bytes"
        )
        layout = replace(layout, allocated=container(layout.allocated))
    if layout.samples != 3:
        return layout, False
    whole, halved = (pixels * samples * layout.allocated // 8 for samples in (3, 2))
    if layout.photometric.endswith("_422"):  # PS3.3 C.7.6.3.1.2: two samples a pixel, always by pixel
        return layout, length < whole
    if layout.photometric == "YBR_FULL" and halved <= length <= halved + 1 and layout.columns % 2 == 0:
        warn(
            "YBR_FULL is declared, but the length of the pixel data is that of YBR_FULL_422; they "
            "are read as YBR_FULL_422"
        )
        return replace(layout, photometric="YBR_FULL_422"), True
    return layout, False


def frame_bits(layout: Layout, *, halved: bool) -> int:
    return layout.rows * layout.columns * (2 if halved else layout.samples) * layout.allocated


def frames_there(layout: Layout, length: int, *, halved: bool) -> int:
    """Return how many frames are in `length` bytes, including one that lacks a few bytes."""
    bits = frame_bits(layout, halved=halved)
    return (length * 8 + _spared(layout, bits)) // bits


def _spared(layout: Layout, bits: int) -> int:
    return min(8 * _FEW, bits // layout.rows - 1)


def native_frame(
    file: BinaryIO,
    place: int,
    length: int,
    layout: Layout,
    index: int,
    warn: Warn,
    *,
    halved: bool,
    little: bool,
    word: bool,
) -> StoredFrame:
    """Frame `index` of `length` bytes of pixel data at `place`. `word`: samples of 8 bits and less are in words."""
    bits = frame_bits(layout, halved=halved)
    start, stop = index * bits // 8, -(-(index + 1) * bits // 8)
    swapped = not little and (layout.allocated <= 8 or layout.allocated not in _WHOLE) and word  # pairs are swapped
    skipped = index * bits % 8
    if swapped:
        skipped += 8 * (start % 2)
        start, stop = start - start % 2, stop + stop % 2
    file.seek(place + start)
    data = file.read(max(0, min(stop, length + length % 2) - start))
    missing = stop - start - len(data)
    if missing * 8 > _spared(layout, bits):
        raise PixelDecodeError(
            f"the pixel data have {length} bytes; expected {stop} for frame {index + 1} of "
            f"{layout.rows} x {layout.columns} x {layout.samples} at {layout.allocated} bits; the "
            "file is truncated"
        )
    if missing:
        if missing > 1 or not swapped:
            warn("the pixel data end within the last row of a frame; the rest of that row is filled with zeros")
        data += bytes(missing)
    if swapped:
        data = np.frombuffer(data, "u2").byteswap().tobytes()
    samples = bits // layout.allocated
    values = _samples(data, skipped, samples, layout, little=little)
    photometric = layout.photometric
    if halved:  # Y1 Y2 B R
        pairs = values.reshape(-1, 4)
        values = np.stack([pairs[:, 0], pairs[:, 2], pairs[:, 3], pairs[:, 1], pairs[:, 2], pairs[:, 3]], axis=1)
        return StoredFrame(values.reshape(layout.shape), photometric, layout.stored)
    values = layout.shaped(values, planar=bool(layout.planar))
    if photometric.endswith("_422"):
        photometric = photometric if looks_ybr(values, layout.stored) else "RGB"
        warn(
            "4:2:2 colour is declared, but the pixel data have three samples per pixel; judging by "
            f"the colours, they are read as {'whole YBR' if photometric != 'RGB' else 'RGB'}"
        )
    if photometric in ("YBR_ICT", "YBR_RCT", "XYB"):
        photometric = "RGB"
    return StoredFrame(values, photometric, layout.stored)


def _samples(data: bytes, skipped: int, samples: int, layout: Layout, *, little: bool) -> Array:
    """Return `samples` values from bit `skipped` on; the bits of a byte start with the lowest, PS3.5 8.2."""
    if layout.allocated in (8, 16, 32, 64):
        kind = layout.float_type or integer_type(layout).str[1:]
        values: Array = np.frombuffer(data, ("<" if little else ">") + kind, count=samples, offset=skipped // 8)
        return layout.used_bits(values.astype(values.dtype.newbyteorder("="), copy=False))
    unpacked = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")
    unpacked = unpacked[skipped : skipped + samples * layout.allocated]
    if layout.allocated == 1:
        return unpacked
    unsigned = np.zeros(samples, f"u{container(layout.allocated) // 8}")
    for bit in range(layout.allocated):
        unsigned |= unpacked[bit :: layout.allocated].astype(unsigned.dtype) << bit
    return layout.used_bits(unsigned.view(integer_type(layout)))
