"""Codecs on codestreams made here, and what their headers say."""

from __future__ import annotations

import contextlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from indexer.render.codecs import library_errors, stored_frame
from indexer.render.codestreams import parse_codestream
from retrieval.errors import DicomError, PixelDecodeError, UnsupportedImageError


def compressed(frames: list[bytes], like: np.ndarray, syntax: str, *, bits: int, **elements: Any) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.Rows, ds.Columns = like.shape[:2]
    ds.SamplesPerPixel = 3 if like.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if like.ndim == 3 else "MONOCHROME2"
    ds.PixelRepresentation = int(like.dtype.kind == "i")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = like.dtype.itemsize * 8, bits, bits - 1
    ds.NumberOfFrames = len(frames)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    return ds


def decode_frame(ds: Dataset, frame_index: int) -> np.ndarray:
    return stored_frame(ds, frame_index).values


def noise(low: int, high: int, kind: type, shape: tuple[int, ...] = (37, 53)) -> np.ndarray:
    values = np.random.default_rng(7).integers(low, high, shape, endpoint=True).astype(kind)
    values.reshape(-1)[:2] = low, high
    return values


def jpeg_lossless(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=values.dtype.itemsize * 8))


@pytest.mark.parametrize(
    ("encode", "syntax", "codec"),
    [
        (imagecodecs.jpegls_encode, uid.JPEGLSLossless, "jpeg-ls"),
        (lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="J2K"), uid.JPEG2000Lossless, "jpeg2k"),
        (lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="JP2"), uid.JPEG2000Lossless, "jpeg2k"),
        (lambda a: imagecodecs.htj2k_encode(a, reversible=True), uid.HTJ2KLossless, "htj2k"),
        (jpeg_lossless, uid.JPEGLosslessSV1, "jpeg-lossless"),
    ],
    ids=["jpeg-ls", "j2k", "jp2", "htj2k", "jpeg-lossless"],
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_codecs_are_exact(encode: Any, syntax: str, codec: str, signed: bool, bits: int) -> None:
    """Signed samples go in as their two's complement, as encoders without a sign have it."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    frames = [noise(low, high, np.dtype(kind).type), noise(low, high, np.dtype(kind).type)[::-1].copy()]
    unsigned = [
        (frame.view(kind.replace("i", "u")) & ((1 << bits) - 1)).astype(kind.replace("i", "u")) for frame in frames
    ]
    streams = [bytes(encode(frame)) for frame in unsigned]
    info = parse_codestream(streams[0])
    assert info is not None
    assert (info.codec, info.rows, info.columns, info.lossless) == (codec, 37, 53, True)
    ds = compressed(streams, frames[0], syntax, bits=bits)
    for i, frame in enumerate(frames):
        decoded = decode_frame(ds, i)
        assert decoded.dtype == frame.dtype
        assert np.array_equal(decoded, frame)


def test_a_jpeg_ls_that_ends_anywhere_in_its_headers_is_no_codestream() -> None:
    stream = bytes(imagecodecs.jpegls_encode(np.zeros((4, 4), np.uint8)))
    scan = stream.index(b"\xff\xda")
    for end in range(2, scan + 10):
        assert parse_codestream(stream[:end]) is None
    assert parse_codestream(stream[: scan + 10]) is not None


@pytest.mark.parametrize("representation", [0, 1])
def test_a_signed_codestream_is_signed(representation: int) -> None:
    values = noise(-2000, 2000, np.int16)
    for stream in (imagecodecs.jpeg2k_encode(values, level=0), imagecodecs.htj2k_encode(values, reversible=True)):
        ds = compressed([bytes(stream)], values, uid.JPEG2000Lossless, bits=16, PixelRepresentation=representation)
        assert np.array_equal(decode_frame(ds, 0), values)


def test_lossy_htj2k_does_not_wrap() -> None:
    """White stays white: OpenJPH through imagecodecs turned 255 into 0 on irreversible codestreams."""
    white = np.full((64, 64), 255, np.uint8)
    white[20:40, 20:40] = 0
    stream = bytes(imagecodecs.htj2k_encode(white, level=0.05, reversible=False))
    info = parse_codestream(stream)
    assert info is not None
    assert (info.codec, info.lossless) == ("jpeg2k", False)
    decoded = decode_frame(compressed([stream], white, uid.HTJ2K, bits=8), 0)
    assert np.abs(decoded.astype(int) - white).max() < 60


def test_lossy_overshoot_is_clipped_to_bits_stored() -> None:
    """A 12-bit JPEG of a 10-bit image may decode to 1024: it means 1023, not 0."""
    values = noise(0, 1, np.uint16) * 1023
    stream = imagecodecs.jpeg8_encode(values, level=50, bitspersample=12)
    raw = imagecodecs.jpeg8_decode(stream)
    assert raw.max() > 1023  # there is something to clip
    decoded = decode_frame(compressed([bytes(stream)], values, uid.JPEGExtended12Bit, bits=10), 0)
    assert np.array_equal(decoded, np.minimum(raw, 1023))


def test_unused_bits_of_a_lossless_codestream_are_cleared() -> None:
    values = noise(0, 4095, np.uint16)
    stream = jpeg_lossless(values | 0x8000)
    assert np.array_equal(decode_frame(compressed([bytes(stream)], values, uid.JPEGLossless, bits=12), 0), values)


@pytest.mark.parametrize(
    ("syntax", "photometric"),
    [(uid.JPEGBaseline8Bit, "RGB"), (uid.JPEGBaseline8Bit, "YBR_FULL_422"), (uid.JPEG2000, "RGB")],
)
def test_subsampled_jpeg_colour_is_ybr_whatever_is_declared(syntax: str, photometric: str) -> None:
    """Neither photometric interpretation nor transfer syntax need be right."""
    values = np.zeros((32, 32, 3), np.uint8)
    values[:, :, 0] = 200
    stream = bytes(imagecodecs.jpeg8_encode(values, level=95, subsampling="422", outcolorspace="YCBCR"))
    frame = stored_frame(compressed([stream], values, syntax, bits=8, PhotometricInterpretation=photometric), 0)
    assert frame.photometric == "RGB"
    assert np.abs(frame.values.astype(int) - values).max() <= 3


def test_ybr_in_a_lossless_codec_is_left_to_the_renderer() -> None:
    values = noise(0, 255, np.uint8, (20, 30, 3))
    stream = bytes(imagecodecs.jpegls_encode(values))
    ds = compressed([stream], values, uid.JPEGLSLossless, bits=8, PhotometricInterpretation="YBR_FULL")
    frame = stored_frame(ds, 0)
    assert frame.photometric == "YBR_FULL"
    assert np.array_equal(frame.values, values)


def test_the_component_transform_of_jpeg_2000_is_undone() -> None:
    values = noise(0, 255, np.uint8, (20, 30, 3))
    stream = bytes(imagecodecs.jpeg2k_encode(values, level=0, mct=True, codecformat="J2K"))
    info = parse_codestream(stream)
    assert info is not None and info.transformed
    ds = compressed([stream], values, uid.JPEG2000Lossless, bits=8, PhotometricInterpretation="YBR_RCT")
    frame = stored_frame(ds, 0)
    assert frame.photometric == "RGB"
    assert np.array_equal(frame.values, values)


def test_sizes_that_disagree_are_refused() -> None:
    values = noise(0, 255, np.uint8)
    stream = bytes(imagecodecs.jpegls_encode(values))
    with pytest.raises(PixelDecodeError, match=r"37, 53.*the header declares \(38, 53\)"):
        decode_frame(compressed([stream], values, uid.JPEGLSLossless, bits=8, Rows=38), 0)


@pytest.mark.parametrize("frame", [b"", b"\0\0", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51\0", b"GIF89a"])
def test_no_codestream(frame: bytes) -> None:
    assert parse_codestream(frame) is None
    ds = compressed([frame or b"--"], noise(0, 255, np.uint8), uid.JPEGBaseline8Bit, bits=8)
    with pytest.raises(DicomError):
        decode_frame(ds, 0)


@pytest.mark.parametrize("encode", [imagecodecs.jpegls_encode, jpeg_lossless], ids=["jls", "jpeg"])
def test_a_cut_codestream_is_one_of_our_errors_or_a_picture(encode: Any) -> None:
    values = noise(0, 4095, np.uint16)
    stream = bytes(encode(values))
    for length in range(2, len(stream), 97):
        ds = compressed([stream[:length] + bytes(length % 2)], values, uid.JPEGLSLossless, bits=16)
        with contextlib.suppress(DicomError):
            assert decode_frame(ds, 0).shape == values.shape


def test_jpeg_ls_without_an_end_is_refused_before_decoding() -> None:
    """CharLS would look for the next one in the padding's zeros for seconds."""
    values = noise(0, 4095, np.uint16)
    stream = bytes(imagecodecs.jpegls_encode(values))
    with pytest.raises(PixelDecodeError, match="no end marker"):
        decode_frame(compressed([stream[:99]], values, uid.JPEGLSLossless, bits=12), 0)
    padded = compressed([stream + b"\0\0"], values, uid.JPEGLSLossless, bits=12)
    assert np.array_equal(decode_frame(padded, 0), values)


