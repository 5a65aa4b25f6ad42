"""What a model is made of, before any of it is loaded: configuration, weights, tokenizer, text model. And what it is.

Read without torch, open_clip or transformers where the model lies in a folder or in the hub's cache: whoever loads it,
with torch or without, takes the parts from here, so that both agree on its fingerprint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders import hub
from retrieval.encoders.config_rules import PREPROCESS, is_repository
from retrieval.encoders.model_config import CONFIG_NAME, ModelConfig, config_from, read_config
from retrieval.encoders.model_source import WEIGHTS_NAMES, ModelSource, load_error
from retrieval.encoders.spec import EncoderSpec
from retrieval.encoders.text_files import (
    TEXT_CONFIG,
    TOKENIZER_FILES,
    TextConfig,
    TokenizerFiles,
    has_tokenizer,
    read_text_config,
    read_tokenizer,
    text_config_from,
)
from retrieval.encoders.transformers_config import (
    PROCESSOR_FILES,
    TransformersConfig,
    is_transformers,
    read_transformers_config,
)
from retrieval.encoders.weight_files import INDEX, TRANSFORMERS_WEIGHTS, WeightFiles, shards, weights_beside
from retrieval.errors import EncoderError, WeightsNotFound

logger = logging.getLogger(__name__)

ADAPTER = "adapter_config.json"
# Hidden sizes of Devlin et al. 2018 and Turc et al. 2019, all with 64 per head. Others differ: MiniLM has 384 in 12.
BERT_SIZES = (128, 256, 512, 768, 1024)


@dataclass(frozen=True)
class ModelParts:
    """The parts of a model, checked. `tokenizer` is None for CLIP's byte pairs as open_clip has them, `text` for a
    tower of open_clip's own and for a model of transformers, whose configuration has both towers."""

    source: ModelSource
    config: ModelConfig | TransformersConfig
    weights: WeightFiles
    tokenizer: TokenizerFiles | None
    text: TextConfig | None

    @property
    def spec(self) -> EncoderSpec:
        """What the model is. Hashes the weights, unless their hash is remembered."""
        configuration = self.config.identity()
        if self.text is not None:
            configuration["text_model"] = self.text.identity()
        return EncoderSpec(
            name=self.config.name or self.source.name,
            weights_sha256=self.weights.sha256(),
            embed_dim=self.config.embed_dim,
            preprocess=self.config.preprocess,
            render_profile=self.config.render_profile,
            configuration=configuration,
            tokenizer=self.tokenizer.identity() if self.tokenizer is not None else {"kind": "clip"},
        )


def model_parts(source: ModelSource, *, download: bool = True) -> ModelParts:
    """The parts of a model that was found. Without `download`, WeightsNotFound for what is not on this machine.

    Raises EncoderError for files that are not what they may be; an OSError or a ValueError of the hub is passed on.
    """
    if source.folder is not None:
        parts = _of_folder(source, source.folder)
    elif source.repository is not None:
        parts = _of_repository(source, source.repository, download)
    elif download:
        parts = _of_architecture(source)
    else:
        raise WeightsNotFound(f"the model {source.name!r} is an architecture of open_clip with a checkpoint")
    try:
        parts.weights.require()
    except OSError as exc:
        raise EncoderError(f"the model {source.name!r} can't be loaded: {parts.weights.name}: {exc.strerror}") from exc
    return parts


def spec_of(source: ModelSource) -> EncoderSpec:
    """What a model is, from its files alone. Raises as `model_parts`, all of it as EncoderError."""
    try:
        return model_parts(source).spec
    except (OSError, ValueError) as exc:
        raise load_error(source, exc) from exc


def _of_folder(source: ModelSource, folder: Path) -> ModelParts:
    if not (folder / CONFIG_NAME).is_file():
        weights = weights_beside(folder, TRANSFORMERS_WEIGHTS)
        if weights is None:
            raise WeightsNotFound(f"the weights of {source.name!r} are gone")
        return _of_transformers(source, folder, weights, folder.name)
    config = read_config(folder)
    weights = weights_beside(folder, WEIGHTS_NAMES)
    if weights is None:
        raise WeightsNotFound(f"the weights of {source.name!r} no longer exist")
    text = None
    if config.hugging_face_text:
        path = _beside(folder, config.text["hf_model_name"], TEXT_CONFIG)
        text = read_text_config(path, folder.name) if path is not None else _bert_of(weights, folder.name)
    tokenizer = None
    if not config.own_tokenizer:
        place = next((f for f in _places(folder, config.text["hf_tokenizer_name"]) if has_tokenizer(f)), folder)
        tokenizer = read_tokenizer(place, folder.name)
    return ModelParts(source, config, weights, tokenizer, text)


