"""Small dual encoders of transformers with random weights, in the layouts that hubs have."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tiny_models import LETTERS, pieces, write_tokenizer

SIDE = 32
WORDS = ["chest", "ct", "scan", "of", "the", "pneumonia", "##graph", "radio", "a", "no", "left", "effusion"]
CORPUS = [
    "a chest radiograph with a left pleural effusion",
    "no pneumonia, no effusion",
    "axial ct of the abdomen",
    "mr of the knee; 3 mm slices (t2)",
    "frontal view: clear lungs & a normal heart",
]
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip_vocabulary(merges: int = 400) -> tuple[dict[str, int], list[str]]:
    """The vocabulary of CLIP's byte pairs with the first merges only, as vocab.json and merges.txt have it."""
    spec = find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    packed = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1 : merges + 1]
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    names = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in lines)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    return {name: i for i, name in enumerate(names)}, lines


def write_clip_tokenizer(folder: Path, *, old: bool) -> dict[str, int]:
    """As older releases wrote it (vocab.json, merges.txt), or as today's do (tokenizer.json)."""
    from transformers import CLIPTokenizer

    ids, merges = clip_vocabulary()
    if old:
        (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        token = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        special = {
            "bos_token": token | {"content": "<|startoftext|>"},
            "eos_token": token | {"content": "<|endoftext|>"},
        }
        special |= {"unk_token": token | {"content": "<|endoftext|>"}}
        settings = special | {
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "name_or_path": "openai/clip-vit-base-patch32",
            "pad_token": "<|endoftext|>",
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return ids
    pairs = [tuple(line.split()) for line in merges]
    CLIPTokenizer(vocab=ids, merges=pairs, model_max_length=77).save_pretrained(folder)
    return ids


def write_sentence_pieces(folder: Path) -> int:
    """A spiece.model as SigLIP's: unigrams, `</s>` as end and padding."""
    import sentencepiece

    text = folder / "corpus.txt"
    text.write_text("\n".join(CORPUS * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=50, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    text.unlink()
    (folder / "spiece.vocab").unlink()
    settings = {
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": "</s>",
        "model_input_names": ["input_ids"],
        "model_max_length": 64,
        "pad_token": "</s>",
        "processor_class": "SiglipProcessor",
        "sp_model_kwargs": {},
        "tokenizer_class": "SiglipTokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return 50


def write_gemma_tokenizer(folder: Path) -> int:
    """A tokenizer.json as SigLIP 2's: byte pairs, spaces as marks, the text in lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    single = [*LETTERS, *"0123456789", *",.;:()&'-/", "▁"]
    merges = [("▁", "c"), ("c", "t"), ("o", "f"), ("▁", "a"), ("▁", "l"), ("▁l", "e")]
    ids = {piece: i for i, piece in enumerate([*special, *single, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", ids["<eos>"])]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": False,
        "add_eos_token": True,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "do_lower_case": True,
        "model_input_names": ["input_ids"],
        "model_max_length": 64,
        "padding_side": "right",
        "processor_class": "SiglipProcessor",
        "tokenizer_class": "GemmaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(ids)


def _json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def _old_clip(folder: Path) -> Any:
    """PubMedCLIP's and PLIP's: files of transformers 4.1x, sizes as numbers, the end of a text is its largest id."""
    from transformers import CLIPConfig, CLIPModel

    ids = write_clip_tokenizer(folder, old=True)
    text = _TEXT | {"vocab_size": len(ids), "max_position_embeddings": 77, "eos_token_id": 2, "bos_token_id": 0}
    model = CLIPModel(CLIPConfig(text_config=dict(text), vision_config=dict(_VISION), projection_dim=24))
    values = {
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": text | {"model_type": "clip_text_model", "hidden_act": "quick_gelu", "return_dict": True},
        "text_config_dict": None,
        "transformers_version": None,
        "vision_config": _VISION | {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"},
        "vision_config_dict": None,
    }
    _json(folder / "config.json", values)
    processor = {
        "crop_size": SIDE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": SIDE,
    }
    _json(folder / "preprocessor_config.json", processor)
    return model


def _new_clip(folder: Path) -> Any:
    """StreetCLIP's layout as today's release writes it: another activation, another size of embeddings."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    ids = write_clip_tokenizer(folder, old=False)
    ends = {"eos_token_id": ids["<|endoftext|>"], "bos_token_id": ids["<|startoftext|>"]}
    text = _TEXT | {"vocab_size": len(ids), "hidden_act": "gelu", **ends}
    vision = _VISION | {"hidden_act": "gelu", "image_size": 40}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=40))
    model.config.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}).save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    _json(folder / "config.json", values | {"architectures": ["CLIPModel"]})
    return model


def _siglip(folder: Path, vocabulary: int, resample: int) -> Any:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    text = _TEXT | {"vocab_size": vocabulary, "hidden_size": 64, "projection_size": 64}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=dict(_VISION)))
    model.config.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    _json(folder / "config.json", values | {"architectures": ["SiglipModel"]})
    size = {"height": SIDE, "width": SIDE}
    SiglipImageProcessor(size=size, resample=resample).save_pretrained(folder)
    return model


