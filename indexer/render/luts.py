"""Lookup tables as DICOM stores them: descriptors, 8 or 16 bits an entry, either byte order (PS3.3 C.11.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from retrieval.errors import PixelDecodeError


@dataclass(frozen=True)
class Lut:
    """`data[i]` is the output for the input `first + i`; inputs beyond either end get the end's output."""

    data: npt.NDArray[Any]
    first: int
    bits: int

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        index = np.clip(np.floor(values) - self.first, 0, len(self.data) - 1)
        out: npt.NDArray[np.float64] = self.data[index.astype(np.int64)].astype(np.float64)
        return out


def descriptor(ds: Dataset, keyword: str, *, signed: bool = False) -> tuple[int, int, int]:
    """(entries, first input, bits an entry). `signed`: the inputs can be negative, so the first one may be."""
    value = ds.get(keyword)
    if value is None or isinstance(value, str | bytes | int) or len(value) != 3:
        raise PixelDecodeError(f"{keyword} is missing or has not three values")
    entries, first, bits = (int(v) for v in value)
    entries = entries & 0xFFFF or 0x10000  # 0 means 65,536; negative where it was read as signed
    if signed and first > 0x7FFF:
        first -= 0x10000
    if not 1 <= bits <= 16:
        raise PixelDecodeError(f"{keyword} says {bits} bits an entry, expected 8 to 16")
    return entries, first, bits


def lut_words(ds: Dataset, keyword: str, entries: int | None, bits: int) -> npt.NDArray[np.uint16]:
    """The entries as unsigned numbers. `entries` None: as many as there are.

    Bytes (OW) are in the byte order that the dataset was read with; two 8-bit entries share a word, the first in the
    lower byte, so that big endian files hold them in pairs the wrong way round.
    """
    element = ds[keyword]
    value = element.value
    if not isinstance(value, bytes | bytearray):
        numbers = [value] if isinstance(value, int) else list(value)
        words = np.array([int(v) & 0xFFFF for v in numbers], np.uint16)
        if entries and len(words) < entries <= 2 * len(words) and bits == 8:
            words = words.view(np.uint8).astype(np.uint16)  # two entries a word
        return _checked(words, keyword, entries)
    little = ds.original_encoding[1] is not False
    packed = bits == 8 if entries is None else len(value) < 2 * entries
    if len(value) % 2:
        value = bytes(value) + b"\0"
    words = np.frombuffer(value, "<u2" if little else ">u2").astype(np.uint16)
    if packed:
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)
    return _checked(words, keyword, entries)


def _checked(words: npt.NDArray[np.uint16], keyword: str, entries: int | None) -> npt.NDArray[np.uint16]:
    if entries is None:
        return words
    if not 0 < entries <= len(words):
        raise PixelDecodeError(f"{keyword} holds {len(words)} entries, its descriptor says {entries}")
    return words[:entries]
