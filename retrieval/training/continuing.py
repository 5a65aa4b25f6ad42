"""Continues training from a model that `medlens train` wrote, on other data.

Weights (widened from fp16), tokenizer and vocabulary come from the folder of that model. A word that is not in the
vocabulary is split into smaller pieces, at worst into letters; a word with an unknown character becomes [UNK]. The run
counts both, because a text tower reads such texts worse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.fingerprint import sha256_of
from retrieval.encoders.model_config import ModelConfig, config_from, read_config
from retrieval.encoders.spec import profile_to_json
from retrieval.errors import TrainingError
from retrieval.training.checkpoint import model_config
from retrieval.training.config import TrainingConfig
from retrieval.training.data import Corpus, source_names
from retrieval.training.forgetting import Forgetting, forgetting_lines
from retrieval.training.model_folder import TEXT_FILES, WEIGHTS_NAME
from retrieval.training.text_tower import rows_of_pieces, write_smaller_vocabulary, write_text_tower

logger = logging.getLogger(__name__)

OPTIONAL = "logit_bias"  # the bias of SigLIP: a run may change the loss
START_CARD = "START.md"
WORDS = "text.transformer.embeddings.word_embeddings.weight"
_NAMES = ("hf_model_name", "hf_tokenizer_name")  # the location of a model, not a property of it


@dataclass(frozen=True)
class Spelling:
    """How a vocabulary splits the texts of a source: `unknown` texts have an [UNK], `cut` texts are too long."""

    texts: int
    pieces_per_word: float
    unknown: int
    cut: int


def require_same_model(config: TrainingConfig) -> None:
    """Raise TrainingError unless the run would build the same architecture as the model that it continues."""
    folder = config.continue_from
    if folder is None:
        return
    if config.output.resolve() == folder.resolve():
        raise TrainingError(
            f"the output is the folder of the model {folder.name!r}, which the run continues",
            hint="Choose another output: the run evaluates the old model again at the end.",
        )
    mine = config_from(model_config(config, folder), config.name)
    ours, theirs = _comparable(mine), _comparable(read_config(folder))
    unlike = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if unlike:
        raise TrainingError(
            f"the model {folder.name!r} differs from what `medlens train` would build in: {', '.join(unlike)}",
            hint="A run can continue only a model that this version of medlens could have trained.",
        )


def rehearsed(config: TrainingConfig, corpus: Corpus) -> list[str]:
    """The names of the rehearsal sources. Raises TrainingError if there are some and none has a dev row."""
    numbers = [number for number, source in enumerate(config.data) if source.rehearsal]
    names = source_names(config.data)
    if numbers and not any(row.split == "dev" and row.source in numbers for row in corpus.rows):
        raise TrainingError(
            f"none of the rehearsal sources has dev rows: {', '.join(names[number] for number in numbers)}",
            hint="Set the split of some of their rows to 'dev': forgetting is measured on rows outside the training.",
        )
    return [names[number] for number in numbers]


def prepare_text_tower(config: TrainingConfig, texts: Iterable[str], out: Path) -> None:
    """Write the text tower's files: cut from a sentence encoder, or those of the model that the run goes on from."""
    if config.continue_from is None:
        write_text_tower(config.text, texts, out)
        return
    if config.text.vocabulary is not None:
        write_smaller_vocabulary(config.continue_from, texts, config.text.vocabulary, out)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name in TEXT_FILES:
        (out / name).write_bytes((config.continue_from / name).read_bytes())


