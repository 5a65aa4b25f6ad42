"""Preprocessing equals open_clip's own inference transform, pixel for pixel."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.encoders.preprocess import Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(32, 32), (33, 33), (24, 40), (41, 23)]


def picture(height: int, width: int, rgb: bool, seed: int = 0) -> npt.NDArray[np.uint8]:
    shape = (height, width, 3) if rgb else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def cfg(size: tuple[int, int], mode: str = "shortest", interpolation: str = "bicubic", fill: int = 0) -> dict[str, Any]:
    return {
        "size": size,
        "mean": MEAN,
        "std": STD,
        "interpolation": interpolation,
        "resize_mode": mode,
        "fill_color": fill,
    }


def by_open_clip(values: dict[str, Any], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    transform = image_transform_v2(PreprocessCfg(**values), is_train=False)
    return transform(Image.fromarray(image)).numpy()


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    rgb=st.booleans(),
    size=st.sampled_from(SIZES),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "random"]),
    fill=st.sampled_from([0, 7, 255]),
    seed=st.integers(0, 5),
)
def test_equals_open_clip(
    height: int, width: int, rgb: bool, size: tuple[int, int], mode: str, interpolation: str, fill: int, seed: int
) -> None:
    values = cfg(size, mode, interpolation, fill)
    image = picture(height, width, rgb, seed)
    got = Preprocess.from_open_clip(values).batch([image])
    if mode == "longest" and min(height / size[0], width / size[1]) / max(height / size[0], width / size[1]) < 0.05:
        # open_clip rounds the short edge of such strips to no pixels, and fails; here one pixel is kept.
        assert np.isfinite(got).all()
        return
    np.testing.assert_allclose(got[0], by_open_clip(values, image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 9), (512, 511), (224, 224), (225, 224), (97, 640)])
@pytest.mark.parametrize("rgb", [False, True])
def test_equals_open_clip_at_a_models_size(mode: str, shape: tuple[int, int], rgb: bool) -> None:
    values = cfg((224, 224), mode)
    image = picture(*shape, rgb)
    got = Preprocess.from_open_clip(values).batch([image])
    assert got.shape == (1, 3, 224, 224)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], by_open_clip(values, image), rtol=0, atol=1e-6)


def test_the_shortest_edge_of_an_oblong_is_bicubic_as_open_clip_has_it() -> None:
    oblong = Preprocess.from_open_clip(cfg((24, 40), "shortest", "bilinear"))
    assert oblong.interpolation == "bicubic"
    assert Preprocess.from_open_clip(cfg((24, 24), "shortest", "bilinear")).interpolation == "bilinear"


def test_a_strip_keeps_one_pixel_in_longest() -> None:
    strip = np.full((1, 500), 200, np.uint8)
    fitted = Preprocess((32, 32), MEAN, STD, resize_mode="longest").fit(strip)
    assert fitted.shape == (32, 32)
    assert (fitted.max(axis=1) > 0).sum() == 1  # one row of the picture, the rest border


def test_size_and_channel_statistics_may_be_one_number() -> None:
    made = Preprocess.from_open_clip({"size": 16, "mean": 0.5, "std": (0.25,) * 3})
    assert made == Preprocess((16, 16), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("rgb", [False, True])
def test_fitting_twice_changes_nothing_and_keeps_the_channels(mode: str, rgb: bool) -> None:
    preprocess = Preprocess((20, 28), MEAN, STD, resize_mode=mode)
    once = preprocess.fit(picture(61, 47, rgb))
    assert once.dtype == np.uint8
    assert once.shape == ((20, 28, 3) if rgb else (20, 28))
    np.testing.assert_array_equal(preprocess.fit(once), once)
    np.testing.assert_array_equal(preprocess.batch([once]), preprocess.batch([picture(61, 47, rgb)]))


def test_grey_is_the_same_as_three_equal_channels() -> None:
    preprocess = Preprocess((32, 32), MEAN, STD)
    grey = picture(50, 70, False)
    np.testing.assert_array_equal(preprocess.batch([grey]), preprocess.batch([np.stack([grey] * 3, axis=-1)]))


def test_a_batch_keeps_order_and_mixes_grey_and_rgb() -> None:
    preprocess = Preprocess((16, 16), MEAN, STD)
    images = [picture(10 + i, 40 - i, i % 2 == 0, i) for i in range(5)]
    batch = preprocess.batch(images)
    assert batch.flags.c_contiguous
    for row, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(row, preprocess.batch([image])[0])
    assert preprocess.batch([]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused_by_what_it_is(image: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W\] or \[H, W, 3\]") as caught:
        Preprocess((16, 16), MEAN, STD).fit(image)
    assert str(image.dtype) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interpolation": "lanczos"}, "lanczos"),
        ({"resize_mode": "crop"}, "crop"),
        ({"size": (0, 16)}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"size": (16, 16), "mean": MEAN, "std": STD} | change
    with pytest.raises(ValueError, match=said):
        Preprocess(**values)


def test_two_channel_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values"):
        Preprocess.from_open_clip({"size": 16, "mean": (0.5, 0.5), "std": 0.2})


@given(
    size=st.tuples(st.integers(1, 999), st.integers(1, 999)),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    fill=st.integers(0, 255),
)
def test_json_round_trip(size: tuple[int, int], mean: tuple[float, float, float], mode: str, fill: int) -> None:
    made = Preprocess(size, mean, STD, "bilinear", mode, fill)
    assert Preprocess.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_json_of_a_later_version_may_hold_more() -> None:
    made = Preprocess((16, 16), MEAN, STD)
    assert Preprocess.from_json(made.to_json() | {"added_later": 1}) == made


def test_a_crop_that_rounds_as_ever_is_not_said() -> None:
    """Else the fingerprints of all stores that were made before there was another would change."""
    plain, floor = Preprocess((16, 16), MEAN, STD), Preprocess((16, 16), MEAN, STD, crop="floor")
    assert "crop" not in plain.to_json()
    assert floor.to_json()["crop"] == "floor"
    assert [Preprocess.from_json(one.to_json()) for one in (plain, floor)] == [plain, floor]
    strip = np.arange(16 * 19, dtype=np.uint32).reshape(16, 19).astype(np.uint8)
    np.testing.assert_array_equal(plain.fit(strip), strip[:, 2:18])  # 1.5 columns on each side: round(1.5) is 2
    np.testing.assert_array_equal(floor.fit(strip), strip[:, 1:17])
