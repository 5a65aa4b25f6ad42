"""From stored values to displayed ones: the modality transform and the value of interest, per frame.

PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.16.2.9 and .10 (the same in functional groups). Values in an
enhanced file's per-frame group win over its shared group, that over the dataset itself.

Real headers hold windows that the standard forbids. They are read for what they mean, and never cost the picture:
a width of zero or less, or not a number, is not a window; a LINEAR width below 1 (its formula would divide by a
negative number) is taken as LINEAR_EXACT; an unknown VOI function is LINEAR, the default; a slope of 0 is not a
transform; a LUT whose descriptor or data can't be used is not a LUT, and one that is shorter than declared comes after
the windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn, ignore
from indexer.render.luts import Lut, read_lut
from retrieval.errors import PixelDecodeError
from retrieval.types import Window

# X-ray angiography, fluoroscopy and biplane angiography (retired): their modality transform leads back to the X-ray
# intensity at the detector. It is for measuring, and the VOI is for the stored values (PS3.3 C.8.7.1.1.2).
_SHOWN_AS_STORED = tuple(f"1.2.840.10008.5.1.4.1.1.12.{n}" for n in (1, 2, 3))

Values = npt.NDArray[np.float64]

WINDOWS: dict[str, Window] = {
    "lung": Window(-600, 1500),
    "soft tissue": Window(40, 400),
    "bone": Window(400, 2000),
    "brain": Window(40, 80),
    "stroke": Window(40, 40),
}
"""CT windows by name, in Hounsfield units."""


@dataclass(frozen=True)
class Modality:
    """From stored values to modality units, PS3.3 C.11.1.

    `given`: the file states the transform, so its units are known.
    """

    slope: float = 1.0
    intercept: float = 0.0
    lut: Lut | None = None
    given: bool = False

    @property
    def is_identity(self) -> bool:
        return self.lut is None and self.slope == 1 and self.intercept == 0

    def __call__(self, stored: npt.NDArray[Any]) -> Values:
        if self.lut is not None:
            return self.lut(stored.astype(np.float64))
        return stored.astype(np.float64) * self.slope + self.intercept


@dataclass(frozen=True)
class Voi:
    """A value-of-interest transform: modality units to 0..1 (PS3.3 C.11.2)."""

    window: Window | None = None
    function: str = "LINEAR"
    lut: Lut | None = None
    explanation: str = ""

    def __call__(self, values: Values) -> Values:
        if self.lut is not None:
            return self.lut(values) / self.lut.top
        if self.window is None:
            raise ValueError("a Voi needs a window or a LUT")
        return _FUNCTIONS[self.function](values, self.window.center, self.window.width)


def linear(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.2.1. The first value of the window is black, the last one white; width is at least 1."""
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.2."""
    return np.clip((values - center) / width + 0.5, 0, 1)


def sigmoid(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.1."""
    exponent = np.clip(-4 * (values - center) / width, -700, 700)  # exp overflows beyond
    return 1 / (1 + np.exp(exponent))


_FUNCTIONS: dict[str, Callable[[Values, float, float], Values]] = {
    "LINEAR": linear,
    "LINEAR_EXACT": linear_exact,
    "SIGMOID": sigmoid,
}


def modality_of(ds: Dataset, frame_number: int, *, signed: bool, warn: Warn = ignore) -> Modality:
    """Return the modality transform of a frame. A rescale has precedence over a LUT only in functional groups."""
    if _text(ds, "SOPClassUID") in _SHOWN_AS_STORED:
        return Modality()
    group = functional_group(ds, frame_number, "PixelValueTransformationSequence")
    if group is not None and (rescale := _rescale(group)):
        return rescale
    for lut in _luts(ds, "ModalityLUTSequence", warn, signed=signed):
        return Modality(lut=lut[0], given=True)
    return _rescale(ds) or Modality()


