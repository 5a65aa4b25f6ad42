"""Which fragments of encapsulated pixel data form which frame (PS3.5 A.4).

Offset tables are wrong in many files: shifted, for another number of frames, or of two bytes. They are used last. If
there are as many fragments as frames, each frame has one; else a frame begins where a codestream begins; only then does
a table decide, if each of its entries is the start of a fragment and none occurs twice. A frame is never made of
another frame's fragments: if they can't be assigned, the file is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO

from indexer.dicom.budget import Warn
from indexer.dicom.fragments import Fragments
from retrieval.errors import PixelDecodeError

Span = tuple[int, int]  # (place, length) of a fragment
STARTS = (
    b"\xff\xd8\xff",  # JPEG and JPEG-LS
    b"\xff\x4f\xff\x51",  # JPEG 2000
    b"\0\0\0\x0cjP  ",  # JP2
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL ",
)
_END = b"\xff\xd9"  # of a JPEG, a JPEG-LS and a JPEG 2000 codestream
_LONG = 0xFFFFFFFF
_FEWEST = 100  # a header that declares a hundred times the existing frames can't be trusted at all


def frame_spans(
    file: BinaryIO, fragments: Fragments, frames: int, extended: bytes | None, warn: Warn, *, rle: bool
) -> list[Sequence[Span]]:
    """Return the fragments of each frame that exists, in order: at most `frames`.

    `extended` is the Extended Offset Table, if there is one. Raises PixelDecodeError if no frame is complete, or if
    frames can't be told apart.
    """
    spans = list(fragments.spans)
    if fragments.table.startswith(STARTS):
        warn("the first fragment of the pixel data is a frame; expected an offset table")
        spans.insert(0, (fragments.table_place, len(fragments.table)))
    if len(spans) != frames:
        spans = [span for span in spans if span[1]]
    if fragments.cut and spans and not _ends(file, spans[-1]):
        spans.pop()
        warn("the pixel data end within a fragment; its frame is left out")
    if not spans:
        raise PixelDecodeError("the pixel data contain no complete fragment; the file is truncated")
    if len(spans) == 1 and frames == 1:
        found: list[Sequence[Span]] = [spans]
    elif len(spans) == frames:
        found = [[span] for span in spans]
    else:
        found = _grouped(file, fragments, spans, frames, extended, warn, rle=rle)
    first = spans[0][0]
    if fragments.table not in (b"", struct.pack(f"<{len(found)}L", *((each[0][0] - first) & _LONG for each in found))):
        warn("the offset table of the pixel data does not match their fragments; it is ignored")
    return found


def _grouped(
    file: BinaryIO,
    fragments: Fragments,
    spans: list[Span],
    frames: int,
    extended: bytes | None,
    warn: Warn,
    *,
    rle: bool,
) -> list[Sequence[Span]]:
    """Assign the fragments if there are more or fewer of them than frames."""
    begins = [i for i, span in enumerate(spans) if _begins(file, span, rle=rle)]
    if len(spans) > frames:
        if begins[:1] != [0] or len(begins) < frames:
            begins = [0] if frames == 1 else _by_table(fragments, spans, frames, extended)
        elif len(begins) > frames:
            warn("the pixel data contain more frames than (0028,0008) NumberOfFrames declares; the first ones are read")
        ends = [*begins[1:], len(spans)]
        return [spans[start:stop] for start, stop in zip(begins[:frames], ends, strict=False)]
    if len(begins) != len(spans) or len(spans) * _FEWEST < frames:
        raise PixelDecodeError(f"the pixel data have {len(spans)} fragments, too few for {frames} frames")
    warn(
        "the pixel data contain fewer frames than (0028,0008) NumberOfFrames declares; the "
        "frames that are there are read"
    )
    return [[span] for span in spans]


def read_spans(file: BinaryIO, spans: Sequence[Span]) -> bytes:
    parts = []
    for place, length in spans:
        file.seek(place)
        parts.append(file.read(length))
    return b"".join(parts)


def _begins(file: BinaryIO, span: Span, *, rle: bool) -> bool:
    file.seek(span[0])
    head = file.read(min(8, span[1]))
    if rle:  # PS3.5 G.5: the number of segments, then where the first one begins
        return len(head) == 8 and 1 <= head[0] <= 15 and head[1:4] == b"\0\0\0" and head[4:] == b"\x40\0\0\0"
    return head.startswith(STARTS)


def _ends(file: BinaryIO, span: Span) -> bool:
    """Whether a fragment that the file's end cuts still contains the end of its codestream: then its length was
    wrong.
    """
    tail = min(span[1], 64)
    file.seek(span[0] + span[1] - tail)
    return _END in file.read(tail)


def _by_table(fragments: Fragments, spans: list[Span], frames: int, extended: bytes | None) -> list[int]:
    """Return the indexes of the fragments that begin a frame, from a plausible offset table."""
    first = spans[0][0]
    fragment_at = {place - first: i for i, (place, _) in enumerate(spans)}
    for table, size, code in ((extended or b"", 8, "Q"), (fragments.table, 4, "L")):
        if len(table) != size * frames:
            continue
        offsets = struct.unpack(f"<{frames}{code}", table)
        begins = [fragment_at.get(offset, -1) for offset in offsets]
        if begins[0] == 0 and all(a < b for a, b in pairwise(begins)):
            return begins
    raise PixelDecodeError(
        f"the pixel data have {len(spans)} fragments for {frames} frames and no offset table to assign them"
    )
