"""What the configuration of a dual encoder of transformers may say: the families that are loaded, key by key.

As in `config_rules`: a key that is not in its table never reaches transformers. Here every key has the default of the
library's own class, and a value that a file leaves out is filled in: what a model is does not hang on the release of
transformers that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.encoders.config_rules import (
    _ACTIVATION,
    _LAYERS,
    _LONG_CONTEXT,
    _SIDE,
    _TOKENS,
    _WIDTH,
    TEXT_MODELS,
    Rule,
    either,
    flag,
    maybe,
    number,
    one_of,
    several,
    whole,
)

_ID = maybe(whole(0, _TOKENS, None))
_BIAS = maybe(number(-1000, 1000, None)).passive()


def _activation(default: str) -> Rule:
    return Rule(_ACTIVATION.expected, _ACTIVATION.holds, default)


def _vit(patch: int, activation: str, epsilon: float) -> dict[str, Rule]:
    return {
        "hidden_size": whole(1, _WIDTH, 768),
        "intermediate_size": whole(1, 8 * _WIDTH, 3072),
        "num_hidden_layers": whole(1, _LAYERS, 12),
        "num_attention_heads": whole(1, 256, 12),
        "num_channels": one_of(3, default=3),
        "image_size": whole(1, _SIDE, 224),
        "patch_size": whole(1, 256, patch),
        "hidden_act": _activation(activation),
        "layer_norm_eps": number(0, 1, epsilon),
    }


def _text(vocabulary: int, width: int, heads: int, context: int, activation: str, epsilon: float) -> dict[str, Rule]:
    return {
        "vocab_size": whole(1, _TOKENS, vocabulary),
        "hidden_size": whole(1, _WIDTH, width),
        "intermediate_size": whole(1, 8 * _WIDTH, 4 * width),
        "num_hidden_layers": whole(1, _LAYERS, 12),
        "num_attention_heads": whole(1, 256, heads),
        "max_position_embeddings": whole(1, _LONG_CONTEXT, context),
        "hidden_act": _activation(activation),
        "layer_norm_eps": number(0, 1, epsilon),
    }


CLIP_VISION = _vit(32, "quick_gelu", 1e-5)
CLIP_TEXT = _text(49408, 512, 8, 77, "quick_gelu", 1e-5) | {
    # 2 stands in many files for "the largest id is the end", which the token that is read is chosen by
    "eos_token_id": Rule(_ID.expected, _ID.holds, 49407),
    "pad_token_id": Rule(_ID.expected, _ID.holds, 1, counts=False),
    "bos_token_id": Rule(_ID.expected, _ID.holds, 49406, counts=False),
}
SIGLIP_VISION = _vit(16, "gelu_pytorch_tanh", 1e-6) | {"vision_use_head": one_of(True, default=True)}
SIGLIP_TEXT = _text(32000, 768, 12, 64, "gelu_pytorch_tanh", 1e-6) | {
    "projection_size": maybe(whole(1, 16384, None)),
}
VIT = _vit(16, "gelu", 1e-12) | {
    "qkv_bias": flag(default=True),
    "pooler_output_size": maybe(whole(1, _WIDTH, None)),
    "pooler_act": one_of("tanh", "gelu", "relu", default="tanh"),
}


def _bert(family: str, vocabulary: int, positions: int, epsilon: float, types: int) -> dict[str, Rule]:
    return TEXT_MODELS[family] | {
        "vocab_size": whole(1, _TOKENS, vocabulary),
        "hidden_size": whole(1, _WIDTH, 768),
        "num_hidden_layers": whole(1, _LAYERS, 12),
        "num_attention_heads": whole(1, 256, 12),
        "intermediate_size": whole(1, 8 * _WIDTH, 3072),
        "max_position_embeddings": whole(1, 2 * _LONG_CONTEXT, positions),
        "type_vocab_size": whole(1, 1024, types),
        "layer_norm_eps": number(0, 1, epsilon),
        "position_embedding_type": one_of("absolute", None, default="absolute"),
    }


@dataclass(frozen=True)
class Family:
    """A family of dual encoders: the class of transformers that it is, and the tables of its two towers.

    Towers by their own `model_type`; with the empty one, a tower has no type to choose. `projects` says that
    both towers end in a projection to `projection_dim`; else the image tower's width is the embedding's size.
    """

    model_class: str
    vision: Mapping[str, Mapping[str, Rule]]
    text: Mapping[str, Mapping[str, Rule]]
    image_processor: str
    tokenizers: Mapping[str, str]  # by the text tower's type, for files that name no class
    projects: bool = True


FAMILIES: dict[str, Family] = {
    "clip": Family("CLIPModel", {"": CLIP_VISION}, {"": CLIP_TEXT}, "CLIPImageProcessor", {"": "CLIPTokenizer"}),
    "siglip": Family(
        "SiglipModel",
        {"": SIGLIP_VISION},
        {"": SIGLIP_TEXT},
        "SiglipImageProcessor",
        {"": "SiglipTokenizer"},
        projects=False,
    ),
    "vision-text-dual-encoder": Family(
        "VisionTextDualEncoderModel",
        {"vit": VIT, "clip_vision_model": CLIP_VISION},
        {
            "bert": _bert("bert", 30522, 512, 1e-12, 2),
            "roberta": _bert("roberta", 50265, 512, 1e-12, 2),
            "xlm-roberta": _bert("xlm-roberta", 30522, 512, 1e-12, 2),
        },
        "ViTImageProcessor",
        {"bert": "BertTokenizer", "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer"},
    ),
}
TOP: dict[str, Rule] = {
    "projection_dim": whole(1, 16384, 512),
    "logit_scale_init_value": number(-100, 100, 2.6592).passive(),
}

# -- preprocessor_config.json

_FULL_SIDE = whole(1, _SIDE, None)
_SIZE = either(
    _FULL_SIDE,
    Rule(
        "an object with height and width, or with shortest_edge",
        lambda v: (
            isinstance(v, dict)
            and v.keys() in ({"height", "width"}, {"shortest_edge"})
            and all(map(_FULL_SIDE.holds, v.values()))
        ),
    ),
)
_MEAN = maybe(either(number(-100, 100, None), several(number(-100, 100), (1, 3))))
_STD = maybe(either(number(1e-6, 1000, None), several(number(1e-6, 1000), (1, 3))))
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
PROCESSOR: dict[str, Rule] = {
    "do_resize": one_of(True, default=True),
    "size": _SIZE,
    "resample": one_of(2, 3, default=3),  # PIL's bilinear and bicubic
    "do_center_crop": maybe(flag()),
    "crop_size": maybe(_SIZE),
    "do_rescale": one_of(True, default=True),
    "rescale_factor": number(1 / 255 - 1e-7, 1 / 255 + 1e-7, 1 / 255),
    "do_normalize": flag(default=True),
    "image_mean": _MEAN,
    "image_std": _STD,
    "do_pad": one_of(False, None, default=None),
}
# What each of the library's own classes takes where the file is silent.
PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": {
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
    },
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224},
        "image_mean": HALF,
        "image_std": HALF,
        "resample": 3,
    },
    "ViTImageProcessor": {
        "size": {"height": 224, "width": 224},
        "image_mean": HALF,
        "image_std": HALF,
        "resample": 2,
    },
}
