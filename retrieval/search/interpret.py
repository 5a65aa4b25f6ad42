"""Interprets the words of a query: a negation becomes a part of its own, and a side excludes frames.

The header of an image of a paired organ (a breast, a knee) names the side: (0020,0062) Image Laterality, else
(0020,0060) Laterality of the series. Most images show both sides, and their headers name none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from retrieval.language.header_terms import HeaderTerms
from retrieval.language.negation import NEUTRAL, polarity, weighted
from retrieval.language.sides import LEFT, RIGHT
from retrieval.search.query import Part, Query, TextPart, named
from retrieval.types import Ids, RowFilter, SearchFilter

_DICOM_SIDE = {LEFT: "L", RIGHT: "R"}
_OTHER_SIDE = {LEFT: RIGHT, RIGHT: LEFT}
_NOT_ONE_SIDE = ("B", "U")  # both, unpaired


def separate_negations(query: Query, body_parts: Sequence[str] = ()) -> Query:
    """The query with each negated finding as a part of its own. A query without negations is returned unchanged.

    A text that only denies is searched for as normal images, of the parts of the body that it speaks of.
    """
    if query.literal:
        return query
    neutral = " ".join((NEUTRAL, *body_parts))
    parts: list[Part] = []
    for part in query.parts:
        if not isinstance(part, TextPart) or part.weight < 0:
            parts.append(part)
            continue
        found = polarity(part.text)
        for text, weight in weighted(found):
            named = weight < 0 or bool(found.present)  # the reports are not searched for what the query does not name
            parts.append(TextPart(text if named else neutral, part.weight * weight, part.in_reports and named))
    return query if tuple(parts) == query.parts else replace(query, ask=parts)


def frames_of_other_side(side: str, look_up: Callable[[SearchFilter], Ids]) -> tuple[RowFilter, ...]:
    """Filters for frames whose header names the opposite of `side`. A frame is one of them if it passes any filter.

    The laterality of the image takes precedence over the laterality of the series.
    """
    own, other = _DICOM_SIDE[side], _DICOM_SIDE[_OTHER_SIDE[side]]
    otherwise = RowFilter(SearchFilter({"image_laterality": (own, *_NOT_ONE_SIDE)}), look_up)
    images = RowFilter(SearchFilter({"image_laterality": (other,)}), look_up)
    return images, RowFilter(SearchFilter({"laterality": (other,)}), look_up, without=(otherwise,))


def reading_of(query: Query, terms: HeaderTerms, side: str | None) -> str:
    """What a search makes of a query's words, for people: `searched for: cardiomegaly; without: pleural effusion;
    prefers: chest`. `query` has its negations as parts of their own.
    """
    wanted = [part for part in query.parts if part.weight > 0 and not _stands_for_nothing(part)]
    absent = [f'"{part.text}"' if "," in part.text else part.text for part in query.texts if part.weight < 0]
    said = [f"searched for: {' + '.join(named(part) for part in wanted)}"] if wanted else []
    said += [f"without: {', '.join(absent)}"] if absent else []
    said += [f"prefers: {', '.join(terms.names)}"] if terms else []
    said += [f"side: {side}"] if side else []
    return "; ".join(said)


def _stands_for_nothing(part: Part) -> bool:
    """Whether a part is the normal image that stands for the absence of a finding, which nobody typed."""
    return isinstance(part, TextPart) and part.text.startswith(NEUTRAL) and not part.in_reports