def load_weights(model: torch.nn.Module, folder: Path, tower: Path) -> None:
    """Load the weights of the folder into the model. Of the word embeddings, load those in the vocabulary of `tower`.

    Raises TrainingError if the weights belong to another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as exc:
        raise TrainingError(f"the weights of {folder.name!r} can't be read: {exc}") from exc
    rows = rows_of_pieces(folder, tower)
    if WORDS in given and len(rows) < len(given[WORDS]):
        given[WORDS] = given[WORDS][rows]
    wanted = {name: value.shape for name, value in model.state_dict().items() if not name.endswith("_batches_tracked")}
    names = (wanted.keys() | given.keys()) - {OPTIONAL}
    unlike = sorted(n for n in names if n not in wanted or n not in given or wanted[n] != given[n].shape)
    if unlike:
        raise TrainingError(
            f"{len(unlike)} tensors of {folder.name!r} are missing, unknown or of another shape, the first {unlike[0]}",
            hint="Configuration and weights may belong to two different models.",
        )
    model.load_state_dict({name: value for name, value in given.items() if name in wanted}, strict=False)


def spelling_by_source(config: TrainingConfig, corpus: Corpus, tower: Path) -> dict[str, Spelling]:
    """How the text tower's vocabulary spells each source's texts; a warning for those that it can't."""
    out = {}
    for number, name in enumerate(source_names(config.data)):
        texts = [text for row in corpus.rows if row.source == number for text, _ in row.texts]
        out[name] = spelling_of(tower / "tokenizer.json", texts, config.text.context_length)
        if out[name].unknown:
            logger.warning(
                "%s: %d of %d texts have a word with a character that is not in the vocabulary of the model",
                name,
                out[name].unknown,
                out[name].texts,
            )
    return out


def spelling_of(tokenizer: Path, texts: Iterable[str], context_length: int) -> Spelling:
    """How the tokenizer.json spells each text, the same one twice counted once."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    reader.no_truncation()
    different = list(dict.fromkeys(texts))
    pieces = words = unknown = cut = 0
    for encoding in reader.encode_batch(different):
        of_words = [word for word in encoding.word_ids if word is not None]
        pieces += len(of_words)
        words += len(set(of_words))
        unknown += "[UNK]" in encoding.tokens
        cut += len(encoding.tokens) > context_length
    return Spelling(len(different), pieces / max(words, 1), unknown, cut)


def continuing_lines(config: TrainingConfig, corpus: Corpus, tower: Path, forgetting: Forgetting | None) -> list[str]:
    """For the model card; none of a run that started anew."""
    folder = config.continue_from
    if folder is None:
        return []
    rehearsal = [name for name, source in zip(source_names(config.data), config.data, strict=True) if source.rehearsal]
    return [
        "## What it went on from",
        "",
        f"The model {folder.name}, SHA-256 of its weights `{sha256_of(folder / WEIGHTS_NAME)[:16]}...`; its data and "
        f"their terms are in {START_CARD}. Sets of it that were rehearsed: {', '.join(rehearsal) or 'none'}.",
        "",
        *forgetting_lines(forgetting),
        "",
        "How its vocabulary, which is not extended, spells the texts:"
        if config.text.vocabulary is None
        else f"How its vocabulary, cut to {config.text.vocabulary} word pieces, spells the texts:",
        "",
        *_spelling_lines(spelling_by_source(config, corpus, tower)),
        "",
    ]


def keep_start_card(folder: Path, out: Path) -> None:
    """The cards of the models before this one, the nearest first."""
    cards = [folder / "README.md", folder / START_CARD]
    texts = [card.read_text(encoding="utf-8") for card in cards if card.is_file()]
    (out / START_CARD).write_text("\n".join(texts), encoding="utf-8")


def _spelling_lines(spelling: dict[str, Spelling]) -> list[str]:
    lines = [
        "| set | different texts | word pieces a word | with an unknown word | cut short |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {name} | {found.texts} | {found.pieces_per_word:.2f} | {found.unknown} | {found.cut} |"
        for name, found in spelling.items()
    ]


def _comparable(config: ModelConfig) -> dict[str, Any]:
    """What a model is, by key, without where it lies and without the start of what is trained."""
    text = {f"text_cfg.{key}": value for key, value in config.text.items() if key not in _NAMES}
    vision = {f"vision_cfg.{key}": value for key, value in config.vision.items()}
    profile = profile_to_json(config.render_profile)
    return text | vision | config.preprocess.to_json() | {"embed_dim": config.embed_dim, "render_profile": profile}
