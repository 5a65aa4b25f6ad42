"""Real files against literal values and small golden pictures (every k-th pixel, in tests/golden/render).

The values were written down once and agree with DCMTK, pydicom's decoders or highdicom wherever those read the file
(test_indexer_dcmtk.py compares whole pictures). `python -m tests.test_indexer_render` writes missing pictures.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pytest
from PIL import Image
from test_indexer_codecs import decode_frame

from indexer.render.codecs import number_of_frames, stored_frame
from indexer.render.frame import render_frame
from indexer.render.windows import modality_of, vois_of
from retrieval.errors import PixelDecodeError, UnsupportedImageError

pytestmark = pytest.mark.filterwarnings("ignore")

GOLDEN = Path(__file__).parent / "golden/render"
SHARED = Path(__file__).resolve().parents[1].parent / "shared/data/dicom"


class Case(NamedTuple):
    """One file. `pixels` maps (row, column) to the stored value and the rendered one, of the last frame."""

    root: str  # w: pydicom's wheel, d: pydicom-data, c: the shared codec files
    file: str
    frames: int
    shape: tuple[int, ...]
    dtype: str
    pixels: dict[tuple[int, int], tuple[Any, Any]]

    @property
    def golden(self) -> Path:
        return GOLDEN / f"{self.root}_{Path(self.file).stem}.png"


CASES = [
    Case("w", "CT_small.dcm", 1, (128, 128), "int16", {(42, 64): (1367, 187), (62, 59): (1455, 200)}),
    Case("w", "J2K_pixelrep_mismatch.dcm", 1, (512, 512), "int16", {(170, 256): (90, 255), (37, 226): (50, 155)}),
    Case("w", "JPGExtended.dcm", 1, (1024, 256), "uint16", {(341, 128): (31, 71), (627, 155): (79, 180)}),
    Case("w", "JPEG-lossy.dcm", 1, (1024, 256), "uint16", {(341, 128): (31, 71), (627, 155): (79, 180)}),
    Case("c", "RG2_JPLY.dcm", 1, (2140, 1760), "uint16", {(713, 880): (739, 184), (1151, 95): (894, 223)}),
    Case("d", "JPEG-LL.dcm", 1, (1024, 256), "int16", {(341, 128): (36, 82), (170, 144): (82, 187)}),
    Case(
        "w",
        "SC_rgb_rle_16bit_2frame.dcm",
        2,
        (100, 100, 3),
        "uint16",
        {(33, 50): ([32639, 0, 32639], [127, 0, 127]), (0, 0): ([0, 65535, 65535], [0, 255, 255])},
    ),
    Case(
        "w",
        "SC_rgb_rle_32bit_2frame.dcm",
        2,
        (100, 100, 3),
        "uint32",
        {(33, 50): ([2139062143, 0, 2139062143], [127, 0, 127]), (0, 0): ([0, 4294967295, 4294967295], [0, 255, 255])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([128, 255, 128], [128, 255, 128]), (0, 0): ([255, 0, 0], [255, 0, 0])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([130, 255, 129], [130, 255, 129]), (21, 0): ([0, 255, 1], [0, 255, 1])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cy+n2.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([129, 255, 129], [129, 255, 129]), (21, 0): ([0, 255, 0], [0, 255, 0])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([130, 255, 129], [130, 255, 129]), (21, 0): ([0, 255, 1], [0, 255, 1])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([129, 255, 129], [129, 255, 129]), (21, 0): ([0, 255, 0], [0, 255, 0])},
    ),
    Case(
        "w",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([129, 255, 129], [129, 255, 129]), (21, 0): ([0, 255, 0], [0, 255, 0])},
    ),
    Case(
        "w",
        "SC_ybr_full_422_uncompressed.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([203, 86, 75], [129, 255, 129]), (21, 0): ([150, 43, 21], [0, 255, 0])},
    ),
    Case(
        "d",
        "SC_ybr_full_uncompressed.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([203, 86, 75], [129, 255, 129]), (21, 0): ([150, 43, 21], [0, 255, 0])},
    ),
    Case(
        "w",
        "SC_jpeg_no_color_transform.dcm",
        1,
        (256, 256, 3),
        "uint8",
        {(85, 128): ([244, 244, 244], [244, 244, 244]), (28, 79): ([182, 165, 169], [182, 165, 169])},
    ),
    Case(
        "w",
        "SC_jpeg_no_color_transform_2.dcm",
        1,
        (256, 256, 3),
        "uint8",
        {(85, 128): ([242, 245, 243], [242, 245, 243]), (101, 173): ([190, 172, 206], [190, 172, 206])},
    ),
    Case(
        "w",
        "SC_rgb_jpeg_app14_dcmd.dcm",
        1,
        (256, 256, 3),
        "uint8",
        {(85, 128): ([242, 245, 243], [242, 245, 243]), (101, 173): ([190, 172, 206], [190, 172, 206])},
    ),
    Case(
        "c",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([129, 255, 129], [129, 255, 129]), (21, 0): ([0, 255, 1], [0, 255, 1])},
    ),
    Case(
        "d",
        "color-pl.dcm",
        1,
        (120, 256, 3),
        "uint8",
        {(40, 128): ([16, 16, 152], [16, 16, 152]), (92, 142): ([16, 56, 248], [16, 56, 248])},
    ),
    Case(
        "d",
        "color-px.dcm",
        1,
        (120, 256, 3),
        "uint8",
        {(40, 128): ([16, 16, 152], [16, 16, 152]), (92, 142): ([16, 56, 248], [16, 56, 248])},
    ),
    Case("d", "OBXXXX1A.dcm", 1, (600, 800), "uint8", {(200, 400): (1, [1, 1, 1]), (96, 789): (249, [90, 205, 255])}),
    Case(
        "d", "OBXXXX1A_expb.dcm", 1, (600, 800), "uint8", {(200, 400): (1, [1, 1, 1]), (96, 789): (249, [90, 205, 255])}
    ),
    Case(
        "d",
        "gdcm-US-ALOKA-16.dcm",
        1,
        (480, 640),
        "uint16",
        {(160, 320): (9216, [14, 14, 14]), (23, 32): (43040, [0, 250, 0])},
    ),
    Case(
        "d",
        "gdcm-US-ALOKA-16_big.dcm",
        1,
        (480, 640),
        "uint16",
        {(160, 320): (9216, [14, 14, 14]), (23, 32): (43040, [0, 250, 0])},
    ),
    Case(
        "d",
        "OT-PAL-8-face.dcm",
        1,
        (480, 640),
        "uint8",
        {(160, 320): (101, [182, 182, 182]), (1, 198): (132, [235, 122, 32])},
    ),
    Case("d", "mlut_18.dcm", 1, (512, 512), "int16", {(170, 256): (-1, 127), (511, 1): (-2040, 0)}),
    Case("d", "vlut_04.dcm", 1, (512, 512), "uint8", {(170, 256): (127, 127), (511, 1): (0, 0)}),
    Case("d", "eCT_Supplemental.dcm", 2, (512, 512), "uint16", {(170, 256): (1044, 56), (95, 326): (0, 0)}),
    Case("d", "emri_small.dcm", 10, (64, 64), "uint16", {(21, 32): (135, 95), (63, 59): (132, 93)}),
    Case(
        "d",
        "MR-SIEMENS-DICOM-WithOverlays.dcm",
        1,
        (484, 484),
        "uint16",
        {(161, 242): (175, 39), (347, 152): (386, 107)},
    ),
    Case("w", "examples_overlay.dcm", 1, (300, 484), "uint16", {(100, 242): (446, 126), (247, 152): (386, 107)}),
    Case("w", "MR_small_bigendian.dcm", 1, (64, 64), "int16", {(21, 32): (243, 71), (58, 38): (661, 137)}),
    Case("w", "rtdose_expb.dcm", 15, (10, 10), "uint32", {(3, 5): (1083000, 161), (0, 0): (1249000, 254)}),
    Case("w", "image_dfl.dcm", 1, (512, 512), "uint8", {(170, 256): (164, 164), (255, 256): (164, 164)}),
    Case("w", "MR_small_jpeg_ls_lossless.dcm", 1, (64, 64), "int16", {(21, 32): (243, 71), (58, 38): (661, 137)}),
    Case("d", "emri_small_jpeg_ls_lossless.dcm", 10, (64, 64), "uint16", {(21, 32): (135, 95), (63, 59): (132, 93)}),
    Case("w", "JPEGLSNearLossless_16.dcm", 1, (50, 10), "uint16", {(16, 5): (4095, 16), (4, 0): (65535, 255)}),
    Case(
        "w",
        "SC_rgb_jls_lossy_sample.dcm",
        1,
        (100, 100, 3),
        "uint8",
        {(33, 50): ([130, 255, 130], [130, 255, 130]), (0, 0): ([255, 0, 0], [255, 0, 0])},
    ),
    Case("w", "693_J2KI.dcm", 1, (512, 512), "int16", {(170, 256): (1061, 121), (99, 302): (857, 0)}),
    Case(
        "w",
        "GDCMJ2K_TextGBR.dcm",
        1,
        (400, 400, 3),
        "uint8",
        {(133, 200): ([128, 128, 128], [128, 128, 128]), (46, 140): ([255, 0, 0], [255, 0, 0])},
    ),
    Case(
        "w",
        "examples_jpeg2k.dcm",
        1,
        (480, 640, 3),
        "uint8",
        {(160, 320): ([115, 115, 115], [115, 115, 115]), (153, 18): ([255, 255, 0], [255, 255, 0])},
    ),
    Case(
        "c", "TOSHIBA_J2K_SIZ0_PixRep1.dcm", 1, (512, 512), "int16", {(170, 256): (1137, 202), (160, 254): (508, 142)}
    ),
    Case(
        "c", "TOSHIBA_J2K_SIZ1_PixRep0.dcm", 1, (512, 512), "int16", {(170, 256): (1137, 202), (160, 254): (508, 142)}
    ),
    Case("d", "bad_sequence.dcm", 1, (512, 512), "uint16", {(170, 256): (1103, 156), (340, 0): (1070, 132)}),
    Case("d", "liver.dcm", 3, (512, 512), "uint8", {(170, 256): (1, 255), (146, 249): (0, 0)}),
    Case(
        "d",
        "color3d_jpeg_baseline.dcm",
        120,
        (480, 640, 3),
        "uint8",
        {(160, 320): ([19, 19, 19], [19, 19, 19]), (41, 379): ([72, 167, 125], [72, 167, 125])},
    ),
    Case(
        "w",
        "SC_rgb_small_odd_jpeg.dcm",
        1,
        (3, 3, 3),
        "uint8",
        {(1, 1): ([62, 87, 179], [62, 87, 179]), (1, 0): ([62, 87, 179], [62, 87, 179])},
    ),
]


def find(root: str, name: str) -> Path:
    if root == "w":
        folder = Path(pydicom.__file__).parent / "data/test_files"
    elif root == "d":
        package = importlib.util.find_spec("data_store")
        if package is None or package.origin is None:
            pytest.skip("pydicom-data is not installed")
        folder = Path(package.origin).parent / "data"
    else:
        folder = SHARED / "codecs"
    found = sorted(folder.rglob(name))
    if not found:
        pytest.skip(f"{name} is not in this version of the test data")
    return found[0]


def small(picture: np.ndarray) -> np.ndarray:
    step = max(1, -(-max(picture.shape[:2]) // 40))
    return picture[::step, ::step]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.root}-{case.file}")
def test_real_file(case: Case, request: pytest.FixtureRequest) -> None:
    if case.root == "c":
        request.getfixturevalue("shared_data")
    ds = pydicom.dcmread(find(case.root, case.file), force=True)
    stored, picture = decode_frame(ds, case.frames - 1), render_frame(ds, case.frames)
    assert (number_of_frames(ds), stored.shape, str(stored.dtype)) == (case.frames, case.shape, case.dtype)
    assert {place: (stored[place].tolist(), picture[place].tolist()) for place in case.pixels} == case.pixels
    golden = np.asarray(Image.open(case.golden))
    assert golden.shape == small(picture).shape
    # One level for another version of a lossy decoder; the literal values above allow none.
    assert np.abs(small(picture).astype(int) - golden).max() <= 1
    assert np.array_equal(picture, render_frame(ds, case.frames, exact=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("d", "OBXXXX1A.dcm"), ("d", "OBXXXX1A_expb.dcm")),
        (("d", "OBXXXX1A.dcm"), ("d", "OBXXXX1A_rle.dcm")),
        (("d", "gdcm-US-ALOKA-16.dcm"), ("d", "gdcm-US-ALOKA-16_big.dcm")),
        (("d", "color-pl.dcm"), ("d", "color-px.dcm")),
        (("w", "MR_small.dcm"), ("w", "MR_small_bigendian.dcm")),
        (("w", "MR_small.dcm"), ("w", "MR_small_jpeg_ls_lossless.dcm")),
        (("w", "MR_small.dcm"), ("w", "MR_small_jp2klossless.dcm")),
        (("w", "MR_small.dcm"), ("w", "MR_small_RLE.dcm")),
        (("d", "emri_small.dcm"), ("d", "emri_small_jpeg_ls_lossless.dcm")),
        (("d", "emri_small.dcm"), ("d", "emri_small_jpeg_2k_lossless.dcm")),
        (("d", "emri_small.dcm"), ("d", "emri_small_big_endian.dcm")),
        (("d", "SC_rgb.dcm"), ("d", "SC_rgb_expb_32bit.dcm")),
        (("d", "SC_rgb.dcm"), ("w", "SC_rgb_rle_16bit.dcm")),
        (("d", "US1_UNCR.dcm"), ("d", "US1_J2KR.dcm")),
        (("d", "RG3_UNCR.dcm"), ("d", "RG3_J2KR.dcm")),
        (("c", "TOSHIBA_J2K_SIZ0_PixRep1.dcm"), ("c", "TOSHIBA_J2K_SIZ1_PixRep0.dcm")),
    ],
    ids=lambda pair: pair[1],
)
def test_one_picture_in_two_encodings(one: tuple[str, str], other: tuple[str, str]) -> None:
    """The codec, the byte order and where the sign is said make no difference."""
    first, second = pydicom.dcmread(find(*one)), pydicom.dcmread(find(*other))
    for number in {1, number_of_frames(first)}:
        assert np.abs(render_frame(first, number).astype(int) - render_frame(second, number)).max() == 0


@pytest.mark.parametrize("root", ["w", "d", "c"])
def test_what_is_refused_and_nothing_else(root: str, request: pytest.FixtureRequest) -> None:
    """Every file with pixels renders, but for these, each for its reason."""
    if root == "c":
        request.getfixturevalue("shared_data")
    refused = {
        "JPEG2000-embedded-sequence-delimiter.dcm": "opj_read_header",  # a codestream cut by its own delimiter
        "MR_truncated.dcm": "truncated",
        "badVR.dcm": "NumberOfFrames is not a number",
        "meta_missing_tsyntax.dcm": "Rows is missing",  # two bytes of pixels and no header for them
        "nested_priv_SQ.dcm": "Rows is missing",
        "966.dcm": "opj_decode",  # corrupt; 966_fixed.dcm is its repair
    }
    known = {"w": "CT_small.dcm", "d": "vlut_04.dcm", "c": "RG2_JPLY.dcm"}[root]
    folder = find(root, known)
    folder = folder.parent if root != "c" else SHARED / "codecs"
    rendered = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            ds = pydicom.dcmread(path, force=True)
            if not any(keyword in ds for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
                continue
        except (AttributeError, OSError, ValueError, NotImplementedError, EOFError):
            continue
        if path.name in refused:
            with pytest.raises(PixelDecodeError, match=refused[path.name]):
                decode_frame(ds, 0)
            continue
        picture = decode_frame(ds, 0)
        assert picture.shape[:2] == (ds.Rows, ds.Columns), path.name
        rendered += 1
    assert rendered >= {"w": 90, "d": 67, "c": 79}[root]


def test_functional_groups_as_highdicom_reads_them() -> None:
    highdicom = pytest.importorskip("highdicom")
    paths = [find("d", "eCT_Supplemental.dcm")]
    if (SHARED / "mr_enhanced").is_dir():
        paths += sorted((SHARED / "mr_enhanced").rglob("6_*.dcm"))
    for path in paths:
        judge, ds = highdicom.imread(path), pydicom.dcmread(path)
        assert "PerFrameFunctionalGroupsSequence" in ds
        for number in range(1, number_of_frames(ds) + 1):
            stored = stored_frame(ds, number - 1).values
            values = modality_of(ds, number, signed=False)(stored)
            plain = {"apply_real_world_transform": False, "apply_palette_color_lut": False, "apply_icc_profile": False}
            assert np.array_equal(values, judge.get_frame(number, **plain))
            shown = judge.get_frame(number, apply_voi_transform=True, **plain)
            assert np.abs(vois_of(ds, number, signed=True)[0](values) - shown).max() < 1e-12
            assert np.abs(render_frame(ds, number) - shown * 255).max() <= 0.5 + 1e-9


def test_enhanced_ct_is_in_hounsfield_units() -> None:
    ds = pydicom.dcmread(find("d", "eCT_Supplemental.dcm"))
    values = modality_of(ds, 1, signed=False)(decode_frame(ds, 0))
    assert (values.min(), values.max()) == (-1024, 172)


def test_overlays_are_left_out() -> None:
    path = find("d", "MR-SIEMENS-DICOM-WithOverlays.dcm")
    ds = pydicom.dcmread(path)
    with_overlays = render_frame(ds)
    for element in [e for e in ds if 0x6000 <= e.tag.group <= 0x60FF]:
        del ds[element.tag]
    assert np.array_equal(render_frame(ds), with_overlays)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm"])
def test_without_file_meta(name: str, tmp_path: Path) -> None:
    path = find("w", name)
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")  # (0002,0000) gives the length of the group after it
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(data[144 + length :])
    ds = pydicom.dcmread(bare, force=True)
    assert "TransferSyntaxUID" not in ds.file_meta
    assert np.array_equal(render_frame(ds), render_frame(pydicom.dcmread(path)))


@pytest.mark.parametrize("name", ["no_meta.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm"])
def test_no_pixels_is_said(name: str) -> None:
    with pytest.raises(UnsupportedImageError, match="no pixel data"):
        render_frame(pydicom.dcmread(find("w", name), force=True))


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for wanted in CASES:
        if not wanted.golden.exists():
            shown = render_frame(pydicom.dcmread(find(wanted.root, wanted.file), force=True), wanted.frames)
            Image.fromarray(small(shown)).save(wanted.golden, optimize=True)
