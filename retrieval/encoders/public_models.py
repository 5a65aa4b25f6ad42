"""Public dual encoders of medical images and texts: what each has seen, on which terms, and how to use it.

The table is data/public_models.yaml; each entry names the pages that its facts were read on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from retrieval.encoders import hub
from retrieval.encoders.model_list import cached_megabytes
from retrieval.resources import data_folder

TABLE = "public_models.yaml"
_FAST, _MEDIUM = 5.0, 0.5  # images a second of one core


@dataclass(frozen=True)
class PublicModel:
    """A model that its makers have published. None where a fact could not be checked.

    `place` is what --model takes, None if medlens does not load it; `why` says why then. `side` is in pixels, `context`
    in tokens. `megabytes` are those of the published file, `float32_megabytes` those of all weights as they run.
    `images_per_second` are those of one CPU core, measured with random weights; `speed` is their
    class.
    """

    name: str
    subject: str
    seen: str
    licence: str
    gated: bool
    megabytes: float | None
    side: int | None
    context: int | None
    place: str | None
    why: str | None
    architecture: str | None
    float32_megabytes: float | None
    images_per_second: float | None
    texts_per_second: float | None
    sources: tuple[str, ...]

    @property
    def speed(self) -> str | None:
        """ "fast", "medium" or "slow" on a CPU; None for an architecture that was not measured."""
        if self.images_per_second is None:
            return None
        if self.images_per_second >= _FAST:
            return "fast"
        return "medium" if self.images_per_second >= _MEDIUM else "slow"

    @property
    def command(self) -> str | None:
        """The one command to build a store with it."""
        return None if self.place is None else f"medlens index ARCHIVE --model {self.place}"

    @property
    def cached_megabytes(self) -> float | None:
        """The size of its weights in the hub's cache of this machine; None if they are not there."""
        return None if self.place is None else cached_megabytes(self.place.removeprefix(hub.PREFIX))


@cache
def public_models() -> tuple[PublicModel, ...]:
    """The models of the table, in its order: those that medlens loads first."""
    table = _table()
    return tuple(_model(entry, table["architectures"]) for entry in table["models"])


def checked_on() -> str:
    """The day on which the facts were checked, as YYYY-MM-DD."""
    return str(_table()["checked"])


def _table() -> Mapping[str, Any]:
    values: Mapping[str, Any] = yaml.safe_load((data_folder() / TABLE).read_text(encoding="utf-8"))
    return values


def _model(entry: Mapping[str, Any], architectures: Mapping[str, Any]) -> PublicModel:
    measured = architectures.get(entry["architecture"], {})
    return PublicModel(
        **{name: entry[name] for name in _FACTS},
        why=entry.get("why"),
        float32_megabytes=measured.get("megabytes"),
        images_per_second=measured.get("images"),
        texts_per_second=measured.get("texts"),
        sources=tuple(entry["sources"]),
    )


_FACTS = (
    "name", "subject", "seen", "licence", "gated", "megabytes", "side", "context", "place", "architecture",
)  # fmt: skip
