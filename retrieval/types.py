"""The values that cross module borders, and the three protocols that search stands on.

Nothing here imports torch, faiss, pydicom or SQLAlchemy: whatever sees only this module starts fast.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from retrieval.errors import MedlensError

if TYPE_CHECKING:
    from pandas import DataFrame

Uint8Image = npt.NDArray[np.uint8]  # [H, W] grey or [H, W, 3] RGB
Embeddings = npt.NDArray[np.float32]  # [N, embed_dim], unit norm
SHORT_KEY_LETTERS = 13


@dataclass(frozen=True, order=True)
class FrameKey:
    """One frame of one SOP instance. `frame_number` counts from 1, as the standard does."""

    sop_instance_uid: str
    frame_number: int = 1

    def __str__(self) -> str:
        return f"{self.sop_instance_uid}#{self.frame_number}"

    @property
    def short(self) -> str:
        """The key's short form, 13 letters of a to z and 2 to 7 (65 bits): the same in every store."""
        digest = hashlib.sha256(str(self).encode()).digest()
        return b32encode(digest[:10]).decode("ascii").lower()[:SHORT_KEY_LETTERS]


def shortest_unambiguous(key: FrameKey, among: Iterable[FrameKey], least: int = 8) -> str:
    """As many letters of a key's short form, at least `least`, as tell it from the others."""
    others = [other.short for other in among if other != key]
    letters = least
    while letters < SHORT_KEY_LETTERS and any(other.startswith(key.short[:letters]) for other in others):
        letters += 1
    return key.short[:letters]


class Lineage(NamedTuple):
    """What a frame belongs to. `patient` is a pseudonym; None if the file does not say."""

    instance: str
    series: str
    study: str
    patient: str | None


@dataclass(frozen=True)
class Window:
    """A value-of-interest window in modality units (Hounsfield for CT). Both are PS3.3 C.11.2.1.2 terms."""

    center: float
    width: float


@dataclass(frozen=True)
class RenderProfile:
    """How stored pixels become the uint8 picture that a model was trained to see.

    `windows` maps a Modality to the windows used for it: none listed means the header's first window (else the
    percentiles); one gives a grey picture; three are stacked into R, G and B. `percentiles` scale an image that has no
    window at all.
    """

    name: str = "header"
    windows: Mapping[str, tuple[Window, ...]] = field(default_factory=dict)
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        for modality, windows in self.windows.items():
            if len(windows) not in (1, 3):
                raise ValueError(f"render profile {self.name!r}: {len(windows)} {modality} windows, expected 1 or 3")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"render profile {self.name!r}: percentiles {self.percentiles}, expected 0 <= low < high")


@dataclass(frozen=True)
class Hit:
    """One answer: `rank` from 1, `score` (higher is better), its best frame, and what the catalog keeps of that.

    `breakdown` says what each part of the query gave, by the part's name; where the rule is a sum, it adds up to the
    score. `folded` is how many near-duplicates were left out in its favour.
    """

    rank: int
    score: float
    key: FrameKey
    attributes: Mapping[str, Any] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)
    folded: int = 0


@dataclass(frozen=True)
class SearchFilter:
    """Which frames may be answers. Empty means all; else `equals` and `where` both hold.

    `equals` maps a catalog column (snake_case DICOM keyword) to the accepted values, compared without regard to case:
    values of one attribute are alternatives, attributes all hold. `where` is a filter in words, such as
    "Modality in (CT, MR) and PatientAge > 60"; the catalog knows the language.
    """

    equals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: str = ""

    def __bool__(self) -> bool:
        return bool(self.equals or self.where)


@dataclass(frozen=True)
class SearchResults:
    """Hits in rank order. `searched` is the number of frames that passed the filter, None if all were searched.

    `ranker` is the one that was used (dense, text, hybrid), `score` what the scores are, in words; `notes` is what else
    is to be known of the answers.
    """

    query: str
    model: str
    hits: tuple[Hit, ...]
    searched: int | None = None
    ranker: str = "dense"
    score: str = "cosine similarity"
    notes: tuple[str, ...] = ()

    def to_pandas(self) -> DataFrame:
        """A row per hit: rank, score, sop_instance_uid, frame_number, folded, part.NAME for each part, the attributes.

        Raises MedlensError where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise MedlensError("to_pandas needs pandas", hint="pip install 'medlens[pandas]'") from exc
        rows = [
            {"rank": hit.rank, "score": hit.score, "folded": hit.folded}
            | {"sop_instance_uid": hit.key.sop_instance_uid, "frame_number": hit.key.frame_number}
            | {f"part.{name}": value for name, value in hit.breakdown.items()}
            | dict(hit.attributes)
            for hit in self.hits
        ]
        return pd.DataFrame(rows)


@runtime_checkable
class Encoder(Protocol):
    """Puts images and texts in one space. Rows come back as float32 of unit norm, in the order given."""

    @property
    def embed_dim(self) -> int: ...

    @property
    def name(self) -> str: ...

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings: ...

    def encode_text(self, texts: Sequence[str]) -> Embeddings: ...


@runtime_checkable
class VectorIndex(Protocol):
    """Inner-product search over unit vectors under integer ids that the catalog gave."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def search(
        self, queries: Embeddings, k: int, ids: npt.NDArray[np.int64] | None = None
    ) -> list[list[tuple[int, float]]]:
        """Per query, at most k pairs of (id, score), best first, equal scores by ascending id.

        With `ids`, only those are searched (a pre-filter): what is outside can't appear.
        """
        ...


@runtime_checkable
class Catalog(Protocol):
    """What search asks of the catalog."""

    def ids_matching(self, where: SearchFilter) -> npt.NDArray[np.int64]: ...

    def get(self, ids: Iterable[int]) -> Mapping[int, tuple[FrameKey, Mapping[str, Any]]]:
        """Key and attributes by id. Ids that are gone are missing from the answer."""
        ...

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]:
        """The same for what the frames belong to."""
        ...

    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]:
        """Ascending ids of the frames of each series or study (`series_instance_uid`, `study_instance_uid`)."""
        ...

    def vectors_of(self, ids: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        """(ids [n] ascending, vectors [n, D]) of those ids that are there."""
        ...
