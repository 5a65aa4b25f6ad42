"""A frame as the uint8 picture that the encoder sees.

Stored values -> modality transform -> value of interest -> MONOCHROME1 inverted -> 0..255, or colour -> RGB.
Everything pointwise is computed in float64 and rounded once at the end. Where the frame's values span no more than
65,536 integers that computation is done once per value and the picture is looked up: the same numbers, several times
faster (benchmarks/render.py).

Overlays are left out: they are annotations, often with names, and no part of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn, ignore
from indexer.render.codecs import StoredFrame, library_errors, number_of_frames, stored_frame
from indexer.render.colour import apply_palette, to_rgb
from indexer.render.pixels import Pixels
from indexer.render.windows import WINDOWS, Modality, Voi, modality_of, vois_of, with_function
from retrieval.errors import UnsupportedImageError
from retrieval.types import RenderProfile, Uint8Image, Window

_TABLE_LIMIT = 1 << 16  # the widest span of integers that is looked up
_CHUNK = 1 << 17  # samples looked up at a time, so that NumPy's 8-byte index stays in the cache


def render_frame(
    ds: Dataset,
    frame_number: int = 1,
    profile: RenderProfile = RenderProfile(),
    *,
    window: str | Window | None = None,
    exact: bool = False,
    pixels: Pixels | None = None,
    warn: Warn = ignore,
) -> Uint8Image:
    """Render frame `frame_number` (from 1) as [H, W] grey or [H, W, 3] RGB, 0 to 255.

    `window` overrides everything for a grey image: a Window in modality units (Hounsfield for CT), the explanation of
    one of the file's own windows, or a name of `WINDOWS` (CT only). Otherwise the profile's windows for this Modality
    are used where the file states its units; then the file's first VOI LUT or window; then, for unsigned images of
    up to 8 bits whose modality transform does nothing, the whole range as it is; then the profile's percentiles of
    this frame, without padding. Colour images have no window. `exact` computes every pixel instead of looking it up.

    `pixels` are those of `ds`, if they were found before. `warn` is called with what was assumed, in words that hold no
    value. `ds` is not changed. Raises UnsupportedImageError or PixelDecodeError.
    """
    if frame_number < 1:
        raise ValueError(f"frame_number is {frame_number}; expected 1 or more")
    if isinstance(window, Window) and with_function(window, "LINEAR") is None:
        raise ValueError(f"the window is {window}; expected finite numbers and a width above 0")
    with library_errors("rendering"):
        frame = stored_frame(ds, frame_number - 1, pixels, warn)
        if frame.values.ndim == 3:
            return np.ascontiguousarray(to_rgb(frame))
        if frame.photometric == "PALETTE COLOR":
            return apply_palette(frame, ds, warn)
        return _render_grey(frame, ds, frame_number, profile, window, warn, exact=exact)


def _render_grey(
    frame: StoredFrame,
    ds: Dataset,
    frame_number: int,
    profile: RenderProfile,
    window: str | Window | None,
    warn: Warn,
    *,
    exact: bool,
) -> Uint8Image:
    stored = frame.values
    if "RedPaletteColorLookupTableDescriptor" in ds:  # PS3.3 C.7.6.19
        warn("a supplemental palette beside grey values is ignored; the picture is shown in grey")
    modality = modality_of(ds, frame_number, signed=stored.dtype.kind == "i", warn=warn)
    vois = chosen_vois(frame, ds, frame_number, modality, profile, window, warn)
    inverted = frame.photometric == "MONOCHROME1"

    def picture(voi: Voi, values: npt.NDArray[Any]) -> Uint8Image:
        shown = np.floor(voi(modality(values)) * 255 + 0.5)
        return (255 - shown if inverted else shown).astype(np.uint8)

    if stored.dtype.kind == "f":
        known = np.isfinite(stored)
        planes = [np.where(known, picture(voi, np.where(known, stored, 0)), np.uint8(0)) for voi in vois]
    elif exact:
        planes = [picture(voi, stored) for voi in vois]
    else:
        planes = _look_up(stored, [partial(picture, voi) for voi in vois])
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


def _look_up(stored: npt.NDArray[Any], functions: list[Callable[[npt.NDArray[Any]], Uint8Image]]) -> list[Uint8Image]:
    low, high = int(stored.min()), int(stored.max())
    span = high - low + 1
    if span > _TABLE_LIMIT or span > stored.size:
        return [function(stored) for function in functions]
    domain = np.arange(low, high + 1, dtype=np.int64)
    flat = stored.reshape(-1)
    if stored.dtype.itemsize > 2:
        flat = (flat.astype(np.int64) - low).astype(np.uint16)
        domain_index = domain - low
    else:  # the bits of a value are its place in the table: -1 is the last one
        flat = flat.view(f"u{stored.dtype.itemsize}")
        domain_index = domain & ((1 << 8 * stored.dtype.itemsize) - 1)
    planes = []
    for function in functions:
        table = np.zeros(_TABLE_LIMIT, np.uint8)
        table[domain_index] = function(domain)
        plane = np.empty(flat.shape, np.uint8)
        for start in range(0, flat.size, _CHUNK):
            np.take(table, flat[start : start + _CHUNK], out=plane[start : start + _CHUNK], mode="clip")
        planes.append(plane)
    return [plane.reshape(stored.shape) for plane in planes]


def chosen_vois(
    frame: StoredFrame,
    ds: Dataset,
    frame_number: int,
    modality: Modality,
    profile: RenderProfile = RenderProfile(),
    window: str | Window | None = None,
    warn: Warn = ignore,
) -> list[Voi]:
    """Return the transform with which `render_frame` shows a grey frame: one VOI transform, or three to be stacked."""
    stored = frame.values
    if isinstance(window, Window):
        return [voi for voi in (with_function(window, "LINEAR"),) if voi]
    signed = stored.dtype.kind == "i" or modality.intercept < 0 or modality.slope < 0
    name = str(ds.get("Modality") or "")
    if window is None and modality.given and (wanted := profile.windows.get(name)):
        return [voi for each in wanted if (voi := with_function(each, "LINEAR"))]
    vois = vois_of(ds, frame_number, signed=signed, warn=warn)
    if window is not None:
        return [_named(window, vois, name, modality)]
    if vois:
        return vois[:1]
    if stored.dtype.kind == "u" and frame.bits_stored <= 8 and modality.is_identity:
        top = float((1 << frame.bits_stored) - 1)
        return [Voi(window=Window(top / 2, top), function="LINEAR_EXACT")]
    low, high = _range(stored, ds, modality, profile.percentiles)
    return [Voi(window=Window((low + high) / 2, high - low), function="LINEAR_EXACT")]


def _named(window: str, vois: list[Voi], name: str, modality: Modality) -> Voi:
    wanted = " ".join(window.lower().replace("_", " ").replace("-", " ").split())
    for voi in vois:
        if voi.explanation and voi.explanation.lower() in (window.lower(), wanted):
            return voi
    if wanted not in WINDOWS:
        raise UnsupportedImageError(
            "neither the file nor medlens defines a window of that name; the file defines "
            f"{len(vois)} windows, medlens {', '.join(WINDOWS)}",
            hint="Leave out the window to use the one in the file.",
        )
    if name != "CT" or not modality.given:
        raise UnsupportedImageError(
            f"the window {wanted!r} is in Hounsfield units, but this image is "
            f"{'a CT without a rescale' if name == 'CT' else 'not a CT'}",
            hint="Leave out the window to use the one in the file.",
        )
    return Voi(window=WINDOWS[wanted])


def _range(
    stored: npt.NDArray[Any], ds: Dataset, modality: Modality, percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Return the percentiles of the frame's modality values without padding; high is always above low.

    If the percentiles are equal (a mask that is mostly background), the whole range is used.
    """
    values, counts = _counted(stored)
    is_valid = ~_padding(values, ds, stored.dtype) & np.isfinite(values)
    if is_valid.any():
        values, counts = values[is_valid], counts[is_valid]
    shown = modality(values)
    order = np.argsort(shown, kind="stable")
    shown, cumulated = shown[order], np.cumsum(counts[order])
    total = int(cumulated[-1])

    def percentile(p: float) -> float:  # linear between the two nearest ranks, as numpy.percentile
        rank = p / 100 * (total - 1)
        below = int(np.floor(rank))
        a, b = (shown[np.searchsorted(cumulated, min(r, total - 1), side="right")] for r in (below, below + 1))
        return float(a + (b - a) * (rank - below))

    low, high = percentile(percentiles[0]), percentile(percentiles[1])
    if not low < high:
        low, high = float(shown[0]), float(shown[-1])
    if not low < high:  # one value only: black
        high = low + 2 * max(1.0, abs(low))
    return low, high


