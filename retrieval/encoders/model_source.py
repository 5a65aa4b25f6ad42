"""From a model's name to where it lies: what is shipped, a folder, a hub, or one of open_clip's architectures.

A model folder is what open_clip calls `local-dir:` (open_clip_config.json, weights, tokenizer), or what transformers'
`save_pretrained` writes of a dual encoder (config.json, preprocessor_config.json, weights, tokenizer). What lies in it
decides. The key "medlens" of its configuration adds the model's name and render profile. Its files are read as data:
see `model_config` and `transformers_config`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from retrieval.encoders import hub
from retrieval.encoders.config_rules import is_repository
from retrieval.encoders.model_config import CONFIG_NAME, read_config
from retrieval.encoders.transformers_config import (
    CONFIG,
    PROCESSOR_FILES,
    SETTINGS,
    is_transformers,
    read_transformers_config,
)
from retrieval.encoders.weight_files import TRANSFORMERS_WEIGHTS
from retrieval.errors import EncoderError, WeightsNotFound
from retrieval.resources import data_folder
from retrieval.types import RenderProfile

DEFAULT_MODEL = "medlens-base"
WEIGHTS_NAMES = (  # the order in which open_clip prefers them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_WEIGHTS_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_MOST_FOUND, _MOST_NAME = 8, 60  # of a folder's files, for a message


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded. `name` is for people; `source` finds it again from anywhere.

    With a `folder`, that is a local directory; else `architecture` (and `checkpoint`: a file or an open_clip tag).
    """

    name: str
    source: str
    folder: Path | None = None
    architecture: str = ""
    checkpoint: str | None = None

    @property
    def repository(self) -> str | None:
        """Its repository on the hub, if it is one's."""
        return self.architecture.removeprefix(hub.PREFIX) if self.architecture.startswith(hub.PREFIX) else None

    @property
    def shipped(self) -> bool:
        """Whether it came with medlens."""
        return self.source in shipped_models()


def shipped_models() -> dict[str, Path]:
    """Models that came with medlens, by name."""
    folder = data_folder() / "models"
    return {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{CONFIG_NAME}"))}


def resolve_model(model: str | None = None) -> ModelSource:
    """Find a model by name. See `ClipEncoder.load` for what names there are. Raises WeightsNotFound."""
    name = model or DEFAULT_MODEL
    shipped = shipped_models()
    if name in shipped:
        return ModelSource(name, name, folder=shipped[name])
    if name.startswith(hub.PREFIX):
        return _resolve_repository(name)
    path = _expanded(name.removeprefix("local-dir:"))
    if name.startswith("local-dir:") or path.is_dir():
        return _resolve_folder(path.resolve())
    if "@" in name:
        architecture, _, checkpoint = name.partition("@")
        return _resolve_architecture(architecture, checkpoint)
    near = difflib.get_close_matches(name, shipped, n=1)
    raise WeightsNotFound(
        f"there is no model {name!r}: it is neither a folder nor a shipped model ({', '.join(shipped) or 'none'})"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        hint=f"On the Hugging Face hub it would be {hub.PREFIX}{name}."
        if "/" in name and is_repository(name) and not name.startswith(".")
        else "Name a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT; `medlens models` lists what is at hand.",
    )


def render_profile_of(source: ModelSource) -> RenderProfile:
    """The render profile of a model, read from its configuration alone. Raises as loading it does."""
    try:
        folder = source.folder
        if folder is None and source.repository is not None:
            path = hub.first_file(source.repository, (CONFIG_NAME, CONFIG), download=True)
            if path is None:
                raise WeightsNotFound(f"the repository of {source.name!r} has neither {CONFIG_NAME} nor {CONFIG}")
            folder = path.parent
        if folder is None:
            return RenderProfile()
        if (folder / CONFIG_NAME).is_file():
            return read_config(folder).render_profile
        if source.repository is not None:  # transformers' settings of the images are read with it
            hub.some_files(source.repository, (CONFIG, *PROCESSOR_FILES, SETTINGS), download=True)
        return read_transformers_config(folder, source.name).render_profile
    except (OSError, ValueError) as exc:
        raise load_error(source, exc) from exc


def weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS_NAMES if (folder / name).is_file()), None)


