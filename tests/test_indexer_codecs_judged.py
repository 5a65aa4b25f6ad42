"""Lossless codecs are exact: depths, signs, predictors, restarts, scans, interleaves and boxes.

By encoders and judges that share no code with the decoder's binding: DCMTK's dcmcjpeg, dcmcjpls and their inverses,
OpenJPEG's programs, libjxl's, and a plain encoder of lossless JPEG.

Needs `apt-get install dcmtk libopenjp2-tools libjxl-tools`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from lossless_jpeg import lossless_jpeg
from pydicom import uid
from test_indexer_codecs import compressed
from test_indexer_render_made import made

from indexer.render.codecs import stored_frame
from indexer.render.codestreams import parse_codestream
from retrieval.errors import UnsupportedImageError

pytestmark = pytest.mark.filterwarnings("ignore")

DEPTHS = range(2, 17)


def run(program: str, *arguments: object) -> None:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("MEDLENS_REQUIRE_SHARED") == "1":
            pytest.fail(f"MEDLENS_REQUIRE_SHARED=1, but {program} is not installed")
        pytest.skip(f"{program} is not installed")
    subprocess.run([found, *map(str, arguments)], check=True, capture_output=True, timeout=60)


def values_of(bits: int, *, signed: bool = False, shape: tuple[int, ...] = (21, 27)) -> np.ndarray:
    """A ramp with noise below it and both ends of the range in it."""
    rng = np.random.default_rng(bits)
    top = (1 << bits) - 1
    values = rng.integers(0, top + 1, shape)
    values[: shape[0] // 2] = (np.arange(shape[1]) * top // shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    values.reshape(-1)[:2] = top, 0
    if signed:
        values -= 1 << (bits - 1)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def decoded(stream: bytes, like: np.ndarray, syntax: str, bits: int, **elements: Any) -> np.ndarray:
    return stored_frame(compressed([stream], like, syntax, bits=bits, **elements), 0).values


def native_file(values: np.ndarray, bits: int, path: Path) -> Path:
    ds = made(values, bits=bits, **({"PlanarConfiguration": 0} if values.ndim == 3 else {}))
    ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3"
    ds.save_as(path, enforce_file_format=True)
    return path


def first_frame(path: Path) -> np.ndarray:
    return stored_frame(pydicom.dcmread(path), 0).values


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_of_every_predictor_restart_and_scan(bits: int, predictor: int) -> None:
    for components, scans in ((1, 1), (3, 1), (3, 3)):
        values = values_of(bits, shape=(11, 13) if components == 1 else (11, 13, 3))
        for restart_rows in (0, 1, 4):
            for shift in (0, 1):
                shifted = (values >> shift) << shift
                stream = lossless_jpeg(
                    shifted, bits, predictor=predictor, shift=shift, restart_rows=restart_rows, scans=scans
                )
                assert np.array_equal(decoded(stream, shifted, uid.JPEGLossless, bits), shifted)


@pytest.mark.parametrize(("bits", "components"), [(8, 1), (12, 1), (16, 1), (8, 3)])
def test_dcmtk_reads_the_plain_encoder_as_medlens_does(bits: int, components: int, tmp_path: Path) -> None:
    values = values_of(bits, shape=(11, 13) if components == 1 else (11, 13, 3))
    for predictor, restart_rows in ((1, 0), (4, 1), (7, 3)):
        stream = lossless_jpeg(values, bits, predictor=predictor, restart_rows=restart_rows, scans=components)
        ds = compressed([stream], values, uid.JPEGLossless, bits=bits, PlanarConfiguration=0)
        ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3"
        ds.save_as(tmp_path / "in.dcm", enforce_file_format=True)
        run("dcmdjpeg", "-q", "+px", tmp_path / "in.dcm", tmp_path / "out.dcm")
        assert np.array_equal(first_frame(tmp_path / "out.dcm"), values)
        assert np.array_equal(first_frame(tmp_path / "in.dcm"), values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_dcmtk_s_lossless_jpeg(bits: int, signed: bool, tmp_path: Path) -> None:
    values = values_of(bits, signed=signed)
    source = native_file(values, bits, tmp_path / "in.dcm")
    for predictor in range(1, 8):
        run("dcmcjpeg", "-q", "+el", "+sv", predictor, source, tmp_path / "out.dcm")
        assert np.array_equal(first_frame(tmp_path / "out.dcm"), values)
    run("dcmcjpeg", "-q", "+el", "+sv", 2, "+pt", 3, source, tmp_path / "out.dcm")
    run("dcmdjpeg", "-q", tmp_path / "out.dcm", tmp_path / "back.dcm")
    assert np.array_equal(first_frame(tmp_path / "out.dcm"), first_frame(tmp_path / "back.dcm"))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_dcmtk_s_jpeg_ls(bits: int, signed: bool, tmp_path: Path) -> None:
    shapes = [(21, 27), (21, 27, 3)] if bits == 8 and not signed else [(21, 27)]
    for shape in shapes:
        values = values_of(bits, signed=signed, shape=shape)
        source = native_file(values, bits, tmp_path / "in.dcm")
        for options in (["+il"], ["+is"], ["+in"], ["+t1", 10, "+t2", 20, "+t3", 40], ["+rs", 31]):
            run("dcmcjpls", "-q", "+el", *options, source, tmp_path / "out.dcm")
            assert np.array_equal(first_frame(tmp_path / "out.dcm"), values), options
        if not signed:
            run("dcmcjpls", "-q", "+en", "+md", 2, source, tmp_path / "out.dcm")
            run("dcmdjpls", "-q", tmp_path / "out.dcm", tmp_path / "back.dcm")
            assert np.array_equal(first_frame(tmp_path / "out.dcm"), first_frame(tmp_path / "back.dcm"))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (uid.JPEGLSLossless, lambda v, bits: imagecodecs.jpegls_encode(v)),
        (uid.JPEG2000Lossless, lambda v, bits: imagecodecs.jpeg2k_encode(v, level=0, bitspersample=bits)),
        (uid.HTJ2KLossless, lambda v, bits: imagecodecs.htj2k_encode(v, reversible=True)),
        ("1.2.840.10008.1.2.4.110", lambda v, bits: imagecodecs.jpegxl_encode(v, lossless=True, bitspersample=bits)),
    ],
    ids=["jpeg-ls", "jp2", "htj2k", "jpeg-xl"],
)
def test_every_depth_is_exact(syntax: str, encode: Any, bits: int, signed: bool) -> None:
    """Signed samples go in as their two's complement, grey and colour."""
    for shape in ((21, 27), (21, 27, 3)):
        values = values_of(bits, signed=signed, shape=shape)
        kind = values.dtype.str.replace("i", "u")
        unsigned = (values.view(kind) & ((1 << bits) - 1)).astype(kind)
        assert np.array_equal(decoded(bytes(encode(unsigned, bits)), values, syntax, bits), values)


