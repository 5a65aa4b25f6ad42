"""The settings that a run takes from the model that it continues: architecture, preprocessing, vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.model_config import read_config
from retrieval.encoders.model_source import shipped_models
from retrieval.encoders.transformers_config import is_transformers
from retrieval.errors import TrainingError

# Keys about the start of a model. A run that continues a model has no use for them.
STARTS = ("text.start", "image.start", "objective.initial_temperature")
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
WEIGHTS_NAME = "open_clip_model.safetensors"


def find_folder(model: str, beside: Path) -> Path:
    """The folder of a shipped model, by name, or the one at a path that is relative to `beside`.

    Raises TrainingError if `medlens train` did not write the folder."""
    folder = shipped_models().get(model) or (beside / Path(model).expanduser()).resolve()
    missing = [n for n in ("open_clip_config.json", WEIGHTS_NAME, *TEXT_FILES) if not (folder / n).is_file()]
    if missing and not (folder / "open_clip_config.json").is_file() and is_transformers(folder):
        raise TrainingError(
            f"the model {folder.name!r} is one of transformers, and `medlens train` writes models of open_clip: it "
            "can't save it as it is",
            hint="Go on from a shipped model or a folder that `medlens train` wrote, or train that model elsewhere.",
        )
    if missing:
        raise TrainingError(
            f"the model to continue, {folder.name!r}, has no {', '.join(missing)}",
            hint="Use a shipped model (`medlens models`), or a folder that `medlens train` wrote.",
        )
    return folder


def filled(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a configuration, completed by the settings of the model in `folder`.

    Raises TrainingError for a value that contradicts the model.
    """
    known = dict(_flat(values))
    for key in STARTS:
        if key in known:
            raise TrainingError(
                f"{key} can't be set, because the run continues the model {folder.name!r}",
                hint=f"Remove {key}, or train a new model without --continue and continue_from.",
            )
    decided = _architecture(folder)
    for key, value in _flat(decided):
        if key in known and known[key] != value:
            raise TrainingError(
                f"{key} is {known[key]!r}, but the model {folder.name!r} that the run continues has {value!r}",
                hint=f"Remove {key}: the model decides it.",
            )
    out = dict(values) | {"continue_from": str(folder), "embed_dim": decided["embed_dim"]}
    for section in ("image", "text"):
        own = out.get(section) or {}
        if isinstance(own, Mapping):  # other types are refused later
            out[section] = dict(own) | decided[section]
    return out


def _architecture(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    try:
        pixels, vision, text = config.preprocess, config.vision, config.text
        return {
            "embed_dim": config.embed_dim,
            "image": {
                "timm_model": vision["timm_model_name"],
                "image_size": vision["image_size"],
                "resize_mode": pixels.resize_mode,
                "mean": pixels.mean[0],
                "std": pixels.std[0],
            },
            "text": {
                "start": str(folder),
                "context_length": text["context_length"],
                "projection": text["hf_proj_type"],
            },
        }
    except KeyError as exc:
        raise TrainingError(
            f"the model {folder.name!r} was not written by `medlens train`: its configuration lacks {exc}",
            hint="A run can continue only models of `medlens train`: a timm image tower and a BERT with mean pooling.",
        ) from exc


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
