"""Datasets made for the cases that no test file has, the windows' formulas, and the table against the float path."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian
from test_indexer_codecs import decode_frame

from indexer.render.frame import render_frame
from indexer.render.windows import WINDOWS, linear, linear_exact, sigmoid
from retrieval.errors import MedlensError, PixelDecodeError, UnsupportedImageError
from retrieval.types import RenderProfile, Window

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")


def made(values: Any, *, bits: int = 16, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A dataset around stored values: [H, W], [H, W, 3] or [N, H, W] with NumberOfFrames=N."""
    values = np.asarray(values)
    shape = values.shape[1:] if "NumberOfFrames" in elements else values.shape
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel = 3 if len(shape) == 3 else 1
    ds.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ds.BitsAllocated = values.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = bits, bits - 1
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    big = syntax == ExplicitVRBigEndian
    ds.PixelData = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    ds["PixelData"].VR = "OW"
    return ds


RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def test_the_formulas_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1, note 2: c=2048, w=4096; c=2048, w=1; c=0, w=100; c=0, w=1.
    assert linear(np.array([0.0, 4095.0]), 2048, 4096).tolist() == [0, 1]
    assert linear(np.array([2047.0, 2048.0]), 2048, 1).tolist() == [0, 1]
    assert linear(np.array([-50.0, 49.0, -51, 50]), 0, 100).tolist() == [0, 1, 0, 1]
    assert linear(np.array([-1.0, 0.0]), 0, 1).tolist() == [0, 1]
    # C.11.2.1.3.2: the ends lie at c - w/2 and c + w/2.
    assert linear_exact(np.array([-50.0, 0, 50]), 0, 100).tolist() == [0, 0.5, 1]
    # C.11.2.1.3.1
    assert sigmoid(np.array([10.0]), 10, 5).tolist() == [0.5]
    assert sigmoid(np.array([15.0]), 10, 5)[0] == pytest.approx(1 / (1 + np.exp(-4)))
    assert sigmoid(np.array([-1e9, 1e9]), 10, 5).tolist() == pytest.approx([0, 1])


