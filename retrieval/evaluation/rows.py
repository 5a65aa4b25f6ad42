"""The rows of an evaluation: images with their texts, patients and other fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.statistics.measures import Ints
from retrieval.zeroshot.labels import LabelSet

LEAST = 2  # the least entries of a gallery
SEVERAL = "|"  # separates the values of a field, as in ChestX-ray14
NOTHING = ("no finding", "normal", "none")


@dataclass(frozen=True)
class EvaluationRows:
    """One row for each image, in the order of its vectors.

    `texts` has the texts of each image, if any, and `groups` its patient or case. `fields` has other values by name
    (modality, label ...); None where a value is unknown. `queries` has another text about each image, and `documents`
    the text that a text search may read: together they allow a text baseline. `facts` say where the rows come from;
    nothing in them names a patient.
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
            raise ValueError(f"the columns have {sorted(lengths)} rows, expected the same number")

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def with_text(self) -> Ints:
        return np.array([i for i, own in enumerate(self.texts) if own], np.int64)

    def truth(self, labels: LabelSet, name: str) -> Ints:
        """The index of each row's label by the field `name`; -1 if the field has no value of the label set."""
        found = [labels.label_of(value) if value else None for value in self.fields[name]]
        return np.array([-1 if index is None else index for index in found], np.int64)


def findings_of(labels: LabelSet, value: str | None) -> list[int] | None:
    """The findings of a label set that a field names, separated by "|".

    None for an empty field, and for a field with a value that the set does not define: then no finding is known to be
    absent.
    """
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
    """Draw whole groups at random, as long as they fit into `limit` rows. Returns their row numbers in order.

    Raises EvaluationError if no group fits.
    """
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
            f"every patient has more than {limit} images", hint="Use a greater --limit: whole patients are drawn."
        )
    return [i for i, group in enumerate(groups) if group in kept]
