"""The identity of a model, without loading it. Each store belongs to one identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

from retrieval.encoders.preprocess import Preprocess
from retrieval.types import Encoder, RenderProfile, Window


@dataclass(frozen=True)
class EncoderSpec:
    """The identity of a model. Models with equal fingerprints embed images and texts in the same space.

    `weights_sha256` is the SHA-256 of the weights file. `configuration` and `tokenizer` have all else that changes an
    embedding: towers, pooling, activation, vocabulary. The location of a model is not part of its identity.
    """

    name: str
    weights_sha256: str
    embed_dim: int
    preprocess: Preprocess
    render_profile: RenderProfile
    configuration: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that changes an embedding. See `identity`."""
        return fingerprint_of(self._values())

    def to_json(self) -> dict[str, Any]:
        values = self._values()
        return values | {"fingerprint": fingerprint_of(values)}

    def _values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "embed_dim": self.embed_dim,
            "preprocess": self.preprocess.to_json(),
            "render_profile": profile_to_json(self.render_profile),
            "configuration": dict(self.configuration),
            "tokenizer": dict(self.tokenizer),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderSpec:
        return cls(
            name=values["name"],
            weights_sha256=values["weights_sha256"],
            embed_dim=int(values["embed_dim"]),
            preprocess=Preprocess.from_json(values["preprocess"]),
            render_profile=profile_from_json(values["render_profile"]),
            configuration=values.get("configuration", {}),
            tokenizer=values.get("tokenizer", {}),
        )


@runtime_checkable
class IndexingEncoder(Encoder, Protocol):
    """An encoder for an indexing run, which also needs the identity of the model and the batch size."""

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
    """The parts of a model's description (`EncoderSpec.to_json`) that change an embedding. The name is not one of
    them."""
    values: dict[str, Any] = json.loads(json.dumps(dict(model), allow_nan=False))  # tuples are lists
    return {key: value for key, value in values.items() if key not in _NOT_IDENTITY}


def fingerprint_of(model: Mapping[str, Any]) -> str:
    """SHA-256 over a description's identity."""
    return hashlib.sha256(json.dumps(identity(model), sort_keys=True).encode()).hexdigest()


def is_description(values: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether values from an untrusted store describe a model: plain JSON with a printable name and a bounded size."""
    if not isinstance(values, Mapping):
        return False
    name, size = values.get("name"), values.get("embed_dim")
    try:
        json.dumps(dict(values), allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return False
    named = isinstance(name, str) and len(name) <= _MOST_NAME and name.isprintable()
    return named and type(size) is int and 1 <= size <= _MOST_SIZE


def older(model: Mapping[str, Any]) -> bool:
    """Whether medlens 0.1.0 wrote the description, which then has neither configuration nor tokenizer."""
    return not any(key in model for key in _NOT_IN_0_1_0)


def as_older(model: Mapping[str, Any]) -> dict[str, Any]:
    """The description that medlens 0.1.0 would have written for the same model."""
    return {key: value for key, value in model.items() if key not in _NOT_IN_0_1_0}


def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which the identities of two models differ; empty if their vectors can be compared.

    If 0.1.0 wrote one of the descriptions, only the keys that it has are compared.
    """
    if older(mine) or older(other):
        mine, other = as_older(mine), as_older(other)
    left, right = identity(mine), identity(other)
    return [key for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]


_NOT_IN_0_1_0 = ("configuration", "tokenizer", "fingerprint")
_MOST_NAME, _MOST_SIZE = 1000, 65_536
_NOT_IDENTITY = ("name", "source", "fingerprint")  # 0.1.0 wrote a source: the location of the model
