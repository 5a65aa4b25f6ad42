"""REF: the one way to name an image, in every command and call.

A REF is one of three things:

- a hit's *short key*, at least 8 of its letters: base32 of the SHA-256 of `SOP Instance UID#frame number`. It is the
  same in every store; any prefix that only one frame of the store has will do.
- a SOP Instance UID, with `#frame number` or without: then the first indexed frame of the instance is meant.
- a file: DICOM, PNG or JPEG. What is there under that name goes before
  the other two; a name with a `/` or an ending that is none of them is a file, too.
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
FORMS = "a hit's short key (8 letters or more), a SOP Instance UID (with #FRAME if it has several), or a file"


@dataclass(frozen=True)
class FrameRef:
    """A frame by its instance; `frame_number` is None where the first indexed one is meant."""

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


StoredRef = FrameRef | ShortRef  # of a frame in the store
Ref = Path | StoredRef


class KeyFinder(Protocol):
    """What resolving a REF asks of a store's catalog."""

    def keys_with_prefix(self, letters: str, most: int) -> Sequence[FrameKey]:
        """At most `most` frames whose short key begins with these letters."""
        ...

    def frames_of_instance(self, sop_instance_uid: str) -> Sequence[FrameKey]:
        """The indexed frames of an instance, by ascending number."""
        ...


def parse_ref(text: str) -> Ref:
    """What a text names. QueryError for one that can be none of the three.

    Whether a file can be read, whoever opens it says; whether a frame is in the store, `resolve` does.
    """
    if not text.strip():
        raise QueryError("the reference is empty", hint=f"Give {FORMS}.")
    if "\0" not in text and _is_there(Path(text)):
        return Path(text)
    if match := _WITH_FRAME.fullmatch(text):
        if int(match["frame"]) < 1:
            raise QueryError(f"{text!r} names frame {match['frame']}; frames count from 1")
        return FrameRef(match["uid"], int(match["frame"]))
    if _UID.fullmatch(text):
        return FrameRef(text)
    if _SHORT.fullmatch(text):
        return ShortRef(text.lower())
    if "\0" not in text and ("/" in text or Path(text).suffix):
        return Path(text)
    raise QueryError(f"{text!r} is not a reference", hint=f"Expected {FORMS}.")


def resolve(ref: StoredRef, catalog: KeyFinder) -> FrameKey:
    """The frame of a store that a REF names. QueryError if there is none, or more than one."""
    if isinstance(ref, ShortRef):
        found = catalog.keys_with_prefix(ref.letters, 6)
        if not found:
            raise QueryError(
                f"no frame of the store has a key that begins with {ref.letters!r}",
                hint="`medlens search` prints the keys of its hits.",
            )
        if len(found) > 1:
            listed = ", ".join(shortest_unambiguous(key, found) for key in found[:5])
            more = " and more" if len(found) > 5 else ""
            raise QueryError(f"the key {ref.letters!r} is ambiguous: {listed}{more}", hint="Give more of its letters.")
        return found[0]
    frames = catalog.frames_of_instance(ref.sop_instance_uid)
    if not frames:
        raise QueryError("no frame of that SOP Instance UID is in the store", hint="`medlens select` lists what is.")
    if ref.frame_number is None:
        return frames[0]
    for key in frames:
        if key.frame_number == ref.frame_number:
            return key
    numbers = ", ".join(str(key.frame_number) for key in frames[:8]) + (" ..." if len(frames) > 8 else "")
    raise QueryError(
        f"frame {ref.frame_number} of that instance is not in the store", hint=f"Indexed frames: {numbers}."
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
