"""The list of the models that this user knows: the fingerprint and the location of each.

A store names the model of its vectors by fingerprint and not by location, so that a store from a stranger can't choose
what is loaded. `medlens index --model`, `train` and `models add` save locations here, in
`$XDG_DATA_HOME/medlens/models.json` (mode 0600). The model of a store is searched only here and among the shipped
models.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.bounded import read_json
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import ModelSource, resolve_model, shipped_models
from retrieval.encoders.released import title
from retrieval.encoders.spec import EncoderSpec, differing, older
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.on_disk import written_whole

log = logging.getLogger(__name__)

_MOST_BYTES = 16 << 20
_FORMAT = 1


@dataclass(frozen=True)
class KnownModel:
    """A model that the user added: its description, and its location at that time."""

    place: str
    model: Mapping[str, Any]  # EncoderSpec.to_json()

    @property
    def name(self) -> str:
        return str(self.model.get("name", "?"))


def known_models() -> dict[str, KnownModel]:
    """The models by fingerprint, in the order of their addition. Raises EncoderError for a file that can't be read."""
    path = _file()
    try:
        values = read_json(path, _MOST_BYTES)
        models = values["models"]
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']!r}, expected {_FORMAT}")
        return {
            str(fingerprint): KnownModel(str(entry["place"]), dict(entry["model"]))
            for fingerprint, entry in models.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise EncoderError(
            f"the list of known models, {path.name}, can't be read: {why}",
            hint="Remove the file, and add your models again with `medlens models add PLACE`.",
        ) from exc


def remember_model(spec: EncoderSpec, source: ModelSource) -> bool:
    """Save the location of a model. Returns whether the list changed; shipped models are never saved.

    Raises EncoderError if the list can't be read or written.
    """
    if source.source in shipped_models():
        return False
    entry = KnownModel(source.source, spec.to_json())
    if known_models().get(spec.fingerprint) == entry:
        return False
    try:
        with _alone():
            models = known_models() | {spec.fingerprint: entry}
            listed = {key: {"place": known.place, "model": known.model} for key, known in models.items()}
            _write(_file(), json.dumps({"format": _FORMAT, "models": listed}, indent=1))
    except OSError as exc:
        raise EncoderError(
            f"the location of the model {spec.name!r} can't be saved: {exc.strerror or type(exc).__name__}",
            hint="Check the permissions of $XDG_DATA_HOME/medlens, or name the model with --model each time.",
        ) from exc
    return True


def try_to_remember(spec: EncoderSpec, source: ModelSource) -> None:
    """As `remember_model`, but log a warning if the list can't be written."""
    try:
        remember_model(spec, source)
    except EncoderError as exc:
        log.warning("%s; searches will need --model", exc)


def find_model(model: Mapping[str, Any]) -> ModelSource:
    """The location of a model, by its description in a store. Locations in the description are ignored.

    Raises WeightsNotFound if neither the shipped models nor the user's list have it.
    """
    for name in shipped_models():
        source = resolve_model(name)
        with contextlib.suppress(EncoderError):  # an incomplete installation
            if not differing(model, spec_of(source).to_json()):
                return source
    known = [one for one in reversed(known_models().values()) if not differing(model, one.model)]
    if known:  # several only for a description of 0.1.0, which has fewer fields
        return _where_it_was(next((one for one in known if one.name == model.get("name")), known[0]))
    weights = str(model.get("weights_sha256", "?"))[:12]
    which = f"weights {weights}" if older(model) else f"fingerprint {str(model.get('fingerprint', '?'))[:12]}"
    raise WeightsNotFound(
        f"the model {title(model)!r} ({which}) is not known on this machine: it is not a "
        "shipped model, and a store does not name the location of its model",
        hint="If you have the model, run `medlens models add PLACE` once: a folder, hf-hub:ORG/REPO or "
        "ARCHITECTURE@CHECKPOINT. Or use --model PLACE.",
    )


def _where_it_was(known: KnownModel) -> ModelSource:
    try:
        return resolve_model(known.place)
    except WeightsNotFound as exc:
        raise WeightsNotFound(
            f"the model {known.name!r} is no longer at the location where it was added: {exc}",
            hint="If the model has moved, run `medlens models add PLACE` with its new location.",
        ) from exc


def _file() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".local" / "share") / "medlens" / "models.json"  # noqa: PTH111


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lock the list, so that one process at a time changes it."""
    folder = _file().parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    """Write atomically; only the owner can read the file."""
    with written_whole(path, durable=True, private=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
