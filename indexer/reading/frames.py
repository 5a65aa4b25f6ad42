"""Which frames of a file are indexed, and the position of a slice in its stack.

A still image has one frame. A cine or a volume in one file may have thousands that look alike: by default at most 16 of
them are indexed, evenly spaced, including the first and the last. A classic series has one slice in each file and all
are indexed; `slice_positions` gives the position of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

DEFAULT_MAXIMUM = 16


@dataclass(frozen=True)
class FramePolicy:
    """The frames to index: all, middle, every:N (the 1st, N+1st, ...) or max:N (N evenly spaced, or all if there are
    fewer).
    """

    kind: Literal["all", "middle", "every", "max"] = "max"
    number: int = DEFAULT_MAXIMUM

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"the frame policy is {self.kind}:{self.number}; expected a number of 1 or more")

    def __str__(self) -> str:
        return self.kind if self.kind in ("all", "middle") else f"{self.kind}:{self.number}"

    def select(self, number_of_frames: int) -> tuple[int, ...]:
        """Return the selected frame numbers, from 1, ascending; never empty for a file with frames."""
        n = number_of_frames
        if n < 0:
            raise ValueError(f"the number of frames is {n}; expected 0 or more")
        if n == 0:
            return ()
        if self.kind == "middle":
            return ((n + 1) // 2,)
        if self.kind == "every":
            return tuple(range(1, n + 1, self.number))
        if self.kind == "all" or n <= self.number:
            return tuple(range(1, n + 1))
        if self.number == 1:
            return ((n + 1) // 2,)
        # Integer arithmetic, rounded half up: the gaps differ by one at most, on every machine.
        gaps = self.number - 1
        return tuple(1 + (2 * i * (n - 1) + gaps) // (2 * gaps) for i in range(self.number))


def parse_policy(text: str) -> FramePolicy:
    """Read `all`, `middle`, `every:N` or `max:N`. Raises ValueError with what was expected."""
    kind, colon, number = text.strip().lower().partition(":")
    if kind in ("all", "middle") and not colon:
        return FramePolicy(kind, 1)  # type: ignore[arg-type]
    if kind in ("every", "max") and number.isascii() and number.isdigit() and int(number) > 0:
        return FramePolicy(kind, int(number))  # type: ignore[arg-type]
    raise ValueError(f"the frame policy is {text!r}; expected all, middle, every:N or max:N with N of 1 or more")


class Slice(Protocol):
    """What a record must have: columns of `keywords.COLUMNS`, several values joined by backslashes as in the file."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class SlicePosition:
    """Slice `number` (from 1) of `total` in its stack."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"slice {self.number} of {self.total}"


def slice_positions(records: Iterable[Slice]) -> dict[str, SlicePosition]:
    """The position of every slice in its stack, by SOP Instance UID. Localizers and files without geometry have none.

    A stack is what shares series, ImageOrientationPatient (to a thousandth) and ImageType. Its slices are sorted by
    their position projected on the normal of their plane (PS3.3 C.7.6.2.1.1), those at one position (phases, echoes) by
    InstanceNumber. Slices are counted, so two at one position count as two. The order of the input does not matter.
    """
    stacks: dict[tuple[Any, ...], list[tuple[float, float, str]]] = defaultdict(list)
    planes: dict[tuple[Any, ...], tuple[float, float, float] | None] = {}  # most slices of a series say the same
    keys: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for record in records:
        values = record.attributes
        geometry = tuple(map(values.get, ("series_instance_uid", "image_orientation_patient", "image_type")))
        if geometry not in planes:
            planes[geometry], keys[geometry] = _plane(*geometry)
        normal = planes[geometry]
        position = _numbers(values.get("image_position_patient"), 3)
        if normal is None or position is None:
            continue
        place = normal[0] * position[0] + normal[1] * position[1] + normal[2] * position[2]
        number = values.get("instance_number")
        stacks[keys[geometry]].append(
            (round(place, 3), math.inf if number is None else number, record.sop_instance_uid)
        )
    places = {}
    for stack in stacks.values():
        for i, (_, _, uid) in enumerate(sorted(stack), start=1):
            places[uid] = SlicePosition(i, len(stack))
    return places


def _plane(series: Any, orientation: Any, kind: Any) -> tuple[tuple[float, float, float] | None, tuple[Any, ...]]:
    """Return the normal of a slice's plane, None if it has none, and the values that slices of its stack share."""
    directions = _numbers(orientation, 6)
    if directions is None:
        return None, ()
    normal = _cross(directions[:3], directions[3:])
    if not math.isclose(math.hypot(*normal), 1, abs_tol=0.01):
        return None, ()  # the directions are not unit vectors, or not at right angles, so there is no plane
    types = tuple(str(kind or "").upper().split("\\"))
    return normal, (series, tuple(round(v, 3) + 0.0 for v in directions), types)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(v) for v in (value.split("\\") if isinstance(value, str) else value or ()))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _cross(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
