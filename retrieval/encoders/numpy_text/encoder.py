"""A model whose text tower runs without torch, for questions in words from a cold start.

Importing torch and open_clip takes seconds; a query is a handful of tokens. `open_encoder` reads the text tower from
the weights file where NumPy can run it (`towers` says which), and loads the whole model only when a picture comes.
Where it can't, the model is loaded whole at once, and the log says why.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.model_source import ModelSource, bert_config, model_spec, read_config, resolve_model, weights_in
from retrieval.encoders.numpy_text.tokens import BytePairs, Tokens, WordPieces
from retrieval.encoders.numpy_text.towers import BertTower, CausalTower, TextTower
from retrieval.encoders.numpy_text.weights import NeedsTorch, open_tensors
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.unit import unit
from retrieval.errors import EncoderError
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
    source = resolve_model(model)
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
        folder = _folder_of(source)
        config = read_config(folder)
        weights = weights_in(folder)
        if weights is None:
            raise NeedsTorch("its weights are not at hand")
        model_cfg = config["model_cfg"]
        try:
            self._tokens, self._tower = _text_side(folder, weights, model_cfg)
            preprocess = _preprocess(model_cfg, config.get("preprocess_cfg") or {})
            self.spec = model_spec(source, config, weights, self._tower.embed_dim, preprocess)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:  # loading it whole says it better
            raise NeedsTorch(f"{type(exc).__name__}: {exc}") from exc
        self._weights = weights
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
        return math.exp(open_tensors(self._weights)["logit_scale"].float32().item())

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """[N, embed_dim] float32, unit norm. Texts longer than the model's context are cut as its tokenizer cuts."""
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, and got one text")
        if not texts:
            return np.zeros((0, self.embed_dim), np.float32)
        ids = self._tokens(texts)
        with _one_thread() if sum(map(len, ids)) <= FEW_TOKENS else nullcontext():
            parts = [self._tower(ids[i : i + TEXT_BATCH], self._tokens.pad) for i in range(0, len(ids), TEXT_BATCH)]
        return unit(np.concatenate(parts), "text")

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
                        f"the model {self.name!r} has changed since its text tower was read", hint="Run it again."
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


def _folder_of(source: ModelSource) -> Path:
    if source.folder is not None:
        return source.folder
    if source.source.startswith("hf-hub:"):
        return _hub_folder(source.source.removeprefix("hf-hub:"))
    raise NeedsTorch("it is an architecture of open_clip with a checkpoint, no folder")


def _hub_folder(repository: str) -> Path:
    """Where the hub's cache has the repository's main branch: open_clip asks the hub itself only where it is not."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    place = cache / f"models--{repository.replace('/', '--')}"
    try:
        folder = place / "snapshots" / (place / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        raise NeedsTorch("it is not in the hub's cache") from None
    if not (folder / "open_clip_config.json").is_file():
        raise NeedsTorch("it is not in the hub's cache")
    return folder


def _text_side(folder: Path, weights: Path, model_cfg: Mapping[str, Any]) -> tuple[Tokens, TextTower]:
    text_cfg = model_cfg.get("text_cfg") or {}
    if "multimodal_cfg" in model_cfg:
        raise NeedsTorch("it is a CoCa")
    if text_cfg.get("tokenizer_kwargs") or text_cfg.get("tokenizer_mode"):
        raise NeedsTorch("its tokenizer has settings of its own")
    tensors = open_tensors(weights)
    context = int(text_cfg.get("context_length", 77))
    tower: BertTower | CausalTower
    if text_cfg.get("hf_model_name"):
        if not text_cfg.get("hf_tokenizer_name"):
            raise NeedsTorch("its text tower is a BERT, its tokenizer is not")
        path = folder / "config.json"
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        config = json.loads(path.read_text("utf-8")) if path.is_file() else bert_config(folder, shapes)
        tower = BertTower(tensors, text_cfg, config)
        tokens: Tokens = WordPieces(folder, context)
    else:
        if text_cfg.get("hf_tokenizer_name"):
            raise NeedsTorch("its tokenizer is another's")
        quick = bool(model_cfg.get("quick_gelu", False))
        tower = CausalTower(tensors, text_cfg, int(model_cfg["embed_dim"]), quick_gelu=quick)
        tokens = BytePairs(context)
    if tokens.vocabulary > tower.vocabulary:
        raise NeedsTorch(f"its tokenizer has {tokens.vocabulary} tokens, its tower {tower.vocabulary}")
    if context > tower.context:
        raise NeedsTorch(f"its context is {context} tokens, its tower has places for {tower.context}")
    return tokens, tower


# What open_clip takes where preprocess_cfg is silent: OpenAI's figures.
_DEFAULTS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


def _preprocess(model_cfg: Mapping[str, Any], stated: Mapping[str, Any]) -> Preprocess:
    """As open_clip works it out: what is stated over its defaults, and the size that the image tower has."""
    size = (model_cfg.get("vision_cfg") or {}).get("image_size", 224)
    return Preprocess.from_open_clip(_DEFAULTS | {k: v for k, v in stated.items() if v is not None} | {"size": size})
