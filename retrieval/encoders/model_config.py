"""open_clip_config.json, read as a stranger's data: what is not in the tables of `config_rules` is refused.

Cheap on purpose: a search in words reads it from cold, without torch, open_clip or pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.bounded import read_json
from retrieval.encoders import config_rules as rules
from retrieval.encoders.config_rules import NEEDED, Rule
from retrieval.encoders.one_tower import require_both_configured
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import profile_from_json
from retrieval.errors import EncoderError
from retrieval.types import RenderProfile

CONFIG_NAME = "open_clip_config.json"
MOST_CONFIG = 1 << 20  # bytes; open_clip's largest has some 1,500
_MOST_SHOWN = 60
_MOST_NAME = 200
_MOST_WINDOWS = 1000
# What open_clip takes where preprocess_cfg is silent: OpenAI's figures.
_PREPROCESS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


@dataclass(frozen=True)
class ModelConfig:
    """A model's configuration, every key known and every value within its bounds.

    `model` is open_clip's `model_cfg`. `name` is what the model calls itself, empty if it does not say.
    """

    model: Mapping[str, Any]
    preprocess: Preprocess
    name: str = ""
    render_profile: RenderProfile = RenderProfile()
    stated_preprocess: Mapping[str, Any] = field(default_factory=dict)  # `preprocess_cfg` as it is written, checked

    @property
    def embed_dim(self) -> int:
        return int(self.model["embed_dim"])

    @property
    def text(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.model["text_cfg"]
        return found

    @property
    def vision(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.model["vision_cfg"]
        return found

    @property
    def hugging_face_text(self) -> bool:
        """Whether the text tower is one of transformers', whose config.json is needed."""
        return bool(self.text.get("hf_model_name"))

    @property
    def own_tokenizer(self) -> bool:
        """Whether texts are cut by CLIP's byte pairs, which come with open_clip, and not by files of the model's."""
        return not self.text.get("hf_tokenizer_name")

    @property
    def context_length(self) -> int:
        return int(self.text.get("context_length", rules.TEXT_OWN["context_length"].default))

    def identity(self) -> dict[str, Any]:
        """What of it changes an embedding, without defaults: two ways to say the same are one."""
        timm = bool(self.vision.get("timm_model_name"))
        text = (rules.TEXT_HUGGING_FACE if self.hugging_face_text else rules.TEXT_OWN) | rules.TEXT_TOKENIZER
        quick = bool(self.model.get("quick_gelu")) and not (timm and self.hugging_face_text)
        return {
            "vision": counting(self.vision, rules.VISION_TIMM if timm else rules.VISION_OWN),
            "text": counting(self.text, text),
            **({"quick_gelu": True} if quick else {}),
        }


def read_config(folder: Path) -> ModelConfig:
    """The configuration in a model folder. Raises EncoderError if it is none, or beyond what is known."""
    try:
        values = read_json(folder / CONFIG_NAME, MOST_CONFIG)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)[:200]
        raise EncoderError(f"{CONFIG_NAME} of model {folder.name!r} can't be read: {why}") from exc
    if not isinstance(values, dict) or not isinstance(values.get("model_cfg"), dict):
        raise EncoderError(f"{CONFIG_NAME} of model {folder.name!r} has no 'model_cfg', which open_clip expects")
    return config_from(values, folder.name)


