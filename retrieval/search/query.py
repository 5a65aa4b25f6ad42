"""What can be asked: one frozen value, checked when it is made, the same from Python and from the command line."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from retrieval.errors import EmptyQuery, QueryError
from retrieval.language.letters import with_few_marks
from retrieval.search.refs import FrameRef, ShortRef, StoredRef
from retrieval.types import FrameKey, SearchFilter, Uint8Image

_LIGHTEST, _HEAVIEST = 1e-4, 1e4  # weights that single precision can still add up
_ENDLESS_NUMBER = re.compile(r"(?<!\d)\d{4001}")  # "&#999...;" of more digits is none that Python reads
RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher 2009: 1 / (60 + rank)


class Fusion(StrEnum):
    """How several parts become one score. For a single part of weight 1 all but RRF are its cosine similarity.

    Negative parts are subtracted under every rule; under MAX they are subtracted from the best positive one.
    """

    EMBEDDING = "embedding"  # cosine to the weighted sum of the parts' embeddings
    AVERAGE = "average"  # weighted average of the parts' scores
    SUM = "sum"  # weighted sum of the parts' scores
    MAX = "max"  # the best of the parts' weighted scores
    RRF = "rrf"  # weighted sum of 1 / (60 + rank), over the first `depth` of each part


class Ranker(StrEnum):
    """DENSE compares embeddings, TEXT ranks the studies' reports by BM25, HYBRID fuses the two."""

    DENSE = "dense"
    TEXT = "text"
    HYBRID = "hybrid"


class Level(StrEnum):
    """What one answer is. Above FRAME it is shown by its best frame."""

    FRAME = "frame"
    INSTANCE = "instance"
    SERIES = "series"
    STUDY = "study"


class Pooling(StrEnum):
    """The score of a series or study: of its best frame; the mean of its `best` ones (of all, if it has fewer); or late
    interaction, where each part is answered by the frame that answers it best.
    """

    MAX = "max"
    MEAN = "mean"
    LATE = "late"


class OnePer(StrEnum):
    """At most one answer per patient, study or series: the best one."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"


@dataclass(frozen=True)
class TextPart:
    """Words to look for; with a negative weight, words that the answers should not be like.

    `in_reports`: whether reports are asked for them, too.
    """

    text: str
    weight: float = 1.0
    in_reports: bool = True


@dataclass(frozen=True)
class ImagePart:
    """A picture to look for: a file (DICOM, PNG, JPEG), a frame of the store, or uint8 pixels [H, W] or [H, W, 3].

    A frame of the store is asked for by the vector that the store has of it: its file need not be there.
    `frame_number` is of a file.
    """

    image: Path | StoredRef | Uint8Image = field(compare=False)
    weight: float = 1.0
    frame_number: int = 1


Part = TextPart | ImagePart
PartLike = str | Path | FrameRef | ShortRef | FrameKey | Part


@dataclass(frozen=True)
class Query:
    """A question to a store, such as `Query("effusion")` or `Query(["with a chest tube", Path("prior.dcm")], k=20)`.

    - `ask`: words (str or TextPart), image files (Path or ImagePart), frames of the store (a hit's key, or what
      `parse_ref` gives), or several of them. It is kept as `parts`.
    - `ranker`: None means hybrid where there are both words in the query and reports in the store, else dense.
    - `one_per`: at most one answer of each patient, study or series: its best.
    - `exclude_same_patient`: no answer from a patient whose picture is in the query.
    - `fold`: answers whose embeddings have at least this cosine similarity to a better answer are folded into it.
    - `literal`: take "no", "without", "left" and "right" as words. Else "no effusion" looks away from effusions, and
      "left breast" leaves out frames whose header says that they show the right one.
    - `k` answers after the first `offset`. `depth` is how far RRF looks into each ranking.

    Raises QueryError for what can't be asked: EmptyQuery for nothing or blanks, weights that cancel out, k below 1 ...
    """

    ask: PartLike | Sequence[PartLike]
    fusion: Fusion = Fusion.EMBEDDING
    ranker: Ranker | None = None
    where: SearchFilter = SearchFilter()
    level: Level = Level.FRAME
    pooling: Pooling = Pooling.MAX
    best: int = 3
    one_per: OnePer | None = None
    exclude_same_patient: bool = False
    fold: float | None = None
    k: int = 10
    offset: int = 0
    depth: int = 1000
    literal: bool = False

    def __post_init__(self) -> None:
        parts = self.parts
        if not parts:
            raise EmptyQuery("the query is empty")
        object.__setattr__(self, "ask", parts)
        for name, kind in (("fusion", Fusion), ("level", Level), ("pooling", Pooling)):
            object.__setattr__(self, name, choice(kind, getattr(self, name), name))
        if self.ranker is not None:
            object.__setattr__(self, "ranker", choice(Ranker, self.ranker, "ranker"))
        if self.one_per is not None:
            object.__setattr__(self, "one_per", choice(OnePer, self.one_per, "one_per"))
        if not any(part.weight > 0 for part in parts):
            raise QueryError(
                "every part of the query is negative: there is nothing to look for",
                hint="Say what the answers should be like, and with --not what they should not be like.",
            )
        for name, value, least in (
            ("k", self.k, 1),
            ("offset", self.offset, 0),
            ("best", self.best, 1),
            ("depth", self.depth, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise QueryError(f"{name} is {value!r}, expected a whole number from {least}")
        if self.fold is not None and not 0 < self.fold <= 1:
            raise QueryError(f"fold is {self.fold!r}, expected a cosine similarity above 0, at most 1")
        if self.fusion in (Fusion.RRF, Fusion.MAX) and self.pooling is Pooling.LATE:
            raise QueryError(
                f"late interaction adds up the parts' scores, and the fusion {self.fusion} does not",
                hint="Use the fusion embedding, average or sum, or the pooling max or mean.",
            )
        if self.pooling is not Pooling.MAX and self.level not in (Level.SERIES, Level.STUDY):
            raise QueryError(
                f"the pooling {self.pooling} scores a series or a study by its images, and the level is {self.level}",
                hint="Add the level series or study.",
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is asked, at least one part, texts without superfluous blanks."""
        asked = [self.ask] if isinstance(self.ask, PartLike) else self.ask
        return tuple(_checked(part) for part in asked)

    @property
    def names(self) -> tuple[str, ...]:
        """A short name for each part: text, image, not (a negative one), numbered from the second of a kind on."""
        return part_names(self.parts)

    @property
    def texts(self) -> tuple[TextPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    def __str__(self) -> str:
        """For people: `image prior.dcm + "with a chest tube" - 0.5 "cardiomegaly"`. Never a folder's name."""
        out = ""
        for number, part in enumerate(self.parts):
            sign = ("-" if part.weight < 0 else "") if not number else (" - " if part.weight < 0 else " + ")
            size = "" if abs(part.weight) == 1 else f"{abs(part.weight):g} "
            out += sign + size + _said(part, quoted=len(self.parts) > 1)
        return out


Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], value: str, what: str) -> Choice:
    """The member of that name. QueryError for another, with the nearest suggested."""
    try:
        return kind(value)
    except ValueError as exc:
        raise QueryError(f"{what} is {value!r}; there are {', '.join(kind)}", hint=nearest(str(value), kind)) from exc


