"""The forms of one file on its way into the catalog: plain values, which are cheap to send between processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt

from indexer.burned_in import BurnedIn

AttributeValue = str | int | float | bool | date | None


@dataclass(frozen=True)
class InstanceRecord:
    """One SOP instance in the form that the catalog stores.

    `attributes` has one value for every column of `keywords.COLUMNS`, None if the file states none. `kind` is "image"
    (has pixels that can be embedded), "report" (SR or encapsulated PDF: `report_text`), or "other" (SEG, KO, PR, RT,
    waveforms: catalogued, not embedded). `burned_in_text`: for an image, whether its pixels may show text about the
    patient; see `indexer.burned_in`. `frame_attributes`: by frame number, the values of columns of `keywords.BY_FRAME`
    that differ between the frames; `attributes` has None there.
    """

    attributes: Mapping[str, AttributeValue]
    patient_pseudonym: str | None
    kind: Literal["image", "report", "other"]
    number_of_frames: int = 0
    report_text: str = ""
    warnings: tuple[str, ...] = ()
    burned_in_text: BurnedIn | None = None
    frame_attributes: Mapping[int, Mapping[str, AttributeValue]] = field(default_factory=dict)

    @property
    def sop_instance_uid(self) -> str:
        return str(self.attributes["sop_instance_uid"])

    @property
    def study_instance_uid(self) -> str:
        return str(self.attributes["study_instance_uid"])


@dataclass(frozen=True)
class FileStat:
    """What a source knows of a file without reading it. `path` is relative to the archive's root, with '/'.

    Size and stamp together are the file's version. The stamp is a 64-bit integer that changes when the content may have
    changed: in a folder the modification time in nanoseconds.
    """

    path: str
    size: int  # bytes
    stamp: int

    @classmethod
    def tagged(cls, path: str, size: int, tag: str) -> FileStat:
        """A file whose source has no times, but a tag that changes with the content: an ETag, a digest, a version."""
        digest = hashlib.blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return cls(path, size, int.from_bytes(digest, "big", signed=True))

    @property
    def version(self) -> tuple[int, int]:
        """Equal for an unchanged file."""
        return self.size, self.stamp


@dataclass(frozen=True)
class Rejection:
    """A file that was not indexed. `reason` is a short stable code (errors.DicomError.code), `detail` one line."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class IndexedFile:
    """A file that was read and encoded, ready to be committed: frames and report sentences with their vectors.

    `content_hash` is a digest of the file's bytes. By it a moved file keeps its vectors, and a second copy is
    distinguished from a conflict; without one (empty), another file with the same SOP Instance UID is always a
    conflict.
    """

    stat: FileStat
    record: InstanceRecord
    frame_numbers: tuple[int, ...] = ()
    frame_vectors: npt.NDArray[np.float32] | None = None  # [len(frame_numbers), D], unit norm
    sentences: tuple[str, ...] = ()
    sentence_vectors: npt.NDArray[np.float32] | None = None  # [len(sentences), D], unit norm
    content_hash: str = ""


@dataclass
class Tally:
    """Counts of what happened to files: in one commit, for files that need no reading, or in a run so far.

    Counts are files; `frames`, `reports` and `sentences` are those added, `removed`, `moved` and `vanished` are
    instances.
    """

    indexed: int = 0
    updated: int = 0  # their content was replaced
    unchanged: int = 0  # or only touched
    duplicates: int = 0  # other copies of an indexed file
    erased: int = 0  # left out, because of their content
    removed: int = 0  # with their file, or by its rejection
    moved: int = 0  # known by the path of another copy now, because the indexed file is gone
    adopted: int = 0  # known by content: the indexed file is gone from its place
    relocated: int = 0  # in an archive that is known by another root now
    vanished: int = 0  # without a file in the archive; kept until they are pruned
    frames: int = 0
    reports: int = 0
    sentences: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)  # of the rejected
    not_embedded: Counter[str] = field(default_factory=Counter)  # by modality
    warnings: Counter[str] = field(default_factory=Counter)  # what was odd in files that were indexed

    @property
    def files(self) -> int:
        """How many files are done."""
        done = self.indexed + self.updated + self.unchanged + self.duplicates + self.adopted + self.erased
        return done + len(self.rejected)

    def reject(self, rejection: Rejection) -> None:
        """Count a file that can't be used."""
        self.rejected.append(rejection)
        self.reasons[rejection.reason] += 1

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            mine += value  # a list or a Counter grows in place
            setattr(self, name, mine)


@dataclass(frozen=True)
class IndexReport:
    """What an indexing run did; the fields are those of Tally, and `moved` includes `adopted`."""

    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    moved: int = 0
    relocated: int = 0
    vanished: int = 0
    erased: int = 0
    duplicates: int = 0
    frames: int = 0
    reports: int = 0
    not_embedded: Mapping[str, int] = field(default_factory=dict)  # by modality: SEG, PR, RTPLAN ...
    rejected: tuple[Rejection, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)
    loads: Mapping[str, float] = field(default_factory=dict)  # by stage, its share of the time at work: 0 to 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Origin:
    """The origin of a picture in a file, in the values of the catalog; None for what the file does not state."""

    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    patient_pseudonym: str | None = None
    burned_in_text: BurnedIn | None = None
