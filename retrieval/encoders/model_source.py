"""From a model's name to where it lies: what is shipped, a folder, a hub, or one of open_clip's architectures.

A model folder is what open_clip calls `local-dir:` (open_clip_config.json, weights, tokenizer); the key "medlens" of
its configuration adds the model's name and render profile. Its files are read as data: see `model_config`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from retrieval.encoders import hub
from retrieval.encoders.config_rules import is_repository
from retrieval.encoders.model_config import CONFIG_NAME, read_config
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
        hint="Name a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT; `medlens models` lists what is at hand.",
    )


def render_profile_of(source: ModelSource) -> RenderProfile:
    """The render profile of a model, read from its configuration alone. Raises as loading it does."""
    try:
        if source.folder is not None:
            return read_config(source.folder).render_profile
        if source.repository is None:
            return RenderProfile()
        path = hub.first_file(source.repository, (CONFIG_NAME,), download=True)
        if path is None:
            raise WeightsNotFound(f"the repository of {source.name!r} has no {CONFIG_NAME}")
        return read_config(path.parent).render_profile
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
    if not (folder / CONFIG_NAME).is_file():
        what = f"has no {CONFIG_NAME}" if folder.is_dir() else "does not exist"
        raise WeightsNotFound(
            f"the model folder {folder.name!r} {what}",
            hint="A model folder is what `medlens train` writes, or a download of an open_clip model from a hub.",
        )
    if weights_in(folder) is None:
        raise WeightsNotFound(
            f"the model folder {folder.name!r} has no weights, expected one of {', '.join(WEIGHTS_NAMES)}",
            hint="The download or the training run may be unfinished.",
        )
    return ModelSource(folder.resolve().name, f"local-dir:{folder.resolve()}", folder=folder.resolve())


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
