"""A dual encoder of transformers on torch, in the shape that open_clip's models have here.

The library's own class is built from checked values and given tensors; its own loading renames what older releases
called otherwise, and tells what did not fit. Its tokenizer is made in a folder of checked files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.text_files import TEXT_CONFIG
from retrieval.encoders.transformers_config import TransformersConfig
from retrieval.errors import EncoderError

_IDS = "position_ids"  # 0, 1, 2 ...: older releases kept them


class DualEncoder(torch.nn.Module):
    """Two towers of transformers: `visual` for pixels, `text` for tokens, and the learned `logit_scale`."""

    def __init__(self, model: Any, config: TransformersConfig, padding: Padding) -> None:
        super().__init__()
        projects = config.family.projects
        self.visual = _ImageSide(model.vision_model, model.visual_projection if projects else None)
        self.text = _TextSide(model.text_model, model.text_projection if projects else None, padding)
        self.logit_scale = torch.nn.Parameter(model.logit_scale.detach().reshape(()))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """[N, embed_dim], not normalised, from tokens [N, at most the context]."""
        features: torch.Tensor = self.text(tokens)
        return features


class Padding:
    """How the padding of a batch of tokens is masked: not at all, or all that a tokenizer adds behind a text."""

    def __init__(self, pad: int | None, end: int | None, *, masked: bool, removable: bool) -> None:
        """`removable` says that a text's embedding does not hang on where the context ends."""
        self._pad, self._end, self._masked, self._removable = pad, end, masked, removable

    @property
    def removable(self) -> int | None:
        """The id of padding that is masked and stands for nothing else."""
        return self._pad if self._masked and self._pad != self._end and self._removable else None

    def mask(self, tokens: torch.Tensor) -> torch.Tensor | None:
        if not self._masked or self._pad is None:
            return None
        mask = tokens != self._pad
        if self._pad == self._end:  # the first of them ends the text
            mask |= (tokens == self._pad).long().cumsum(dim=1) == 1
        return mask.long()


class _ImageSide(torch.nn.Module):
    def __init__(self, tower: Any, projection: Any) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.tower(pixel_values=pixels).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


class _TextSide(torch.nn.Module):
    def __init__(self, tower: Any, projection: Any, padding: Padding) -> None:
        super().__init__()
        self.tower, self.projection, self._padding = tower, projection, padding

    @property
    def removable_pad(self) -> int | None:
        """The id of padding behind a text that may be left out; None if the tower wants the whole context."""
        return self._padding.removable

    @property
    def vocab_size(self) -> int:
        return int(self.tower.config.vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.tower(input_ids=tokens, attention_mask=self._padding.mask(tokens)).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


class Tokenizer:
    """Texts to ids [N, context] as the library's processor gives them to this model, padded to the whole context."""

    def __init__(self, config: TransformersConfig, folder: Path) -> None:
        """`folder` holds the checked files of the tokenizer and no others."""
        from transformers import AutoTokenizer

        described = {"model_type": config.model_type, "architectures": [config.family.model_class]}
        (folder / TEXT_CONFIG).write_text(json.dumps(described), encoding="utf-8")
        self.library = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        self._context = config.context_length
        causal = config.model_type == "clip"
        if causal and self.library.padding_side != "right":
            raise EncoderError("its tokenizer pads on the left, and its text tower reads the end of a text from there")
        pad, end = self.library.pad_token_id, self.library.eos_token_id
        # What follows the end of a text is not seen by a causal tower, masked or not.
        # SigLIP reads the last place of the context, the others the first of the text.
        joined = config.model_type == "vision-text-dual-encoder"
        self.padding = Padding(pad, end, masked=config.masked and not causal, removable=joined)

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        encoded = self.library(
            list(texts), padding="max_length", max_length=self._context, truncation=True, return_tensors="pt"
        )
        ids: torch.Tensor = encoded["input_ids"]
        return ids


def empty_network(config: TransformersConfig) -> Any:
    """The library's class with random weights, or, inside `torch.device("meta")`, without memory."""
    import transformers

    return getattr(transformers, config.family.model_class)(_library_config(config)).eval()


def filled_network(config: TransformersConfig, state: Mapping[str, torch.Tensor]) -> Any:
    """The library's class with these weights, in float32. EncoderError unless they are the model's, all of them."""
    import transformers

    with quiet():
        model, info = getattr(transformers, config.family.model_class).from_pretrained(
            None,
            config=_library_config(config),
            state_dict={name: tensor for name, tensor in state.items() if not name.endswith(_IDS)},
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, in our words
        )
    for kind, said in (
        ("mismatched_keys", "of another shape"),
        ("missing_keys", "not in its weights"),
        ("unexpected_keys", "in its weights and not in the model"),
    ):
        names = sorted(str(one[0] if isinstance(one, tuple) else one) for one in info[kind])
        if names:
            raise EncoderError(
                f"configuration and weights do not fit: {len(names)} tensors are {said}, such as {names[0][:100]}",
                hint="They may be of two models, or the weights may be of one tower alone.",
            )
    return model.eval()


def _library_config(config: TransformersConfig) -> Any:
    import transformers

    name = f"{config.family.model_class.removesuffix('Model')}Config"
    values = {key: value for key, value in config.values().items() if key not in ("model_type", "architectures")}
    return getattr(transformers, name)(**values)


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no reports of the library's own: what matters of them is said in an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