def test_monochrome1_is_inverted_after_the_window() -> None:
    ds = made(RAMP, bits=12, WindowCenter=2048, WindowWidth=4096)
    inverse = made(RAMP, bits=12, WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1")
    assert render_frame(ds)[0, 0] == 0
    assert np.array_equal(render_frame(inverse), 255 - render_frame(ds))


def test_padding_is_left_out_of_the_range() -> None:
    values = np.linspace(100, 200, 256).astype(np.int16).reshape(16, 16)
    values[:8] = -2000
    profile = RenderProfile(percentiles=(0, 100))
    plain = render_frame(made(values), 1, profile)
    padded = render_frame(made(values, PixelPaddingValue=-2000), 1, profile)
    ranged = render_frame(made(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1000), 1, profile)
    assert plain[8:].min() > 230  # squeezed by the padding
    assert (padded[:8].max(), padded[8:].min(), padded[8:].max()) == (0, 0, 255)
    assert np.array_equal(padded, ranged)


def test_an_image_of_padding_only_is_black() -> None:
    assert render_frame(made(np.full((4, 4), 7, np.int16), PixelPaddingValue=7)).max() == 0


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_high_bit_above_bits_stored(kind: type) -> None:
    values = np.array([[0, 1, 100], [511, -512 if kind is np.int16 else 1023, 7]])
    shifted = ((values & 0x3FF) << 4).astype(np.uint16) | 0xC00F  # 10 bits up to bit 13; junk in the others
    ds = made(shifted.view(kind), bits=10, HighBit=13)
    assert decode_frame(ds, 0).tolist() == values.tolist()
    assert decode_frame(ds, 0).dtype == kind


def test_unused_bits_are_ignored_and_the_sign_is_extended() -> None:
    values = np.array([[-2048, -1], [0, 2047]], np.int16)
    junk = (values.view(np.uint16) & 0x0FFF) | np.array([[0, 0x7000], [0xF000, 0x8000]], np.uint16)
    assert decode_frame(made(junk.view(np.int16), bits=12), 0).tolist() == values.tolist()


def test_linear_exact_and_sigmoid_from_the_header() -> None:
    values = np.array([[0, 50, 100]], np.uint16)
    window = {"WindowCenter": 50, "WindowWidth": 100}
    assert render_frame(made(values, **window)).tolist() == [[0, 129, 255]]  # LINEAR: (50-49.5)/99+0.5
    assert render_frame(made(values, VOILUTFunction="LINEAR_EXACT", **window)).tolist() == [[0, 128, 255]]
    assert render_frame(made(values, VOILUTFunction="SIGMOID", **window)).tolist() == [[30, 128, 225]]


def test_several_windows_the_first_or_by_name() -> None:
    windows = {
        "WindowCenter": [50, 2000],
        "WindowWidth": [100, 1000],
        "WindowCenterWidthExplanation": ["NARROW", "WIDE"],
    }
    ds = made(RAMP, bits=12, **windows)
    first = render_frame(made(RAMP, bits=12, WindowCenter=50, WindowWidth=100))
    second = render_frame(made(RAMP, bits=12, WindowCenter=2000, WindowWidth=1000))
    assert np.array_equal(render_frame(ds), first)
    assert np.array_equal(render_frame(ds, window="wide"), second)
    assert np.array_equal(render_frame(ds, window=Window(2000, 1000)), second)
    with pytest.raises(UnsupportedImageError, match="neither the file nor medlens defines a window of that name"):
        render_frame(ds, window="bonny")


@pytest.mark.parametrize("width", [0, -5, None, "", "nan"])
def test_a_useless_window_is_no_window(width: Any) -> None:
    ds = made(RAMP, bits=12, WindowCenter=50)
    ds.WindowWidth = width
    assert np.array_equal(render_frame(ds), render_frame(made(RAMP, bits=12)))


def test_a_text_in_place_of_a_window_is_no_window() -> None:
    ds = made(RAMP, bits=12)
    ds.add_new("WindowCenter", "LO", "auto")
    ds.add_new("WindowWidth", "LO", "auto")
    assert np.array_equal(render_frame(ds), render_frame(made(RAMP, bits=12)))


def test_a_useless_window_does_not_hide_the_next() -> None:
    ds = made(RAMP, bits=12, WindowCenter=[0, 2000], WindowWidth=[0, 1000])
    assert np.array_equal(render_frame(ds), render_frame(made(RAMP, bits=12, WindowCenter=2000, WindowWidth=1000)))


def test_a_linear_width_below_one_is_taken_exactly() -> None:
    values = np.array([[0, 1, 2, 3, 4]], np.uint16)
    rescale = {"RescaleSlope": 0.1, "RescaleIntercept": 0}
    ds = made(values, WindowCenter=0.2, WindowWidth=0.4, **rescale)
    assert render_frame(ds).tolist() == [[0, 64, 128, 191, 255]]


def test_an_unknown_voi_function_is_linear() -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    ds = made(RAMP, bits=12, VOILUTFunction="CUBIC", **window)
    assert np.array_equal(render_frame(ds), render_frame(made(RAMP, bits=12, **window)))


def test_a_slope_of_zero_is_no_transform() -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    ds = made(RAMP, bits=12, RescaleSlope=0, RescaleIntercept=5, **window)
    assert np.array_equal(render_frame(ds), render_frame(made(RAMP, bits=12, **window)))


def test_no_window_stretches_the_percentiles() -> None:
    values = np.concatenate([np.full(1, 60000), np.linspace(1000, 2000, 9998), np.full(1, 0)]).astype(np.uint16)
    picture = render_frame(made(values.reshape(100, 100)), 1, RenderProfile(percentiles=(1, 99)))
    low, high = np.percentile(values.astype(float), (1, 99))
    expected = np.floor(np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).reshape(100, 100)
    assert np.abs(picture - expected).max() == 0


def test_a_sparse_mask_is_seen() -> None:
    values = np.zeros((100, 100), np.uint16)
    values[50, 50] = 3
    assert render_frame(made(values)).max() == 255


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    values = np.arange(40, 140, dtype=np.uint8).reshape(10, 10)
    assert np.array_equal(render_frame(made(values, bits=8)), values)
    assert np.array_equal(render_frame(made(values, bits=8, RescaleSlope=1, RescaleIntercept=0)), values)
    assert render_frame(made(values, bits=8, RescaleSlope=2, RescaleIntercept=0)).max() == 255


def ct(**elements: Any) -> Dataset:
    """One row of -1350, -600, 150, 40, 240, 400 and 1400 HU."""
    stored = np.array([[-1350, -600, 150, 40, 240, 400, 1400]]) + 1400
    rescale = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1400}
    return made(stored.astype(np.uint16), bits=12, **(rescale | elements))


