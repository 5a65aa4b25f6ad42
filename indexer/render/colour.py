"""Colour pictures as 8-bit RGB: the YBR forms of PS3.3 C.7.6.3.1.2 and palettes (C.7.6.3.1.5, C.7.9.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn, ignore
from indexer.render.layout import Array, StoredFrame
from indexer.render.luts import Lut, descriptor, lut_words, read_lut
from retrieval.errors import PixelDecodeError
from retrieval.types import Uint8Image

# Y, Cb, Cr to R, G, B: rows are R, G, B. ITU-T T.871 section 7; the partial range by ITU-R BT.601.
_FULL = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]], np.float32)
_PARTIAL = _FULL @ np.diag([255 / 219, 255 / 224, 255 / 224]).astype(np.float32)

_GREY = 0.03  # mean difference of the samples of a pixel, of their range
_IN_GAMUT = 0.98  # of the pixels: YBR samples have their colours inside RGB; RGB samples read as YBR do not


def to_rgb(frame: StoredFrame) -> Uint8Image:
    """Return [H, W, 3] stored colour samples as 8-bit RGB. More than 8 bits are scaled and rounded."""
    values, bits = frame.values, frame.bits_stored
    if values.dtype.kind == "i":  # colour samples are unsigned, PS3.3 C.7.6.3.1.1
        values = values.view(f"u{values.dtype.itemsize}")
    if frame.photometric.startswith("YBR"):
        return _ybr(values, bits, partial="PARTIAL" in frame.photometric)
    return to_8_bit(values, bits)


def looks_ybr(values: Array, bits: int) -> bool:
    """Whether [H, W, 3] samples look like YBR: read as YBR, hardly a pixel is outside RGB.

    Black, white and every saturated colour of an RGB picture would be outside. Samples that are grey as RGB are RGB.
    """
    top = float((1 << bits) - 1)
    if np.ptp(values, axis=-1).mean() < _GREY * top:
        return False
    y, b, r = (values[..., i].astype(np.float32) / top for i in range(3))
    b, r = b - 128 / 255, r - 128 / 255
    colours = (y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b)
    inside = np.ones(y.shape, bool)
    for colour in colours:
        inside &= (colour > -0.02) & (colour < 1.02)
    return bool(inside.mean() >= _IN_GAMUT)


def to_8_bit(values: Array, bits: int) -> Uint8Image:
    """Scale unsigned values of `bits` bits to 0..255 and round them. 8 bits are unchanged."""
    if bits == 8:
        return np.minimum(values, 255).astype(np.uint8, copy=False)
    top = float((1 << bits) - 1)
    if values.dtype.itemsize <= 2 and bits <= 16:
        table = np.floor(np.minimum(np.arange(1 << (8 * values.dtype.itemsize)) / top, 1) * 255 + 0.5)
        return table.astype(np.uint8)[values]
    return np.floor(np.minimum(values / top, 1) * 255 + 0.5).astype(np.uint8)


def _ybr(values: Array, bits: int, *, partial: bool) -> Uint8Image:
    scaled = values.astype(np.float32) * np.float32(255 / ((1 << bits) - 1)) if bits != 8 else values.astype(np.float32)
    scaled -= np.array([16 if partial else 0, 128, 128], np.float32)
    scaled = scaled @ (_PARTIAL if partial else _FULL).T
    scaled += np.float32(0.5)
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)  # truncation rounds, because a half was added


def apply_palette(frame: StoredFrame, ds: Dataset, warn: Warn = ignore) -> Uint8Image:
    """Map [H, W] indexes through the three palettes of the dataset to [H, W, 3] 8-bit RGB."""
    palettes = [_palette(ds, colour, signed=frame.values.dtype.kind == "i") for colour in ("Red", "Green", "Blue")]
    if not all(palette.complete for palette in palettes):
        warn("a palette has fewer entries than its descriptor declares; its last entry is used for the rest")
    # Some writers declare 16 bits and store 8 or 12: if no entry of any colour is near white, fewer bits were meant.
    bits = max(palette.bits for palette in palettes)
    largest = max(int(palette.data.max(initial=0)) for palette in palettes)
    if bits > 12 and 0 < largest.bit_length() <= 12:
        bits = max(8, largest.bit_length())
    planes = []
    for palette in palettes:
        entries = palette.data >> (bits - 8) if bits > 8 else to_8_bit(palette.data, bits)
        index = np.clip(frame.values.astype(np.int64) - palette.first, 0, len(entries) - 1)
        planes.append(entries.astype(np.uint8)[index])
    return np.stack(planes, axis=-1)


def _palette(ds: Dataset, colour: str, *, signed: bool) -> Lut:
    keyword = f"{colour}PaletteColorLookupTableDescriptor"
    plain, segmented = f"{colour}PaletteColorLookupTableData", f"Segmented{colour}PaletteColorLookupTableData"
    if plain in ds:
        return read_lut(ds, keyword, plain, signed=signed)
    entries, first, bits = descriptor(ds, keyword, signed=signed)
    if segmented not in ds:
        raise PixelDecodeError(
            f"the photometric interpretation is PALETTE COLOR, but there is no {plain}, segmented or not"
        )
    if bits not in (8, 16):
        raise PixelDecodeError(f"a segmented palette has {bits} bits per entry; expected 8 or 16")
    return Lut(_expand(lut_words(ds, segmented, None, bits), entries, bits), first, bits)


def _expand(words: npt.NDArray[Any], entries: int, bits: int) -> npt.NDArray[Any]:
    """Segmented palettes, PS3.3 C.7.9.2: discrete (0), linear (1) and indirect (2) segments. Iterative and bounded."""
    out: list[int] = []
    place, left, back = 0, 0, 0  # while `left` segments of an indirect one are copied, `back` is where to continue
    while len(out) < entries:
        kind, length = (int(word) for word in words[place : place + 2]) if place + 1 < len(words) else (-1, 0)
        place += 2
        if kind == 0 and 0 < length <= len(words) - place:
            out.extend(int(word) for word in words[place : place + length])
            place += length
        elif kind == 1 and out and length and place < len(words):
            steps = np.arange(1, length + 1)
            out.extend(int(v) for v in np.floor(out[-1] + (int(words[place]) - out[-1]) * steps / length + 0.5))
            place += 1
        elif kind == 2 and not left and length and place + 32 // bits <= len(words):
            # A byte offset of 32 bits, least significant word first.
            offset = sum(int(words[place + i]) << (bits * i) for i in range(32 // bits))
            back, left, place = place + 32 // bits, length, offset // (bits // 8)
            continue
        else:
            raise PixelDecodeError(
                f"the segmented palette ends after {len(out)} of {entries} entries, at a segment of kind {kind}"
            )
        if left:
            left -= 1
            place = place if left else back
    return np.array(out[:entries], np.uint16)
