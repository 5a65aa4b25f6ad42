"""The values that cross module borders, and the protocols that search stands on.

Nothing here imports torch, faiss, pydicom or SQLAlchemy: whatever sees only this module starts fast.
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
Ids = npt.NDArray[np.int64]  # that the catalog gave, each once
SHORT_KEY_LETTERS = 13


def is_picture(shown: Uint8Image | Embedding) -> TypeGuard[Uint8Image]:
    """Whether it is pixels; else it is the embedding of a picture."""
    return shown.dtype == np.uint8


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


@dataclass(frozen=True, eq=False)
class RowFilter:
    """Which rows of an index may be answers: those that pass `where`, less those that pass one of `without`.

    It goes into the index call as it is. An index that has the attributes at hand translates `where` and `without` into
    its own language: where AND NOT (w1 OR w2 ...), and "NOT" holds for a row that does not say. Another takes `ids`:
    they are looked up when somebody asks for them, once.
    """

    where: SearchFilter
    look_up: Callable[[SearchFilter], Ids] = field(repr=False)  # ascending ids of what passes, from the catalog
    without: tuple[RowFilter, ...] = ()

    @cached_property
    def ids(self) -> Ids:
        """The rows that pass, ascending. Raises what the catalog raises for a filter that makes no sense."""
        passing = self.look_up(self.where)
        left_out = [other.ids for other in self.without] if len(passing) else []
        gone = np.concatenate(left_out) if left_out else ()
        return passing[~np.isin(passing, gone)] if len(gone) else passing

    def passing(self, ids: Ids) -> Ids:
        """Those of `ids` that pass, in their order."""
        kept: Ids = ids[np.isin(ids, self.ids)]
        return kept

    def excluding(self, *without: RowFilter) -> RowFilter:
        """The same without the rows that pass one of `without`, too."""
        return RowFilter(self.where, self.look_up, (*self.without, *without))


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
    """Puts images and texts in one space. Rows come back as float32 of unit norm, in the order given."""

    @property
    def embed_dim(self) -> int: ...

    @property
    def name(self) -> str: ...

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings: ...

    def encode_text(self, texts: Sequence[str]) -> Embeddings: ...


@runtime_checkable
class VectorIndex(Protocol):
    """What search asks of an index: inner products of unit vectors, which lie under ids that the catalog gave."""

    def __len__(self) -> int: ...

    def search(self, queries: Embeddings, k: int, allowed: RowFilter | None = None) -> list[list[tuple[int, float]]]:
        """Per query [Q, D], at most k pairs of (id, score), best first, equal scores by ascending id.

        With `allowed`, only the rows that pass are searched (a pre-filter): another can't appear.
        """
        ...

    def scores(self, queries: Embeddings, ids: Ids) -> list[dict[int, float]]:
        """Per query, the exact score of each of `ids` that is in the index."""
        ...


@runtime_checkable
class Catalog(Protocol):
    """What search asks of the catalog."""

    def ids_matching(self, where: SearchFilter) -> Ids: ...

    def get(self, ids: Iterable[int]) -> Mapping[int, tuple[FrameKey, Mapping[str, Any]]]:
        """Key and attributes by id. Ids that are gone are missing from the answer."""
        ...

    def lineage(self, ids: Iterable[int]) -> Mapping[int, Lineage]:
        """The same for what the frames belong to."""
        ...

    def frames_of(self, column: str, uids: Iterable[str]) -> Mapping[str, Sequence[int]]:
        """Ascending ids of the frames of each series or study (`series_instance_uid`, `study_instance_uid`)."""
        ...

    def vectors_of(self, ids: Iterable[int]) -> tuple[Ids, npt.NDArray[np.float16]]:
        """(ids [n] ascending, vectors [n, D]) of those ids that are there."""
        ...