def test_unknown_transfer_syntaxes_are_refused() -> None:
    values = noise(0, 255, np.uint8)
    for syntax in (uid.MPEG2MPML, "1.2.3.4"):
        ds = compressed([b"\0\0\1\xb3"], values, syntax, bits=8)
        with pytest.raises(UnsupportedImageError, match="starts with 000001b3"):
            decode_frame(ds, 0)
    ds = compressed([b"--"], values, "1.2.3.4", bits=8)
    ds.PixelData = values.tobytes()
    ds["PixelData"].is_undefined_length = False
    with pytest.raises(UnsupportedImageError, match=r"the transfer syntax .* is private; no decoder is known for it"):
        decode_frame(ds, 0)


def test_pydicom_is_left_as_it_was() -> None:
    before = get_decoder(uid.JPEGLSLossless).available_plugins
    values = noise(0, 255, np.uint8)
    decode_frame(compressed([bytes(imagecodecs.jpegls_encode(values))], values, uid.JPEGLSLossless, bits=8), 0)
    assert get_decoder(uid.JPEGLSLossless).available_plugins == before


def test_an_os_error_keeps_its_path_to_itself() -> None:
    with pytest.raises(PixelDecodeError) as caught, library_errors("reading"):
        open("/nowhere/DOE^JANE.dcm", "rb")  # noqa: PTH123, SIM115
    assert "JANE" not in str(caught.value)
    assert "No such file" in str(caught.value)
