"""Wiring of `medlens search` and `medlens describe`: options become a Query, answers come from the store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from indexer.store.questions import StoreEncoder
from indexer.store.store import Store
from retrieval.errors import QueryError
from retrieval.search.describe import SentenceHit
from retrieval.search.query import ImagePart, Part, TextPart, nearest, part_names

_WEIGHT = re.compile(r"\s*([a-z]+\d*)\s*=\s*(\S+)\s*")

_WEIGHT_HINT = "For example --weight image=0.5."


def parts_of(
    query: str | None,
    texts: Sequence[str],
    images: Sequence[Path],
    negatives: Sequence[str],
    weights: Sequence[str],
    frames: Sequence[int] = (),
) -> tuple[Part, ...]:
    """The parts of a query, in the order of the arguments.

    `weights` are like "image=0.5", by the parts' names; `frames` are of the images in their order, 1 of those left.
    """
    if len(frames) > len(images):
        raise QueryError(f"{len(frames)} frame numbers were given for {len(images)} images")
    numbers = [*frames, *[1] * (len(images) - len(frames))]
    parts: list[Part] = [TextPart(text) for text in ([query] if query is not None else []) + list(texts)]
    parts += [ImagePart(image, frame_number=number) for image, number in zip(images, numbers, strict=True)]
    parts += [TextPart(text, -1.0) for text in negatives]
    names = part_names(parts)
    given: dict[str, float] = {}
    for asked in weights:
        match = _WEIGHT.fullmatch(asked)
        value = _number(match[2]) if match else None
        if match is None or value is None:
            raise QueryError(f"the weight {asked!r} is not of the form NAME=NUMBER", hint=_WEIGHT_HINT)
        if match[1] not in names:
            there = ", ".join(names) if names else "none"
            raise QueryError(
                f"there is no part {match[1]!r} in the query to weigh; there are: {there}",
                hint=nearest(match[1], names),
            )
        if value <= 0:
            raise QueryError(
                f"the weight of {match[1]!r} is {match[2]}, expected a number above 0",
                hint="What the answers should not be like is said with --not, and weighed as not=NUMBER.",
            )
        if match[1] in given:
            raise QueryError(f"the weight of {match[1]!r} is given twice")
        given[match[1]] = value
    weighed = [(part, part.weight * given.get(name, 1.0)) for part, name in zip(parts, names, strict=True)]
    return tuple(replace(part, weight=weight) for part, weight in weighed)


def sentences_for(
    store: Store, model: str | None, device: str, image: ImagePart, k: int, phrases: Path | None, borrow: int
) -> tuple[SentenceHit, ...]:
    """What `medlens describe` answers."""
    listed = _phrases(phrases) if phrases is not None else ()
    return store.describe(image, k=k, phrases=listed, borrow=borrow, encoder=StoreEncoder(store, model, device))


def sentence_row(hit: SentenceHit, *, short: bool, phrases: bool) -> dict[str, Any]:
    """A sentence as one row. `short` is for a table."""
    row: dict[str, Any] = {"rank": hit.rank, "score": round(hit.score, 6), "text": hit.text}
    if phrases:
        return row
    if short:
        whose = {True: "yes", False: "no", None: "?"}
        borrowed = {} if hit.borrowed is None else {"borrowed": round(hit.borrowed, 3)}
        return row | {"studies": len(hit.studies), "same patient": whose[hit.same_patient], "borrowed": None} | borrowed
    borrowed_from = None if hit.borrowed is None else {"study": hit.studies[0], "score": round(hit.borrowed, 6)}
    return row | {
        "studies": list(hit.studies),
        "same_study": hit.same_study,
        "same_patient": hit.same_patient,
        "borrowed_from": borrowed_from,
    }


def _phrases(path: Path) -> tuple[str, ...]:
    """One phrase per line; blank lines and those that begin with # are passed over, and so are repetitions."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise QueryError(f"the phrases {path.name!r} can't be read: {exc.strerror or type(exc).__name__}") from exc
    except UnicodeDecodeError as exc:
        raise QueryError(f"the phrases {path.name!r} are no UTF-8 text", hint="Save them as UTF-8.") from exc
    texts = (" ".join(line.split()) for line in lines)
    phrases = tuple(dict.fromkeys(text for text in texts if text and not text.startswith("#")))
    if not phrases:
        raise QueryError(f"there are no phrases in {path.name!r}", hint="Write one per line.")
    return phrases


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
