"""Files that are broken, no DICOM, or made to bring a reader down: each costs its own line and nothing else."""

from __future__ import annotations

import collections
import hashlib
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import mutation
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from indexer.dicom.safe_read import Limits, open_dicom, read_header
from indexer.guard.pool import GuardedPool
from indexer.render.precheck import check_before_decoding
from retrieval.errors import DecodeGuardError, DicomError, FileUnreadable, NotDicomError, PixelDecodeError

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def head(syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Preamble and file meta information."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\0\x10\0UI" + struct.pack("<H", len(uid)) + uid
    return bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0" + struct.pack("<L", len(element)) + element


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One data element, explicit little endian."""
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    length = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return start + struct.pack("<HL", 0, length) + value
    return start + struct.pack("<H", length) + value


SOP_CLASS = element(0x00080016, b"UI", SecondaryCaptureImageStorage.encode() + b"\0")


def image(
    path: Path, rows: int, columns: int, pixels: bytes, *, frames: int | None = None, syntax: str | None = None
) -> Path:
    """An 8-bit grey image that claims what it is told to claim."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    if frames is not None:
        ds.NumberOfFrames = frames
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax or ExplicitVRLittleEndian)
    ds.PixelData = pixels if syntax is None else encapsulate([pixels] * min(frames or 1, 1000))
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)
    return path


def lying_jpeg(rows: int, columns: int) -> bytes:
    data = bytearray(imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint8)))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", rows, columns)
    return bytes(data)


def lying_j2k(rows: int, columns: int, tile: int | None = None) -> bytes:
    data = bytearray(imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint8), codecformat="j2k", level=0))
    place = data.index(b"\xff\x51") + 6
    data[place : place + 8] = struct.pack(">2I", columns, rows)
    data[place + 16 : place + 24] = struct.pack(">2I", tile or columns, tile or rows)
    return bytes(data)


def lying_jpegls(rows: int, columns: int) -> bytes:
    data = bytearray(imagecodecs.jpegls_encode(np.zeros((16, 16), np.uint8)))
    place = data.index(b"\xff\xf7") + 5
    data[place : place + 4] = struct.pack(">HH", rows, columns)
    return bytes(data)


def lying_jpegxl(side: int) -> bytes:
    """A square JPEG XL, everything else by default: small 0, 30 bits of height, ratio 1 to 1, all default."""
    bits = f"0{'11'}{format(side - 1, '030b')[::-1]}{'100'}1"
    return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(5, "little") + bytes(64)


def many_groups(item: bytes, count: int) -> bytes:
    return element(0x52009230, b"SQ", item * count + SEQUENCE_END, UNDEFINED)


def deflated_frame(path: Path) -> Path:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = deflate.compress(bytes(1 << 28)) + deflate.flush()
    data = image(path, 12_000, 12_000, stream, syntax=JPEGBaseline8Bit).read_bytes()
    path.write_bytes(data.replace(JPEGBaseline8Bit.encode(), b"1.2.840.10008.1.2.8.1\0"))
    return path


