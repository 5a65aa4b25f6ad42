"""Hard negatives "same region, other finding": for an image of the chest with an effusion, another patient's caption of
a chest with a fracture.

The findings of an image are known from its texts alone, and a text does not name everything. An image whose texts name
no finding gets no hard negative, and two findings that readers use as synonyms do not count as different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from retrieval.errors import TrainingError
from retrieval.language.captions import findings, with_synonyms
from retrieval.training.config import TrainingConfig
from retrieval.training.data import TrainingRow
from retrieval.training.objective import positive_pairs
from retrieval.training.texts import TextEncoder
from retrieval.zeroshot.labels import LabelSet


@dataclass(frozen=True)
class _Caption:
    """A training text by its number, its present findings, and the patients who have this text."""

    number: int
    there: frozenset[str]
    groups: frozenset[str]


class OtherFindings:
    """The training captions of each region that name a finding."""

    def __init__(
        self, rows: Sequence[TrainingRow], label_sets: Sequence[LabelSet], config: TrainingConfig, texts: TextEncoder
    ) -> None:
        """`rows` are those of the split train. Raises TrainingError if `objective.region` is not a label set of the
        run, or if no caption can be drawn for any image."""
        names, region = [label_set.name for label_set in label_sets], config.objective.region
        if region not in names:
            raise TrainingError(
                f"objective.region is {region!r}, expected a label set of the run ({', '.join(names) or 'none'})",
                hint="hard_negatives: [finding] draws captions of the same region. Name the label set of the regions.",
            )
        self._column, self._near_equal, self._texts = names.index(region), config.objective.near_equal, texts
        self._said = {text: findings(text) for row in rows for text, _ in row.texts}
        owners: dict[int, dict[str, set[str]]] = {}
        for row in rows:
            of_region = owners.setdefault(row.labels[self._column], {})
            for text, _ in row.texts:
                of_region.setdefault(text, set()).add(row.group)
        self._of_region = {
            value: [
                _Caption(texts.texts.ids[text], there, frozenset(groups))
                for text, groups in of_region.items()
                if (there := self._said[text][0])
            ]
            for value, of_region in owners.items()
            if value >= 0
        }
        if all(self.draw(row, np.random.default_rng(0)) is None for row in rows):
            raise TrainingError(
                "no training image has a caption of the same region with another finding",
                hint=f"Add the region to the sources, under attributes or constants: {region}. Or remove 'finding'.",
            )

    def draw(self, row: TrainingRow, rng: np.random.Generator) -> int | None:
        """The number of a text that is wrong of this row's image, None if there is none. It comes from another patient
        of the same region, and names findings of which the row's own texts affirm none; no equal or near-equal text."""
        said = [self._said[text] for text, _ in row.texts]
        own = with_synonyms(frozenset().union(*(there for there, _ in said)))
        if not any(there or denied for there, denied in said):
            return None
        captions = self._of_region.get(row.labels[self._column], [])
        mine = [self._texts.texts.ids[text] for text, _ in row.texts]
        for at in rng.permutation(len(captions)):
            caption = captions[int(at)]
            if row.group in caption.groups or caption.there & own or self._near(caption.number, mine):
                continue
            return caption.number
        return None

    def _near(self, number: int, mine: list[int]) -> bool:
        """Whether a text counts as one of these in the objective."""
        pooled = self._texts.pooled
        if self._near_equal is None or pooled is None:
            return number in mine
        chosen = torch.tensor([number, *mine], device=pooled.device)
        assertions = chosen.new_tensor([self._texts.texts.assertions[text] for text in (number, *mine)])
        return bool(positive_pairs(chosen, pooled[chosen], assertions, self._near_equal)[0, 1:].any())
