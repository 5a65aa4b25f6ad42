"""A plain encoder of lossless JPEG (ITU T.81 Annex H), for what other encoders never write: restarts, further scans."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_LENGTH = 5  # bits of every Huffman code: 17 categories of difference fit


def lossless_jpeg(
    values: npt.NDArray[np.integer],
    bits: int,
    *,
    predictor: int = 1,
    shift: int = 0,
    restart_rows: int = 0,
    scans: int = 1,
) -> bytes:
    """[H, W] or [H, W, C] unsigned values of `bits` bits. `scans` is 1, or one for each component."""
    planes = values[..., None] if values.ndim == 2 else values
    rows, columns, components = planes.shape
    out = bytearray(b"\xff\xd8")
    out += _segment(0xC4, b"\0" + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17)))
    parts = b"".join(bytes([n + 1, 0x11, 0]) for n in range(components))
    out += _segment(0xC3, struct.pack(">BHHB", bits, rows, columns, components) + parts)
    if restart_rows:
        out += _segment(0xDD, struct.pack(">H", restart_rows * columns))
    for members in [range(components)] if scans == 1 else [[n] for n in range(components)]:
        selectors = b"".join(bytes([n + 1, 0]) for n in members)
        out += _segment(0xDA, bytes([len(members)]) + selectors + bytes([predictor, 0, shift]))
        out += _scan(planes[..., list(members)].astype(np.int64) >> shift, bits - shift, predictor, restart_rows)
    return bytes(out + b"\xff\xd9")


def _segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def _scan(planes: npt.NDArray[np.int64], bits: int, predictor: int, restart_rows: int) -> bytes:
    rows = len(planes)
    step = restart_rows or rows
    out = bytearray()
    for number, first in enumerate(range(0, rows, step)):
        if number:
            out += bytes([0xFF, 0xD0 + (number - 1) % 8])
        out += _interval(planes[first : first + step], bits, predictor)
    return bytes(out)


def _interval(planes: npt.NDArray[np.int64], bits: int, predictor: int) -> bytes:
    """The first row is predicted from the left and its first sample from the middle of the range, H.1.1."""
    left, above, corner = np.roll(planes, 1, 1), np.roll(planes, 1, 0), np.roll(planes, (1, 1), (0, 1))
    predicted = [
        left,
        above,
        corner,
        left + above - corner,
        left + ((above - corner) >> 1),
        above + ((left - corner) >> 1),
        (left + above) >> 1,
    ][predictor - 1].copy()
    predicted[0], predicted[:, 0] = left[0], above[:, 0]
    predicted[0, 0] = 1 << (bits - 1)
    differences = ((planes - predicted + 32767) & 0xFFFF) - 32767
    text = []
    for difference in differences.reshape(-1).tolist():
        category = abs(difference).bit_length()
        text.append(f"{category:0{_LENGTH}b}")
        if 0 < category < 16:
            text.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    joined = "".join(text)
    joined += "1" * (-len(joined) % 8)
    return int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\0")