def _medsiglip(folder: Path) -> Any:
    """MedSigLIP's and SigLIP's: sentence pieces, no mask, no crop."""
    return _siglip(folder, write_sentence_pieces(folder), resample=2)


def _siglip2(folder: Path) -> Any:
    """SigLIP 2's in a fixed resolution: SigLIP's classes with Gemma's tokenizer."""
    return _siglip(folder, write_gemma_tokenizer(folder), resample=3)


def _vit_bert(folder: Path, text_kind: str = "bert", vision_kind: str = "vit") -> Any:
    """Two towers joined by transformers: a ViT and a BERT."""
    from transformers import (
        BertConfig,
        CLIPVisionConfig,
        RobertaConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    vocabulary = pieces(WORDS)
    write_tokenizer(folder, vocabulary)
    text = {**_TEXT, "vocab_size": len(vocabulary), "hidden_dropout_prob": 0.0}
    text["max_position_embeddings"] = 64 if text_kind == "bert" else 65  # RoBERTa's count from behind the padding
    described = BertConfig(**text) if text_kind == "bert" else RobertaConfig(**text, pad_token_id=0)
    seen = ViTConfig(**_VISION) if vision_kind == "vit" else CLIPVisionConfig(**_VISION)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(seen, described, projection_dim=24)
    model = VisionTextDualEncoderModel(config)
    model.config.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    _json(folder / "config.json", values | {"architectures": ["VisionTextDualEncoderModel"]})
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model


ARCHITECTURES: dict[str, Callable[[Path], Any]] = {
    "clip as PubMedCLIP": _old_clip,
    "clip as StreetCLIP": _new_clip,
    "siglip as MedSigLIP": _medsiglip,
    "siglip as SigLIP 2": _siglip2,
    "vit and bert": _vit_bert,
    "clip's vit and roberta": lambda folder: _vit_bert(folder, "roberta", "clip_vision_model"),
}


def _shard(state: dict[str, torch.Tensor], folder: Path, ending: str, save: Callable[[Any, Path], Any]) -> None:
    names, stem = sorted(state), "model" if ending == "safetensors" else "pytorch_model"
    thirds = [names[i::3] for i in range(3)]
    files = [f"{stem}-{i + 1:05}-of-00003.{ending}" for i in range(3)]
    for file, part in zip(files, thirds, strict=True):
        save({name: state[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in zip(files, thirds, strict=True) for name in part}
    _json(folder / f"{stem}.{ending}.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})


def _safetensors(state: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _sharded(state: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    _shard(state, folder, "safetensors", lambda part, path: save_file(part, path, metadata={"format": "pt"}))


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "fp32": _safetensors,
    "fp16": lambda state, folder: _safetensors({k: v.half() for k, v in state.items()}, folder),
    "sharded": _sharded,
    "sharded in fp16": lambda state, folder: _sharded({k: v.half() for k, v in state.items()}, folder),
    "pickle": lambda state, folder: torch.save(state, folder / "pytorch_model.bin"),
    "sharded pickle": lambda state, folder: _shard(state, folder, "bin", torch.save),
}


def write_dual_encoder(folder: Path, architecture: str, weights: str = "fp32") -> Path:
    """A model's folder. Weights are far from what training starts from, so that embeddings differ."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture](folder).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
            elif name.endswith("bias"):
                parameter.normal_(std=0.02)
    state = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    WEIGHTS[weights](state, folder)
    return folder