def vois_of(ds: Dataset, frame_number: int, *, signed: bool, warn: Warn = ignore) -> list[Voi]:
    """Return all usable VOI transforms of a frame, best first: LUTs, then windows, each in the file's order.

    `signed`: modality values can be negative. A LUT comes first because the manufacturer fitted it to this image; the
    standard leaves the choice to the viewer. A LUT with missing entries comes last.
    """
    group = functional_group(ds, frame_number, "FrameVOILUTSequence")
    for source in (group, ds):
        if source is None:
            continue
        luts = [
            Voi(lut=lut, explanation=explanation)
            for lut, explanation in _luts(source, "VOILUTSequence", warn, signed=signed)
        ]
        whole = [voi for voi in luts if voi.lut and voi.lut.complete]
        if found := whole + _windows(source) + [voi for voi in luts if voi not in whole]:
            return found
    return []


def functional_group(ds: Dataset, frame_number: int, keyword: str) -> Dataset | None:
    """The frame's own item of a functional group, or the shared one, or None (PS3.3 C.7.6.16)."""
    frames = ds.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [frames[frame_number - 1]] if frame_number <= len(frames) else []
    groups += list(ds.get("SharedFunctionalGroupsSequence") or ())[:1]
    for group in groups:
        if items := group.get(keyword):
            item: Dataset = items[0]
            return item
    return None


def with_function(window: Window, function: str, explanation: str = "") -> Voi | None:
    """Return a VOI transform from the words of a header, None if they can't be used. See the module's docstring."""
    if not (math.isfinite(window.center) and math.isfinite(window.width)) or window.width <= 0:
        return None
    if function not in _FUNCTIONS:
        function = "LINEAR"
    if function == "LINEAR" and window.width < 1:
        function = "LINEAR_EXACT"
    return Voi(window=window, function=function, explanation=explanation)


def _windows(ds: Dataset) -> list[Voi]:
    function = _text(ds, "VOILUTFunction").upper() or "LINEAR"
    centers, widths = _numbers(ds, "WindowCenter"), _numbers(ds, "WindowWidth")
    names = _values(ds, "WindowCenterWidthExplanation")
    found = []
    for i, (center, width) in enumerate(zip(centers, widths, strict=False)):
        explanation = str(names[i]).strip() if i < len(names) else ""
        if voi := with_function(Window(center, width), function, explanation):
            found.append(voi)
    return found


def _rescale(ds: Dataset) -> Modality | None:
    slopes, intercepts = _numbers(ds, "RescaleSlope"), _numbers(ds, "RescaleIntercept")
    if not slopes and not intercepts:
        return None
    slope, intercept = (slopes or [1.0])[0], (intercepts or [0.0])[0]
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        return None
    return Modality(slope, intercept, given=True)


def _luts(ds: Dataset, keyword: str, warn: Warn, *, signed: bool) -> list[tuple[Lut, str]]:
    """The usable LUTs of a sequence with their explanations. An empty item, as some writers leave, is ignored."""
    found = []
    for item in ds.get(keyword) or ():
        if all(item.get(part) is None for part in ("LUTDescriptor", "LUTData")):
            continue
        try:
            lut = read_lut(item, "LUTDescriptor", "LUTData", signed=signed)
        except (PixelDecodeError, TypeError, ValueError, AttributeError) as exc:
            reason = str(exc) if isinstance(exc, PixelDecodeError) else "its values can't be read"
            warn(f"an item of {keyword} can't be used and is ignored: {reason}")
            continue
        if not lut.data.any():
            warn(f"an item of {keyword} can't be used and is ignored: all its entries are zero")
            continue
        if not lut.complete:
            warn(f"an item of {keyword} has fewer entries than its descriptor declares")
        if keyword == "VOILUTSequence" and lut.top < (1 << lut.bits) - 1:
            warn(
                f"the entries of an item of {keyword} need fewer bits than its descriptor declares; the "
                "largest entry is shown as white"
            )
        found.append((lut, _text(item, "LUTExplanation")))
    return found


def _values(ds: Dataset, keyword: str) -> list[Any]:
    """Return all values of an element; none if it is absent, empty or can't be read as its VR."""
    try:
        value = ds.get(keyword)
    except (ValueError, TypeError, OverflowError):
        return []
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else list(value)


def _numbers(ds: Dataset, keyword: str) -> list[float]:
    """Return numbers. An unreadable value is NaN and keeps its place, so that centres and widths stay paired."""
    numbers = []
    for value in _values(ds, keyword):
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            numbers.append(math.nan)
    return numbers


def _text(ds: Dataset, keyword: str) -> str:
    values = _values(ds, keyword)
    return str(values[0]).strip() if values else ""
