"""The models that released versions of medlens shipped: a store of one that is not shipped any more can be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the SHA-256 of the weights: it tells a model even in a store of 0.1.0, which knew no fingerprint.
_RELEASED: Mapping[str, str] = {
    "66479d957aef908a4e33561be6ab40abdaa391745d42988f906a4f1800f78d62": "medlens-base 0.1.0",
}


def title(model: Mapping[str, Any]) -> str:
    """What messages call a model (`EncoderSpec.to_json`): its name, with the version for one that was released."""
    name = str(model.get("name", "?"))[:100]
    return _RELEASED.get(str(model.get("weights_sha256")), name)


def released(model: Mapping[str, Any]) -> bool:
    """Whether it came with a version of medlens."""
    return str(model.get("weights_sha256")) in _RELEASED


def title_and_weights(model: Mapping[str, Any]) -> str:
    """The same with the beginning of the weights' digest: what tells two models of one name."""
    return f"{title(model)!r} (weights {str(model.get('weights_sha256', '?'))[:12]})"
