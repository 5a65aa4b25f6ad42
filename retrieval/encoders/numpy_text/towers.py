"""Text towers in NumPy: a BERT as open_clip wraps one, and open_clip's own causal transformer.

The same arithmetic as torch's in float32, on weights that stay memory-mapped where they are float32 and are widened
once where they are not. A padded batch gives each text what it gets alone: padding is masked, or lies behind the
token that is read. What a configuration or a weights file holds that is not computed here raises `NeedsTorch`: a
tensor of the text tower that nothing asked for is such a sign too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.encoders.numpy_text.needs_torch import NeedsTorch
from retrieval.encoders.numpy_text.tokens import TokenIds
from retrieval.encoders.tensors import Tensor

Floats = npt.NDArray[np.float32]


class TextTower(Protocol):
    embed_dim: int

    def __call__(self, ids: Sequence[TokenIds], pad: int) -> Floats:
        """Texts as token ids to features [N, embed_dim], not normalised."""
        ...


class Weights:
    """Tensors by name under a prefix, asked for with their shapes; `done` wants all to have been asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, only: tuple[str, ...] = ("",)) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._left = {name for name in tensors if name.startswith(tuple(prefix + one for one in only))}

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def tensor(self, name: str, *shape: int | None) -> Tensor:
        full = self._prefix + name
        found = self._tensors.get(full)
        if found is None:
            raise NeedsTorch(f"its weights have no {full}")
        if len(found.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True)):
            raise NeedsTorch(f"{full} has shape {found.shape}, expected {shape}")
        self._left.discard(full)
        return found

    def matrix(self, name: str, *shape: int | None) -> Floats:
        return self.tensor(name, *shape).float32()

    def linear(
        self, name: str, inside: int, out: int | None = None, *, bias: bool = True
    ) -> Callable[[Floats], Floats]:
        weight = self.matrix(f"{name}.weight", out, inside).T
        offset = self.matrix(f"{name}.bias", weight.shape[1]) if bias else None

        def apply(x: Floats) -> Floats:
            flat = x.reshape(-1, inside) @ weight  # one large product, not one per text
            if offset is not None:
                flat += offset
            return flat.reshape(*x.shape[:-1], -1)

        return apply

    def norm(self, name: str, width: int, epsilon: float) -> Callable[[Floats], Floats]:
        weight, bias = self.matrix(f"{name}.weight", width), self.matrix(f"{name}.bias", width)

        def apply(x: Floats) -> Floats:
            centred = x - x.mean(axis=-1, keepdims=True)
            variance = np.einsum("...d,...d->...", centred, centred)[..., None] / np.float32(width)
            centred /= np.sqrt(variance + np.float32(epsilon))
            centred *= weight
            centred += bias
            normed: Floats = centred
            return normed

        return apply

    def done(self) -> None:
        if self._left:
            raise NeedsTorch(
                f"{sorted(self._left)[0]} and {len(self._left) - 1} more of its tensors are not of that tower"
            )


