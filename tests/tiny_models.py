"""Small model folders with random weights, as open_clip, a hub or `medlens train` would leave them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)  # models this small gain nothing from more, and lose much on a busy machine

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
BIOMED_BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def pieces(words: Iterable[str] = ()) -> list[str]:
    """A WordPiece vocabulary: the special pieces, ascii letter by letter, and whole words."""
    single = [*LETTERS, *"0123456789", *PUNCTUATION]
    return list(dict.fromkeys([*SPECIAL, *single, *(f"##{c}" for c in single), *words]))


def write_tokenizer(folder: Path, vocabulary: list[str]) -> None:
    """tokenizer.json, tokenizer_config.json and vocab.txt of an uncased BERT."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.add_special_tokens(SPECIAL)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def bert_config(vocabulary: int, hidden: int, layers: int, intermediate: int, positions: int = 512) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }


def write_text_start(folder: Path, words: Iterable[str] = (), hidden: int = 64, positions: int = 48) -> Path:
    """A BERT sentence encoder with random weights, as a start of training."""
    from transformers import BertConfig, BertModel

    vocabulary = pieces(words)
    write_tokenizer(folder, vocabulary)
    config = bert_config(len(vocabulary), hidden, 2, 2 * hidden, positions)
    torch.manual_seed(0)
    model = BertModel(BertConfig(**config), add_pooling_layer=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CLIP_PREPROCESS = {
    "size": 32,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bilinear",
    "resize_mode": "longest",
    "fill_color": 9,
}


def write_clip(
    folder: Path,
    medlens: dict[str, Any] | None = None,
    weights: str = "open_clip_model.safetensors",
    config: dict[str, Any] | None = None,
) -> Path:
    """A small ViT and a small text tower of open_clip's own, with its own tokenizer. `config` is CLIP_CONFIG's."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model_cfg = CLIP_CONFIG | (config or {})
    state = open_clip.CLIP(**model_cfg).state_dict()
    if weights.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / weights)
    else:
        torch.save(state, folder / weights)
    written = {"model_cfg": model_cfg, "preprocess_cfg": CLIP_PREPROCESS}
    values = written | ({"medlens": medlens} if medlens is not None else {})
    (folder / "open_clip_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def write_biomedclip(
    folder: Path, scratch: Path, *, vision: str, hidden: int, layers: int, pooler: str = "cls_last_hidden_state_pooler"
) -> open_clip.CustomTextCLIP:
    """The folder that a download of BiomedCLIP gives, but for the weights' values and the vocabulary: no config.json.

    Returns the model as open_clip builds it from a BERT configuration that lies in `scratch`.
    """
    vocabulary = pieces(["chest", "ct", "scan", "of", "the", "pneumonia", "##graph", "radio"])
    write_tokenizer(folder, vocabulary)
    scratch.mkdir(parents=True, exist_ok=True)
    config = bert_config(len(vocabulary), hidden, layers, 4 * hidden)
    (scratch / "config.json").write_text(json.dumps(config), encoding="utf-8")
    vision_cfg = {
        "timm_model_name": vision,
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 224,
    }
    text_cfg = {
        "hf_model_name": BIOMED_BERT,
        "hf_tokenizer_name": BIOMED_BERT,
        "hf_proj_type": "mlp",
        "hf_pooler_type": pooler,
        "context_length": 256,
    }
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(
        embed_dim=512,
        vision_cfg=vision_cfg,
        text_cfg=text_cfg | {"hf_model_name": str(scratch), "hf_model_pretrained": False},
    ).eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    values = {
        "model_cfg": {"embed_dim": 512, "vision_cfg": vision_cfg, "text_cfg": text_cfg},
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(values), encoding="utf-8")
    return model
