"""All texts of a run by number, and their features: computed once below the projection if the tower is locked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from retrieval.language.captions import exchanged, mirrored, negated, sides_and_negations
from retrieval.on_disk import written_whole
from retrieval.training.config import TrainingConfig
from retrieval.training.data import Corpus, Progress
from retrieval.zeroshot.labels import LabelSet

BATCH = 64
_VERSIONS = {"side": exchanged, "negation": negated}


class Texts:
    """Every text that training or evaluation uses, each once, by number (`ids`).

    `mirrored` maps a training text to the text of the mirrored image, where there is one. `hard` maps a text to its
    versions that are almost the same and wrong. `sided` are the texts that a mirrored image makes wrong. `assertions`
    gives each text a number: texts with the same sides and the same count of negations share one. Each is empty unless
    the configuration needs it.
    """

    def __init__(self, corpus: Corpus, label_sets: Sequence[LabelSet], config: TrainingConfig) -> None:
        prompts = [p for s in label_sets for label in s.labels for p in label.prompts]
        all_texts = dict.fromkeys([t for row in corpus.rows for t, _ in row.texts] + prompts)
        trained = dict.fromkeys(t for row in corpus.rows if row.split == "train" for t, _ in row.texts)
        mirror: dict[str, str] = {}
        if config.augmentation.flip:
            mirror = {text: other for text in trained if (other := mirrored(text)) is not None}
            trained |= dict.fromkeys(mirror.values())
        versions = [_VERSIONS[kind] for kind in config.objective.hard_negatives if kind in _VERSIONS]
        asked = "mirror" in config.objective.hard_negatives
        sided = [text for text in trained if asked and exchanged(text) is not None]
        hard = {text: [other for version in versions if (other := version(text)) is not None] for text in trained}
        all_texts |= dict.fromkeys([*mirror.values(), *(other for others in hard.values() for other in others)])
        self.all = list(all_texts)
        self.ids = {text: i for i, text in enumerate(self.all)}
        self.mirrored = {self.ids[text]: self.ids[other] for text, other in mirror.items()}
        self.hard = {self.ids[text]: [self.ids[other] for other in others] for text, others in hard.items() if others}
        self.sided = {self.ids[text] for text in sided}
        self.assertions: list[int] = []
        if config.objective.near_equal is not None:
            kinds: dict[object, int] = {}
            self.assertions = [kinds.setdefault(sides_and_negations(text), len(kinds)) for text in self.all]


class TextEncoder:
    """Features of texts by a model's text tower. `pooled` [texts, width] are the locked transformer's outputs."""

    def __init__(self, texts: Texts, tokenizer: Any, device: torch.device) -> None:
        self.texts, self.device = texts, device
        self.pooled: torch.Tensor | None = None
        self._tokenizer = tokenizer

    def lock(self, model: Any, cache: Path, progress: Progress) -> None:
        """Compute the transformer's output for every text. From then on, only the projection is evaluated.

        `cache` stores the output for a resumed run, which uses it if texts, tokens and transformer are the same.
        """
        encoder = model.text.eval()
        texts = self.texts.all
        tokens = self._tokens(texts).cpu()
        key, stamp = _key(encoder.transformer, tokens), cache.with_suffix(".key")
        if cache.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
            self.pooled = torch.from_numpy(np.load(cache, allow_pickle=False)).to(self.device)
            return
        pooled: dict[int, torch.Tensor] = {}
        lengths = (tokens != encoder.config.pad_token_id).sum(dim=1)
        by_length = torch.argsort(lengths, stable=True).tolist()  # batches with little padding
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = by_length[start : start + BATCH]
                longest = int(lengths[batch].max())
                part = tokens[batch, :longest].to(self.device)
                mask = (part != encoder.config.pad_token_id).long()
                out = encoder.pooler(encoder.transformer(input_ids=part, attention_mask=mask), mask)
                pooled.update(zip(batch, out, strict=True))
                progress("encoding texts", min(start + BATCH, len(texts)), len(texts))
        self.pooled = torch.stack([pooled[i] for i in range(len(texts))]).clone()
        stamp.unlink(missing_ok=True)
        with written_whole(cache, alone=True) as made, made.open("wb") as file:
            np.save(file, self.pooled.cpu().numpy(), allow_pickle=False)
        stamp.write_text(key, encoding="utf-8")

    def __call__(self, model: Any, ids: list[int]) -> torch.Tensor:
        """[len(ids), D] float32 of unit norm, also under autocast."""
        if self.pooled is not None:
            return F.normalize(model.text.proj(self.pooled[ids]).float(), dim=-1)
        return F.normalize(model.encode_text(self._tokens([self.texts.all[i] for i in ids])).float(), dim=-1)

    def in_batches(self, model: Any, texts: Iterable[str]) -> torch.Tensor:
        """The same for texts of any number, at least one, without a gradient's memory."""
        ids = [self.texts.ids[text] for text in texts]
        if self.pooled is not None:
            return self(model, ids)
        return torch.cat([self(model, ids[i : i + BATCH]) for i in range(0, len(ids), BATCH)])

    def _tokens(self, texts: list[str]) -> torch.Tensor:
        tokens: torch.Tensor = self._tokenizer(texts).to(self.device)
        return tokens


def _key(transformer: torch.nn.Module, tokens: torch.Tensor) -> str:
    """What decides the transformer's outputs: its weights and the tokens."""
    digest = hashlib.sha256(tokens.numpy().tobytes())
    for name, value in transformer.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
