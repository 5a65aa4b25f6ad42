"""What a query's words mean beyond their embedding: negations become parts of their own, a side leaves frames out.

Of a picture of one of a pair (a breast, a knee) the header says which: (0020,0062) Image Laterality, else (0020,0060)
Laterality of its series. Most pictures show both sides, and their headers say nothing.
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
    """The query with the negations of its words as parts of their own. One without any comes back as it is."""
    if query.literal:
        return query
    parts: list[Part] = []
    for part in query.parts:
        if not isinstance(part, TextPart) or part.weight < 0:
            parts.append(part)
            continue
        found = polarity(part.text)
        for text, weight in weighted(found):
            # Reports are asked for what the query names, not for the word that stands for an absence.
            named = weight < 0 or bool(found.present)
            parts.append(TextPart(text, part.weight * weight, part.in_reports and named))
    return query if tuple(parts) == query.parts else replace(query, ask=parts)


def frames_of_other_side(side: str, look_up: Callable[[SearchFilter], Ids]) -> tuple[RowFilter, ...]:
    """The frames whose header says that they show the other side than `side`: those that pass one of these filters.

    What it says of the image counts before what it says of the series.
    """
    own, other = _DICOM_SIDE[side], _DICOM_SIDE[_OTHER_SIDE[side]]
    otherwise = RowFilter(SearchFilter({"image_laterality": (own, *_NOT_ONE_SIDE)}), look_up)
    images = RowFilter(SearchFilter({"image_laterality": (other,)}), look_up)
    return images, RowFilter(SearchFilter({"laterality": (other,)}), look_up, without=(otherwise,))
