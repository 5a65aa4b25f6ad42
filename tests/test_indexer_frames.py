"""Which frames are taken, and where a slice stands."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.reading.frames import FramePolicy, SlicePosition, parse_policy, slice_positions


@pytest.mark.parametrize(
    ("text", "frames", "chosen"),
    [
        ("all", 3, (1, 2, 3)),
        ("middle", 1, (1,)),
        ("middle", 4, (2,)),
        ("middle", 5, (3,)),
        ("every:2", 5, (1, 3, 5)),
        ("every:10", 5, (1,)),
        ("max:3", 2, (1, 2)),
        ("max:3", 5, (1, 3, 5)),
        ("max:4", 10, (1, 4, 7, 10)),
        ("max:1", 9, (5,)),
        (" MAX:2 ", 100, (1, 100)),
        ("all", 0, ()),
    ],
)
def test_policies(text: str, frames: int, chosen: tuple[int, ...]) -> None:
    assert parse_policy(text).select(frames) == chosen


def test_the_default_takes_a_still_image_and_sixteen_of_a_cine() -> None:
    assert FramePolicy().select(1) == (1,)
    chosen = FramePolicy().select(1000)
    assert (len(chosen), chosen[0], chosen[-1]) == (16, 1, 1000)


@given(st.integers(1, 5000), st.integers(2, 100))
def test_evenly_spaced(frames: int, number: int) -> None:
    chosen = FramePolicy("max", number).select(frames)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert len(chosen) == min(frames, number)
    assert chosen[0] == 1 and chosen[-1] == frames
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize("text", ["all", "middle", "every:3", "max:7"])
def test_a_policy_reads_what_it_writes(text: str) -> None:
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize("text", ["", "some", "all:2", "every", "every:", "every:0", "max:-1", "max:1.5", "max:²"])
def test_a_bad_policy_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected all, middle, every:N or max:N"):
        parse_policy(text)


@dataclass
class Record:
    sop_instance_uid: str
    attributes: dict[str, Any] = field(default_factory=dict)


AXIAL = "1\\0\\0\\0\\1\\0"
CORONAL = "1\\0\\0\\0\\0\\-1"


def slice_at(uid: str, position: str, *, orientation: str = AXIAL, kind: str = "ORIGINAL", **more: Any) -> Record:
    place = {"image_position_patient": position, "image_orientation_patient": orientation}
    return Record(uid, {"series_instance_uid": "1", "image_type": kind} | place | more)


def test_slices_are_sorted_by_position_not_by_number() -> None:
    records = [slice_at(f"z{z}", f"0\\0\\{z}", instance_number=-z) for z in range(-60, 60)]
    random.Random(0).shuffle(records)
    places = slice_positions(records)
    assert places["z-60"] == SlicePosition(1, 120)
    assert places["z-20"] == SlicePosition(41, 120)
    assert str(places["z-20"]) == "slice 41 of 120"
    assert places["z59"] == SlicePosition(120, 120)


def test_the_projection_on_the_normal_counts() -> None:
    """A tilted stack whose positions shift in the plane: only the part along the normal orders it."""
    orientation = "0.8\\0.6\\0\\0\\0\\-1"  # normal -0.6, 0.8, 0
    records = [slice_at(str(i), f"{-0.6 * i + 80 * (-1) ** i}\\{0.8 * i + 60 * (-1) ** i}\\3", orientation=orientation)
               for i in range(10)]  # fmt: skip
    assert [slice_positions(records)[str(i)].number for i in range(10)] == list(range(1, 11))


def test_orientation_image_type_and_series_part_stacks() -> None:
    records = [slice_at(f"a{z}", f"0\\0\\{z}") for z in range(3)]
    records += [slice_at(f"c{y}", f"0\\{y}\\0", orientation=CORONAL) for y in range(4)]
    records += [slice_at(f"m{z}", f"0\\0\\{z}", kind="DERIVED\\MIP") for z in range(2)]
    records += [slice_at("other", "0\\0\\1", series_instance_uid="2")]
    places = slice_positions(records)
    assert [places[uid].total for uid in ("a0", "c0", "m0", "other")] == [3, 4, 2, 1]
    assert places["c0"].number == 1  # the coronal normal points back: y grows along it
    assert places["c3"].number == 4


def test_a_wobble_of_the_last_digit_does_not_part_a_stack() -> None:
    records = [slice_at("1", "0\\0\\1", orientation="1\\0\\0\\0\\1\\-0.00001"), slice_at("2", "0\\0\\2")]
    assert slice_positions(records) == {"1": SlicePosition(1, 2), "2": SlicePosition(2, 2)}


def test_slices_at_one_position_are_sorted_by_instance_number() -> None:
    records = [slice_at(str(n), "0\\0\\5", instance_number=n) for n in (10, 9, 2)]
    records.append(slice_at("none", "0\\0\\5"))
    places = slice_positions(records)
    assert [places[uid].number for uid in ("2", "9", "10", "none")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("orientation", "position"),
    [(None, "0\\0\\0"), (AXIAL, None), (AXIAL, "0\\0"), (AXIAL, "a\\b\\c"), ("1\\0\\0\\1\\0\\0", "0\\0\\0"), ("", "")],
)
def test_without_geometry_there_is_no_place(orientation: Any, position: Any) -> None:
    assert slice_positions([slice_at("1", position, orientation=orientation)]) == {}