def test_windows_of_the_profile() -> None:
    lung, soft, bone = (WINDOWS[name] for name in ("lung", "soft tissue", "bone"))
    single = render_frame(ct(), 1, RenderProfile("lung", windows={"CT": (lung,)}))
    assert single.tolist() == [[0, 128, 255, 236, 255, 255, 255]]
    stacked = render_frame(ct(), 1, RenderProfile("three", windows={"CT": (lung, soft, bone)}))
    assert stacked.shape == (1, 7, 3)
    for channel, name in enumerate(("lung", "soft tissue", "bone")):
        assert np.array_equal(stacked[..., channel], render_frame(ct(), window=name))
        assert np.array_equal(stacked[..., channel], render_frame(ct(), window=WINDOWS[name]))


def test_the_windows_of_the_profile_need_units() -> None:
    profile = RenderProfile("lung", windows={"CT": (WINDOWS["lung"],)})
    ds = ct(WindowCenter=40, WindowWidth=400)
    assert not np.array_equal(render_frame(ds, 1, profile), render_frame(ds))
    without = copy.deepcopy(ds)
    del without.RescaleSlope, without.RescaleIntercept
    assert np.array_equal(render_frame(without, 1, profile), render_frame(without))
    other = ct(Modality="MR", WindowCenter=40, WindowWidth=400)
    assert np.array_equal(render_frame(other, 1, profile), render_frame(other))
    for wrong in (without, other):
        with pytest.raises(UnsupportedImageError, match="Hounsfield"):
            render_frame(wrong, window="lung")


def lut_item(data: list[int], first: int, bits: int, *, packed: bool = False, big: bool = False) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(data), first, bits]
    words = np.array(data, "u1" if packed else ">u2" if big else "<u2").tobytes()
    if packed and big:
        words = np.frombuffer(words, "u2").byteswap().tobytes()
    item.add_new("LUTData", "OW", words)
    return item


@pytest.mark.parametrize("packed", [False, True])
def test_voi_lut(packed: bool) -> None:
    values = np.array([[0, 10, 11, 12, 13, 99]], np.uint16)
    ds = made(values, VOILUTSequence=Sequence([lut_item([0, 255, 64, 128], 10, 8, packed=packed)]))
    ds.WindowCenter, ds.WindowWidth = 0, 1  # the LUT comes first
    assert render_frame(ds).tolist() == [[0, 0, 255, 64, 128, 128]]


def test_modality_lut_then_window() -> None:
    values = np.array([[-2, -1, 0, 1, 2]], np.int16)
    ds = made(values, ModalityLUTSequence=Sequence([lut_item([0, 100, 50], -1 & 0xFFFF, 16)]))
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 50, 100, "LINEAR_EXACT"
    assert render_frame(ds).tolist() == [[0, 0, 255, 128, 128]]


def test_functional_groups_of_each_frame_win() -> None:
    def group(center: float, slope: float | None = None) -> Dataset:
        out, voi = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = center, 100, "LINEAR_EXACT"
        out.FrameVOILUTSequence = Sequence([voi])
        if slope is not None:
            rescale = Dataset()
            rescale.RescaleSlope, rescale.RescaleIntercept = slope, 0
            out.PixelValueTransformationSequence = Sequence([rescale])
        return out

    ds = made(np.array([[[50, 100]], [[50, 100]], [[50, 100]]], np.uint16), NumberOfFrames=3)
    ds.RescaleSlope, ds.RescaleIntercept = 100, 0  # beaten by the groups
    ds.SharedFunctionalGroupsSequence = Sequence([group(50, 1)])
    ds.PerFrameFunctionalGroupsSequence = Sequence([Dataset(), group(100), group(100, 2)])
    assert [render_frame(ds, n).tolist() for n in (1, 2, 3)] == [[[128, 255]], [[0, 128]], [[128, 255]]]


