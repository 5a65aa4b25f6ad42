"""What one file becomes on its way into the catalog. Plain values, so that they cross a process border cheaply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt

AttributeValue = str | int | float | bool | date | None


@dataclass(frozen=True)
class InstanceRecord:
    """One SOP instance as the catalog keeps it.

    `attributes` holds one value for every column of `keywords.COLUMNS`, None where the file says nothing.
    `kind` is "image" (has pixels that can be embedded), "report" (SR or encapsulated PDF: `report_text`), or "other"
    (SEG, KO, PR, RT, waveforms: catalogued, not embedded).
    """

    attributes: Mapping[str, AttributeValue]
    patient_pseudonym: str | None
    kind: Literal["image", "report", "other"]
    number_of_frames: int = 0
    report_text: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def sop_instance_uid(self) -> str:
        return str(self.attributes["sop_instance_uid"])

    @property
    def study_instance_uid(self) -> str:
        return str(self.attributes["study_instance_uid"])


@dataclass(frozen=True)
class FileStat:
    """What tells an unchanged file without reading it. `path` is relative to the archive root, with '/'."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Rejection:
    """A file that was not indexed. `reason` is a short stable code (errors.DicomError.code), `detail` one line."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class IndexedFile:
    """A file that was read and encoded, ready to be committed: frames and report sentences with their vectors.

    `content_hash` is a digest of the file's bytes. By it a moved file keeps its vectors and a second copy is told from
    a conflict; without one (empty), another file with the same SOP Instance UID is always a conflict.
    """

    stat: FileStat
    record: InstanceRecord
    frame_numbers: tuple[int, ...] = ()
    frame_vectors: npt.NDArray[np.float32] | None = None  # [len(frame_numbers), D], unit norm
    sentences: tuple[str, ...] = ()
    sentence_vectors: npt.NDArray[np.float32] | None = None  # [len(sentences), D], unit norm
    content_hash: str = ""


@dataclass(frozen=True)
class IndexReport:
    """What an indexing run did. Counts are files, but for `frames`."""

    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    moved: int = 0  # known by the place of another copy now, since the one that was indexed is gone
    erased: int = 0  # kept out, because they were erased
    duplicates: int = 0  # other copies of an indexed file
    frames: int = 0
    reports: int = 0
    not_embedded: Mapping[str, int] = field(default_factory=dict)  # by modality: SEG, PR, RTPLAN ...
    rejected: tuple[Rejection, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)  # what was odd in files that were indexed
    loads: Mapping[str, float] = field(default_factory=dict)  # by stage, its share of the time at work: 0 to 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Origin:
    """Whose picture a file holds, as the catalog would say it; None where the file does not tell."""

    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    patient_pseudonym: str | None = None
