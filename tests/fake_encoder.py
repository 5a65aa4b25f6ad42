"""An encoder for tests of everything around it: deterministic, no torch, images that look alike lie close."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import EncoderSpec
from retrieval.types import Embeddings, RenderProfile, Uint8Image

DIM = 16


class FakeEncoder:
    """Images: a fixed random projection of the fitted pixels. Texts: a direction drawn from their hash."""

    def __init__(self, name: str = "fake", seed: int = 0) -> None:
        preprocess = Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, resize_mode="longest")
        digest = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
        self.spec = EncoderSpec(name, digest, DIM, preprocess, RenderProfile())
        self.images_encoded = 0
        self._projection = np.random.default_rng(seed).normal(size=(3 * 16 * 16, DIM))

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def embed_dim(self) -> int:
        return DIM

    @property
    def batch_size(self) -> int:
        return 8

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        self.images_encoded += len(images)
        if not images:
            return np.zeros((0, DIM), np.float32)
        return _unit(self.spec.preprocess.batch(images).reshape(len(images), -1) @ self._projection)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        if not texts:
            return np.zeros((0, DIM), np.float32)
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        return _unit(np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]))


def _unit(vectors: np.ndarray) -> Embeddings:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