def deflated_zeros(path: Path) -> Path:
    """3 MB that inflate to 3 GB: blocks that end in a full flush can be strung together."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH)
    start = zlib.compressobj(9, zlib.DEFLATED, -15)
    opening = start.compress(SOP_CLASS + element(0x7FE00010, b"OB", b"", 3 << 30)) + start.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(head(DeflatedExplicitVRLittleEndian) + opening + block * 192)
    return path


def nested(depth: int, *, defined: bool = False) -> bytes:
    """Sequences in sequences, with delimiters or with lengths."""
    if not defined:
        opening = element(0x00081140, b"SQ", ITEM + struct.pack("<L", UNDEFINED), UNDEFINED)
        return opening * depth + (ITEM_END + SEQUENCE_END) * depth
    inner = b""
    for _ in range(depth):
        inner = element(0x00081140, b"SQ", ITEM + struct.pack("<L", len(inner)) + inner)
    return inner


def private_tags(count: int) -> bytes:
    """Empty elements (0009,0000), (0009,0001) and so on, 8 bytes each."""
    numbers = np.arange(count, dtype=np.uint32)
    table = np.zeros((count, 4), "<u2")
    table[:, 0], table[:, 1], table[:, 2] = 9 + 2 * (numbers >> 16), numbers & 0xFFFF, 0x4F4C  # "LO"
    return table.tobytes()


EMPTY_ITEMS = (ITEM + bytes(4)) * 5_000_000  # 40 MB
SEQUENCE = 0x00081140


def write(path: Path, *parts: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    with path.open("wb") as file:
        for part in (head(syntax), SOP_CLASS if syntax != ImplicitVRLittleEndian else b"", *parts):
            file.write(part)
    return path


def sparse(path: Path, start: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(1 << 40)
    return path


J2K, JPEG = JPEG2000Lossless, JPEGBaseline8Bit
LOSSLESS = "1.2.840.10008.1.2.4.80"
BOMBS: dict[str, Callable[[Path], Path]] = {
    "deflated zeros": deflated_zeros,
    "J2K larger than its header": lambda p: image(p, 16, 16, lying_j2k(60_000, 60_000), syntax=J2K),
    "J2K of 20,000 x 20,000": lambda p: image(p, 20_000, 20_000, lying_j2k(20_000, 20_000), syntax=J2K),
    "J2K of four thousand million tiles": lambda p: image(p, 60_000, 60_000, lying_j2k(60_000, 60_000, 1), syntax=J2K),
    "J2K of 16 million tiles": lambda p: image(p, 4096, 4096, lying_j2k(4096, 4096, 1), syntax=J2K),
    "J2K that honestly claims 11,000 x 11,000": lambda p: image(
        p, 11_000, 11_000, lying_j2k(11_000, 11_000), syntax=J2K
    ),
    "JPEG of 65,500 x 65,500": lambda p: image(p, 65_500, 65_500, lying_jpeg(65_500, 65_500), syntax=JPEG),
    "JPEG larger than its header": lambda p: image(p, 16, 16, lying_jpeg(65_500, 65_500), syntax=JPEG),
    "JPEG-LS larger than its header": lambda p: image(p, 16, 16, lying_jpegls(65_500, 65_500), syntax=LOSSLESS),
    "JPEG XL larger than its header": lambda p: image(p, 16, 16, lying_jpegxl(60_000), syntax=JPEG),
    "a deflated frame larger than any": deflated_frame,
    "40 MB of empty functional groups": lambda p: write(p, many_groups(ITEM + bytes(4), 5_000_000)),
    "functional groups of a million sequences": lambda p: write(
        p, many_groups(ITEM + struct.pack("<L", 12 * 90_000) + element(0x00209111, b"SQ", b"") * 90_000, 60)
    ),
    "functional groups 200 deep": lambda p: write(
        p, many_groups(ITEM + struct.pack("<L", UNDEFINED) + nested(200) * 40 + ITEM_END, 2)
    ),
    "40 MB of empty items": lambda p: write(p, element(SEQUENCE, b"SQ", EMPTY_ITEMS + SEQUENCE_END, UNDEFINED)),
    "40 MB of empty items, length given": lambda p: write(p, element(SEQUENCE, b"SQ", EMPTY_ITEMS)),
    "40 MB of empty items, unknown VR": lambda p: write(
        p, element(0x00091001, b"UN", EMPTY_ITEMS + SEQUENCE_END, UNDEFINED)
    ),
    "40 MB of empty items, implicit": lambda p: write(
        p, b"\x08\0\x40\x11", struct.pack("<L", len(EMPTY_ITEMS)), EMPTY_ITEMS, syntax=ImplicitVRLittleEndian
    ),
    "a million private tags": lambda p: write(p, private_tags(1_000_000)),
    "a million private tags in an item": lambda p: write(
        p,
        element(SEQUENCE, b"SQ", ITEM + struct.pack("<L", UNDEFINED), UNDEFINED),
        private_tags(1_000_000),
        ITEM_END + SEQUENCE_END,
    ),
    "a million elements of file meta": lambda p: write_meta_flood(p),
    "200 sequences deep": lambda p: write(p, nested(200)),
    "200 sequences deep, lengths given": lambda p: write(p, nested(200, defined=True)),
    "100,000 sequences deep": lambda p: write(p, nested(100_000)),
    "native pixels that are not there": lambda p: image(p, 10_000, 10_000, bytes(100)),
    "two thousand million native frames": lambda p: image(p, 64, 64, bytes(4096), frames=2**31 - 1),
    "65,535 x 65,535 native": lambda p: image(p, 65_535, 65_535, bytes(100)),
    "a million frames in one fragment": lambda p: image(p, 16, 16, lying_jpeg(16, 16), frames=1_000_000, syntax=JPEG),
    "pixel data of 4 GB that are not there": lambda p: write(p, element(0x7FE00010, b"OB", b"\0\0", 0xFFFFFFF0)),
    "an element of 4 GB that is not there": lambda p: write(p, element(0x00091001, b"OB", b"\0\0", 0xFFFFFFF0)),
    "the same in an item": lambda p: write(
        p,
        element(SEQUENCE, b"SQ", ITEM + struct.pack("<L", UNDEFINED), UNDEFINED),
        element(0x00091001, b"OB", b"\0\0", 0xFFFFFFF0),
    ),
    "1 TB of zeros": sparse,
    "1 TB with a header": lambda p: sparse(p, head() + SOP_CLASS),
    "two million fragments": lambda p: write(
        p, element(0x7FE00010, b"OB", ITEM + bytes(4), UNDEFINED), (ITEM + bytes(4)) * 2_000_000, SEQUENCE_END
    ),
    "1 TB of encapsulated pixels": lambda p: sparse(
        p, head(J2K) + SOP_CLASS + element(0x7FE00010, b"OB", b"", UNDEFINED)
    ),
}
"""Each makes its file. All are refused before a decoder runs, but for the J2K that is honest about its size."""


def write_meta_flood(path: Path) -> Path:
    flood = np.tile(np.array([2, 0x0102, 0x4853, 0], "<u2"), (1_000_000, 1))  # (0002,0102) SH
    path.write_bytes(head() + flood.tobytes() + SOP_CLASS)
    return path


GOOD = ["CT_small.dcm", "SC_rgb_rle_16bit_2frame.dcm", "JPEG2000.dcm", "image_dfl.dcm", "ExplVR_LitEndNoMeta.dcm"]


@pytest.fixture(scope="module")
def good() -> list[str]:
    return [str(get_testdata_file(name)) for name in GOOD]


def test_every_bomb_costs_one_error_and_no_other_result(tmp_path: Path, good: list[str]) -> None:
    alone = [outcome_in_process(path) for path in good]
    bombs = {name: str(make(tmp_path / f"{n}.dcm")) for n, (name, make) in enumerate(BOMBS.items())}
    mixed = [path for bomb in bombs.values() for path in (*good, bomb)]
    # The deadline is out of reach, so that a busy machine can't be mistaken for a bomb that got through.
    with GuardedPool(mutation.render_all, workers=2, memory_limit=1 << 30, deadline_s=600) as pool:
        results = dict(pool.map(mixed))
        assert pool.restarts == 0, "a bomb got through to a decoder and had to be stopped there"
    for path, outcome in zip(good, alone, strict=True):
        assert str(results[path]) == str(outcome)
    got = {name: results[path] for name, path in bombs.items()}
    assert {name: outcome for name, outcome in got.items() if not isinstance(outcome, DicomError)} == {}
    assert {str(outcome) for outcome in got.values() if "unexpected" in str(outcome)} == set()
    assert all(len(str(outcome)) < 250 and str(tmp_path) not in str(outcome) for outcome in got.values())


def outcome_in_process(path: str) -> object:
    try:
        return mutation.render_all(path)
    except DicomError as exc:
        return exc


@pytest.mark.parametrize("name", [name for name in BOMBS if "honestly" not in name])
def test_a_bomb_is_refused_before_decoding_with_little_memory(name: str, tmp_path: Path) -> None:
    path = BOMBS[name](tmp_path / "bomb.dcm")
    with pytest.raises(DicomError):
        check_before_decoding(open_dicom(path))


def test_what_the_limits_say(tmp_path: Path) -> None:
    path = write(tmp_path / "a", nested(10), private_tags(1000))
    assert len(open_dicom(path)) == 1002
    with pytest.raises(DecodeGuardError, match="more than 1000 data elements"):
        open_dicom(path, Limits(elements=1000))
    with pytest.raises(DecodeGuardError, match="nests sequences more than 9 levels deep"):
        open_dicom(path, Limits(nesting=9))
    with pytest.raises(DecodeGuardError, match="1 MiB of values"):
        open_dicom(write(tmp_path / "b", element(0x00091001, b"OB", bytes(2 << 20))), Limits(header_bytes=1 << 20))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(SOP_CLASS + element(0x00091001, b"OB", bytes(2 << 20))) + deflate.flush()
    (tmp_path / "c").write_bytes(head(DeflatedExplicitVRLittleEndian) + body)
    assert open_dicom(tmp_path / "c")[0x00091001].value == bytes(2 << 20)
    with pytest.raises(DecodeGuardError, match="more than 1 MiB when it is inflated"):
        open_dicom(tmp_path / "c", Limits(inflated_bytes=1 << 20))


def test_a_long_value_stays_in_the_file_until_it_is_asked_for(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    ds = open_dicom(image(tmp_path / "a", 1024, 1024, pixels), Limits(defer_bytes=1 << 16))
    check_before_decoding(ds)
    [element] = [element for element in ds.values() if element.tag == 0x7FE00010]
    assert element.value is None
    assert ds.PixelData == pixels
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "a").read_bytes()[:-100_000])
    with pytest.raises(DicomError, match="more than the file has left"):
        open_dicom(cut, Limits(defer_bytes=1 << 16))
    with pytest.raises(PixelDecodeError, match="expected 1048576"):
        check_before_decoding(open_dicom(cut))


def test_odd_files(tmp_path: Path) -> None:
    ct = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    cases: list[tuple[bytes, type[DicomError] | None]] = [
        (b"", NotDicomError),
        (b"\0", NotDicomError),
        (b"%PDF-1.7 and so on" * 100, NotDicomError),
        (bytes(132), NotDicomError),
        (bytes(128) + b"DICM", DicomError),
        (ct[:200], DicomError),
        (b"MZ" + ct[2:], None),  # a preamble may be anything; this one is also a Windows program
        (b"II*\0" + ct[4:], None),  # or a TIFF
    ]
    for data, error in cases:
        path = tmp_path / "odd"
        path.write_bytes(data)
        if error is None:
            assert open_dicom(path).Rows == 128
            continue
        for reader in (open_dicom, read_header):
            with pytest.raises(error) as caught:
                reader(path)
            assert "odd" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to fifo").symlink_to("fifo")
    (tmp_path / "to folder").symlink_to("folder")
    for name, kind in [("fifo", "pipe"), ("to fifo", "pipe"), ("folder", "directory"), ("to folder", "directory")]:
        with pytest.raises(NotDicomError, match=kind):
            open_dicom(tmp_path / name)
    for name in ("/dev/zero", "/dev/null", "/dev/tty"):
        if Path(name).exists():
            with pytest.raises(NotDicomError, match="device"):
                open_dicom(name)


def test_links_that_lead_nowhere_and_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "cycle").symlink_to("cycle")
    for name in ("dangling", "cycle", "missing", "x" * 300, "null\0byte"):
        with pytest.raises(FileUnreadable) as caught:
            open_dicom(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
    ct = Path(str(get_testdata_file("CT_small.dcm")))
    (tmp_path / "link").symlink_to(ct)
    assert open_dicom(tmp_path / "link").Rows == 128
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.dcm")
    try:
        Path(name).write_bytes(ct.read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert open_dicom(name).Rows == 128
    with GuardedPool(mutation.render_all, workers=1) as pool:
        [(_, digest)] = pool.map([name])
    assert digest == mutation.render_all(str(ct))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 85])
def test_a_number_whose_length_is_none_of_its_kind_is_told_in_words(length: int, tmp_path: Path) -> None:
    """pydicom's BytesLengthException is neither a ValueError nor a struct.error."""
    data = head() + SOP_CLASS + element(0x00280010, b"US", b"\x10\0")
    (tmp_path / "a").write_bytes(data[:138] + struct.pack("<H", length) + data[140:])  # of (0002,0000)
    with pytest.raises(DicomError) as caught:
        open_dicom(tmp_path / "a")
    assert "unexpected" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(FileUnreadable, match="EACCES"):
        open_dicom(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "growing"
    path.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    from indexer.dicom import safe_read

    read = safe_read.read_partial

    def slowly(*args: object, **kwargs: object) -> object:
        with path.open("ab") as file:
            file.write(b"more")
        return read(*args, **kwargs)

    monkeypatch.setattr(safe_read, "read_partial", slowly)
    with pytest.raises(FileUnreadable, match="changed"):
        open_dicom(path)


def test_five_hundred_random_files_are_no_dicom(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "random"
    for n in range(500):
        # Half begin as a data set without preamble would: pydicom's force=True takes them all.
        start = b"\x08\0" if n % 2 else b""
        path.write_bytes(start + rng.randbytes(rng.choice([3, 7, 40, 132, 500, 4000])))
        with pytest.raises(NotDicomError):
            open_dicom(path)


@pytest.mark.parametrize("name", ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"])
def test_files_without_meta_information_open(name: str) -> None:
    path = str(get_testdata_file(name))
    assert open_dicom(path) == pydicom.dcmread(path, force=True)


def test_all_good_files_open_as_pydicom_opens_them_and_pass_the_check() -> None:
    """Refused are the ones that nothing decodes, by name, and no others."""
    refused = collections.Counter()
    passed = 0
    for path in mutation.seeds(largest=1 << 40):
        value = pydicom.dcmread(path).get("PixelData", b"")
        want = hashlib.sha256(value).digest()
        try:
            ds = open_dicom(path)
            # Of pixel data without an end delimiter pydicom reads none.
            assert hashlib.sha256(ds.get("PixelData", b"")).digest() == want or not value
            check_before_decoding(ds)
            passed += 1
        except DicomError:
            refused[Path(path).name] += 1
    assert set(refused) <= {
        "JPEG2000-embedded-sequence-delimiter.dcm",  # its SIZ marker is no size: made to test delimiters
        "MR_truncated.dcm",
        "badVR.dcm",
        "nested_priv_SQ.dcm",  # no Rows
        "meta_missing_tsyntax.dcm",  # no Rows
        "emri_small_jpeg_2k_lossless_too_short.dcm",
    }
    assert passed >= 60


def test_the_check_refuses_no_file_of_the_codec_collection(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "dicom").rglob("*.dcm"))
    assert len(paths) > 100
    for path in paths:
        check_before_decoding(open_dicom(path))
