"""The shape of a pixel, and pictures with square pixels.

Pixels of line scanners, of some MR and of video are oblong. A picture with wrong proportions misleads an encoder as it
misleads people.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn, ignore
from indexer.render.windows import functional_group
from retrieval.types import Uint8Image

_SAME = 1.01  # a ratio nearer to 1 comes from rounding in the header
_MOST = 32  # a larger ratio is a mistake or an attack
_LARGE = 1 << 24  # pixels; a picture that would become larger is made square by reducing its finer side

# Distances of rows, then of columns, most trusted first: in the patient (PS3.3 10.7.1.3), at the detector, on the
# film that was scanned. Last, only the ratio of height to width (C.7.6.3.1.7).
_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


def pixel_aspect(ds: Dataset, frame_number: int = 1, warn: Warn = ignore) -> float:
    """Return the height of a pixel divided by its width; 1 if the header states no plausible value."""
    group = functional_group(ds, frame_number, "PixelMeasuresSequence")
    for source, keyword in [(group, "PixelSpacing"), *((ds, keyword) for keyword in _KEYWORDS)]:
        pair = None if source is None else _pair(source, keyword)
        if pair is None:
            continue
        ratio = pair[0] / pair[1]
        if 1 / _MOST <= ratio <= _MOST:
            return 1.0 if 1 / _SAME < ratio < _SAME else ratio
        warn(f"{keyword} declares pixels more than {_MOST} times as long as wide; it is ignored")
    return 1.0


def squared(picture: Uint8Image, aspect: float) -> Uint8Image:
    """Return the picture with square pixels: its coarser side is enlarged, or in a very large picture the finer side
    reduced.
    """
    if aspect == 1:
        return picture
    from PIL import Image  # imported here, because rendering needs it for nothing else

    height, width = picture.shape[:2]
    enlarged = max(aspect, 1 / aspect)
    if height * width * enlarged <= _LARGE:
        height, width = (round(height * aspect), width) if aspect > 1 else (height, round(width / aspect))
    else:
        height, width = (height, round(width / aspect)) if aspect > 1 else (round(height * aspect), width)
    image = Image.fromarray(picture).resize((max(width, 1), max(height, 1)), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        value: Any = ds.get(keyword)
        if value is None or isinstance(value, str | bytes) or len(value) != 2:
            return None
        first, second = float(value[0]), float(value[1])
    except (TypeError, ValueError, OverflowError):
        return None
    return (first, second) if 0 < first < math.inf and 0 < second < math.inf else None
