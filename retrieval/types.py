"""The values that modules exchange, and the protocols that search depends on.

This module imports neither torch, faiss, pydicom nor SQLAlchemy, so code that needs only this module starts fast.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from retrieval.optional import require_optional

if TYPE_CHECKING:
    from pandas import DataFrame

Uint8Image = npt.NDArray[np.uint8]  # [H, W] grey or [H, W, 3] RGB
Embeddings = npt.NDArray[np.float32]  # [N, embed_dim], unit norm
Embedding = npt.NDArray[np.float32]  # [embed_dim], unit norm
Ids = npt.NDArray[np.int64]  # ids of the catalog, each once
SHORT_KEY_LETTERS = 13


def is_picture(shown: Uint8Image | Embedding) -> TypeGuard[Uint8Image]:
    """Whether a value is the pixels of an image; otherwise it is the embedding of one."""
    return shown.dtype == np.uint8


@dataclass(frozen=True, order=True)
class FrameKey:
    """One frame of one SOP instance. `frame_number` counts from 1, as in the DICOM standard."""

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
    """The shortest prefix of a key's short form that no other key of `among` has; at least `least` letters."""
    others = [other.short for other in among if other != key]
    letters = least
    while letters < SHORT_KEY_LETTERS and any(other.startswith(key.short[:letters]) for other in others):
        letters += 1
    return key.short[:letters]


class Lineage(NamedTuple):
    """What a frame belongs to. `patient` is a pseudonym; None if the file names no patient."""

    instance: str
    series: str
    study: str
    patient: str | None


@dataclass(frozen=True)
class Window:
    """A value-of-interest window in modality units (Hounsfield units for CT), as in PS3.3 C.11.2.1.2."""

    center: float
    width: float


@dataclass(frozen=True)
class RenderProfile:
    """How stored pixels become the uint8 image that a model was trained on.

    `windows` maps a Modality to its windows. One window gives a grey image; three windows are stacked into R, G and B.
    A modality without windows uses the first window of the header. `percentiles` scale an image that has no window at
    all.
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
    """One result: `rank` from 1, `score` (higher is better), the key of its best frame, and that frame's attributes.

    `breakdown` has the contribution of each part of the query, by the name of the part; if the score is a sum, the
    contributions add up to it. `folded` is the number of near-duplicates that were folded into this hit.
    """

    rank: int
    score: float
    key: FrameKey
    attributes: Mapping[str, Any] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)
    folded: int = 0


@dataclass(frozen=True)
class SearchFilter:
    """Which frames may be answers. An empty filter accepts all frames; otherwise `equals` and `where` must both hold.

    `equals` maps a catalog column (a DICOM keyword in snake_case) to its accepted values, compared without regard to
    case. A frame must match every column, by any of its values. `where` is an expression such as "Modality in (CT, MR)
    and PatientAge > 60", in the filter language of the catalog.
    """

    equals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: str = ""

    def __bool__(self) -> bool:
        return bool(self.equals or self.where)


@dataclass(frozen=True, eq=False)
class RowFilter:
    """Which rows of an index may be answers: those that pass `where` and none of `without`.

    Every call of an index gets the filter itself. An index that stores the attributes translates it into its own
    language: where AND NOT (w1 OR w2 ...), where a row without the attribute passes the NOT. Other indexes use `ids`,
    which are looked up once, on first use.
    """

    where: SearchFilter
    look_up: Callable[[SearchFilter], Ids] = field(repr=False)  # ascending ids of the rows that pass, from the catalog
    without: tuple[RowFilter, ...] = ()

    @cached_property
    def ids(self) -> Ids:
        """The ids of the rows that pass, ascending. Raises the catalog's error for an invalid filter."""
        passing = self.look_up(self.where)
        left_out = [other.ids for other in self.without] if len(passing) else []
        gone = np.concatenate(left_out) if left_out else ()
        return passing[~np.isin(passing, gone)] if len(gone) else passing

    def passing(self, ids: Ids) -> Ids:
        """The `ids` that pass, in the given order."""
        kept: Ids = ids[np.isin(ids, self.ids)]
        return kept

    def excluding(self, *without: RowFilter) -> RowFilter:
        """This filter, which also rejects the rows that pass one of `without`."""
        return RowFilter(self.where, self.look_up, (*self.without, *without))


@dataclass(frozen=True)
class SearchResults:
    """Hits in rank order. `searched` is the number of frames that passed the filter; None if all frames were searched.

    `ranker` is the ranker that was used (dense, text, hybrid), `score` the meaning of the scores in words, and `notes`
    are remarks on the results. `understood` says how the query was read: `searched for: cardiomegaly; without: pleural
    effusion; prefers: chest`. `good_match` is False if the words are so unusual for radiology that the results may be
    no better than chance.
    """

    query: str
    model: str
    hits: tuple[Hit, ...]
    searched: int | None = None
    ranker: str = "dense"
    score: str = "cosine similarity"
    notes: tuple[str, ...] = ()
    understood: str = ""
    good_match: bool = True

    def to_pandas(self) -> DataFrame:
        """One row per hit: rank, score, sop_instance_uid, frame_number, folded, part.NAME for each part, the
        attributes.

        Raises MedlensError if pandas is not installed.
        """
        require_optional("pandas", "to_pandas")
        import pandas as pd

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
    """Embeds images and texts in one space: float32 rows of unit norm, in the order of the input."""

    @property
    def embed_dim(self) -> int: ...

    @property
    def name(self) -> str: ...

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings: ...

    def encode_text(self, texts: Sequence[str]) -> Embeddings: ...


@runtime_checkable
class VectorIndex(Protocol):
    """The part of a vector index that search needs: inner products of unit vectors, by the ids of the catalog."""

    def __len__(self) -> int: ...

    def search(self, queries: Embeddings, k: int, allowed: RowFilter | None = None) -> list[list[tuple[int, float]]]:
        """For each query of [Q, D]: at most k pairs (id, score), best first, equal scores by ascending id.

        With `allowed`, only the rows that pass are searched (a pre-filter).
        """
        ...

    def scores(self, queries: Embeddings, ids: Ids) -> list[dict[int, float]]:
        """For each query: the exact score of each of `ids` that is in the index."""
        ...

    def sample(self, n: int) -> Ids:
        """At most n ids [m], ascending, spread evenly over the index: the same for the same index."""
        ...


@runtime_checkable
class Catalog(Protocol):
    """The part of a catalog that search needs."""

    def ids_matching(self, where: SearchFilter) -> Ids: ...

    def get(self, ids: Iterable[int]) -> Mapping[int, tuple[FrameKey, Mapping[str, Any]]]:
        """The key and attributes of each frame, by id. Deleted frames are missing."""
        ...

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]:
        """The lineage of each frame, by id. Deleted frames are missing."""
        ...

    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]:
        """The ascending ids of the frames of each series or study. `column` is series_instance_uid or
        study_instance_uid."""
        ...

    def vectors_of(self, ids: Iterable[int]) -> tuple[Ids, npt.NDArray[np.float16]]:
        """(ids [n] ascending, vectors [n, D]) of the frames that exist."""
        ...
