"""From a uint8 picture of any size to the tensor that a model reads, without importing torch.

The same arithmetic as open_clip's inference transform (a test compares the two), split in two halves: `fit` (resize,
crop or pad; uint8, cheap to send between processes) runs where the pixels are, `batch` (float, normalised) where the
model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval.types import Uint8Image

if TYPE_CHECKING:
    from PIL import Image

_INTERPOLATION = ("bicubic", "bilinear")
_RESIZE_MODES = ("shortest", "longest", "squash")
_CROPS = ("round", "floor")


@dataclass(frozen=True)
class Preprocess:
    """open_clip's `preprocess_cfg`. `size` is (height, width); `mean` and `std` are per RGB channel on [0, 1].

    `crop` says how the corner of a centred crop is rounded: as torchvision does ("round"), or as transformers does.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    crop: str = "round"

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATION:
            raise ValueError(f"interpolation {self.interpolation!r}, expected one of {_INTERPOLATION}")
        if self.resize_mode not in _RESIZE_MODES:
            raise ValueError(f"resize_mode {self.resize_mode!r}, expected one of {_RESIZE_MODES}")
        if self.crop not in _CROPS:
            raise ValueError(f"crop {self.crop!r}, expected one of {_CROPS}")
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}, expected (height, width) of at least 1")

    @classmethod
    def from_open_clip(cls, cfg: Mapping[str, Any]) -> Preprocess:
        """From a model's `preprocess_cfg` as open_clip states it (`size` may be one number)."""
        size = cfg["size"]
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
        resize_mode = cfg.get("resize_mode") or "shortest"
        # open_clip reads "random" as bicubic at inference, and knows only bicubic for the shortest edge of an oblong.
        always_bicubic = resize_mode == "shortest" and height != width
        return cls(
            size=(height, width),
            mean=_per_channel(cfg["mean"]),
            std=_per_channel(cfg["std"]),
            interpolation="bilinear" if cfg.get("interpolation") == "bilinear" and not always_bicubic else "bicubic",
            resize_mode=resize_mode,
            fill_color=int(cfg.get("fill_color") or 0),
            crop=cfg.get("crop", "round"),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocess:
        known = {f.name for f in fields(cls)}
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if self.crop == "round":  # stores that were made before there was another know no such key
            del values["crop"]
        return values

    def fit(self, image: Uint8Image) -> Uint8Image:
        """Resize and crop or pad to `size`. Grey [H, W] stays grey, RGB [H, W, 3] stays RGB, both uint8.

        A picture that has the size already comes back as it is, so fitting twice is harmless.
        """
        _check_image(image)
        if image.shape[:2] == self.size:
            return image
        from PIL import Image  # here: a search by text needs no pictures

        picture = Image.fromarray(image)
        resample = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        if self.resize_mode == "squash":
            return np.asarray(picture.resize((width, height), resample))
        picture = picture.resize(self._resized(picture.width, picture.height), resample)
        return np.asarray(_center_crop_or_pad(picture, width, height, self.fill_color, self.crop))

    def batch(self, images: Sequence[Uint8Image]) -> npt.NDArray[np.float32]:
        """Fit, scale to [0, 1] and normalise. Returns [N, 3, height, width] float32, contiguous."""
        out = np.empty((len(images), 3, *self.size), np.float32)
        for row, image in zip(out, images, strict=True):
            fitted = self.fit(image)
            row[:] = fitted if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
        out /= np.float32(255)
        out -= np.asarray(self.mean, np.float32)[:, None, None]
        out /= np.asarray(self.std, np.float32)[:, None, None]
        return out

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after scaling with the ratio kept, rounded as torchvision and open_clip round."""
        target_height, target_width = self.size
        if self.resize_mode == "shortest" and target_height == target_width:
            if width <= height:
                return target_width, max(int(target_width * height / width), 1)
            return max(int(target_height * width / height), 1), target_height
        ratios = height / target_height, width / target_width
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return max(round(width / ratio), 1), max(round(height / ratio), 1)


def _center_crop_or_pad(picture: Image.Image, width: int, height: int, fill: int, rounding: str) -> Image.Image:
    from PIL import ImageOps

    pad_x, pad_y = max(width - picture.width, 0), max(height - picture.height, 0)
    if pad_x or pad_y:
        border = (pad_x // 2, pad_y // 2, (pad_x + 1) // 2, (pad_y + 1) // 2)
        picture = ImageOps.expand(picture, border, fill=(fill,) * 3 if picture.mode == "RGB" else fill)
    corner = round if rounding == "round" else int
    left, top = corner((picture.width - width) / 2), corner((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _check_image(image: Uint8Image) -> None:
    if (
        image.dtype != np.uint8
        or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
        or 0 in image.shape
    ):
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 [H, W] or [H, W, 3], not empty")


def _per_channel(value: Any) -> tuple[float, float, float]:
    values = [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)] * 3
    if len(values) != 3:
        raise ValueError(f"mean or std has {len(values)} values, expected one, or one for each of R, G and B")
    return values[0], values[1], values[2]
