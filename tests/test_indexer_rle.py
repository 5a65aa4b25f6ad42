"""RLE Lossless, PS3.5 Annex G: pydicom encodes and judges, and frames are broken on purpose."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from test_indexer_codecs import compressed, decode_frame

from retrieval.errors import PixelDecodeError, UnsupportedImageError


def encoded(values: npt.NDArray[np.generic]) -> Dataset:
    ds = compressed([b"\0\0"], values, ExplicitVRLittleEndian, bits=values.dtype.itemsize * 8)
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    if values.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.compress(RLELossless, values, encoding_plugin="pydicom", generate_instance_uid=False)
    return ds


def framed(*segments: bytes, count: int | None = None, offsets: tuple[int, ...] | None = None) -> bytes:
    starts = offsets or tuple(64 + sum(map(len, segments[:i])) for i in range(len(segments)))
    header = struct.pack("<16I", len(segments) if count is None else count, *starts, *[0] * (15 - len(starts)))
    return header + b"".join(segments)


def two_bytes(frame: bytes) -> npt.NDArray[np.generic]:
    """The frame decoded as 1 row x 4 columns of unsigned 16 bits."""
    return decode_frame(compressed([frame], np.zeros((1, 4), "u2"), RLELossless, bits=16), 0)


HIGH, LOW = bytes([0xFD, 0x01]), bytes([0x03, 5, 6, 7, 8])  # 1 four times; 5 6 7 8


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(kind, shape) for kind in ("u1", "i1", "u2", "i2") for shape in ((5, 7), (33, 40))]
    + [(kind, (4, 5, 3)) for kind in ("u1", "u2")],  # colour has no sign
)
def test_every_width_and_sign_comes_back(kind: str, shape: tuple[int, ...]) -> None:
    info = np.iinfo(kind)
    values = np.random.default_rng(3).integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    values.reshape(-1)[:9], values.reshape(-1)[-9:] = info.min, info.max  # runs, and both ends of the range
    decoded = decode_frame(encoded(values), 0)
    assert decoded.dtype == values.dtype
    assert np.array_equal(decoded, values)


def test_a_file_of_signed_pixels_is_what_pydicom_says() -> None:
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("MR_small_RLE.dcm")))
    ds = dcmread(path)
    assert ds.PixelRepresentation == 1
    judged, _ = get_decoder(RLELossless).as_array(ds, decoding_plugin="pydicom")
    assert np.array_equal(decode_frame(ds, 0), judged)


def test_the_most_significant_bytes_come_first() -> None:
    assert two_bytes(framed(HIGH, LOW)).tolist() == [[0x0105, 0x0106, 0x0107, 0x0108]]


def test_signed_values_of_32_bits() -> None:
    frame = framed(*(bytes([0x01, first, second]) for first, second in ((0xFF, 0x80), (0xFF, 0), (0xFF, 0), (0xFE, 1))))
    ds = compressed([frame], np.zeros((1, 2), "i4"), RLELossless, bits=32)
    assert decode_frame(ds, 0).tolist() == [[-2, -(2**31) + 1]]


@pytest.mark.parametrize(
    "frame",
    [
        framed(HIGH + b"\x80", LOW + b"\x80"),  # -128: nothing
        framed(bytes([0xFB, 0x01]), LOW + bytes([0xFF, 9])),  # padded by two bytes
        framed(HIGH, LOW, count=0),
        framed(HIGH, LOW, count=9),
    ],
    ids=["no-operation", "padded", "count of none", "count of nine"],
)
def test_what_does_not_matter_does_no_harm(frame: bytes) -> None:
    assert two_bytes(frame).tolist() == [[0x0105, 0x0106, 0x0107, 0x0108]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"\0\0", "the RLE frame of 2 bytes has its 2 segments at [0, 0]"),
        (framed(HIGH, LOW)[:62], "the RLE frame of 62 bytes"),
        (framed(HIGH, LOW)[:64], "the RLE frame of 64 bytes"),
        (framed(HIGH, LOW, offsets=(64, 0)), "segments at [64, 0]"),
        (framed(HIGH, LOW, offsets=(64, 64)), "segments at [64, 64]"),
        (framed(HIGH, LOW, offsets=(66, 64)), "segments at [66, 64]"),
        (framed(HIGH, LOW, offsets=(64, 72)), "segments at [64, 72]"),  # the frame's end
        (framed(HIGH, LOW, offsets=(64, 10_000)), "segments at [64, 10000]"),
        (framed(HIGH, LOW, offsets=(64, 0xFFFFFFFF)), "segments at [64, 4294967295]"),
        (framed(HIGH), "segments at [64, 0]"),
        (framed(HIGH, LOW[:3]), "ImcdError"),
        (framed(HIGH, bytes([0xFE, 1])), "an RLE segment has 3 bytes; expected 4"),
    ],
    ids=range(12),
)
def test_a_broken_frame_is_refused_with_what_was_seen(frame: bytes, message: str) -> None:
    with pytest.raises(PixelDecodeError) as caught:
        two_bytes(frame)
    assert message in str(caught.value)


def test_single_bits_are_not_rle() -> None:
    ds = compressed([framed(HIGH)], np.zeros((1, 4), "u1"), RLELossless, bits=1, BitsAllocated=1)
    with pytest.raises(UnsupportedImageError, match="BitsAllocated"):
        decode_frame(ds, 0)
