"""What a model is judged on: images with their texts, their patients, and what else is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.statistics.measures import Ints
from retrieval.zeroshot.labels import LabelSet

LEAST = 2  # entries of a gallery
SEVERAL = "|"  # between the values of a field that has several, as ChestX-ray14 writes them
NOTHING = ("no finding", "normal", "none")


@dataclass(frozen=True)
class EvaluationRows:
    """One row for each image, in the order of its vectors.

    `texts` are an image's own words, none where it has none; `groups` its patient or case; `fields` what is known of
    it by name (modality, label ...), None where it is not said. `queries` is another text about the image and
    `documents` what a text engine may read of it: together they allow a text baseline. `facts` say where the rows come
    from; nothing in them names a patient.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    fields: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    queries: tuple[str | None, ...] | None = None
    documents: tuple[str, ...] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.groups), *(len(values) for values in self.fields.values())}
        lengths |= {len(values) for values in (self.queries, self.documents) if values is not None}
        if len(lengths) > 1:
            raise ValueError(f"columns of {sorted(lengths)} rows, expected the same number")

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def with_text(self) -> Ints:
        return np.array([i for i, own in enumerate(self.texts) if own], np.int64)

    def truth(self, labels: LabelSet, name: str) -> Ints:
        """Index of each row's label by the field `name`, -1 where it says nothing that the set knows."""
        found = [labels.label_of(value) if value else None for value in self.fields[name]]
        return np.array([-1 if index is None else index for index in found], np.int64)


def findings_of(labels: LabelSet, value: str | None) -> list[int] | None:
    """Which findings of a set a field's value names; several are joined by "|". None where it says nothing, or
    something that the set does not know: of such a row nothing is known to be absent."""
    if not value:
        return None
    named = [part.strip() for part in value.split(SEVERAL) if part.strip()]
    found = [labels.label_of(part) for part in named]
    if any(i is None and part.casefold() not in NOTHING for i, part in zip(found, named, strict=True)):
        return None
    return [i for i in found if i is not None]


def of_rows(values: Sequence[str], rows: Ints) -> list[str]:
    return [values[int(i)] for i in rows]


def draw_groups(groups: Sequence[str], limit: int, seed: int) -> list[int]:
    """Row numbers of whole groups, in order, drawn at random as long as they fit into `limit` rows. Raises
    EvaluationError if none does."""
    if len(groups) <= limit:
        return list(range(len(groups)))
    names = sorted(set(groups))
    sizes = dict(zip(*np.unique(np.asarray(groups, str), return_counts=True), strict=True))
    left, kept = limit, set()
    for at in np.random.default_rng(seed).permutation(len(names)):
        if sizes[names[at]] <= left:
            kept.add(names[at])
            left -= int(sizes[names[at]])
    if not kept:
        raise EvaluationError(
            f"no patient has as few as {limit} images", hint="Raise --limit: whole patients are drawn."
        )
    return [i for i, group in enumerate(groups) if group in kept]
