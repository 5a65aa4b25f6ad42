"""Large functional groups, read one frame at a time.

The per-frame groups of an enhanced file are most of its header: 4,000 frames of an MR have 340,000 elements, and
pydicom creates an object for each. Only the groups of the shown frames are needed.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence_item
from pydicom.sequence import Sequence


class FrameGroups(Sequence):  # type: ignore[misc]  # pydicom has no types here
    """A read-only sequence that keeps its items as bytes and parses each one on access.

    `spans` are start and end of each item in `data`, one after the other, headers included.
    """

    def __init__(
        self,
        data: bytes,
        spans: array[int],
        *,
        implicit: bool,
        little_endian: bool,
        encoding: str | list[str],
    ) -> None:
        super().__init__()
        self._data, self._spans = data, spans
        self._form = (implicit, little_endian, encoding)

    def __len__(self) -> int:
        return len(self._spans) // 2

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        return self._item(places) if isinstance(places, int) else [self._item(place) for place in places]

    def __iter__(self) -> Iterator[Dataset]:
        return map(self._item, range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __ne__(self, other: Any) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def _item(self, place: int) -> Dataset:
        implicit, little_endian, encoding = self._form
        start, end = self._spans[2 * place : 2 * place + 2]
        item = read_sequence_item(io.BytesIO(self._data[start:end]), implicit, little_endian, encoding)
        return Dataset() if item is None else item
