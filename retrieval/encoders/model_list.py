"""The models that can be used by name without a download."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.encoders.model_source import DEFAULT_MODEL, read_config, shipped_models


@dataclass(frozen=True)
class ListedModel:
    """A model by its name, the size of its embeddings, and whether it is taken where none is named."""

    name: str
    dimensions: int
    default: bool


def list_models() -> tuple[ListedModel, ...]:
    """The models that ship with medlens. Raises EncoderError for one whose configuration can't be read."""
    return tuple(
        ListedModel(name, read_config(folder)["model_cfg"]["embed_dim"], name == DEFAULT_MODEL)
        for name, folder in shipped_models().items()
    )
