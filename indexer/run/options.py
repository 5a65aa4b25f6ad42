"""The options of an indexing run, and its progress."""

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
        """Parse `2/5`. Raises ValueError if it is not a valid part."""
        number, slash, total = text.partition("/")
        if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise ValueError(f"the shard is {text!r}; expected I/N with I from 1 to N, such as 1/4")
        return cls(int(number), int(total))

    def __contains__(self, path: str) -> bool:
        return self.total == 1 or zlib.crc32(path.encode("utf-8", "surrogatepass")) % self.total == self.number - 1


@dataclass(frozen=True)
class IndexOptions:
    """How to index. The defaults add new and changed files and leave the rest of the store unchanged."""

    frames: FramePolicy = FramePolicy()  # which frames of a file with many
    workers: int | None = None  # decoding processes; None: one for each processor
    prune: bool = False  # what is gone from the archive leaves the store
    shard: Shard = Shard()  # only files of this part are looked at
    readmit: bool = False  # erased files are indexed again
    keep_descriptions: bool = True  # free-text descriptions enter the catalog


@dataclass(frozen=True)
class Progress:
    """The progress of a run. Counted files are done: committed, unchanged or rejected.

    `total` is None until the archives have been counted. `rejected` is by reason. `loads` is the share of its time that
    each stage was at work.
    """

    files: int
    total: int | None
    frames: int
    rejected: Mapping[str, int]
    commits: int
    loads: Mapping[str, float]


OnProgress = Callable[[Progress], None]
