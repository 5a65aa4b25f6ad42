"""A query: one frozen value that is validated when it is created, for Python and the command line alike."""

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

_LIGHTEST, _HEAVIEST = 1e-4, 1e4  # weights that can be added in single precision
_ENDLESS_NUMBER = re.compile(r"(?<!\d)\d{4001}")  # Python refuses to parse a number with more digits, as in "&#999...;"
RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher 2009: 1 / (60 + rank)


class Fusion(StrEnum):
    """How the parts of a query become one score. For a single part of weight 1, every rule but RRF gives its cosine.

    Negative parts are subtracted under every rule. MAX subtracts them from the best positive part.
    """

    EMBEDDING = "embedding"  # cosine to the weighted sum of the parts' embeddings
    AVERAGE = "average"  # weighted average of the parts' scores
    SUM = "sum"  # weighted sum of the parts' scores
    MAX = "max"  # the best of the parts' weighted scores
    RRF = "rrf"  # weighted sum of 1 / (60 + rank), over the first `depth` of each part


class Ranker(StrEnum):
    """DENSE compares embeddings, TEXT ranks by the BM25 scores of the studies' reports, HYBRID fuses both."""

    DENSE = "dense"
    TEXT = "text"
    HYBRID = "hybrid"


class Level(StrEnum):
    """What one answer is. Above FRAME, its best frame represents it."""

    FRAME = "frame"
    INSTANCE = "instance"
    SERIES = "series"
    STUDY = "study"


