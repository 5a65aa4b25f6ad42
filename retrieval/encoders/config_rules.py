"""What a model's configuration may say: the keys that are known, and the values that each may have.

One table for each part of open_clip_config.json and for the config.json of a text model. A key that is not in its
table never reaches open_clip, timm or transformers. A rule says what is expected, which value is the default, and
whether the value counts for what a model is: a value that changes no embedding does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NEEDED = object()  # as a default: the key has to be there


@dataclass(frozen=True)
class Rule:
    """Which values a key may have. `expected` is for people."""

    expected: str
    holds: Callable[[Any], bool]
    default: Any = None
    counts: bool = True

    def passive(self) -> Rule:
        """The same for a key that changes no embedding."""
        return Rule(self.expected, self.holds, self.default, counts=False)


def whole(low: int, high: int, default: Any = NEEDED) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda v: type(v) is int and low <= v <= high, default)


def number(low: float, high: float, default: Any = NEEDED) -> Rule:
    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high  # false for NaN; the bounds are finite

    return Rule(f"a number from {low:g} to {high:g}", holds, default)


def flag(default: bool | None = False) -> Rule:
    return Rule("true or false", lambda v: type(v) is bool, default)


def one_of(*values: Any, default: Any = NEEDED) -> Rule:
    said = ", ".join("null" if v is None else str(v).lower() if isinstance(v, bool) else repr(v) for v in values)
    return Rule(f"one of {said}", lambda v: any(v is x or (type(v) is type(x) and v == x) for x in values), default)


def words(pattern: str, expected: str, default: Any = NEEDED) -> Rule:
    return Rule(expected, lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None, default)


def maybe(rule: Rule) -> Rule:
    return Rule(f"{rule.expected}, or null", lambda v: v is None or rule.holds(v), rule.default, rule.counts)


def either(first: Rule, second: Rule) -> Rule:
    return Rule(f"{first.expected}, or {second.expected}", lambda v: first.holds(v) or second.holds(v), first.default)


def several(rule: Rule, counts: tuple[int, ...], default: Any = NEEDED) -> Rule:
    expected = f"a list of {' or '.join(map(str, counts))} values, each {rule.expected}"
    return Rule(expected, lambda v: isinstance(v, list) and len(v) in counts and all(map(rule.holds, v)), default)


def holding(rules: Mapping[str, Rule]) -> Rule:
    expected = f"null, or an object with {' and '.join(f'{key} ({rule.expected})' for key, rule in rules.items())}"

    def holds(value: Any) -> bool:
        known = isinstance(value, dict) and value.keys() <= rules.keys()
        return value is None or (known and all(rules[key].holds(one) for key, one in value.items()))

    return Rule(expected, holds, None)


_LAYERS, _WIDTH = 128, 8192
_CONTEXT = 1024  # tokens of open_clip's own text tower, which always reads its whole context; its largest has 77
_LONG_CONTEXT = 4096  # of a text tower of transformers; BiomedCLIP's has 256
_SIDE = 1024  # pixels of an image tower's input: a batch of 32 is 400 MB; open_clip's largest has 512
_TOKENS = 2_000_000  # a vocabulary; the largest that open_clip knows has 901,629
_REPOSITORY = r"[\w.-]{1,96}(/[\w.-]{1,96})?"
_TEXT = words(r"[^\x00-\x1f\x7f]{0,1000}", "a text of at most 1,000 characters in one line")
_PLACE = Rule(_TEXT.expected, _TEXT.holds, None)  # where a model was trained, or a hub's name: see `is_repository`

_ATTENTION: dict[str, Rule] = {
    "block_type": one_of(None, "default", "custom", default=None),
    "qk_norm": flag(),
    "scaled_cosine_attn": flag(),
    "scale_heads": flag(),
    "scale_attn_inner": flag(),
    "scale_attn": flag(),
    "scale_fc": flag(),
}
_LAYER: dict[str, Rule] = {
    "mlp_ratio": number(0.125, 32, 4.0),
    "ls_init_value": maybe(number(0, 100, None)),
    "act_kwargs": holding({"approximate": one_of("none", "tanh")}),
    "norm_kwargs": holding({"eps": number(0, 1), "elementwise_affine": flag()}),
    "final_ln_after_pool": flag(),
    "output_tokens": flag(),
    **_ATTENTION,
}

MODEL: dict[str, Rule] = {
    "embed_dim": whole(1, 16384),
    "vision_cfg": Rule("an object", lambda v: isinstance(v, dict), NEEDED),
    "text_cfg": Rule("an object", lambda v: isinstance(v, dict), NEEDED),
    "multimodal_cfg": Rule("an object", lambda v: isinstance(v, dict), None).passive(),
    "quick_gelu": flag(),
    "custom_text": flag().passive(),
    "init_logit_scale": number(-100, 100, None).passive(),
    "init_logit_bias": maybe(number(-1000, 1000, None)).passive(),
    "nonscalar_logit_scale": flag().passive(),
}

_IMAGE_SIDE = whole(1, _SIDE, 224)
_IMAGE_SIZE = either(_IMAGE_SIDE, several(whole(1, _SIDE), (2,)))
# What a timm network ignores of open_clip's own keys may still be written there.
VISION_OWN: dict[str, Rule] = {
    "image_size": _IMAGE_SIZE,
    "layers": either(whole(1, _LAYERS, 12), several(whole(1, _LAYERS), (4,))),
    "width": whole(1, _WIDTH, 768),
    "head_width": whole(1, _WIDTH, 64),
    "patch_size": maybe(whole(1, 256, 16)),
    "patch_dropout": number(0, 1, 0.0).passive(),
    "attentional_pool": either(flag(), one_of("parallel", "cascade")),
    "attn_pooler_queries": whole(1, 4096, 256),
    "attn_pooler_heads": whole(1, 256, 8),
    "no_ln_pre": flag(),
    "pos_embed_type": one_of("learnable", "sin_cos_2d", default="learnable"),
    "pool_type": one_of("tok", "avg", "none", "", default="tok"),
    **_LAYER,
}
VISION_TIMM: dict[str, Rule] = {
    "image_size": _IMAGE_SIZE,
    "timm_model_name": maybe(words(r"[a-z0-9_]{1,80}(\.[a-z0-9_]{1,80})?", "the name of a network in timm", None)),
    "timm_model_pretrained": flag().passive(),
    "timm_pool": one_of("avg", "max", "avgmax", "catavgmax", "token", "map", "abs_attn", "rot_attn", "", default="avg"),
    "timm_proj": one_of("linear", "mlp", "none", "", None, default="linear"),
    "timm_proj_bias": flag(),
    "timm_drop": number(0, 1, 0.0).passive(),
    "timm_drop_path": maybe(number(0, 1, None)).passive(),
}
TEXT_OWN: dict[str, Rule] = {
    "context_length": whole(1, _CONTEXT, 77),
    "vocab_size": whole(1, _TOKENS, 49408),
    "width": whole(1, _WIDTH, 512),
    "heads": whole(1, 256, 8),
    "layers": whole(1, _LAYERS, 12),
    "embed_cls": flag(),
    "pad_id": whole(0, _TOKENS, 0),
    "eos_id": whole(0, _TOKENS, 2),
    "no_causal_mask": flag(),
    "pool_type": one_of("argmax", "eos", "first", "last", "none", "", default="argmax"),
    "proj_bias": flag(),
    "proj_type": one_of("linear", "none", "", None, default="linear"),
    **_LAYER,
}
TEXT_TOKENIZER: dict[str, Rule] = {
    "hf_tokenizer_name": _PLACE.passive(),
    "tokenizer_mode": one_of(None, "", "clips", default=None),
    "tokenizer_kwargs": holding(
        {
            "clean": one_of("lower", "whitespace", "canonicalize"),
            "strip_sep_token": flag(),
            "language": words(r"[A-Za-z_-]{2,16}", "a language's code"),
        }
    ),
}
TEXT_HUGGING_FACE: dict[str, Rule] = {
    "context_length": whole(1, _LONG_CONTEXT, 77),
    "hf_model_name": _PLACE.passive(),
    "hf_model_pretrained": flag(default=True).passive(),
    "hf_proj_type": one_of("linear", "mlp", None, default="mlp"),
    "hf_pooler_type": one_of(
        "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler", None, default="mean_pooler"
    ),
    "output_tokens": flag(),
}
MULTIMODAL: dict[str, Rule] = TEXT_OWN | {
    "mlp_ratio": whole(1, 32, 4),
    "dim_head": whole(1, _WIDTH, 64),
    "n_queries": whole(1, 4096, 256),
    "attn_pooler_heads": whole(1, 256, 8),
}
MOST_PLACES = 128 * 128  # patches of an image

PREPROCESS: dict[str, Rule] = {
    "size": maybe(_IMAGE_SIZE),
    "mode": one_of("RGB", None, default="RGB"),
    "mean": maybe(either(number(-100, 100, None), several(number(-100, 100), (1, 3)))),
    "std": maybe(either(number(1e-6, 1000, None), several(number(1e-6, 1000), (1, 3)))),
    "interpolation": one_of("bicubic", "bilinear", "random", None, default="bicubic"),
    "resize_mode": one_of("shortest", "longest", "squash", None, default="shortest"),
    "fill_color": maybe(whole(0, 255, 0)),
}

# -- config.json of a text model: the families that open_clip wraps

_ACTIVATION = one_of(
    "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh",
    default="gelu",
)  # fmt: skip
_ID = maybe(whole(0, _TOKENS, None))
# A size has no default here: it counts whenever it is stated, whatever this release of transformers would take.


def _bert(pad: int) -> dict[str, Rule]:
    return {
        "vocab_size": whole(1, _TOKENS, None),
        "hidden_size": whole(1, _WIDTH, None),
        "num_hidden_layers": whole(1, _LAYERS, None),
        "num_attention_heads": whole(1, 256, None),
        "intermediate_size": whole(1, 8 * _WIDTH, None),
        "hidden_act": _ACTIVATION,
        "max_position_embeddings": whole(1, 2 * _LONG_CONTEXT, None),
        "type_vocab_size": whole(1, 1024, 2),
        "layer_norm_eps": number(0, 1, 1e-12),
        "pad_token_id": maybe(whole(0, _TOKENS, pad)),
        "position_embedding_type": one_of("absolute", "relative_key", "relative_key_query", None, default="absolute"),
        "is_decoder": one_of(False, default=False),
        "add_cross_attention": one_of(False, default=False),
    }


TEXT_MODELS: dict[str, dict[str, Rule]] = {
    "bert": _bert(pad=0),
    "roberta": _bert(pad=1),
    "xlm-roberta": _bert(pad=1),
    "mt5": {
        "vocab_size": whole(1, _TOKENS, None),
        "d_model": whole(1, _WIDTH, None),
        "d_kv": whole(1, _WIDTH, None),
        "d_ff": whole(1, 8 * _WIDTH, None),
        "num_layers": whole(1, _LAYERS, None),
        "num_decoder_layers": maybe(whole(1, _LAYERS, None)).passive(),
        "num_heads": whole(1, 256, None),
        "relative_attention_num_buckets": whole(1, 4096, None),
        "relative_attention_max_distance": whole(1, 65536, None),
        "layer_norm_epsilon": number(0, 1, 1e-6),
        "feed_forward_proj": one_of("relu", "gated-gelu", "gated-silu", "gated-relu", default="gated-gelu"),
        "is_encoder_decoder": flag(default=True),
        "tie_word_embeddings": flag().passive(),
        "pad_token_id": maybe(whole(0, _TOKENS, 0)),
        "eos_token_id": _ID.passive(),
        "decoder_start_token_id": _ID.passive(),
    },
    "m2m_100": {
        "vocab_size": whole(1, _TOKENS, None),
        "d_model": whole(1, _WIDTH, None),
        "max_position_embeddings": whole(1, 2 * _LONG_CONTEXT, None),
        "encoder_layers": whole(1, _LAYERS, None),
        "encoder_attention_heads": whole(1, 256, None),
        "encoder_ffn_dim": whole(1, 8 * _WIDTH, None),
        "decoder_layers": whole(1, _LAYERS, None).passive(),
        "decoder_attention_heads": whole(1, 256, None).passive(),
        "decoder_ffn_dim": whole(1, 8 * _WIDTH, None).passive(),
        "activation_function": Rule(_ACTIVATION.expected, _ACTIVATION.holds, "relu"),
        "is_encoder_decoder": flag(default=True),
        "scale_embedding": flag(default=True),
        "pad_token_id": maybe(whole(0, _TOKENS, 1)),
        "bos_token_id": _ID.passive(),
        "eos_token_id": _ID.passive(),
        "decoder_start_token_id": _ID.passive(),
    },
}

# -- tokenizer_config.json

TOKENIZER_CLASSES = frozenset(
    f"{name}Tokenizer"
    for name in (
        "Albert", "Bert", "Camembert", "CLIP", "DebertaV2", "DistilBert", "Electra", "GPT2", "Gemma", "Llama", "MPNet",
        "Nllb", "Qwen2", "Roberta", "Siglip", "Siglip2", "T5", "XLMRoberta", "M2M100",
    )
) | {"PreTrainedTokenizer", "TokenizersBackend"}  # fmt: skip

_TOKEN_TEXT = Rule("a text of at most 200 characters", lambda v: isinstance(v, str) and len(v) <= 200)
_TOKEN_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


def _is_token(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None or _TOKEN_TEXT.holds(value)
    flags = {key: one for key, one in value.items() if key not in ("content", "__type", "id")}
    return (
        _TOKEN_TEXT.holds(value.get("content"))
        and value.get("__type", "AddedToken") == "AddedToken"
        and flags.keys() <= set(_TOKEN_FLAGS)
        and all(type(one) is bool for one in flags.values())
    )


_MOST_ADDED = 10_000
TOKEN = Rule("a token: a text of at most 200 characters, or an object with its content", _is_token)
TOKEN_LIST = Rule(
    f"a list of at most {_MOST_ADDED:,} tokens",
    lambda v: v is None or (isinstance(v, list) and len(v) <= _MOST_ADDED and all(map(_is_token, v))),
)
SPECIAL_TOKENS: dict[str, Rule] = {
    **{f"{name}_token": TOKEN for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": TOKEN_LIST,
    "extra_special_tokens": either(
        TOKEN_LIST,
        Rule(
            "an object of tokens",
            lambda v: isinstance(v, dict) and len(v) <= _MOST_ADDED and all(map(_is_token, [*v, *v.values()])),
        ),
    ),
}
# No defaults: each of transformers' classes has its own, so what is stated counts.
TOKENIZER: dict[str, Rule] = {
    "tokenizer_class": Rule(
        f"one of transformers' own: {', '.join(sorted(TOKENIZER_CLASSES))}",
        lambda v: v is None or (isinstance(v, str) and v.removesuffix("Fast") in TOKENIZER_CLASSES),
    ),
    "model_input_names": Rule(  # counts where it decides: see transformers_config
        "a list of at most 10 names",
        lambda v: (
            v is None or (isinstance(v, list) and len(v) <= 10 and all(isinstance(n, str) and len(n) <= 40 for n in v))
        ),
    ).passive(),
    "model_max_length": maybe(number(1, 1e31, None)).passive(),  # the configuration's context_length decides
    "do_lower_case": maybe(flag(None)),
    "do_basic_tokenize": maybe(flag(None)),
    "strip_accents": one_of(True, False, None, default=None),
    "tokenize_chinese_chars": maybe(flag(None)),
    "clean_up_tokenization_spaces": one_of(True, False, None, default=None).passive(),
    "add_prefix_space": one_of(True, False, None, default=None),
    "add_bos_token": maybe(flag(None)),
    "add_eos_token": maybe(flag(None)),
    "legacy": one_of(True, False, None, default=None),
    "trim_offsets": maybe(flag(None)).passive(),
    "split_special_tokens": maybe(flag(None)),
    "keep_accents": maybe(flag(None)),
    "remove_space": maybe(flag(None)),
    "do_lower": maybe(flag(None)),
    "extra_ids": maybe(whole(0, 1000, None)),
    "src_lang": maybe(words(r"[A-Za-z_-]{2,16}", "a language's code", None)),
    "tgt_lang": maybe(words(r"[A-Za-z_-]{2,16}", "a language's code", None)),
    "padding_side": one_of("right", "left", None, default=None),
    "truncation_side": one_of("right", "left", None, default=None),
    "added_tokens_decoder": Rule(
        "an object of tokens by their ids",
        lambda v: (
            isinstance(v, dict)
            and len(v) <= _MOST_ADDED
            and all(key.isascii() and key.isdecimal() and len(key) < 9 for key in v)
            and all(map(_is_token, v.values()))
        ),
    ),
    **SPECIAL_TOKENS,
}
ADDED_TOKENS = Rule(
    "an object of tokens and their ids",
    lambda v: (
        isinstance(v, dict)
        and len(v) <= _MOST_ADDED
        and all(map(_is_token, v))
        and all(type(one) is int and 0 <= one <= _TOKENS for one in v.values())
    ),
)


def is_repository(name: str) -> bool:
    """Whether a name can be a hub's repository, as 'org/name': nothing that leads into a folder."""
    return re.fullmatch(_REPOSITORY, name) is not None and not {".", ".."} & set(name.split("/"))
