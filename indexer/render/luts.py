"""Lookup tables as DICOM stores them: descriptors, 8 or 16 bits per entry, either byte order (PS3.3 C.11.1.1).

Descriptors and data contradict each other in many files. An entry of more than 8 bits is a word, whatever the length;
one of 8 is a byte, if there are not more bytes than entries (C.7.6.3.1.5 allows both). The data decide how many entries
there are: a table may be shorter than declared, and its last entry is used for the rest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from retrieval.errors import PixelDecodeError


@dataclass(frozen=True)
class Lut:
    """`data[i]` is the output for the input `first + i`; inputs beyond either end get the end's output.

    `bits` per entry are declared, or more if the data need more. `complete`: there are as many entries as declared.
    """

    data: npt.NDArray[Any]
    first: int
    bits: int
    complete: bool = True

    @property
    def top(self) -> int:
        """The output that is shown as white: the largest of `bits` bits.

        Or the largest entry, if it is far below that: 12-bit output under a descriptor of 16 bits is frequent.
        """
        largest = int(self.data.max(initial=0))
        # The end of an incomplete table is unknown, unless what exists is far from white.
        most = self.bits - 1 if self.complete else self.bits - 4
        return largest if 0 < largest.bit_length() <= most else (1 << self.bits) - 1

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        index = np.clip(np.floor(values) - self.first, 0, len(self.data) - 1)
        out: npt.NDArray[np.float64] = self.data[index.astype(np.int64)].astype(np.float64)
        return out


def read_lut(ds: Dataset, descriptor_keyword: str, data_keyword: str, *, signed: bool) -> Lut:
    """Read a table. Raises PixelDecodeError if it can't be used. `signed`: its inputs can be negative."""
    entries, first, bits = descriptor(ds, descriptor_keyword, signed=signed)
    if data_keyword not in ds:
        raise PixelDecodeError(f"{data_keyword} is missing")
    data = lut_words(ds, data_keyword, entries, bits)
    return Lut(data, first, max(bits, int(data.max()).bit_length()), complete=len(data) == entries)


def descriptor(ds: Dataset, keyword: str, *, signed: bool = False) -> tuple[int, int, int]:
    """Return (entries, first input, bits per entry). `signed`: the inputs can be negative, so the first one may be.

    The first input has the sign of the inputs, whether it was written as US or SS.
    """
    value = ds.get(keyword)
    if isinstance(value, bytes) and len(value) == 6:  # a VR of bytes
        value = struct.unpack(f"{'<' if ds.original_encoding[1] is not False else '>'}3H", value)
    if value is None or isinstance(value, str | bytes | int) or len(value) != 3:
        raise PixelDecodeError(f"{keyword} is missing or does not have three values")
    entries, first, bits = (int(v) for v in value)
    entries = entries & 0xFFFF or 0x10000  # 0 means 65,536; negative where it was read as signed
    first &= 0xFFFF
    if signed and first > 0x7FFF:
        first -= 0x10000
    if not 1 <= bits <= 16:
        raise PixelDecodeError(f"{keyword} declares {bits} bits per entry; expected 8 to 16")
    return entries, first, bits


def lut_words(ds: Dataset, keyword: str, entries: int | None, bits: int) -> npt.NDArray[np.uint16]:
    """Return the entries as unsigned numbers, at most `entries` and perhaps fewer; all of them if that is None.

    Bytes (OW) are in the byte order that the dataset was read with. Two 8-bit entries share a word, the first in the
    lower byte, so that big endian files swap each pair. Raises PixelDecodeError if there are none.
    """
    value = ds[keyword].value
    if isinstance(value, bytes | bytearray):
        length = len(value)
        order = "<" if ds.original_encoding[1] is not False else ">"
        words = np.frombuffer(bytes(value) + bytes(length % 2), f"{order}u2").astype(np.uint16)
    else:
        numbers = [] if value is None else [value] if isinstance(value, int) else list(value)
        words = np.array([int(v) & 0xFFFF for v in numbers], np.uint16)
        length = 2 * len(words)
    packed = bits == 8 if entries is None else bits <= 8 and length <= entries + 1
    if packed:
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)
    if not len(words):
        raise PixelDecodeError(f"{keyword} is empty")
    return words[:entries]
