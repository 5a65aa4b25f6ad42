"""What an indexing run is asked to do, and how far it has come."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from indexer.reading.frames import FramePolicy


@dataclass(frozen=True)
class Shard:
    """One of `total` parts of an archive, by a hash of the path: the same on every machine. `number` counts from 1."""

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/5`. ValueError if it is no such part."""
        number, slash, total = text.partition("/")
        if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise ValueError(f"the shard is {text!r}, expected I/N with I from 1 to N, like 1/4")
        return cls(int(number), int(total))

    def __contains__(self, path: str) -> bool:
        return self.total == 1 or zlib.crc32(path.encode("utf-8", "surrogatepass")) % self.total == self.number - 1


@dataclass(frozen=True)
class IndexOptions:
    """How to index. The defaults take in what is new or changed and leave the rest of the store alone."""

    frames: FramePolicy = FramePolicy()  # which frames of a file with many
    workers: int | None = None  # decoding processes; None: one for each processor
    prune: bool = False  # what is gone from the archive leaves the store
    shard: Shard = Shard()  # only files of this part are looked at
    readmit: bool = False  # what was erased is taken in again
    keep_descriptions: bool = True  # free-text descriptions enter the catalog


@dataclass(frozen=True)
class Progress:
    """How far a run is. What is counted is done: committed, unchanged or rejected.

    `total` files is None until the archive has been counted. `rejected` is by reason. `loads` is how much of its
    time each stage was at work.
    """

    files: int
    total: int | None
    frames: int
    rejected: Mapping[str, int]
    commits: int
    loads: Mapping[str, float]


OnProgress = Callable[[Progress], None]
