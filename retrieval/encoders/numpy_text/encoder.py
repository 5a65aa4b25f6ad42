"""A model whose text tower runs without torch, for questions in words from a cold start.

Importing torch and open_clip takes seconds; a query is a handful of tokens. `open_encoder` reads the text tower from
the weights file where NumPy can run it (`towers` says which), and loads the whole model only when a picture comes.
Where it can't, the model is loaded whole at once, and the log says why.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.model_parts import ModelParts, model_parts
from retrieval.encoders.model_source import ModelSource, resolve_model
from retrieval.encoders.numpy_text.needs_torch import NeedsTorch
from retrieval.encoders.numpy_text.tokens import BytePairs, Tokens, WordPieces
from retrieval.encoders.numpy_text.towers import BertTower, CausalTower, TextTower
from retrieval.encoders.tokenizing import tokenizer_errors
from retrieval.encoders.transformers_config import TransformersConfig
from retrieval.encoders.unit import unit
from retrieval.encoders.unread import words_unread
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.types import Embeddings, Uint8Image

if TYPE_CHECKING:
    from retrieval.encoders.clip import ClipEncoder

logger = logging.getLogger(__name__)

TEXT_BATCH = 64
FEW_TOKENS = 512
_blas_lock = threading.Lock()


def open_encoder(model: str | None = None, device: str = "auto", precision: str = "auto") -> LightEncoder | ClipEncoder:
    """The encoder for questions: by name, as `ClipEncoder.load` takes it, and with its errors.

    A `LightEncoder` where text needs no torch; a device or precision that was asked for by name needs it.
    """
    return encoder_from(resolve_model(model), device, precision)


def encoder_from(source: ModelSource, device: str = "auto", precision: str = "auto") -> LightEncoder | ClipEncoder:
    """The same for a model that was found."""
    try:
        if (device, precision) not in (("auto", "auto"), ("cpu", "auto"), ("auto", "fp32"), ("cpu", "fp32")):
            raise NeedsTorch(f"device {device} and precision {precision} were asked for")
        encoder = LightEncoder(source, device, precision)
    except NeedsTorch as reason:
        from retrieval.encoders.clip import ClipEncoder

        logger.info("the text of model %s is encoded with torch: %s", source.name, reason)
        return ClipEncoder.from_source(source, device, precision)
    logger.info("the text of model %s is encoded with NumPy, without torch", source.name)
    return encoder


class LightEncoder:
    """Implements `retrieval.types.Encoder`: texts in NumPy, pictures by a `ClipEncoder` loaded when one comes."""

    def __init__(self, source: ModelSource, device: str = "auto", precision: str = "auto") -> None:
        """Raises NeedsTorch for a model whose text NumPy does not encode."""
        try:
            parts = model_parts(source, download=False)
            self._tokens, self._tower = _text_side(parts)
            self.spec = parts.spec
        except WeightsNotFound as exc:  # not on this machine: whoever loads it whole downloads it
            raise NeedsTorch(str(exc)) from exc
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:  # loading it whole says it better
            raise NeedsTorch(f"{type(exc).__name__}: {exc}") from exc
        self._weights = parts.weights
        self._source, self._device, self._precision = source, device, precision
        self._whole: ClipEncoder | None = None
        self._loading = threading.Lock()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def embed_dim(self) -> int:
        return self.spec.embed_dim

    @property
    def device(self) -> str:
        """The device that was asked for. Texts need none."""
        return self._device

    @property
    def logit_scale(self) -> float:
        """As `ClipEncoder.logit_scale`."""
        return math.exp(self._weights.tensors()["logit_scale"].float32().item())

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Texts longer than the model's context are cut as its tokenizer cuts."""
        if isinstance(texts, str):
            raise TypeError("encode_text got a single text, expected a list of texts")
        if not texts:
            return np.zeros((0, self.embed_dim), np.float32)
        with tokenizer_errors(self.name):
            ids = self._tokens(texts)
        with _one_thread() if sum(map(len, ids)) <= FEW_TOKENS else nullcontext():
            parts = [self._tower(ids[i : i + TEXT_BATCH], self._tokens.pad) for i in range(0, len(ids), TEXT_BATCH)]
        return unit(np.concatenate(parts), "text")

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Of each text the words that `encode_text` does not read: those behind the model's context."""
        return [words_unread(text, lambda t: self._tokens([t])[0], self._tokens.context_length) for text in texts]

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        """As `ClipEncoder.encode_images`, which is loaded by the first call. Raises what `ClipEncoder.load` raises."""
        return self.whole().encode_images(images)

    def whole(self) -> ClipEncoder:
        """The model with both towers, on torch. EncoderError if it is not the same any more."""
        from retrieval.encoders.clip import ClipEncoder

        with self._loading:
            if self._whole is None:
                whole = ClipEncoder.from_source(self._source, self._device, self._precision)
                if whole.spec.fingerprint != self.spec.fingerprint:
                    raise EncoderError(
                        f"the model {self.name!r} has changed since its text tower was read",
                        hint="Run the command again.",
                    )
                self._whole = whole
            return self._whole


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def _one_thread() -> Iterator[None]:
    """One BLAS thread for a few tokens: reading the weights is most of the work, and OpenBLAS's threads wait for each
    other by spinning, which on a busy machine took ten times as long as one thread alone."""
    with _blas_lock, _blas().limit(limits=1):
        yield


def _text_side(parts: ModelParts) -> tuple[Tokens, TextTower]:
    config, context = parts.config, parts.config.context_length
    if isinstance(config, TransformersConfig):
        raise NeedsTorch("its text tower is one of transformers'")
    if "multimodal_cfg" in config.model:
        raise NeedsTorch("it is a CoCa")
    if config.text.get("tokenizer_kwargs") or config.text.get("tokenizer_mode"):
        raise NeedsTorch("its tokenizer has settings of its own")
    tensors = parts.weights.tensors()
    tower: BertTower | CausalTower
    if parts.text is not None:
        if parts.tokenizer is None:
            raise NeedsTorch("its text tower is a BERT, its tokenizer is not")
        tower = BertTower(tensors, config.text, parts.text.stated)
        tokens: Tokens = WordPieces(parts.tokenizer, context)
    else:
        if parts.tokenizer is not None:
            raise NeedsTorch("its tokenizer is another's")
        quick = bool(config.model.get("quick_gelu", False))
        tower = CausalTower(tensors, config.text, config.embed_dim, quick_gelu=quick)
        tokens = BytePairs(context)
    if tower.embed_dim != config.embed_dim:
        raise NeedsTorch(f"its text tower gives {tower.embed_dim} numbers, its configuration says {config.embed_dim}")
    if tokens.vocabulary > tower.vocabulary:
        raise NeedsTorch(f"its tokenizer has {tokens.vocabulary} tokens, its tower {tower.vocabulary}")
    if context > tower.context:
        raise NeedsTorch(f"its context is {context} tokens, its tower has places for {tower.context}")
    return tokens, tower
