"""Builds the parts of a query from text input: texts, images, texts to avoid, and weights such as `image=0.5`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retrieval.errors import QueryError
from retrieval.search.query import ImagePart, Part, TextPart, nearest, part_names
from retrieval.search.refs import Ref

_WEIGHT = re.compile(r"\s*([a-z]+\d*)\s*=\s*(\S+)\s*")


def query_parts(
    texts: Sequence[str] = (),
    images: Sequence[Ref] = (),
    *,
    not_like: Sequence[str] = (),
    weights: Sequence[str] = (),
    frame_numbers: Sequence[int] = (),
) -> tuple[Part, ...]:
    """The parts of a `Query`: texts, then images, then the texts that answers should not be similar to.

    Images are files or frames of the store. `weights` look like "image=0.5", with the names of `Query.names`.
    `frame_numbers` count from 1 and belong to the images in their order; an image without a number is searched by its
    first frame. Raises QueryError for a weight that can't be read or that names no part, and for extra frame numbers.
    """
    if len(frame_numbers) > len(images):
        raise QueryError(
            f"{len(frame_numbers)} frame numbers were given for {len(images)} images; expected at most one per image"
        )
    for image, _ in zip(images, frame_numbers, strict=False):
        if not isinstance(image, Path):
            raise QueryError(
                f"a frame number was given for {str(image)!r}, which is not a file", hint="Write UID#FRAME instead."
            )
    numbers = [*frame_numbers, *[1] * (len(images) - len(frame_numbers))]
    parts: list[Part] = [TextPart(text) for text in texts]
    parts += [ImagePart(image, frame_number=number) for image, number in zip(images, numbers, strict=True)]
    parts += [TextPart(text, -1.0) for text in not_like]
    names = part_names(parts)
    given = _weights(weights, names)
    weighed = [(part, part.weight * given.get(name, 1.0)) for part, name in zip(parts, names, strict=True)]
    return tuple(replace(part, weight=weight) for part, weight in weighed)


def _weights(texts: Sequence[str], names: Sequence[str]) -> Mapping[str, float]:
    given: dict[str, float] = {}
    for text in texts:
        match = _WEIGHT.fullmatch(text)
        value = _number(match[2]) if match else None
        if match is None or value is None:
            raise QueryError(
                f"the weight {text!r} does not have the form NAME=NUMBER", hint="Example: --weight image=0.5"
            )
        if match[1] not in names:
            there = ", ".join(names) if names else "none"
            raise QueryError(
                f"the weight {text.strip()!r} names no part of the query; the parts are: {there}",
                hint=nearest(match[1], names),
            )
        if value <= 0:
            raise QueryError(
                f"the weight of {match[1]!r} is {match[2]}, expected a number above 0",
                hint="To avoid something, use --not TEXT and give its weight as not=NUMBER.",
            )
        if match[1] in given:
            raise QueryError(f"the weight of {match[1]!r} was given twice")
        given[match[1]] = value
    return given


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
