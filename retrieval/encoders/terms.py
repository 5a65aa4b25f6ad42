"""The terms of a model's weights, in one line, from the file `terms.json` beside them.

The package has a licence and the weights have terms of their own, because they learned from images that others license.
`{"terms": "CC BY 4.0"}` is a whole file; other keys are allowed. A model without the file has unknown terms.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.bounded import read_json
from retrieval.encoders.fingerprint import sha256_of
from retrieval.encoders.known_models import known_models
from retrieval.encoders.model_source import shipped_models, weights_in
from retrieval.errors import EncoderError

log = logging.getLogger(__name__)

TERMS_NAME = "terms.json"
UNKNOWN_TERMS = "terms unknown"
_MOST_BYTES = 1 << 16
_MOST_CHARACTERS = 1000


def read_terms(folder: Path | None) -> str:
    """The terms of the weights in a model folder, as one line; "terms unknown" if the folder does not state them."""
    if folder is None:
        return UNKNOWN_TERMS
    try:
        text = read_json(folder / TERMS_NAME, _MOST_BYTES)["terms"]
        line = " ".join(text.split())
    except FileNotFoundError:
        return UNKNOWN_TERMS
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        log.warning("the terms of the model %r can't be read (%s)", folder.name, type(exc).__name__)
        return UNKNOWN_TERMS
    return line[:_MOST_CHARACTERS] or UNKNOWN_TERMS


def write_terms(folder: Path, terms: str) -> None:
    (folder / TERMS_NAME).write_text(json.dumps({"terms": terms}, ensure_ascii=False, indent=1) + "\n", "utf-8")


def terms_at(place: str | None) -> str:
    """The terms of a model by the place where it lies. Only a folder can state them: nothing is downloaded."""
    folder = (place or "").removeprefix("local-dir:")
    return read_terms(Path(folder) if folder != place and folder else None)


def terms_of_model(model: Mapping[str, Any]) -> str:
    """The terms of the model that a store describes. It is looked for among the shipped models and the user's own."""
    for folder in shipped_models().values():
        weights = weights_in(folder)
        if weights is not None and sha256_of(weights) == model.get("weights_sha256"):
            return read_terms(folder)
    try:
        known = known_models().get(str(model.get("fingerprint")))
    except EncoderError as exc:
        log.warning("%s", exc)
        return UNKNOWN_TERMS
    return UNKNOWN_TERMS if known is None else terms_at(known.place)
