"""What a model is, without loading it: the identity that a store is bound to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from retrieval.encoders.preprocess import Preprocess
from retrieval.types import Encoder, RenderProfile, Window


@dataclass(frozen=True)
class EncoderSpec:
    """A model's identity. Two specs whose `fingerprint` is equal put images and texts in the same space.

    `source` is what `resolve_model` takes to load it again; `weights_sha256` is over the weights file.
    """

    name: str
    source: str
    weights_sha256: str
    embed_dim: int
    preprocess: Preprocess
    render_profile: RenderProfile

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that changes an embedding: see `identity`."""
        return identity(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "weights_sha256": self.weights_sha256,
            "embed_dim": self.embed_dim,
            "preprocess": self.preprocess.to_json(),
            "render_profile": profile_to_json(self.render_profile),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderSpec:
        return cls(
            name=values["name"],
            source=values["source"],
            weights_sha256=values["weights_sha256"],
            embed_dim=int(values["embed_dim"]),
            preprocess=Preprocess.from_json(values["preprocess"]),
            render_profile=profile_from_json(values["render_profile"]),
        )


@runtime_checkable
class IndexingEncoder(Encoder, Protocol):
    """What an indexing run asks of an encoder, besides vectors: which model it is, and its batch size."""

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def batch_size(self) -> int: ...


def profile_to_json(profile: RenderProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "windows": {modality: [asdict(w) for w in windows] for modality, windows in sorted(profile.windows.items())},
        "percentiles": list(profile.percentiles),
    }


def profile_from_json(values: Mapping[str, Any]) -> RenderProfile:
    low, high = values.get("percentiles", RenderProfile.percentiles)
    windows = {
        modality: tuple(Window(float(w["center"]), float(w["width"])) for w in entries)
        for modality, entries in values.get("windows", {}).items()
    }
    return RenderProfile(str(values.get("name", "header")), windows, (float(low), float(high)))


def identity(model: Mapping[str, Any]) -> dict[str, Any]:
    """All in a model's description (`EncoderSpec.to_json`) that changes an embedding: name and place do not count."""
    values: dict[str, Any] = json.loads(json.dumps(dict(model), allow_nan=False))  # tuples are lists
    return {key: value for key, value in values.items() if key not in ("name", "source")}


def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what the identities of two models differ; nothing if their vectors can be compared."""
    left, right = identity(mine), identity(other)
    return [key for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