def test_float_pixels() -> None:
    ds = made(np.zeros((2, 2), np.uint16))
    del ds.PixelData
    ds.FloatPixelData = np.array([[0.0, 0.5], [1.0, np.nan]], "<f4").tobytes()
    ds.BitsAllocated = 32
    picture = render_frame(ds, 1, RenderProfile(percentiles=(0, 100)))
    assert picture.tolist() == [[0, 128], [255, 0]]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_eight_bit_words_in_either_byte_order(syntax: str, tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.uint8).reshape(3, 5)
    ds = made(values, bits=8, syntax=syntax)
    data = values.tobytes() + b"\0"
    if syntax == ExplicitVRBigEndian:
        data = np.frombuffer(data, "u2").byteswap().tobytes()
    ds.PixelData = data
    ds["PixelData"].VR = "OW"
    assert np.array_equal(decode_frame(ds, 0), values)


def test_frames_of_single_bits_follow_without_a_gap() -> None:
    frames = np.random.default_rng(0).integers(0, 2, (3, 3, 5)).astype(np.uint8)
    ds = made(frames, bits=1, NumberOfFrames=3, BitsAllocated=1)
    ds.PixelData = np.packbits(frames.reshape(-1), bitorder="little").tobytes() + b"\0"
    for i in range(3):
        assert np.array_equal(decode_frame(ds, i), frames[i])
        assert np.array_equal(render_frame(ds, i + 1), frames[i] * 255)


def test_planes_and_pixels() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    ds = made(values, bits=8, PlanarConfiguration=1)
    ds.PixelData = values.transpose(2, 0, 1).tobytes()
    assert np.array_equal(render_frame(ds), values)


def test_partial_range_ybr() -> None:
    # ITU-R BT.601: black is 16, white 235; pure red is (81, 90, 240).
    values = np.array([[[16, 128, 128], [235, 128, 128], [81, 90, 240], [81, 90, 240]]], np.uint8)
    ds = made(values, bits=8, PhotometricInterpretation="YBR_PARTIAL_422")
    flat = values.reshape(-1, 2, 3)
    ds.PixelData = np.stack([flat[:, 0, 0], flat[:, 1, 0], flat[:, 0, 1], flat[:, 0, 2]], axis=1).tobytes()
    picture = render_frame(ds).astype(int)
    assert np.abs(picture - [[[0, 0, 0], [255, 255, 255], [255, 0, 0], [255, 0, 0]]]).max() <= 1


def palette_of(words: list[int], entries: int, bits: int) -> list[int]:
    """The grey levels that a segmented palette, the same for all three colours, gives to 0, 1, 2 ..."""
    ds = made(np.arange(entries, dtype=np.uint16).reshape(1, -1), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [entries, 0, bits])
        data = np.array(words, f"<u{bits // 8}").tobytes()
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", data)
    picture = render_frame(ds, 1)
    assert (picture == picture[..., :1]).all()
    return [int(level) for level in picture[0, :, 0]]


def test_segmented_palette() -> None:
    """PS3.3 C.7.9.2: discrete 2 entries, linear 4 to 100, then an indirect copy of the linear one."""
    words = [0, 2, 5, 20, 1, 4, 100, 2, 1, 8, 0]  # the linear segment starts at byte 8
    assert palette_of(words, 10, 16) == [5, 20, 40, 60, 80, 100, 100, 100, 100, 100]
    narrow = [0, 2, 5, 20, 1, 4, 100, 2, 1, 4, 0, 0, 0]
    assert palette_of(narrow, 10, 8) == [5, 20, 40, 60, 80, 100, 100, 100, 100, 100]


@pytest.mark.parametrize("words", [[1, 4, 100], [0, 0], [0, 9, 1], [2, 1, 0, 0], [7, 1, 1], [0, 1, 5, 2, 1, 6, 0], []])
def test_a_broken_segmented_palette_is_refused(words: list[int]) -> None:
    with pytest.raises(
        PixelDecodeError,
        match="the segmented palette ends after" if words else "SegmentedRedPaletteColorLookupTableData is empty",
    ):
        palette_of(words, 300, 16)


