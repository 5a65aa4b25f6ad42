"""What benchmarks/guard.py runs, in a module of its own so that workers can import it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.dicom.safe_read import open_dicom
from indexer.render.frame import render_frame
from indexer.render.precheck import check_before_decoding


def render(path: str) -> npt.NDArray[np.uint8]:
    """The whole way of one image: open, check, render. [H, W] uint8."""
    ds = open_dicom(path)
    check_before_decoding(ds)
    return render_frame(ds)


def nothing(path: str) -> Any:
    return path