def planes(values: np.ndarray) -> bytes:
    """As opj_compress and opj_decompress have raw pictures, big endian."""
    ordered = values.transpose(2, 0, 1) if values.ndim == 3 else values
    return ordered.astype(ordered.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8, 12, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_openjpeg_s_jpeg_2000(bits: int, signed: bool, colour: bool, tmp_path: Path) -> None:
    values = values_of(bits, signed=signed, shape=(64, 80, 3) if colour else (64, 80))
    (tmp_path / "in.raw").write_bytes(planes(values))
    form = f"80,64,{3 if colour else 1},{bits},{'s' if signed else 'u'}"
    for options in ([], ["-t", "32,32"], ["-p", "RPCL", "-n", "3", "-SOP", "-EPH"], ["-ROI", "c=0,U=5"], ["-M", "63"]):
        for suffix in ("j2k", "jp2"):
            out = tmp_path / f"out.{suffix}"
            run("opj_compress", "-i", tmp_path / "in.raw", "-o", out, "-F", form, *options)
            stream = out.read_bytes()
            assert np.array_equal(decoded(stream, values, uid.JPEG2000Lossless, bits), values), options


@pytest.mark.parametrize("bits", [2, 8, 11, 16])
def test_htj2k_as_openjpeg_reads_it(bits: int, tmp_path: Path) -> None:
    values = values_of(bits, shape=(64, 80))
    stream = bytes(imagecodecs.htj2k_encode(values, reversible=True))
    (tmp_path / "in.j2k").write_bytes(stream)
    run("opj_decompress", "-i", tmp_path / "in.j2k", "-o", tmp_path / "out.rawl")
    judge = np.fromfile(tmp_path / "out.rawl", values.dtype.newbyteorder("<")).reshape(values.shape)
    assert np.array_equal(decoded(stream, values, uid.HTJ2KLossless, bits), judge)
    assert np.array_equal(judge, values)


@pytest.mark.parametrize("shape", [(37, 53), (48, 64), (64, 64, 3), (700, 33)])
def test_libjxl_s_jpeg_xl(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = values_of(8, shape=shape)
    kind = "P6" if len(shape) == 3 else "P5"
    (tmp_path / "in.ppm").write_bytes(f"{kind}\n{shape[1]} {shape[0]}\n255\n".encode() + values.tobytes())
    for options in (["-d", 0], ["-d", 0, "--container=1"], ["-d", 0, "-e", 3], ["-d", 1]):
        run("cjxl", tmp_path / "in.ppm", tmp_path / "out.jxl", *options)
        run("djxl", tmp_path / "out.jxl", tmp_path / "back.ppm")
        back = (tmp_path / "back.ppm").read_bytes()[-values.size :]
        judge = np.frombuffer(back, np.uint8).reshape(shape).astype(int)
        stream = (tmp_path / "out.jxl").read_bytes()
        got = decoded(stream, values, "1.2.840.10008.1.2.4.112", 8)
        info = parse_codestream(stream)
        assert info is not None
        lossless = options[1] == 0
        assert (info.rows, info.columns, info.lossless) == (*shape[:2], lossless)
        assert np.abs(got.astype(int) - judge).max() <= (0 if lossless else 1)


@pytest.mark.parametrize(
    ("declared", "boxed", "stored", "shown"),
    [
        ("YBR_FULL", 18, "YBR_FULL", "YBR_FULL"),
        ("YBR_FULL", 16, "YBR_FULL", "YBR_FULL"),
        ("YBR_FULL", 16, "RGB", "RGB"),
        ("RGB", 16, "RGB", "RGB"),
        ("RGB", 18, "RGB", "RGB"),
        ("RGB", 18, "YBR_FULL", "YBR_FULL"),
        ("YBR_RCT", 18, "YBR_FULL", "YBR_FULL"),
    ],
)
def test_boxes_never_convert_colour(declared: str, boxed: int, stored: str, shown: str) -> None:
    """Samples come out as they went in; where header and boxes contradict each other, their look decides."""
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[4:20, 4:20], rgb[16:30, 16:30] = (220, 20, 20), (20, 40, 230)
    to_ybr = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    samples = rgb if stored == "RGB" else np.round(rgb @ to_ybr.T + [0, 128, 128]).astype(np.uint8)
    stream = bytearray(imagecodecs.jpeg2k_encode(samples, level=0, mct=False, codecformat="JP2"))
    place = stream.index(b"colr") + 7
    stream[place : place + 4] = boxed.to_bytes(4, "big")
    said: list[str] = []
    ds = compressed([bytes(stream)], samples, uid.JPEG2000Lossless, bits=8, PhotometricInterpretation=declared)
    frame = stored_frame(ds, 0, warn=said.append)
    assert frame.photometric == shown
    assert np.array_equal(frame.values, samples)
    agreed = declared == "YBR_RCT" or (declared == "RGB") == (boxed == 16)
    assert bool(said) == (not agreed)


def jls_with_mapping_tables() -> bytes:
    stream = bytearray(imagecodecs.jpegls_encode(values_of(8)))
    scan = stream.index(b"\xff\xda")
    stream[scan + 6] = 1  # the first component's mapping table
    return bytes(stream)


def subsampled_j2k() -> bytes:
    stream = bytearray(
        imagecodecs.jpeg2k_encode(values_of(8, shape=(64, 64, 3)), level=0, codecformat="J2K", mct=False)
    )
    place = stream.index(b"\xff\x51") + 40
    stream[place + 3 + 1 : place + 3 + 3] = b"\2\2"
    return bytes(stream)


def marked(stream: bytes, marker: int) -> bytes:
    """The same JPEG with another kind of frame."""
    data = bytearray(stream)
    data[data.index(b"\xff\xc3") + 1] = marker
    return bytes(data)


@pytest.mark.parametrize(
    ("stream", "syntax", "said"),
    [
        (jls_with_mapping_tables(), uid.JPEGLSLossless, "mapping tables"),
        (subsampled_j2k(), uid.JPEG2000Lossless, "subsampled components"),
        (marked(lossless_jpeg(values_of(8), 8), 0xCB), uid.JPEGLossless, "arithmetic coding"),
        (marked(lossless_jpeg(values_of(8), 8), 0xC7), uid.JPEGLossless, "hierarchical"),
    ],
)
def test_what_no_decoder_is_known_to_do_right_is_refused_by_name(stream: bytes, syntax: str, said: str) -> None:
    info = parse_codestream(stream)
    assert info is not None
    like = np.zeros((info.rows, info.columns) + ((3,) if info.components == 3 else ()), np.uint8)
    with pytest.raises(UnsupportedImageError, match=said):
        decoded(stream, like, syntax, 8)
