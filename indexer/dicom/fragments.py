"""Encapsulated pixel data as a list of fragments, found by their own lengths (PS3.5 A.4).

Nothing is searched for: a delimiter that happens to be inside a codestream ends nothing, and a missing one costs
nothing. The offset tables are interpreted by the caller, who knows how many frames there should be.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from retrieval.errors import DecodeGuardError

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_HEADER = struct.Struct("<4sL")
_MOST = 4_000_000  # fragments; walking over them takes some seconds


@dataclass(frozen=True)
class Fragments:
    """The items of encapsulated pixel data. Places are those of values in the file that was walked.

    `spans` has (place, length) of every item except the first, which is the Basic Offset Table. `end` is where the next
    data element begins, or the end of what could be read. `delimited`: the sequence delimiter was found. `cut`: the
    last fragment is shorter than declared, because the file ends.
    """

    table: bytes
    table_place: int
    spans: tuple[tuple[int, int], ...]
    end: int
    delimited: bool
    cut: bool = False


def walk_fragments(file: BinaryIO, start: int, end: int, most_bytes: int) -> Fragments:
    """Find the fragments between `start`, where the first item should be, and `end`, beyond which nothing is read.

    Raises DecodeGuardError for more than `most_bytes` or for more fragments than can be walked over in seconds.
    """
    place, items, delimited, cut = start, [], False, False
    file.seek(start)
    while place + 8 <= end and len(header := file.read(8)) == 8:
        tag, length = _HEADER.unpack(header)
        if tag != _ITEM:
            delimited = tag == _SEQUENCE_END
            place += 8 if delimited else 0
            break
        value = place + 8
        if value + length > end:
            items.append((value, end - value))
            place, cut = end, True
            break
        items.append((value, length))
        place = value + length
        if place - start > most_bytes or len(items) > _MOST:
            raise DecodeGuardError(
                f"the encapsulated pixel data have more than {most_bytes >> 20} MiB or {_MOST:,} fragments"
            )
        file.seek(place)
    table_place, table_length = items[0] if items else (start, 0)
    file.seek(table_place)
    return Fragments(file.read(table_length), table_place, tuple(items[1:]), place, delimited, cut)