def load_error(source: ModelSource, exc: Exception) -> EncoderError:
    """What kept a model from being loaded, in the words of the library that said so, without paths."""
    detail = " ".join(str(exc).split()) or type(exc).__name__
    for path in (source.folder, source.checkpoint):
        detail = detail.replace(str(path), Path(path).name) if path else detail
    detail = detail[:300]
    is_file = source.checkpoint is not None and Path(source.checkpoint).is_file()
    if type(exc).__name__ == "GatedRepoError":
        return WeightsNotFound(
            f"the model {source.name!r} is given only to those who accept its terms",
            hint="Accept them on its page on the Hugging Face hub, sign in with `hf auth login`, and run this again.",
        )
    if source.folder is None and not is_file and "state_dict" not in detail:
        return WeightsNotFound(
            f"the model {source.name!r} could not be downloaded from the Hugging Face hub: {detail}",
            hint="This needs the network once; or download it elsewhere and name the folder with --model.",
        )
    return EncoderError(
        f"the model {source.name!r} can't be loaded: {detail}",
        hint="Weights and architecture may not fit, or the file may be damaged.",
    )


def _expanded(text: str) -> Path:
    """A path, `~` expanded where there is such a user."""
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as exc:  # too long for a path; no such user
        raise WeightsNotFound(f"{text[:80]!r} can't be a path: {exc}") from exc
    return path


def _resolve_repository(name: str) -> ModelSource:
    if not is_repository(name.removeprefix(hub.PREFIX)):
        raise WeightsNotFound(f"{name[:80]!r} is not a repository of the hub", hint="Write it as hf-hub:ORG/REPO.")
    return ModelSource(name, name, architecture=name)


def _resolve_folder(folder: Path) -> ModelSource:
    if not folder.is_dir():
        raise WeightsNotFound(
            f"the model folder {folder.name!r} does not exist",
            hint="A model folder is what `medlens train` writes, or a download of a model from a hub.",
        )
    open_clip = (folder / CONFIG_NAME).is_file()
    if not open_clip and not is_transformers(folder):
        raise _no_model(folder)
    names = WEIGHTS_NAMES if open_clip else TRANSFORMERS_WEIGHTS
    if not any((folder / name).is_file() for name in names):
        raise WeightsNotFound(
            f"the model folder {folder.name!r} has no weights, expected one of {', '.join(names)}; {_found(folder)}",
            hint="The download or the training run may be unfinished.",
        )
    return ModelSource(folder.resolve().name, f"local-dir:{folder.resolve()}", folder=folder.resolve())


def _no_model(folder: Path) -> WeightsNotFound:
    """What was looked for in a folder, what it has instead, and what that may be."""
    hint = "A model folder is what `medlens train` writes, or a download of an open_clip or transformers model."
    weights = [path.name for path in folder.iterdir() if path.suffix in _WEIGHTS_ENDINGS]
    if (folder / "adapter_config.json").is_file():
        hint = "It is an adapter (LoRA), and no whole model: merge it into its model with peft's `merge_and_unload()`."
    elif (folder / "modules.json").is_file():
        hint = "It is a model of sentence-transformers: name the folder in it that has config.json and the weights."
    elif weights:
        hint = f"Weights alone do not tell their architecture: name it, as in ViT-B-16@{weights[0][:80]}"
    return WeightsNotFound(
        f"the model folder {folder.name!r} has no {CONFIG_NAME} (open_clip) and no {CONFIG} with a model_type "
        f"(transformers); {_found(folder)}",
        hint=hint,
    )


def _found(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.name.isprintable() and len(path.name) <= _MOST_NAME)
    more = f" and {len(names) - _MOST_FOUND} more" if len(names) > _MOST_FOUND else ""
    return f"it has {', '.join(names[:_MOST_FOUND])}{more}" if names else "it is empty"


def _resolve_architecture(architecture: str, checkpoint: str) -> ModelSource:
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1)
        raise WeightsNotFound(
            f"open_clip has no architecture {architecture!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    path = _expanded(checkpoint)
    if path.is_file():
        checkpoint = str(path.resolve())
    elif checkpoint not in open_clip.list_pretrained_tags_by_model(architecture):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise WeightsNotFound(f"{checkpoint!r} is neither a file nor a tag of {architecture} (tags: {tags})")
    name = f"{architecture}@{Path(checkpoint).name}"
    return ModelSource(name, f"{architecture}@{checkpoint}", architecture=architecture, checkpoint=checkpoint)
