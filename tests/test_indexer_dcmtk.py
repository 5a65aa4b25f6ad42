"""Every file that DCMTK's dcmj2pnm can show, shown by both: within one grey level, or a named exception.

Needs `apt-get install dcmtk`. Where the file has a window or a VOI LUT of its own, DCMTK is told to use it and reads it
by itself; otherwise it gets the window that medlens chose, so that everything but the choice is compared.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from indexer.render.codecs import LIBRARY_ERRORS, number_of_frames, stored_frame
from indexer.render.frame import chosen_vois, render_frame
from indexer.render.windows import modality_of
from retrieval.errors import DicomError

pytestmark = pytest.mark.filterwarnings("ignore")

EXCEPTIONS = {
    "rtdose_expb.dcm": "DCMTK 3.6.7 swaps the 16-bit halves of big endian 32-bit samples",
    "rtdose_expb_1frame.dcm": "DCMTK 3.6.7 swaps the 16-bit halves of big endian 32-bit samples",
    "SC_ybr_full_uncompressed.dcm": "DCMTK converts YBR by truncated integer tables: up to 2 levels off the formula",
    "SC_rgb_jpeg_lossy_gdcm.dcm": "one copy declares RGB over a subsampled YCbCr codestream; DCMTK believes it",
}


@pytest.fixture(scope="module")
def dcmj2pnm() -> str:
    program = shutil.which("dcmj2pnm")
    if program is None:
        if os.environ.get("MEDLENS_REQUIRE_SHARED") == "1":
            pytest.fail("MEDLENS_REQUIRE_SHARED=1, but dcmj2pnm is not installed (apt-get install dcmtk)")
        pytest.skip("dcmj2pnm is not installed (apt-get install dcmtk)")
    return program


def shown_by_dcmtk(program: str, path: Path, frame_number: int, options: list[str]) -> np.ndarray | None:
    done = subprocess.run(
        [program, "-q", "-O", "+F", str(frame_number), *options, str(path)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return np.asarray(Image.open(io.BytesIO(done.stdout))) if done.stdout else None


def window_options(ds: Dataset, frame_number: int) -> list[str]:
    frame = stored_frame(ds, frame_number - 1)
    if frame.values.ndim == 3 or frame.photometric == "PALETTE COLOR":
        return []
    modality = modality_of(ds, frame_number, signed=frame.values.dtype.kind == "i")
    voi = chosen_vois(frame, ds, frame_number, modality)[0]
    grouped = "PerFrameFunctionalGroupsSequence" in ds
    if voi.lut is not None:
        return ["+Wl", "1"]
    if not grouped and ds.get("WindowWidth") not in (None, ""):
        return ["+Wi", "1"]
    # DCMTK knows no LINEAR_EXACT and no per-frame rescale: give it the window's ends in the units that it sees.
    center, width = voi.window.center, voi.window.width
    low, high = center - width / 2, center + width / 2
    if voi.function == "LINEAR":
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    if grouped and "PixelValueTransformationSequence" in ds.PerFrameFunctionalGroupsSequence[frame_number - 1]:
        low, high = sorted((end - modality.intercept) / modality.slope for end in (low, high))
    return ["+Ww", repr((low + high) / 2 + 0.5), repr(high - low + 1)]


def roots() -> dict[str, Path]:
    shared = Path(__file__).resolve().parents[1].parent / "shared/data/dicom"
    found = {"pydicom": Path(pydicom.__file__).parent / "data/test_files"}
    package = importlib.util.find_spec("data_store")
    if package and package.origin:
        found["pydicom_data"] = Path(package.origin).parent / "data"
    for name in ("codecs", "mr_enhanced", "mr_transfer_syntaxes", "derived_objects"):
        found[name] = shared / name
    return found


# How many pictures were compared with DCMTK 3.6.7: a sweep that compares fewer has lost sight of something.
COMPARED = {
    "pydicom": 77,
    "pydicom_data": 49,
    "codecs": 46,
    "mr_enhanced": 5,
    "mr_transfer_syntaxes": 6,
    "derived_objects": 20,
}


@pytest.mark.slow
@pytest.mark.parametrize("root", COMPARED)
def test_same_picture_as_dcmtk(root: str, dcmj2pnm: str, request: pytest.FixtureRequest) -> None:
    if root not in ("pydicom", "pydicom_data"):
        request.getfixturevalue("shared_data")
    if root not in roots():
        pytest.skip("pydicom-data is not installed")
    compared, wrong = 0, []
    for path in sorted(roots()[root].rglob("*")):
        if not path.is_file() or path.suffix in (".md", ".jpeg", ".py", ".json"):
            continue
        try:
            ds = pydicom.dcmread(path, force=True)
        except LIBRARY_ERRORS:
            continue
        try:
            picture, number = render_frame(ds), 1
            if "PerFrameFunctionalGroupsSequence" in ds:
                number = number_of_frames(ds)
                picture = render_frame(ds, number)
        except DicomError:
            continue
        judge = shown_by_dcmtk(dcmj2pnm, path, number, window_options(ds, number))
        if judge is None:
            continue
        compared += 1
        if picture.shape != judge.shape:
            wrong.append(f"{path.name}: shape {picture.shape}, DCMTK {judge.shape}")
            continue
        worst = int(np.abs(picture.astype(int) - judge).max())
        if worst > 1 and path.name not in EXCEPTIONS:
            wrong.append(f"{path.name}: {worst} levels")
    assert not wrong
    assert compared >= COMPARED[root]
