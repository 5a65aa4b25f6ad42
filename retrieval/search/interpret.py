"""Interprets the words of a query: a negation becomes a part of its own, and a side excludes frames.

The header of an image of a paired organ (a breast, a knee) names the side: (0020,0062) Image Laterality, else
(0020,0060) Laterality of the series. Most images show both sides, and their headers name none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from retrieval.language.negation import polarity, weighted
from retrieval.language.sides import LEFT, RIGHT
from retrieval.search.query import Part, Query, TextPart
from retrieval.types import Ids, RowFilter, SearchFilter

_DICOM_SIDE = {LEFT: "L", RIGHT: "R"}
_OTHER_SIDE = {LEFT: RIGHT, RIGHT: LEFT}
_NOT_ONE_SIDE = ("B", "U")  # both, unpaired


def separate_negations(query: Query) -> Query:
    """The query with each negated finding as a part of its own. A query without negations is returned unchanged."""
    if query.literal:
        return query
    parts: list[Part] = []
    for part in query.parts:
        if not isinstance(part, TextPart) or part.weight < 0:
            parts.append(part)
            continue
        found = polarity(part.text)
        for text, weight in weighted(found):
            # The reports are not searched for NEUTRAL: the query does not name it.
            named = weight < 0 or bool(found.present)
            parts.append(TextPart(text, part.weight * weight, part.in_reports and named))
    return query if tuple(parts) == query.parts else replace(query, ask=parts)


def frames_of_other_side(side: str, look_up: Callable[[SearchFilter], Ids]) -> tuple[RowFilter, ...]:
    """Filters for frames whose header names the opposite of `side`. A frame is one of them if it passes any filter.

    The laterality of the image takes precedence over the laterality of the series.
    """
    own, other = _DICOM_SIDE[side], _DICOM_SIDE[_OTHER_SIDE[side]]
    otherwise = RowFilter(SearchFilter({"image_laterality": (own, *_NOT_ONE_SIDE)}), look_up)
    images = RowFilter(SearchFilter({"image_laterality": (other,)}), look_up)
    return images, RowFilter(SearchFilter({"laterality": (other,)}), look_up, without=(otherwise,))
