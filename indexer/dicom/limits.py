"""Limits on what reading one file may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits count what is expensive. The defaults are 50 times what any of some 270 valid test files needs.

    An element that pydicom reads becomes a Python object; one in a large PerFrameFunctionalGroupsSequence is only
    skipped until its frame is requested (`frame_groups`), so the limit for those is much higher.
    """

    elements: int = 300_000  # data elements and sequence items in all, except large functional groups
    group_elements: int = 5_000_000  # in these: ten thousand frames of an enhanced MR have up to two million
    group_items: int = 1 << 20  # one for each frame
    nesting: int = 64  # sequences in sequences
    header_bytes: int = 256 << 20  # values kept in memory, in all
    defer_bytes: int = 32 << 20  # a longer value stays in the file
    encapsulated_bytes: int = 4 << 30  # all fragments of compressed pixel data
    inflated_bytes: int = 512 << 20  # of a deflated data set
    frame_samples: int = 1 << 27  # rows x columns x samples of one frame; 6,600 x 6,600 in RGB
    total_samples: int = 1 << 36  # of all frames; a whole-slide image of 300,000 tiles
