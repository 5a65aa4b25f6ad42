"""The values that cross module borders, and the three protocols that search stands on.

Nothing here imports torch, faiss, pydicom or SQLAlchemy: whatever sees only this module starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Uint8Image = npt.NDArray[np.uint8]  # [H, W] grey or [H, W, 3] RGB
Embeddings = npt.NDArray[np.float32]  # [N, embed_dim], unit norm


@dataclass(frozen=True, order=True)
class FrameKey:
    """One frame of one SOP instance. `frame_number` counts from 1, as the standard does."""

    sop_instance_uid: str
    frame_number: int = 1

    def __str__(self) -> str:
        return f"{self.sop_instance_uid}#{self.frame_number}"


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
    """One answer: `rank` from 1, `score` (cosine similarity, higher is better), and what the catalog keeps of it."""

    rank: int
    score: float
    key: FrameKey
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchFilter:
    """Which frames may be answers. Empty means all. Values of one attribute are alternatives; attributes all hold.

    `equals` maps a catalog column (snake_case DICOM keyword) to the accepted values, compared without regard to case.
    """

    equals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.equals)


@dataclass(frozen=True)
class SearchResults:
    """Hits in rank order. `searched` is the number of frames that passed the filter, None if all were searched."""

    query: str
    model: str
    hits: tuple[Hit, ...]
    searched: int | None = None


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
