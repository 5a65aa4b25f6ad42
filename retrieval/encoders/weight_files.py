"""The files that hold a model's weights, and which of their tensors are the model's.

One file, or shards that an index lists. A training checkpoint holds more than a model: another copy of it (an average
over the steps), wrappers' prefixes on the names, a loss. The temperature that every dual encoder learns, `logit_scale`,
marks where the model is.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.bounded import read_json, require_file
from retrieval.encoders.fingerprint import MOST_BYTES, sha256_of
from retrieval.encoders.tensors import Tensor, UnusableWeights, open_tensors
from retrieval.errors import EncoderError

logger = logging.getLogger(__name__)

TRANSFORMERS_WEIGHTS = (  # the order in which transformers prefers them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX = ".index.json"
_MOST_INDEX = 16 << 20  # bytes
_MOST_SHARDS = 1000
_SHARD = re.compile(r"[\w.-]{1,200}\.(safetensors|bin)")
_ANCHOR = "logit_scale"
_AVERAGED = re.compile(r"(^|[._])ema([._]|$)")
_ADAPTER = re.compile(r"(^|\.)lora_[A-Za-z]+(\.|$)")


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a model: `paths` are one file, or the shards in the order of their names.

    `shard_of` says in which shard an index looks for each tensor; None for one file.
    """

    paths: tuple[Path, ...]
    shard_of: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.paths[0].name if len(self.paths) == 1 else f"{self.paths[0].name} and {len(self.paths) - 1} others"

    @property
    def size(self) -> int:
        """Bytes. An OSError is passed on."""
        return sum(path.stat().st_size for path in self.paths)

    def require(self) -> None:
        """Raises OSError unless all are regular files."""
        for path in self.paths:
            require_file(path, MOST_BYTES)

    def sha256(self) -> str:
        """Of the file; of shards, over their hashes in the order of their names."""
        if self.shard_of is None:
            return sha256_of(self.paths[0])
        return hashlib.sha256("\n".join(map(sha256_of, self.paths)).encode()).hexdigest()

    def named_as(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the one file holds just these names."""
        return self.shard_of is None and open_tensors(self.paths[0]).keys() == tensors.keys()

    def tensors(self) -> dict[str, Tensor]:
        """The model's tensors by name, memory-mapped, under the names that the model itself gives them.

        Raises UnusableWeights for files that are not weights, EncoderError for ones that have to be merged or chosen
        from by hand; an OSError is passed on.
        """
        found: dict[str, Tensor] = {}
        for path in self.paths:
            for name, tensor in open_tensors(path).items():
                if self.shard_of is None or self.shard_of.get(name) == path.name:
                    found[name] = tensor
        missing = [name for name in self.shard_of or () if name not in found]
        if missing:
            shard = (self.shard_of or {})[missing[0]]
            raise UnusableWeights(f"the index names {missing[0][:100]} in {shard}, which does not hold it")
        return of_the_model(found)


def shards(index: Path, place: Callable[[str], Path | None]) -> WeightFiles:
    """The weights that an index lists. `place` finds a shard by its name, None if there is none such.

    Raises EncoderError for an index that is none, and for a shard that is missing.
    """
    try:
        values = read_json(index, _MOST_INDEX)
        listed = values["weight_map"]
        if not all(isinstance(name, str) and isinstance(shard, str) for name, shard in listed.items()):
            raise ValueError("weight_map holds more than names")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else " ".join(str(exc).split())[:200]
        raise EncoderError(f"{index.name} can't be read: {why}", hint="It lists the files of the weights.") from exc
    names = sorted(set(listed.values()))
    strange = next((name for name in names if not _SHARD.fullmatch(name)), None)
    if strange is not None or not 1 <= len(names) <= _MOST_SHARDS:
        seen = f"a file {strange[:60]!r}" if strange is not None else f"{len(names):,} files"
        raise EncoderError(f"{index.name} names {seen}, expected up to {_MOST_SHARDS:,} plain names of weights files")
    found = {name: place(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise EncoderError(
            f"{index.name} lists {len(names)} files of weights, and {len(missing)} of them are missing: {missing[0]}",
            hint="The download may be unfinished.",
        )
    return WeightFiles(tuple(path for path in found.values() if path is not None), dict(listed))


def weights_beside(folder: Path, names: Sequence[str]) -> WeightFiles | None:
    """The first of the named weights that a folder has, an index with its shards; None if it has none."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        return None
    if not found.name.endswith(INDEX):
        return WeightFiles((found,))
    return shards(found, lambda name: folder / name if (folder / name).is_file() else None)


def of_the_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of a checkpoint that are the model's, without what wrappers put before their names."""
    adapted = next((name for name in tensors if _ADAPTER.search(name)), None)
    if adapted is not None:
        raise EncoderError(
            f"the weights are not whole: they hold low-rank changes (LoRA), such as {adapted[:100]!r}",
            hint="Merge them first and save the model again: `merge_and_unload()` of peft gives a plain model.",
        )
    prefixes = [name.removesuffix(_ANCHOR) for name in tensors if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    if not prefixes or prefixes == [""]:
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    averaged = [prefix for prefix in prefixes if _AVERAGED.search(prefix)]
    chosen = averaged or ([""] if "" in prefixes else prefixes)
    if len(chosen) > 1:
        raise EncoderError(
            f"the weights hold {len(chosen)} models: {', '.join(repr(prefix[:60]) for prefix in sorted(chosen)[:4])}",
            hint="Save the state dict of the one that is meant in a file of its own.",
        )
    (prefix,) = chosen
    if len(prefixes) > 1 or prefix:
        logger.info("of the weights, those under %r are the model's", prefix)
    others = tuple(one for one in prefixes if one not in ("", prefix))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not (others and name.startswith(others))
    }
