"""REF: the way to name an image in every command and call.

A REF is one of three things:

- The *short key* of a hit, or at least its first 8 letters: base32 of the SHA-256 of `SOP Instance UID#frame number`.
  It is the same in every store. Any prefix that belongs to one frame only is accepted.
- A SOP Instance UID, with `#frame number` or without. Without it, the first indexed frame of the instance is meant.
- A file: DICOM, PNG or JPEG. An existing file takes precedence over the other two. A text that is neither a key nor a
  UID and has a `/` or a file extension names a file, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from retrieval.errors import QueryError
from retrieval.types import FrameKey, shortest_unambiguous

LEAST_LETTERS = 8
_SHORT = re.compile(r"[a-z2-7]{8,52}", re.ASCII | re.IGNORECASE)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+", re.ASCII)
_WITH_FRAME = re.compile(r"(?P<uid>[^#/\\\s]+)#(?P<frame>[0-9]+)", re.ASCII)
STORED_FORMS = "the ref of a search result (8 letters or more) or a SOP Instance UID (with #FRAME if it has several)"
FORMS = f"{STORED_FORMS}, or a file"


@dataclass(frozen=True)
class FrameRef:
    """A frame of an instance. A `frame_number` of None means the first indexed frame."""

    sop_instance_uid: str
    frame_number: int | None = None

    def __str__(self) -> str:
        return self.sop_instance_uid if self.frame_number is None else f"{self.sop_instance_uid}#{self.frame_number}"


@dataclass(frozen=True)
class ShortRef:
    """The beginning of a short key, in lower case."""

    letters: str

    def __str__(self) -> str:
        return self.letters


StoredRef = FrameRef | ShortRef  # refers to a frame of the store
Ref = Path | StoredRef


class KeyFinder(Protocol):
    """The part of a catalog that `resolve` needs."""

    def keys_with_prefix(self, letters: str, most: int) -> Sequence[FrameKey]:
        """The frames whose short key begins with these letters, at most `most` of them."""
        ...

    def frames_of_instance(self, sop_instance_uid: str) -> Sequence[FrameKey]:
        """The indexed frames of an instance, by ascending number."""
        ...


def parse_ref(text: str) -> Ref:
    """The file, key or frame that a text names. Raises QueryError for a text that can't be a REF.

    This function does not check that the file can be read or that the store has the frame (`resolve` does).
    """
    if not text.strip():
        raise QueryError("the reference to an image is empty", hint=f"Enter {FORMS}.")
    if "\0" not in text and _is_there(Path(text)):
        return Path(text)
    if match := _WITH_FRAME.fullmatch(text):
        if int(match["frame"]) < 1:
            raise QueryError(f"{text!r} names frame {match['frame']}; expected a frame number from 1 on")
        return FrameRef(match["uid"], int(match["frame"]))
    if _UID.fullmatch(text):
        return FrameRef(text)
    if _SHORT.fullmatch(text):
        return ShortRef(text.lower())
    if "\0" not in text and ("/" in text or Path(text).suffix):
        return Path(text)
    raise QueryError(f"{text!r} is not a reference to an image", hint=f"Enter {FORMS}.")


def resolve(ref: StoredRef, catalog: KeyFinder) -> FrameKey:
    """The frame of a store that a REF names. Raises QueryError if no frame or more than one frame matches."""
    if isinstance(ref, ShortRef):
        found = catalog.keys_with_prefix(ref.letters, 6)
        if not found:
            raise QueryError(
                f"the store has no frame whose key begins with {ref.letters!r}",
                hint="`medlens search` prints the keys of its hits.",
            )
        if len(found) > 1:
            listed = ", ".join(shortest_unambiguous(key, found) for key in found[:5])
            more = " and more" if len(found) > 5 else ""
            raise QueryError(
                f"the key {ref.letters!r} is ambiguous: {listed}{more}", hint="Enter more letters of the key."
            )
        return found[0]
    frames = catalog.frames_of_instance(ref.sop_instance_uid)
    if not frames:
        raise QueryError(
            "the store has no frame with this SOP Instance UID", hint="`medlens select` lists the frames of the store."
        )
    if ref.frame_number is None:
        return frames[0]
    for key in frames:
        if key.frame_number == ref.frame_number:
            return key
    numbers = ", ".join(str(key.frame_number) for key in frames[:8]) + (" ..." if len(frames) > 8 else "")
    raise QueryError(
        f"the store does not have frame {ref.frame_number} of this instance", hint=f"Its indexed frames are: {numbers}."
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