def _counted(stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the distinct values, ascending, and their counts."""
    if stored.dtype.kind != "f":
        low, high = int(stored.min()), int(stored.max())
        if high - low < _TABLE_LIMIT:
            counts = np.bincount((stored.astype(np.int64) - low).reshape(-1))
            occurring = np.flatnonzero(counts)
            return occurring + low, counts[occurring]
    return np.unique(stored, return_counts=True)


def _padding(values: npt.NDArray[Any], ds: Dataset, kind: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of PixelPaddingValue, or of the range up to PixelPaddingRangeLimit, PS3.3 C.7.5.1.1.2."""
    keyword = "FloatPixelPadding" if kind.kind == "f" else "PixelPadding"
    try:
        first = ds.get(f"{keyword}Value")
        last = ds.get(f"{keyword}RangeLimit", first)
        if first is None or last is None:
            return np.zeros(values.shape, bool)
        ends = sorted(_same_bits(float(end), kind) for end in (first, last))
    except (TypeError, ValueError, OverflowError):
        return np.zeros(values.shape, bool)
    return (values >= ends[0]) & (values <= ends[1])


def _same_bits(value: float, kind: np.dtype[Any]) -> float:
    """A padding value as a pixel of `kind`: it may have been written US where pixels are signed, or the reverse."""
    if kind.kind == "f" or kind.itemsize > 2:
        return value
    size = 1 << 8 * kind.itemsize
    if kind.kind == "i" and size // 2 <= value < size:
        return value - size
    return value + size if kind.kind == "u" and -size // 2 <= value < 0 else value


__all__ = ["WINDOWS", "number_of_frames", "render_frame"]