def nearest(name: str, names: Sequence[str] | type[StrEnum]) -> str:
    """`Did you mean 'hybrid'?`, or nothing."""
    close = difflib.get_close_matches(name.lower(), [str(n) for n in names], n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def part_names(parts: Sequence[Part]) -> tuple[str, ...]:
    """See `Query.names`."""
    seen: Counter[str] = Counter()
    names = []
    for part in parts:
        kind = "not" if part.weight < 0 else "text" if isinstance(part, TextPart) else "image"
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind}{seen[kind]}")
    return tuple(names)


def _as_part(value: PartLike) -> Part:
    if isinstance(value, TextPart | ImagePart):
        return value
    if isinstance(value, str):
        return TextPart(value)
    if isinstance(value, FrameKey):
        return ImagePart(FrameRef(value.sop_instance_uid, value.frame_number))
    if isinstance(value, Path | FrameRef | ShortRef):
        return ImagePart(value)
    raise TypeError(
        f"a part of a query is a {type(value).__name__}, expected str, Path, a reference, TextPart or ImagePart"
    )


def _checked(value: PartLike) -> Part:
    part = _as_part(value)
    weight = part.weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not _LIGHTEST <= abs(weight) <= _HEAVIEST:
        raise QueryError(
            f"a weight is {weight!r}, expected a number of size {_LIGHTEST:g} to {_HEAVIEST:,g}",
            hint="Only how weights compare matters. Leave out a part that is not to count.",
        )
    if isinstance(part, TextPart):
        text = " ".join(with_few_marks(part.text).split())
        if not text:
            raise EmptyQuery("the query is empty" if part.weight > 0 else "a negative part of the query is empty")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise QueryError("the query holds bytes that are no UTF-8 text", hint="Check the terminal's encoding.")
        if _ENDLESS_NUMBER.search(text):
            raise QueryError("the query holds a number of more than 4,000 digits", hint="PartLike in words.")
        return TextPart(text, float(weight), part.in_reports)
    if part.frame_number < 1:
        raise QueryError(f"a query image's frame number is {part.frame_number}, expected 1 or more")
    return ImagePart(part.image, float(weight), part.frame_number)


def _said(part: Part, *, quoted: bool) -> str:
    if isinstance(part, TextPart):
        return f'"{part.text}"' if quoted else part.text
    if isinstance(part.image, FrameRef | ShortRef):
        return f"image {part.image}"
    if not isinstance(part.image, Path):
        return "image"
    return f"image {part.image.name.encode(errors='replace').decode()}"  # a file's name may be no UTF-8
