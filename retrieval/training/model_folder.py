"""What a model folder decides for a run that goes on from it: the architecture, the preprocessing, the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.model_config import read_config
from retrieval.encoders.model_source import shipped_models
from retrieval.errors import TrainingError

# Keys that say what a model starts from, or with: the model that a run goes on from has that already.
STARTS = ("text.start", "image.start", "objective.initial_temperature")
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
WEIGHTS_NAME = "open_clip_model.safetensors"


def find_folder(model: str, beside: Path) -> Path:
    """The folder of a shipped model, by name, or the one at a path that is relative to `beside`.

    Raises TrainingError if it is none that `medlens train` wrote."""
    folder = shipped_models().get(model) or (beside / Path(model).expanduser()).resolve()
    missing = [n for n in ("open_clip_config.json", WEIGHTS_NAME, *TEXT_FILES) if not (folder / n).is_file()]
    if missing:
        raise TrainingError(
            f"the model {folder.name!r} to go on from has no {', '.join(missing)}",
            hint="Name a shipped model (`medlens models`), or a folder that `medlens train` wrote.",
        )
    return folder


def filled(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration's values with all that the model in `folder` decides.

    Raises TrainingError for a value that says otherwise.
    """
    known = dict(_flat(values))
    for key in STARTS:
        if key in known:
            raise TrainingError(
                f"{key} says what to start with, and the run goes on from the model {folder.name!r}",
                hint=f"Take {key} out, or train anew, without --continue and continue_from.",
            )
    decided = _architecture(folder)
    for key, value in _flat(decided):
        if key in known and known[key] != value:
            raise TrainingError(
                f"{key} is {known[key]!r}, but the model {folder.name!r} that the run goes on from has {value!r}",
                hint=f"Take {key} out: the model decides it.",
            )
    out = dict(values) | {"continue_from": str(folder), "embed_dim": decided["embed_dim"]}
    for section in ("image", "text"):
        own = out.get(section) or {}
        if isinstance(own, Mapping):  # else whoever checks the types says so
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
            f"the model {folder.name!r} is not one that `medlens train` writes: its configuration lacks {exc}",
            hint="A run goes on from a timm image tower and a BERT with mean pooling, as `medlens train` builds them.",
        ) from exc


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