class Pooling(StrEnum):
    """How a series or study is scored.

    MAX: by its best frame. MEAN: by the mean of its `best` frames (all of them, if it has fewer). LATE: late
    interaction, where each part of the query is scored by the frame that fits the part best.
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
    """Words to search for; with a negative weight, words to avoid.

    `in_reports`: whether the reports are searched for the words, too.
    """

    text: str
    weight: float = 1.0
    in_reports: bool = True


@dataclass(frozen=True)
class ImagePart:
    """An image to search with: a file (DICOM, PNG, JPEG), a frame of the store, or uint8 pixels [H, W] or [H, W, 3].

    A frame of the store is searched by its stored vector, so its file need not be there. `frame_number` selects a frame
    of a file.
    """

    image: Path | StoredRef | Uint8Image = field(compare=False)
    weight: float = 1.0
    frame_number: int = 1


Part = TextPart | ImagePart
PartLike = str | Path | FrameRef | ShortRef | FrameKey | Part


@dataclass(frozen=True)
class Query:
    """A query to a store, such as `Query("effusion")` or `Query(["with a chest tube", Path("prior.dcm")], k=20)`.

    - `ask`: words (str or TextPart), image files (Path or ImagePart), frames of the store (the key of a hit, or the
      result of `parse_ref`), or several of these. `parts` has them as parts.
    - `ranker`: None means hybrid if the query has words and the store has reports; otherwise dense.
    - `one_per`: at most one answer per patient, study or series: the best one.
    - `exclude_same_patient`: exclude the patients whose images are in the query.
    - `fold`: an answer whose embedding has at least this cosine similarity to a better answer is folded into that one.
    - `literal`: treat all words as plain words. Otherwise "no effusion" searches away from effusions, "left breast"
      excludes frames whose header names the right side, and with "chest x-ray" frames whose header names another
      modality or part of the body fall behind.
    - `k`: the number of answers, after the first `offset`. `depth`: the number of ranks that RRF reads of each ranking.

    Raises EmptyQuery for an empty or blank query, and QueryError for other values that can't be used, such as weights
    that cancel out or a k below 1.
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
                "every part of the query is negative; expected at least one positive part",
                hint="Enter what to search for, and use --not only for what to avoid.",
            )
        for name, value, least in (
            ("k", self.k, 1),
            ("offset", self.offset, 0),
            ("best", self.best, 1),
            ("depth", self.depth, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise QueryError(f"{name} is {value!r}, expected a whole number of at least {least}")
        if self.fold is not None and not 0 < self.fold <= 1:
            raise QueryError(f"fold is {self.fold!r}, expected a cosine similarity above 0 and at most 1")
        if self.fusion in (Fusion.RRF, Fusion.MAX) and self.pooling is Pooling.LATE:
            raise QueryError(
                f"the pooling late adds up the scores of the parts, which the fusion {self.fusion} can't do",
                hint="Use the fusion embedding, average or sum; or use the pooling max or mean.",
            )
        if self.pooling is not Pooling.MAX and self.level not in (Level.SERIES, Level.STUDY):
            raise QueryError(
                f"the pooling {self.pooling} needs the level series or study, and the level is {self.level}",
                hint="Set the level to series or study.",
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the query, with single blanks in their texts."""
        values = [self.ask] if isinstance(self.ask, PartLike) else self.ask
        return tuple(_checked(value) for value in values)

    @property
    def names(self) -> tuple[str, ...]:
        """A short name for each part: text, image, or not (a negative part). Later parts of a kind are numbered from
        2."""
        return part_names(self.parts)

    @property
    def texts(self) -> tuple[TextPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    def __str__(self) -> str:
        """For display: `image prior.dcm + "with a chest tube" - 0.5 "cardiomegaly"`. Contains no folder names."""
        out = ""
        for number, part in enumerate(self.parts):
            sign = ("-" if part.weight < 0 else "") if not number else (" - " if part.weight < 0 else " + ")
            size = "" if abs(part.weight) == 1 else f"{abs(part.weight):g} "
            out += sign + size + named(part, quoted=len(self.parts) > 1)
        return out


Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], value: str, what: str) -> Choice:
    """The member of an enumeration by its value. Raises QueryError for another value and suggests the nearest."""
    try:
        return kind(value)
    except ValueError as exc:
        raise QueryError(
            f"{what} is {value!r}, expected one of {', '.join(kind)}", hint=nearest(str(value), kind)
        ) from exc


def nearest(name: str, names: Sequence[str] | type[StrEnum]) -> str:
    """A hint such as `Did you mean 'hybrid'?`; "" if no name is similar."""
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
        f"a part of the query is of type {type(value).__name__}, expected str, Path, FrameRef, ShortRef, FrameKey, "
        "TextPart or ImagePart"
    )


def _checked(value: PartLike) -> Part:
    part = _as_part(value)
    weight = part.weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not _LIGHTEST <= abs(weight) <= _HEAVIEST:
        raise QueryError(
            f"a weight is {weight!r}, expected a number whose absolute value is {_LIGHTEST:g} to {_HEAVIEST:,g}",
            hint="Only the ratio of the weights matters. Leave out a part that should not count.",
        )
    if isinstance(part, TextPart):
        text = " ".join(with_few_marks(part.text).split())
        if not text:
            raise EmptyQuery("the query is empty" if part.weight > 0 else "a negative part of the query is empty")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise QueryError(
                "the query contains bytes that are not UTF-8 text", hint="Check the encoding of the terminal."
            )
        if _ENDLESS_NUMBER.search(text):
            raise QueryError(
                "the query contains a number of more than 4,000 digits", hint="Describe the image in words."
            )
        return TextPart(text, float(weight), part.in_reports)
    if part.frame_number < 1:
        raise QueryError(f"the frame number of a query image is {part.frame_number}, expected 1 or more")
    return ImagePart(part.image, float(weight), part.frame_number)


def named(part: Part, *, quoted: bool = False) -> str:
    """A part for people: its text, or `image` and the file's name without its folder."""
    if isinstance(part, TextPart):
        return f'"{part.text}"' if quoted else part.text
    if isinstance(part.image, FrameRef | ShortRef):
        return f"image {part.image}"
    if not isinstance(part.image, Path):
        return "image"
    return f"image {part.image.name.encode(errors='replace').decode()}"  # a file name need not be UTF-8