@pytest.mark.parametrize("how", ["whole", "deferred", "without pixels", "deflated", "buffer"])
def test_pixels_are_found_wherever_they_are(how: str, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4096, (5, 30, 20)).astype(np.uint16)
    syntax = DeflatedExplicitVRLittleEndian if how == "deflated" else ExplicitVRLittleEndian
    ds = made(frames, bits=12, NumberOfFrames=5, syntax=syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.3", "1.2.3"
    path = tmp_path / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    if how == "buffer":
        read = dcmread(io.BytesIO(path.read_bytes()), defer_size=100)
    else:
        read = dcmread(
            path,
            defer_size=100 if how in ("deferred", "deflated") else None,
            stop_before_pixels=how == "without pixels",
        )
    assert isinstance(read, FileDataset)
    for i in (4, 0, 2):
        assert np.array_equal(decode_frame(read, i), frames[i])


def test_only_the_asked_frame_is_read(tmp_path: Path) -> None:
    """The file is cut after its second frame: frame 2 can be shown, frame 3 can't, and that is said."""
    frames = np.random.default_rng(0).integers(0, 4096, (5, 30, 20)).astype(np.uint16)
    ds = made(frames, bits=12, NumberOfFrames=5)
    ds.PixelData = ds.PixelData[: 2 * 1200]
    assert np.array_equal(decode_frame(ds, 1), frames[1])
    with pytest.raises(PixelDecodeError, match="expected 3600 for frame 3"):
        decode_frame(ds, 2)


def test_the_dataset_is_left_alone() -> None:
    ds = ct(WindowCenter=[40, 50], WindowWidth=[400, 500])
    before = copy.deepcopy(ds)
    render_frame(ds, 1, RenderProfile("lung", windows={"CT": (WINDOWS["lung"],)}))
    assert ds == before


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"SamplesPerPixel": 4}, UnsupportedImageError, "SamplesPerPixel is 4"),
        ({"PhotometricInterpretation": "HSV"}, UnsupportedImageError, "HSV"),
        ({"PhotometricInterpretation": "DOE^JANE"}, UnsupportedImageError, "unknown"),
        ({"BitsAllocated": 48}, UnsupportedImageError, "BitsAllocated is 48"),
        ({"BitsStored": 17}, UnsupportedImageError, "BitsStored.*17"),
        ({"Rows": 0}, PixelDecodeError, "0 rows"),
        ({"Rows": 17}, PixelDecodeError, "truncated"),
        ({"Rows": None}, PixelDecodeError, "Rows is missing"),
        ({"PixelData": b""}, PixelDecodeError, "empty"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, PixelDecodeError, "RedPalette"),
    ],
)
def test_refusals_say_what_was_seen(change: dict[str, Any], error: type[MedlensError], said: str) -> None:
    ds = made(RAMP, bits=12)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    with pytest.raises(error, match=said):
        render_frame(ds)


def test_frames_that_are_not_there() -> None:
    with pytest.raises(UnsupportedImageError, match=r"frame 2 does not exist: the number of frames is 1"):
        render_frame(made(RAMP), 2)
    with pytest.raises(ValueError, match="frame_number is 0"):
        render_frame(made(RAMP), 0)
    with pytest.raises(ValueError, match="width above 0"):
        render_frame(made(RAMP), window=Window(1, 0))


windows = st.builds(Window, st.floats(-5000, 70000), st.floats(0.01, 70000))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]),
    seed=st.integers(0, 2**32 - 1),
    spread=st.integers(0, 31),
    slope=st.floats(-100, 100).filter(lambda v: abs(v) > 1e-3),
    intercept=st.floats(-2000, 2000),
    window=st.none() | windows,
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_the_table_gives_the_float_paths_picture(
    kind: Any, seed: int, spread: int, slope: float, intercept: float, window: Any, function: str, photometric: str
) -> None:
    info = np.iinfo(kind)
    rng = np.random.default_rng(seed)
    middle = int(rng.integers(info.min, info.max, endpoint=True))
    values = middle + rng.integers(-(1 << spread), 1 << spread, (24, 24), endpoint=True)
    values = np.clip(values, info.min, info.max).astype(kind)
    ds = made(values, bits=info.bits, RescaleSlope=f"{slope:.8g}", RescaleIntercept=f"{intercept:.8g}")
    ds.PhotometricInterpretation, ds.VOILUTFunction = photometric, function
    if window is not None:
        ds.WindowCenter, ds.WindowWidth = f"{window.center:.8g}", f"{window.width:.8g}"
    looked_up, computed = render_frame(ds), render_frame(ds, exact=True)
    assert looked_up.dtype == np.uint8
    assert np.array_equal(looked_up, computed)