class BertTower:
    """open_clip's HFTextEncoder around a BERT (Devlin et al. 2018): encoder, pooler, projection."""

    def __init__(self, tensors: Mapping[str, Tensor], text_cfg: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        _require(config, _BERT_EXPECTED, "config.json")
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        epsilon = float(config.get("layer_norm_eps", 1e-12))
        weights = Weights(tensors, "text.")
        inner = "transformer.embeddings"
        self._words = weights.tensor(f"{inner}.word_embeddings.weight", None, width)
        self._places = weights.matrix(f"{inner}.position_embeddings.weight", None, width)
        self._places = self._places + weights.tensor(f"{inner}.token_type_embeddings.weight", None, width).float32()[0]
        self._norm = weights.norm(f"{inner}.LayerNorm", width, epsilon)
        if f"{inner}.position_ids" in weights:
            weights.tensor(f"{inner}.position_ids", 1, None)  # 0, 1, 2 ...: older releases of transformers kept it
        self._layers = [
            _BertLayer(weights, f"transformer.encoder.layer.{i}", width, heads, epsilon)
            for i in range(int(config["num_hidden_layers"]))
        ]
        self._pad = int(config.get("pad_token_id", 0))
        self._pool = text_cfg.get("hf_pooler_type", "mean_pooler")
        if self._pool == "cls_pooler":
            self._pooler = weights.linear("transformer.pooler.dense", width, width)
        elif self._pool not in ("mean_pooler", "cls_last_hidden_state_pooler"):
            raise NeedsTorch(f"its pooler is {self._pool!r}")
        self._projection, self.embed_dim = _projection(weights, text_cfg.get("hf_proj_type", "mlp"), width)
        self.context = len(self._places)
        self.vocabulary = self._words.shape[0]
        weights.done()

    def __call__(self, ids: Sequence[TokenIds], pad: int) -> Floats:
        tokens = _padded(ids, pad)
        seen = tokens != self._pad  # [N, L], as open_clip makes its mask
        x = self._words.float32(tokens.reshape(-1)).reshape(*tokens.shape, -1)
        x = self._norm(x + self._places[: tokens.shape[1]])
        hidden = np.where(seen, np.float32(0), np.float32(-1e30))[:, None, None, :]
        for layer in self._layers:
            x = layer(x, hidden)
        if self._pool == "mean_pooler":
            shares = seen.astype(np.float32)[:, :, None]
            pooled: Floats = (x * shares).sum(axis=1) / shares.sum(axis=1)
        else:
            pooled = x[:, 0]
            if self._pool == "cls_pooler":
                pooled = np.tanh(self._pooler(pooled))
        return self._projection(pooled)


class _BertLayer:
    def __init__(self, weights: Weights, name: str, width: int, heads: int, epsilon: float) -> None:
        self._heads = heads
        self._parts = [
            weights.linear(f"{name}.attention.self.{part}", width, width) for part in ("query", "key", "value")
        ]
        self._out = weights.linear(f"{name}.attention.output.dense", width, width)
        self._norm = weights.norm(f"{name}.attention.output.LayerNorm", width, epsilon)
        wide = weights.tensor(f"{name}.intermediate.dense.weight", None, width).shape[0]
        self._up = weights.linear(f"{name}.intermediate.dense", width, wide)
        self._down = weights.linear(f"{name}.output.dense", wide, width)
        self._last = weights.norm(f"{name}.output.LayerNorm", width, epsilon)

    def __call__(self, x: Floats, hidden: Floats) -> Floats:
        query, key, value = (part(x) for part in self._parts)
        x = self._norm(x + self._out(_attention(query, key, value, self._heads, hidden)))
        return self._last(x + self._down(gelu(self._up(x))))


class CausalTower:
    """open_clip's own text transformer (Radford et al. 2021): causal, read at the end of the text.

    Nothing behind a token reaches it, so padding needs no mask and is cut off.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], text_cfg: Mapping[str, Any], embed_dim: int, *, quick_gelu: bool
    ) -> None:
        _require(text_cfg, _CAUSAL_EXPECTED, "text_cfg")
        width, heads = int(text_cfg.get("width", 512)), int(text_cfg.get("heads", 8))
        self.context = int(text_cfg.get("context_length", 77))
        prefix = "" if "positional_embedding" in tensors else "text."
        names = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection", "cls_emb")
        weights = Weights(tensors, prefix, only=names if not prefix else ("",))
        self._words = weights.tensor("token_embedding.weight", None, width)
        self._places = weights.matrix("positional_embedding", self.context, width)
        activation = quick_gelu_ if quick_gelu else gelu
        self._layers = [
            _CausalLayer(weights, f"transformer.resblocks.{i}", width, heads, activation)
            for i in range(int(text_cfg.get("layers", 12)))
        ]
        self._norm = weights.norm("ln_final", width, 1e-5)
        self._projection = weights.matrix("text_projection", width, embed_dim)
        self.embed_dim = embed_dim
        self.vocabulary = self._words.shape[0]
        weights.done()

    def __call__(self, ids: Sequence[TokenIds], pad: int) -> Floats:
        tokens = _padded(ids, pad)
        ends = tokens.argmax(axis=1)  # the end of text has the highest id
        tokens = tokens[:, : ends.max() + 1]
        length = tokens.shape[1]
        x = self._words.float32(tokens.reshape(-1)).reshape(*tokens.shape, -1) + self._places[:length]
        future = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for layer in self._layers:
            x = layer(x, future)
        return self._norm(x[np.arange(len(x)), ends]) @ self._projection


class _CausalLayer:
    def __init__(
        self, weights: Weights, name: str, width: int, heads: int, activation: Callable[[Floats], Floats]
    ) -> None:
        self._heads, self._activation = heads, activation
        self._before = weights.norm(f"{name}.ln_1", width, 1e-5)
        self._in = weights.matrix(f"{name}.attn.in_proj_weight", 3 * width, width).T
        self._in_bias = weights.matrix(f"{name}.attn.in_proj_bias", 3 * width)
        self._out = weights.linear(f"{name}.attn.out_proj", width, width)
        self._between = weights.norm(f"{name}.ln_2", width, 1e-5)
        wide = weights.tensor(f"{name}.mlp.c_fc.weight", None, width).shape[0]
        self._up = weights.linear(f"{name}.mlp.c_fc", width, wide)
        self._down = weights.linear(f"{name}.mlp.c_proj", wide, width)

    def __call__(self, x: Floats, future: Floats) -> Floats:
        query, key, value = np.split(self._before(x) @ self._in + self._in_bias, 3, axis=-1)
        x = x + self._out(_attention(query, key, value, self._heads, future))
        return x + self._down(self._activation(self._up(self._between(x))))


def gelu(x: Floats) -> Floats:
    """x times the normal distribution's share below x (Hendrycks & Gimpel 2016), the exact form."""
    out = erf(x * np.float32(0.5**0.5))
    out += 1
    out *= x
    out *= np.float32(0.5)
    return out


def quick_gelu_(x: Floats) -> Floats:
    """x * sigmoid(1.702 x), with which OpenAI trained."""
    # tanh, unlike exp, overflows nowhere.
    gate: Floats = np.tanh(np.float32(0.851) * x)
    gate += 1
    gate *= x
    gate *= np.float32(0.5)
    return gate


def erf(x: Floats) -> Floats:
    """The error function within 6e-7 in float32 (Abramowitz & Stegun 1964, 7.1.26): NumPy has none."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series: Floats = np.full_like(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series *= t
        series += np.float32(coefficient)
    series *= t
    series *= np.exp(-size * size)
    return np.copysign(1 - series, x)


def _attention(query: Floats, key: Floats, value: Floats, heads: int, mask: Floats) -> Floats:
    """Scaled dot products (Vaswani et al. 2017) of [N, L, D]; `mask` is added to the scores [N, heads, L, L]."""
    n, length, width = query.shape
    q, k, v = (part.reshape(n, length, heads, -1).transpose(0, 2, 1, 3) for part in (query, key, value))
    scores: Floats = q @ k.transpose(0, 1, 3, 2)
    scores *= np.float32((width // heads) ** -0.5)
    scores += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    out: Floats = (scores @ v).transpose(0, 2, 1, 3).reshape(n, length, width)
    return out


def _projection(weights: Weights, kind: Any, width: int) -> tuple[Callable[[Floats], Floats], int]:
    """How a BERT's features become the pair's, and how many they are then."""
    if kind is None:  # open_clip takes it only where there is nothing to change
        return lambda x: x, width
    if kind == "linear":
        (out, _) = weights.tensor("proj.weight", None, width).shape
        return weights.linear("proj", width, out, bias=False), out
    if kind == "mlp":
        hidden = weights.tensor("proj.0.weight", None, width).shape[0]
        out = weights.tensor("proj.2.weight", None, hidden).shape[0]
        up, down = (
            weights.linear("proj.0", width, hidden, bias=False),
            weights.linear("proj.2", hidden, out, bias=False),
        )
        return lambda x: down(gelu(up(x))), out
    raise NeedsTorch(f"its projection is {kind!r}")


def _padded(ids: Sequence[TokenIds], pad: int) -> npt.NDArray[np.int64]:
    out = np.full((len(ids), max(map(len, ids))), pad, np.int64)
    for row, one in zip(out, ids, strict=True):
        row[: len(one)] = one
    return out


def _require(config: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise NeedsTorch(f"{where} has {name} {config[name]!r}, expected {value!r}")


_BERT_EXPECTED: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_CAUSAL_EXPECTED: dict[str, Any] = {
    "ls_init_value": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "final_ln_after_pool": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "act_kwargs": None,
    "norm_kwargs": None,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
