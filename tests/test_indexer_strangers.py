"""Kinds of odd files that strangers' programs write, many variants of each; the small real ones are in
test_indexer_cases.py."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from test_indexer_codecs import compressed
from test_indexer_render_made import RAMP, lut_item, made

from indexer.dicom.header import read_record
from indexer.dicom.safe_read import Limits, open_dicom
from indexer.render.aspect import pixel_aspect, squared
from indexer.render.codecs import stored_frame
from indexer.render.frame import render_frame
from indexer.render.precheck import check_before_decoding
from retrieval.errors import DecodeGuardError, DicomError, PixelDecodeError

pytestmark = pytest.mark.filterwarnings("ignore")

GREY = (np.add.outer(np.arange(48), np.arange(64)) * 2).astype(np.uint8)


def written(ds: Dataset) -> bytes:
    ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3"
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, "1.2.3"
    ds.preamble = bytes(128)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, implicit_vr=False, little_endian=True, force_encoding=True, enforce_file_format=False)
    return out.getvalue()


def read(data: bytes, path: Path) -> tuple[list[np.ndarray], list[str]]:
    """The frames as they are indexed, and what was said."""
    (path / "file.dcm").write_bytes(data)
    said: list[str] = []
    ds = open_dicom(path / "file.dcm", warn=said.append)
    pixels = check_before_decoding(ds, warn=said.append)
    assert pixels is not None
    return [render_frame(ds, n + 1, pixels=pixels, warn=said.append) for n in range(pixels.frames)], said


def longs(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}L", *numbers)


def items(fragments: list[bytes], table: bytes = b"") -> bytes:
    return b"".join(b"\xfe\xff\0\xe0" + longs(len(each)) + each for each in [table, *fragments])


def jpeg(values: np.ndarray) -> bytes:
    stream = bytes(imagecodecs.jpeg8_encode(values, level=95))
    return stream + bytes(len(stream) % 2)


# Offset tables and fragments

FRAMES = [GREY, GREY[::-1].copy(), 255 - GREY]
STREAMS = [jpeg(frame) for frame in FRAMES]
QUARTERS = [part for s in STREAMS for part in (s[: len(s) // 4 * 2], s[len(s) // 4 * 2 :])]


def places(fragments: list[bytes]) -> list[int]:
    return [sum(8 + len(each) for each in fragments[:i]) for i in range(len(fragments))]


@pytest.mark.parametrize("fragments", [STREAMS, QUARTERS], ids=["a fragment a frame", "two fragments a frame"])
@pytest.mark.parametrize(
    "table",
    [
        b"",
        longs(*places(STREAMS)),
        longs(*places(QUARTERS)),
        longs(*places(QUARTERS)[::2]),
        longs(*places(QUARTERS)[::-2]),
        longs(0, 0, 0),
        longs(8, 16, 24),
        longs(2**32 - 1),
        longs(0),
        b"\0\0",
    ],
)
def test_each_frame_whatever_the_offset_table_says(fragments: list[bytes], table: bytes, tmp_path: Path) -> None:
    ds = compressed(STREAMS, GREY, uid.JPEGBaseline8Bit, bits=8)
    ds.PixelData = items(fragments, table)
    ds["PixelData"].is_undefined_length = True
    pictures, said = read(written(ds), tmp_path)
    assert [np.abs(a.astype(int) - b).max() < 6 for a, b in zip(pictures, FRAMES, strict=True)] == [True] * 3
    true = longs(*places(STREAMS if fragments is STREAMS else QUARTERS)[:: 1 if fragments is STREAMS else 2])
    assert bool(said) == (table not in (b"", true))


@pytest.mark.parametrize(("declared", "there"), [(5, 3), (2, 2), (1, 1), (3, 3)])
def test_more_or_fewer_frames_than_declared(declared: int, there: int, tmp_path: Path) -> None:
    ds = compressed(STREAMS, GREY, uid.JPEGBaseline8Bit, bits=8, NumberOfFrames=declared)
    pictures, said = read(written(ds), tmp_path)
    assert len(pictures) == there
    assert all(np.abs(a.astype(int) - b).max() < 6 for a, b in zip(pictures, FRAMES, strict=False))
    assert bool(said) == (declared != 3)


def test_frames_that_can_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    """Deflated frames begin with nothing in particular: five fragments for three frames need a table that fits."""
    parts = [zlib.compress(frame.tobytes())[2:-4] for frame in FRAMES]
    parts = [part + bytes(len(part) % 2) for part in parts]
    split = [parts[0][:100], parts[0][100:], parts[1], parts[2][:50], parts[2][50:]]
    ds = compressed(parts, GREY, "1.2.840.10008.1.2.8.1", bits=8)
    right = [places(split)[i] for i in (0, 2, 3)]
    for table, fits in ((longs(*right), True), (longs(0, right[1] + 2, right[2]), False), (b"", False)):
        ds.PixelData = items(split, table)
        ds["PixelData"].is_undefined_length = True
        if fits:
            pictures, _ = read(written(ds), tmp_path)
            assert all(np.array_equal(a, b) for a, b in zip(pictures, FRAMES, strict=True))
        else:
            with pytest.raises(PixelDecodeError, match="no offset table to assign them"):
                read(written(ds), tmp_path)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        bytes(8),
        bytes(4000),
        b"\xff" * 64,
        b"\x12\x34" * 99,
        b"\xfe\xff\x0d\xe0" + bytes(4),
        b"\xfe\xff\xdd\xe0" + longs(4) + b"abcd",
        b"\xfe\xff\xdd\xe0" + bytes(4) + bytes(3_000_000),
    ],
)
def test_whatever_ends_the_pixel_data(tail: bytes, tmp_path: Path) -> None:
    data = written(compressed([STREAMS[0]], GREY, uid.JPEGBaseline8Bit, bits=8))
    end = data.rindex(b"\xfe\xff\xdd\xe0")
    pictures, said = read(data[:end] + tail, tmp_path)
    assert np.abs(pictures[0].astype(int) - GREY).max() < 6
    assert any("no end delimiter" in each for each in said) == (tail[:4] != b"\xfe\xff\xdd\xe0")


def test_a_fragment_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    """Its codestream is whole, or it is not."""
    data = written(compressed([STREAMS[0]], GREY, uid.JPEGBaseline8Bit, bits=8))
    place = data.rindex(longs(len(STREAMS[0])), 0, data.rindex(STREAMS[0][:20]))
    end = data.rindex(b"\xfe\xff\xdd\xe0")
    longer = data[:place] + longs(len(STREAMS[0]) + 5000) + data[place + 4 : end]
    pictures, said = read(longer, tmp_path)
    assert np.abs(pictures[0].astype(int) - GREY).max() < 6 and said
    with pytest.raises(PixelDecodeError, match="no complete fragment"):
        read(longer[:-300], tmp_path)


# VRs that do not exist


def pixel_vr_at(data: bytes) -> int:
    return data.rindex(b"\xe0\x7f\x10\0OW") + 4


@pytest.mark.parametrize("vr", [b"ox", b"ob", b"OX", b"QQ", b"\0\0", b"??", b"  ", b"\x06\0"])
@pytest.mark.parametrize("padding", [0, 64])
def test_pixel_data_of_any_vr(vr: bytes, padding: int, tmp_path: Path) -> None:
    data = written(made(RAMP, bits=12, WindowCenter=2048, WindowWidth=4096))
    place = pixel_vr_at(data)
    whole, _ = read(data, tmp_path)
    pictures, said = read(data[:place] + vr + data[place + 2 :] + bytes(padding), tmp_path)
    assert np.array_equal(pictures[0], whole[0])
    assert said == ["(7FE0,0010) has a VR that does not exist: read as OW"]


@pytest.mark.parametrize("vr", [b"\x06\0", b"  ", b"--", b"lo", b"XX", b"\xff\xff", b"\0\0", b"L\0"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_element_of_any_vr_costs_nothing_beside_it(vr: bytes, nested: bool, tmp_path: Path) -> None:
    ds = made(RAMP, bits=12)
    ds.PatientID = "ABC123"
    ds.OtherPatientIDs = "ABC124"
    if nested:
        item = Dataset()
        item.PatientID, item.OtherPatientIDs, item.EthnicGroup = "ABC123", "ABC124", "X" * 2000
        ds.OtherPatientIDsSequence = Sequence([item])
    data = written(ds)
    whole, _ = read(data, tmp_path)
    place = data.rindex(b"\x10\0\0\x10LO") + 4
    pictures, said = read(data[:place] + vr + data[place + 2 :], tmp_path)
    assert np.array_equal(pictures[0], whole[0])
    assert said == ["(0010,1000) has a VR that does not exist: read as LO"]
    assert open_dicom(tmp_path / "file.dcm").Rows == 16


def test_an_element_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    ds = made(RAMP, bits=12)
    ds.OtherPatientIDs = "ABC124"
    data = written(ds)
    place = data.index(b"\x10\0\0\x10LO") + 4
    with pytest.raises(DicomError, match=r"\(0010,1000\) has the VR 3f3f, which does not exist"):
        read(data[:place] + b"??\x99\x99" + data[place + 4 :], tmp_path)


def test_a_change_to_implicit_vr_is_still_understood(tmp_path: Path) -> None:
    """Writers do change in the middle; pydicom reads on, and so must what mends VRs."""
    ds = made(RAMP, bits=12, WindowCenter=2048, WindowWidth=4096)
    data = written(ds)
    whole, _ = read(data, tmp_path)
    place = pixel_vr_at(data)
    implicit = data[:place] + longs(RAMP.nbytes) + data[place + 8 :]
    pictures, said = read(implicit, tmp_path)
    assert np.array_equal(pictures[0], whole[0])
    assert said == []


@pytest.mark.parametrize("inner_implicit", [False, True])
@pytest.mark.parametrize("frames", [1, 700])
def test_functional_groups_as_un(inner_implicit: bool, frames: int, tmp_path: Path) -> None:
    """Above 64 kB pydicom leaves UN as bytes. Frames have windows of their own."""
    values = np.tile(np.array([[50, 100]], np.uint16), (frames, 1, 1))
    ds = made(values, NumberOfFrames=frames)
    groups = []
    for n in range(frames):
        group, voi = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = 50 + 50 * (n % 2), 100, "LINEAR_EXACT"
        voi.WindowCenterWidthExplanation = "x" * 60
        group.FrameVOILUTSequence = Sequence([voi])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    plain = written(ds)
    inside = Dataset()
    inside.PerFrameFunctionalGroupsSequence = Sequence(groups)
    out = pydicom.filebase.DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, inner_implicit
    pydicom.filewriter.write_dataset(out, inside)
    value = out.getvalue()[8 if inner_implicit else 12 :]
    start, stop = plain.index(b"\0\x52\x30\x92SQ"), plain.index(b"\xe0\x7f\x10\0OW")
    unknown = plain[:start] + b"\0\x52\x30\x92UN\0\0" + longs(len(value)) + value + plain[stop:]
    pictures, said = read(unknown, tmp_path)
    assert [picture.tolist() for picture in pictures[:2]] == [[[128, 255]], [[0, 128]]][:frames]
    assert len(pictures) == frames
    assert said == []


def test_what_functional_groups_may_cost(tmp_path: Path) -> None:
    """Elements in large groups are counted apart, and bounded."""
    ds = made(np.zeros((2000, 1, 2), np.uint16), NumberOfFrames=2000)
    group, content = Dataset(), Dataset()
    content.FrameComments = "x" * 30
    group.FrameContentSequence = Sequence([content])
    ds.PerFrameFunctionalGroupsSequence = Sequence([group] * 2000)
    path = tmp_path / "many.dcm"
    path.write_bytes(written(ds))
    found = open_dicom(path, Limits(elements=100))
    assert len(found.PerFrameFunctionalGroupsSequence) == 2000
    assert found.PerFrameFunctionalGroupsSequence[1999] == group
    assert found.PerFrameFunctionalGroupsSequence == ds.PerFrameFunctionalGroupsSequence
    with pytest.raises(DecodeGuardError, match="more than 7999 data elements in functional groups"):
        open_dicom(path, Limits(group_elements=7999))
    with pytest.raises(DecodeGuardError, match="nests sequences more than 1 levels deep"):
        open_dicom(path, Limits(nesting=1))


# Lookup tables


@pytest.mark.parametrize("entries", [4095, 4000, 2048, 2047, 1000, 2])
@pytest.mark.parametrize("window", [False, True])
def test_a_voi_lut_of_any_length(entries: int, window: bool) -> None:
    """Each entry there is is used, the last one stands for the rest; a window beside it is better."""
    item = lut_item([16 * i for i in range(entries)], 0, 16)
    item.LUTDescriptor = [4096, 0, 16]
    ds = made(RAMP, bits=12, VOILUTSequence=Sequence([item]))
    if window:
        ds.WindowCenter, ds.WindowWidth = 2048, 4096
    top = 65535 if 16 * (entries - 1) >= 1 << 12 else 16 * (entries - 1)
    short = np.floor(np.minimum(RAMP, entries - 1) * 16.0 / top * 255 + 0.5)
    full = np.floor((RAMP - 2047.5) / 4095 * 255 + 128)
    said: list[str] = []
    assert np.abs(render_frame(ds, warn=said.append) - (full if window else short)).max() <= 0
    assert any("fewer entries" in each for each in said)


@pytest.mark.parametrize(("top", "bits"), [(1023, 16), (4095, 16), (16383, 16), (32767, 16), (1023, 12), (255, 16)])
def test_the_largest_entry_is_white_where_fewer_bits_are_used(top: int, bits: int) -> None:
    ds = made(RAMP, bits=12, VOILUTSequence=Sequence([lut_item([i * top // 4095 for i in range(4096)], 0, bits)]))
    picture = render_frame(ds)
    assert np.abs(picture.astype(int) - np.round(RAMP / 4095 * 255)).max() <= 1
    dark = made(RAMP, bits=12, VOILUTSequence=Sequence([lut_item([i * 3 // 4 for i in range(4096)], 0, 12)]))
    assert render_frame(dark).max() == 191  # 12 bits are used: its white is meant to be grey


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("signed", [False, True])
def test_the_first_value_of_a_lut_has_the_sign_of_the_pixels(vr: str, signed: bool) -> None:
    first = -20000 if signed else 40000
    values = (np.arange(256) * 16 + first).reshape(16, 16).astype(np.int16 if signed else np.uint16)
    item = lut_item([16 * i for i in range(4096)], 0, 16)
    item.add_new(0x00283002, vr, [4096, first - 65536 * (first > 32767) if vr == "SS" else first & 0xFFFF, 16])
    picture = render_frame(made(values, VOILUTSequence=Sequence([item])))
    assert (picture[0, 0], picture[8, 0], picture[15, 15]) == (0, 128, 254)


@pytest.mark.parametrize(
    "broken",
    [
        {"LUTDescriptor": [4096, 0, 0]},
        {"LUTDescriptor": [4096, 0, 17]},
        {"LUTDescriptor": [4096, 0]},
        {"LUTDescriptor": None},
        {"LUTData": b""},
        {"LUTData": bytes(8192)},
        {"LUTData": None},
    ],
)
def test_a_lut_that_can_not_be_used_costs_no_picture(broken: dict[str, Any]) -> None:
    item = lut_item([4095 - i for i in range(4096)], 0, 12)
    for keyword, value in broken.items():
        if value is None:
            delattr(item, keyword)
        else:
            item[keyword].value = value
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    second = lut_item([4095 - i for i in range(4096)], 0, 12)
    said: list[str] = []
    for more, items_there in ((window, [item]), ({}, [item]), ({}, [item, second])):
        ds = made(RAMP, bits=12, VOILUTSequence=Sequence(items_there), **more)
        without = made(RAMP, bits=12, **more)
        if len(items_there) > 1:
            without.VOILUTSequence = Sequence([second])
        assert np.array_equal(render_frame(ds, warn=said.append), render_frame(without))
    assert len(said) == 3


@pytest.mark.parametrize("kept", [512, 510, 300, 256, 128])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_of_any_length(kept: int, bits: int) -> None:
    """Words of equal bytes. Where 8 bits are declared and no more bytes than entries are there, they are bytes."""
    ds = made(np.arange(256, dtype=np.uint8).reshape(16, 16), bits=8, PhotometricInterpretation="PALETTE COLOR")
    words = (np.arange(256) * 0x0101).astype("<u2").tobytes()[:kept]
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(ds, f"{colour}PaletteColorLookupTableData", words)
    said: list[str] = []
    picture = render_frame(ds, warn=said.append)
    packed = bits == 8 and kept <= 256
    index = np.arange(256) // 2 if packed else np.arange(256)
    last = (kept - 1) // 2 if packed else kept // 2 - 1
    assert picture[..., 0].reshape(-1).tolist() == np.minimum(index, last).tolist()
    assert bool(said) == (kept < (256 if packed else 512))


@pytest.mark.parametrize("suffix", ["12.1", "12.2", "12.3"])
@pytest.mark.parametrize("relationship", ["LOG", "LIN", "DISP", None])
def test_angiography_is_shown_by_its_stored_values(suffix: str, relationship: str | None) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = made(RAMP, bits=12, **window)
    ds = made(RAMP, bits=12, ModalityLUTSequence=Sequence([lut_item([65535 - 16 * i for i in range(4096)], 0, 16)]))
    scaled = made(RAMP, bits=12, RescaleSlope=2, RescaleIntercept=-1000)
    for image in (ds, scaled):
        image.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{suffix}"
        image.WindowCenter, image.WindowWidth = 2048, 4096
        if relationship:
            image.PixelIntensityRelationship = relationship
        assert np.array_equal(render_frame(image), render_frame(plain))
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    assert not np.array_equal(render_frame(ds), render_frame(plain))


# Colour that is not what it is said to be

RGB = np.zeros((20, 30, 3), np.uint8)
RGB[2:9, 3:14], RGB[8:18, 12:28] = (220, 20, 20), (20, 40, 230)
TO_YBR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
YBR = np.round(RGB @ TO_YBR.T + [0, 128, 128]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("declared", ["YBR_FULL_422", "YBR_PARTIAL_422"])
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("frames", [1, 2])
def test_4_2_2_of_three_samples_a_pixel(declared: str, planar: int, frames: int) -> None:
    for stored, name in ((RGB, "RGB"), (YBR, declared)):
        ds = made(stored, bits=8, PhotometricInterpretation=declared, PlanarConfiguration=planar)
        data = (stored.transpose(2, 0, 1) if planar else stored).tobytes()
        ds.PixelData, ds.NumberOfFrames = data * frames, frames
        said: list[str] = []
        frame = stored_frame(ds, frames - 1, warn=said.append)
        assert (frame.photometric, len(said)) == (name, 1)
        assert np.array_equal(frame.values, stored)


def test_ybr_full_of_two_samples_a_pixel() -> None:
    pairs = YBR.reshape(-1, 2, 3)
    halved = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1)
    ds = made(YBR, bits=8, PhotometricInterpretation="YBR_FULL")
    ds.PixelData = halved.tobytes()
    said: list[str] = []
    short = render_frame(ds, warn=said.append)
    ds.PhotometricInterpretation = "YBR_FULL_422"
    assert np.array_equal(short, render_frame(ds))
    assert len(said) == 1


@pytest.mark.parametrize("mark", ["none", "Adobe 0", "Adobe 1", "JFIF"])
@pytest.mark.parametrize("declared", ["RGB", "YBR_FULL"])
def test_colour_of_a_jpeg_by_its_marks_then_by_the_header(mark: str, declared: str) -> None:
    ybr = {"none": declared != "RGB", "Adobe 0": False, "Adobe 1": True, "JFIF": True}[mark]
    stored = YBR if ybr else RGB
    stream = bytes(imagecodecs.jpeg8_encode(stored, level=100, colorspace="RGB", outcolorspace="RGB"))
    for kind in (b"\xff\xe0", b"\xff\xee"):  # without any mark, and with component ids 1, 2, 3
        if (place := stream.find(kind)) >= 0:
            stream = stream[:place] + stream[place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big") :]
    for head, size in ((b"\xff\xc0", 8), (b"\xff\xda", 3)):
        place = stream.index(head) + 2 + size
        data = bytearray(stream)
        for n, letter in enumerate(b"RGB"):
            step = 3 if head == b"\xff\xc0" else 2
            assert data[place + step * n] == letter
            data[place + step * n] = n + 1
        stream = bytes(data)
    marks = {
        "none": b"",
        "Adobe 0": b"\xff\xee\0\x0eAdobe\0\x64" + bytes(5),
        "Adobe 1": b"\xff\xee\0\x0eAdobe\0\x64" + bytes(4) + b"\1",
        "JFIF": b"\xff\xe0\0\x10JFIF\0\1\1" + bytes(7),
    }
    stream = stream[:2] + marks[mark] + stream[2:]
    said: list[str] = []
    ds = compressed([stream], RGB, uid.JPEGBaseline8Bit, bits=8, PhotometricInterpretation=declared)
    frame = stored_frame(ds, 0, warn=said.append)
    assert frame.photometric == "RGB"
    assert np.abs(frame.values.astype(int) - RGB).max() < 12
    assert bool(said) == (mark == "none" and declared == "RGB")


@pytest.mark.parametrize("encode", [imagecodecs.jpegls_encode, imagecodecs.jpeg2k_encode, imagecodecs.jpegxl_encode])
def test_the_number_of_components_is_the_codestream_s(encode: Any) -> None:
    for values, like in ((GREY, np.zeros((48, 64, 3), np.uint8)), (np.stack([GREY] * 3, -1), GREY)):
        options = {"lossless": True} if encode is imagecodecs.jpegxl_encode else {}
        if encode is imagecodecs.jpeg2k_encode:
            options = {"level": 0}
        ds = compressed([bytes(encode(values, **options))], like, uid.JPEGLSLossless, bits=8)
        said: list[str] = []
        assert np.array_equal(render_frame(ds, warn=said.append), values)
        assert len(said) == 1


# Bits and bytes


@pytest.mark.parametrize("allocated", [2, 4, 9, 10, 12, 14, 20])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("frames", [1, 3])
def test_packed_bits(allocated: int, signed: bool, frames: int) -> None:
    rng = np.random.default_rng(allocated)
    low, high = (-(1 << allocated - 1), (1 << allocated - 1) - 1) if signed else (0, (1 << allocated) - 1)
    values = rng.integers(low, high + 1, (frames, 5, 7))
    bits = (values.reshape(-1, 1) >> np.arange(allocated)) & 1
    ds = made(np.zeros((frames, 5, 7), np.int16 if signed else np.uint16), bits=allocated, NumberOfFrames=frames)
    ds.BitsAllocated = allocated
    ds.PixelData = np.packbits(bits.reshape(-1).astype(np.uint8), bitorder="little").tobytes()
    for n in range(frames):
        assert np.array_equal(stored_frame(ds, n).values, values[n])


def test_bits_that_are_said_to_be_packed_and_are_not() -> None:
    ds = made(RAMP, bits=12, BitsAllocated=12)
    said: list[str] = []
    assert np.array_equal(stored_frame(ds, 0, warn=said.append).values, RAMP)
    assert len(said) == 1


@pytest.mark.parametrize("missing", [1, 2, 3, 16, 17, 60, 90])
def test_a_few_bytes_too_few(missing: int) -> None:
    """RGB of 63 columns: an odd number of bytes, which many a writer cuts to an even one."""
    values = np.random.default_rng(1).integers(1, 256, (45, 63, 3), np.uint8)
    ds = made(values, bits=8)
    ds.PixelData = ds.PixelData[: values.size - missing]
    said: list[str] = []
    if missing > 16:
        with pytest.raises(PixelDecodeError, match="truncated"):
            stored_frame(ds, 0)
        return
    flat = stored_frame(ds, 0, warn=said.append).values.reshape(-1)
    assert np.array_equal(flat[:-missing], values.reshape(-1)[:-missing])
    assert flat[-missing:].max() == 0
    assert len(said) == 1


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"])
@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_frames_of_native_samples_in_fragments(syntax: str, fragments: int, wrapped: bool, tmp_path: Path) -> None:
    for values in (RAMP, RGB, RAMP.view(np.int16) - 1000):
        data = values.tobytes()
        if syntax.endswith(".8.1"):
            data = zlib.compress(data) if wrapped else zlib.compress(data)[2:-4]
        ds = made(values, bits=8 * values.dtype.itemsize, syntax=syntax)
        ds.PixelData = encapsulate([data], fragments_per_frame=fragments)
        ds["PixelData"].is_undefined_length = True
        assert np.array_equal(stored_frame(ds, 0).values, values)


def test_a_deflated_frame_is_inflated_no_further_than_its_size() -> None:
    ds = made(RAMP, bits=12, syntax="1.2.840.10008.1.2.8.1")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    ds.PixelData = encapsulate([bomb.compress(bytes(1 << 28)) + bomb.flush()])
    ds["PixelData"].is_undefined_length = True
    assert stored_frame(ds, 0).values.max() == 0


@pytest.mark.parametrize("text", [b"3.0 ", b"3.00", b" 3.0", b"3e0 ", b"+3", b"03.0"])
def test_a_number_of_frames_written_as_a_decimal(text: bytes, tmp_path: Path) -> None:
    ds = compressed(STREAMS, GREY, uid.JPEGBaseline8Bit, bits=8)
    ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2"
    data = written(ds)
    place = data.index(b"\x28\0\x08\0IS")
    text += b" " * (len(text) % 2)
    pictures, _ = read(data[: place + 6] + struct.pack("<H", len(text)) + text + data[place + 10 :], tmp_path)
    assert len(pictures) == 3
    assert read_record(open_dicom(tmp_path / "file.dcm"), bytes(32)).number_of_frames == 3


@pytest.mark.parametrize("where", ["at the end", "after the pixels"])
def test_megabytes_of_zeros(where: str, tmp_path: Path) -> None:
    ds = made(RAMP, bits=12)
    if where == "at the end":
        del ds.PixelData
    path = tmp_path / "padded.dcm"
    path.write_bytes(written(ds) + bytes(5_000_000))
    assert (open_dicom(path).Rows, "PixelData" in open_dicom(path)) == (16, where != "at the end")


# Oblong pixels


def measures(first: float, second: float) -> Sequence:
    item = Dataset()
    item.PixelSpacing = [first, second]
    group = Dataset()
    group.PixelMeasuresSequence = Sequence([item])
    return Sequence([group])


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, 1),
        ({"PixelSpacing": [1, 0.5]}, 2),
        ({"PixelSpacing": [0.5, 1]}, 0.5),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, 2),
        ({"NominalScannedPixelSpacing": [0.3, 0.1]}, 3),
        ({"PixelAspectRatio": [2, 1]}, 2),
        ({"PixelSpacing": [0.5, 0.5], "PixelAspectRatio": [2, 1]}, 1),
        ({"PixelSpacing": [0.488281, 0.488282]}, 1),
        ({"PixelSpacing": [1, 0], "PixelAspectRatio": [1, 2]}, 0.5),
        ({"PixelSpacing": [1, 0.001]}, 1),
        ({"SharedFunctionalGroupsSequence": measures(1, 0.25)}, 4),
        ({"PerFrameFunctionalGroupsSequence": measures(1, 2), "SharedFunctionalGroupsSequence": measures(1, 4)}, 0.5),
    ],
)
def test_the_shape_of_a_pixel(elements: dict[str, Any], aspect: float) -> None:
    assert pixel_aspect(made(RAMP, bits=12, **elements)) == pytest.approx(aspect)


@pytest.mark.parametrize(("aspect", "shape"), [(1, (40, 60)), (2, (80, 60)), (0.5, (40, 120)), (1.5, (60, 60))])
def test_squared(aspect: float, shape: tuple[int, int]) -> None:
    for picture in (np.full((40, 60), 90, np.uint8), np.full((40, 60, 3), 90, np.uint8)):
        result = squared(picture, aspect)
        assert result.shape[:2] == shape
        assert (result.min(), result.max()) == (90, 90)


def test_a_very_large_picture_is_made_square_by_shrinking() -> None:
    assert squared(np.zeros((4096, 4096), np.uint8), 2).shape == (4096, 2048)
    assert squared(np.zeros((4096, 4096), np.uint8), 0.5).shape == (2048, 4096)