def config_from(values: Mapping[str, Any], model: str) -> ModelConfig:
    """The same from its values: `model_cfg`, and `preprocess_cfg` and `medlens` where they are. `model` is for errors.

    Only what is in the tables is kept of `model_cfg`; other keys beside it are nobody's and are left.
    """
    require_both_configured(values["model_cfg"], model)
    cfg = checked(values["model_cfg"], rules.MODEL, model, "model_cfg")
    vision = checked(cfg["vision_cfg"], rules.VISION_OWN | rules.VISION_TIMM, model, "vision_cfg")
    foreign = bool(cfg["text_cfg"].get("hf_model_name"))
    kinds = (rules.TEXT_OWN, rules.TEXT_HUGGING_FACE) if foreign else (rules.TEXT_HUGGING_FACE, rules.TEXT_OWN)
    text = checked(cfg["text_cfg"], kinds[0] | kinds[1] | rules.TEXT_TOKENIZER, model, "text_cfg")
    cfg |= {"vision_cfg": vision, "text_cfg": text}
    if cfg.get("multimodal_cfg") is not None:
        cfg["multimodal_cfg"] = checked(cfg["multimodal_cfg"], rules.MULTIMODAL, model, "multimodal_cfg")
    _require_bounded_places(vision, model)
    stated = values.get("preprocess_cfg") or {}
    if not isinstance(stated, dict):
        raise refusal(model, "preprocess_cfg", stated, "an object")
    stated = {key: one for key, one in stated.items() if key in rules.PREPROCESS}  # open_clip leaves others, too
    stated = checked(stated, rules.PREPROCESS, model, "preprocess_cfg")
    size = vision.get("image_size", rules.VISION_OWN["image_size"].default)  # the tower's, whatever else is stated
    kept = {key: one for key, one in stated.items() if one is not None}
    preprocess = Preprocess.from_open_clip(_PREPROCESS | kept | {"size": size})
    name, profile = medlens_part(values.get("medlens", {}), model)
    return ModelConfig(cfg, preprocess, name, profile, stated)


def checked(values: Any, table: Mapping[str, Rule], model: str, where: str) -> dict[str, Any]:
    """The values, all of which are keys of the table and hold by it. Raises EncoderError for the first that is not."""
    if not isinstance(values, dict):
        raise refusal(model, where, values, "an object")
    for key, value in values.items():
        rule = table.get(key)
        if rule is None:
            raise refusal(model, where, key, f"only {', '.join(table)}", what="has the key")
        if not rule.holds(value):
            raise refusal(model, f"{where}.{key}", value, rule.expected)
    missing = [key for key, rule in table.items() if rule.default is NEEDED and key not in values]
    if missing:
        raise EncoderError(f"the model {model!r} can't be loaded: {where} has no {', '.join(missing)}")
    return dict(values)


def counting(values: Mapping[str, Any], table: Mapping[str, Rule]) -> dict[str, Any]:
    """Of checked values, those that change an embedding and are not what holds without them."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in values.items()
        if key in table and table[key].counts and value != table[key].default
    }


def refusal(model: str, where: str, seen: Any, expected: str, *, what: str = "is") -> EncoderError:
    """That something in a model's files is not what it may be."""
    shown = repr(seen)
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
    return EncoderError(
        f"the model {model!r} can't be loaded: {where} {what} {shown}, expected {expected[:400]}",
        hint="The files of a model are data with limits. Check where they come from, or correct this value.",
    )


def _require_bounded_places(vision: Mapping[str, Any], model: str) -> None:
    """An image tower's positions take memory by the square of its sides."""
    if vision.get("timm_model_name") or isinstance(vision.get("layers"), list):
        return
    size, patch = vision.get("image_size", 224), vision.get("patch_size") or 16
    height, width = size if isinstance(size, list) else (size, size)
    if (height // patch) * (width // patch) > rules.MOST_PLACES:
        raise refusal(model, "vision_cfg.patch_size", patch, f"at most {rules.MOST_PLACES:,} patches in {size} pixels")


def medlens_part(info: Any, model: str) -> tuple[str, RenderProfile]:
    """Name and render profile: what medlens adds to a configuration."""
    if not isinstance(info, dict):
        raise refusal(model, "medlens", info, "an object")
    name = info.get("name", "")
    if not isinstance(name, str) or len(name) > _MOST_NAME or not name.isprintable():
        raise refusal(model, "medlens.name", name, f"a text of at most {_MOST_NAME} printable characters")
    stated = info.get("render_profile")
    if stated is None:
        return name, RenderProfile()
    try:
        if sum(len(windows) for windows in stated.get("windows", {}).values()) > _MOST_WINDOWS:
            raise ValueError("too many windows")
        return name, profile_from_json(stated)
    except (ValueError, TypeError, LookupError, AttributeError) as exc:
        expected = "a profile as `medlens train` writes it: name, windows by modality, percentiles"
        raise refusal(model, "medlens.render_profile", stated, expected) from exc