def _places(folder: Path, name: str) -> tuple[Path, ...]:
    """Where the files of a text model may lie that a folder's configuration names: in the folder, in one of that name
    within, or in one of that name beside it. Of a path, only the last part counts: it is the maker's machine's."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    named = (folder / last, folder.parent / last) if last not in ("", ".", "..") and is_repository(last) else ()
    return (folder, *(place for place in named if place.is_dir() and place != folder))


def _beside(folder: Path, name: str, file: str) -> Path | None:
    paths = (place / file for place in _places(folder, name))
    return next((path for path in paths if path.is_symlink() or path.exists()), None)


def _of_transformers(source: ModelSource, folder: Path, weights: WeightFiles, model: str) -> ModelParts:
    config = read_transformers_config(folder, model)
    if (folder / ADAPTER).exists():
        logger.warning("model %s: %s is not applied; merge the adapter into the model to use it", model, ADAPTER)
    tokenizer = read_tokenizer(folder, model, default=config.tokenizer_class)
    return ModelParts(source, config, weights, tokenizer, None)


def _of_repository(source: ModelSource, repository: str, download: bool) -> ModelParts:
    """Its own files are what counts, as in a folder; what it lacks comes from the repositories that it names."""
    names = (CONFIG_NAME, TEXT_CONFIG, *PROCESSOR_FILES, *TOKENIZER_FILES)
    folder = hub.some_files(repository, names, download=download)
    if folder is not None and not (folder / CONFIG_NAME).is_file() and is_transformers(folder):
        weights = _hub_weights(source, repository, TRANSFORMERS_WEIGHTS, download)
        return _of_transformers(source, folder, weights, source.name)
    if folder is None or not (folder / CONFIG_NAME).is_file():
        where = "its repository" if download else "the hub's cache"
        raise WeightsNotFound(
            f"the model {source.name!r} can't be loaded: {CONFIG_NAME} (open_clip) is not in {where}, nor is a "
            f"{TEXT_CONFIG} with a model_type (transformers)"
        )
    weights = _hub_weights(source, repository, WEIGHTS_NAMES, download)
    config = read_config(folder)
    text = None
    if config.hugging_face_text and (folder / TEXT_CONFIG).is_file():
        text = read_text_config(folder / TEXT_CONFIG, source.name)
    elif config.hugging_face_text:
        text = _named_text(config, source.name, download) or _bert_of(weights, source.name)
    tokenizer = None
    if not config.own_tokenizer:
        own = read_tokenizer(folder, source.name) if has_tokenizer(folder) else None
        tokenizer = own or _named_tokenizer(config, source.name, download)
    return ModelParts(source, config, weights, tokenizer, text)


def _hub_weights(source: ModelSource, repository: str, names: Sequence[str], download: bool) -> WeightFiles:
    found = hub.first_file(repository, names, download=download)
    if found is None:
        raise WeightsNotFound(f"the model {source.name!r} has no weights, expected one of {', '.join(names)}")
    if not found.name.endswith(INDEX):
        return WeightFiles((found,))
    return shards(found, lambda name: hub.first_file(repository, (name,), download=download))


def _of_architecture(source: ModelSource) -> ModelParts:
    import open_clip

    stated: Mapping[str, Any] = {}
    if source.checkpoint is not None and Path(source.checkpoint).is_file():
        weights = WeightFiles((Path(source.checkpoint),))
    else:
        tag = open_clip.get_pretrained_cfg(source.architecture, source.checkpoint)
        weights = WeightFiles((Path(open_clip.download_pretrained(tag)),))
        stated = {key: list(v) if isinstance(v, tuple) else v for key, v in tag.items() if key in PREPROCESS}
    values = {"model_cfg": open_clip.get_model_config(source.architecture), "preprocess_cfg": stated}
    config = config_from(values, source.name)
    text = _named_text(config, source.name, download=True) if config.hugging_face_text else None
    if config.hugging_face_text and text is None:
        raise WeightsNotFound(f"the text model of {source.name!r} is not on the hub")
    tokenizer = None if config.own_tokenizer else _named_tokenizer(config, source.name, download=True)
    return ModelParts(source, config, weights, tokenizer, text)


def _named_text(config: ModelConfig, model: str, download: bool) -> TextConfig | None:
    """The config.json in the repository that a configuration names for its text tower; None if there is none."""
    name = config.text["hf_model_name"]
    path = hub.first_file(name, (TEXT_CONFIG,), download=download) if is_repository(name) else None
    return read_text_config(path, model) if path is not None else None


def _named_tokenizer(config: ModelConfig, model: str, download: bool) -> TokenizerFiles:
    name = config.text["hf_tokenizer_name"]
    folder = hub.some_files(name, TOKENIZER_FILES, download=download) if is_repository(name) else None
    if folder is None:
        raise WeightsNotFound(f"the tokenizer of {model!r} is not in the hub's cache")
    return read_tokenizer(folder, model)


def _bert_of(weights: WeightFiles, model: str) -> TextConfig:
    """The text model that the weights show: BiomedCLIP's repository carries no config.json."""
    shapes = {name: tensor.shape for name, tensor in weights.tensors().items()}
    return text_config_from(bert_config(model, shapes), model)


def bert_config(model: str, state: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config.json of the BERT in a model, from the shapes of its weights."""
    prefix = "text.transformer."
    try:
        vocab_size, hidden = state[f"{prefix}embeddings.word_embeddings.weight"]
        positions = state[f"{prefix}embeddings.position_embeddings.weight"][0]
        types = state[f"{prefix}embeddings.token_type_embeddings.weight"][0]
        intermediate = state[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0]
        in_layer = f"{prefix}encoder.layer."
        layers = 1 + max(int(k.removeprefix(in_layer).split(".")[0]) for k in state if k.startswith(in_layer))
    except (LookupError, ValueError) as exc:
        raise EncoderError(
            f"the text tower of model {model!r} is not a BERT, and there is no {TEXT_CONFIG} that describes it",
            hint=f"Put the text model's {TEXT_CONFIG} into the folder.",
        ) from exc
    if hidden not in BERT_SIZES:
        raise EncoderError(
            f"model {model!r} has a BERT of hidden size {hidden}, and no {TEXT_CONFIG} that gives its heads",
            hint=f"Put the text model's {TEXT_CONFIG} into the folder.",
        )
    return {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "pad_token_id": 0,
    }
