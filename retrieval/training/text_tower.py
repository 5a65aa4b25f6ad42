"""A sentence encoder with a smaller vocabulary, as the start of a text tower.

Half of the weights of all-MiniLM-L6-v2 belong to 30,522 word pieces, a third of which are other scripts, unused slots
and rare names. A word without its own piece is split into smaller pieces, so all texts stay readable.
"""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retrieval.errors import TrainingError
from retrieval.training.config import TextTower
from retrieval.training.packaged import package_folder

logger = logging.getLogger(__name__)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_READABLE = set(string.ascii_lowercase + string.digits + string.punctuation + "µ°±×αβγ≥≤")


def find_start(start: str) -> Path:
    """The folder of the encoder to start from. `package:NAME` looks into an installed Python package.

    Raises TrainingError if there is no encoder.
    """
    root = package_folder(start, "the text encoder")
    if root is not None:
        folders = [p.parent for p in sorted(root.rglob("tokenizer.json"))]
        if not folders:
            raise TrainingError(f"the Python package {root.name!r} has no tokenizer.json, expected a sentence encoder")
        return folders[0]
    folder = Path(start)
    missing = [n for n in ("config.json", "tokenizer.json", "model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise TrainingError(f"the text encoder {folder.name!r} has no {', '.join(missing)}")
    return folder


def write_text_tower(tower: TextTower, texts: Iterable[str], out: Path) -> None:
    """Write config.json, tokenizer and model.safetensors of the start with its vocabulary cut down into `out`."""
    from safetensors.torch import load_file, save_file

    start = find_start(tower.start)
    config: dict[str, Any] = json.loads((start / "config.json").read_text(encoding="utf-8"))
    tokenizer: dict[str, Any] = json.loads((start / "tokenizer.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "bert" or tokenizer["model"].get("type") != "WordPiece":
        raise TrainingError(
            f"the text encoder is a {config.get('model_type')!r} with a {tokenizer['model'].get('type')} tokenizer, "
            "expected a BERT with WordPiece"
        )
    positions = int(config["max_position_embeddings"])
    if positions < tower.context_length:
        raise TrainingError(
            f"context_length is {tower.context_length}, but the text encoder reads at most {positions} word pieces",
            hint=f"Set context_length to {positions} or less.",
        )
    if not (tokenizer.get("normalizer") or {}).get("lowercase"):
        raise TrainingError("the text encoder is case-sensitive, expected an uncased BERT")
    state = {k.removeprefix("bert."): v for k, v in load_file(start / "model.safetensors").items()}
    state = {k: v for k, v in state.items() if k.startswith(("embeddings.", "encoder."))}
    old_ids: dict[str, int] = tokenizer["model"]["vocab"]
    kept = _kept_pieces(old_ids, _used_pieces(start, texts), tower.vocabulary)
    new_ids = {piece: i for i, piece in enumerate(kept)}
    logger.info("vocabulary: %d of %d word pieces kept", len(kept), len(old_ids))

    positions = tower.context_length
    words, places = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    state[words] = state[words][[old_ids[piece] for piece in kept]].contiguous()
    state[places] = state[places][:positions].contiguous()
    state.pop("embeddings.position_ids", None)
    config.update(vocab_size=len(kept), max_position_embeddings=positions, pad_token_id=new_ids["[PAD]"])
    config.pop("_name_or_path", None)

    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "model.safetensors")
    _write_files(out, config, tokenizer, new_ids)


def write_smaller_vocabulary(folder: Path, texts: Iterable[str], limit: int, out: Path) -> None:
    """Write config.json and tokenizer of the text tower in `folder` with at most `limit` word pieces into `out`.

    All word pieces of the texts are kept. `rows_of_pieces` gives the rows of their weights.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    kept = _kept_pieces(tokenizer["model"]["vocab"], _used_pieces(folder, texts), limit)
    new_ids = {piece: i for i, piece in enumerate(kept)}
    logger.info("vocabulary: %d of %d word pieces kept", len(kept), len(tokenizer["model"]["vocab"]))
    config.update(vocab_size=len(kept), pad_token_id=new_ids["[PAD]"])
    out.mkdir(parents=True, exist_ok=True)
    _write_files(out, config, tokenizer, new_ids)


def rows_of_pieces(folder: Path, smaller: Path) -> list[int]:
    """The position in the vocabulary of `folder` of each word piece of the smaller vocabulary."""
    old, new = (
        json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        for place in (folder, smaller)
    )
    return [old[piece] for piece in sorted(new, key=new.__getitem__)]


def _write_files(out: Path, config: dict[str, Any], tokenizer: dict[str, Any], ids: dict[str, int]) -> None:
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "tokenizer.json").write_text(json.dumps(_renumbered(tokenizer, ids)), encoding="utf-8")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": config["max_position_embeddings"],
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (out / "vocab.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")


def lock_text_groups(text: Any, count: int) -> None:
    """Lock the first `count` groups of layers of open_clip's text tower: the embeddings, then layer by layer. Raises
    TrainingError if there are not so many."""
    above = text_groups_above(text)
    groups = max(above.values())  # without the projection
    if count > groups:
        raise TrainingError(
            f"text.locked_groups is {count}, expected at most {groups}, the groups of layers of the text tower"
        )
    for name, parameter in text.named_parameters():
        if above[name] > groups - count:
            parameter.requires_grad_(False)


def text_groups_above(text: Any) -> dict[str, int]:
    """How many groups of layers lie above each parameter's own: 0 for the projection."""
    layers = int(text.config.num_hidden_layers)

    def group(name: str) -> int:
        if name.startswith("transformer.encoder.layer."):
            return layers - int(name.split(".")[3])
        return layers + 1 if name.startswith("transformer.embeddings.") else 0

    return {name: group(name) for name, _ in text.named_parameters()}


def _used_pieces(start: Path, texts: Iterable[str]) -> set[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(start / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return {piece for encoding in tokenizer.encode_batch(list(texts)) for piece in encoding.tokens}


def _kept_pieces(old_ids: dict[str, int], used: set[str], limit: int | None) -> list[str]:
    """Special pieces, all used pieces and single characters; then readable pieces in BERT's order, up to `limit`."""
    in_order = sorted(old_ids, key=old_ids.__getitem__)
    always = [p for p in in_order if p in SPECIAL or p in used or (len(p.removeprefix("##")) == 1 and _readable(p))]
    chosen = dict.fromkeys(always)
    for piece in in_order:
        if limit is not None and len(chosen) >= limit:
            break
        if _readable(piece) and not piece.startswith("[unused"):
            chosen.setdefault(piece)
    return sorted(chosen, key=lambda p: (SPECIAL.index(p) if p in SPECIAL else len(SPECIAL), old_ids[p]))


def _readable(piece: str) -> bool:
    return set(piece) <= _READABLE


def _renumbered(tokenizer: dict[str, Any], new_ids: dict[str, int]) -> dict[str, Any]:
    """tokenizer.json with the new ids, without padding and truncation (the caller decides on both)."""
    out: dict[str, Any] = json.loads(json.dumps(tokenizer))
    out["model"]["vocab"] = new_ids
    out["added_tokens"] = [t | {"id": new_ids[t["content"]]} for t in out["added_tokens"] if t["content"] in new_ids]
    post = out.get("post_processor") or {}
    for name, entry in post.get("special_tokens", {}).items():
        entry["ids"] = [new_ids[name]]
    for side in ("sep", "cls"):  # the older BertProcessing: a pair of text and id
        if side in post:
            post[side] = [post[side][0], new_ids[post[side][0]]]
    out["padding"] = out["truncation"] = None
    return out
