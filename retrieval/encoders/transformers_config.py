"""The configuration of a dual encoder of transformers: config.json and preprocessor_config.json, read as data.

What loads is told by `model_type` alone, from a table of the library's own classes. Code that a folder names is never
fetched nor run; a model that can't do without is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.bounded import read_json
from retrieval.encoders import transformers_rules as rules
from retrieval.encoders.config_rules import MOST_PLACES, Rule
from retrieval.encoders.model_config import MOST_CONFIG, checked, counting, medlens_part, refusal
from retrieval.encoders.one_tower import of_one_tower
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import EncoderError
from retrieval.types import RenderProfile

CONFIG = "config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
PROCESSOR_FILES = (PREPROCESSOR, PROCESSOR)
SETTINGS = "tokenizer_config.json"
_BILINEAR = 2  # of PIL


@dataclass(frozen=True)
class TransformersConfig:
    """A dual encoder's configuration, every value known and filled in. `model_type` is a key of FAMILIES.

    `image_processor` holds the settings of the images as they are written, checked. `context_length` is in tokens. With
    `masked`, the library's tokenizer hands the tower a mask of the padding.
    """

    model_type: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    top: Mapping[str, Any]
    preprocess: Preprocess
    image_processor: Mapping[str, Any]
    context_length: int
    masked: bool
    name: str = ""
    render_profile: RenderProfile = RenderProfile()

    @property
    def family(self) -> rules.Family:
        return rules.FAMILIES[self.model_type]

    @property
    def embed_dim(self) -> int:
        return int(self.top["projection_dim"] if self.family.projects else self.vision["hidden_size"])

    @property
    def tokenizer_class(self) -> str:
        """For a tokenizer whose files name none."""
        return self.family.tokenizers[self.text.get("model_type", "")]

    def values(self) -> dict[str, Any]:
        """The config.json that the library's own class is given: nothing but what was checked."""
        return {
            "model_type": self.model_type,
            "architectures": [self.family.model_class],
            "vision_config": dict(self.vision),
            # not this text tower's, unless stated: the library's own are another vocabulary's
            "text_config": {"bos_token_id": None, "eos_token_id": None, **self.text},
            **(self.top if self.family.projects else {}),
        }

    def identity(self) -> dict[str, Any]:
        """What of it changes an embedding."""
        vision, text = self._table("vision"), self._table("text")
        return {
            "library": "transformers",
            "model_type": self.model_type,
            "vision": {"model_type": self.vision.get("model_type", ""), **counting(self.vision, vision)},
            "text": {"model_type": self.text.get("model_type", ""), **counting(self.text, text)},
            "embed_dim": self.embed_dim,
            "context_length": self.context_length,
            "masked": self.masked,
        }

    def _table(self, tower: str) -> Mapping[str, Rule]:
        tables = self.family.vision if tower == "vision" else self.family.text
        values = self.vision if tower == "vision" else self.text
        return tables["" if "" in tables else values["model_type"]]


def is_transformers(folder: Path) -> bool:
    """Whether a folder has a config.json that names a model_type, of whatever kind."""
    try:
        values = read_json(folder / CONFIG, MOST_CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and isinstance(values.get("model_type"), str)


def read_transformers_config(folder: Path, model: str) -> TransformersConfig:
    """The configuration in a folder. EncoderError if it is of a family that is not in the table, or beyond bounds."""
    values = _object(folder / CONFIG, model)
    family_name = values.get("model_type")
    family = rules.FAMILIES.get(family_name) if isinstance(family_name, str) else None
    if family is None or not isinstance(family_name, str):
        raise _unknown_family(family_name, model)
    _require_plain(values, family, model)
    vision = _tower(values, "vision", family.vision, model)
    text = _tower(values, "text", family.text, model)
    top = _filled({k: v for k, v in values.items() if k in rules.TOP}, rules.TOP, model, CONFIG)
    size, patch = vision["image_size"], vision["patch_size"]
    if (size // patch) ** 2 > MOST_PLACES or size < patch:
        raise refusal(model, "vision_config.patch_size", patch, f"1 to {MOST_PLACES:,} patches in {size} pixels")
    if not family.projects and text.setdefault("projection_size", text["hidden_size"]) != vision["hidden_size"]:
        expected = f"{vision['hidden_size']}, the width of the image tower"
        raise refusal(model, "text_config.projection_size", text["projection_size"], expected)
    stated = _processor(folder, model)
    preprocess, processor = _preprocess(stated, family, int(size), model)
    context, masked = _context(folder, text, model)
    name, profile = medlens_part(values.get("medlens", {}), model)
    return TransformersConfig(family_name, vision, text, top, preprocess, processor, context, masked, name, profile)


def _object(path: Path, model: str) -> dict[str, Any]:
    """A JSON object; EncoderError where it is none."""
    try:
        values = read_json(path, MOST_CONFIG)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)[:200]
        raise EncoderError(f"the model {model!r} can't be loaded: its {path.name} can't be read: {why}") from exc
    if not isinstance(values, dict):
        raise refusal(model, path.name, values, "an object")
    return values


def _unknown_family(seen: Any, model: str) -> EncoderError:
    known = ", ".join(rules.FAMILIES)
    hints = {
        "siglip2": "It takes images of any shape (NaFlex). Take the same model in a fixed resolution, such as "
        "google/siglip2-base-patch16-224, whose model_type is siglip.",
    }
    hint = (hints.get(seen) or of_one_tower(seen)) if isinstance(seen, str) else ""
    shown = repr(seen) if len(repr(seen)) < 80 else "something else"
    return EncoderError(
        f"the model {model!r} can't be loaded: config.json says model_type {shown}; of transformers' dual encoders, "
        f"medlens loads {known}",
        hint=hint
        or "An open_clip export of the model (open_clip_config.json and its weights) loads too, if there is one.",
    )


def _require_plain(values: Mapping[str, Any], family: rules.Family, model: str) -> None:
    """EncoderError for what the library's own class, given the numbers, would not be."""
    classes = values.get("architectures")
    if classes is not None and classes != [family.model_class]:
        raise refusal(model, f"{CONFIG}: architectures", classes, f"[{family.model_class!r}], both towers in one model")
    if values.get("auto_map") and classes is None:
        raise refusal(model, f"{CONFIG}: auto_map", "code of its own", f"architectures to say {family.model_class}")
    if values.get("quantization_config"):
        raise refusal(model, f"{CONFIG}: quantization_config", "weights of few bits", "plain weights")


def _tower(
    values: Mapping[str, Any], tower: str, tables: Mapping[str, Mapping[str, Rule]], model: str
) -> dict[str, Any]:
    """What is stated of one tower, filled in. What is unknown is left: such files hold much that concerns training."""
    key = f"{tower}_config"
    older = values.get(f"{key}_dict")  # of old files; where it is there, the library lets it win whole
    stated = older if older is not None else values.get(key) or {}
    if not isinstance(stated, dict):
        raise refusal(model, key, stated, "an object")
    kind = ""
    if "" not in tables:
        named = stated.get("model_type")
        if not isinstance(named, str) or named not in tables:
            raise refusal(model, f"{key}.model_type", named, f"one of {', '.join(tables)}")
        kind = named
    table = tables[kind]
    known = {name: value for name, value in stated.items() if name in table and value is not None}
    filled = _filled(known, table, model, key)
    if filled["hidden_size"] % filled["num_attention_heads"]:
        expected = f"a divisor of hidden_size, {filled['hidden_size']}"
        raise refusal(model, f"{key}.num_attention_heads", filled["num_attention_heads"], expected)
    return ({"model_type": kind} if kind else {}) | filled


def _filled(known: Mapping[str, Any], table: Mapping[str, Rule], model: str, where: str) -> dict[str, Any]:
    defaults = {name: rule.default for name, rule in table.items() if rule.default is not None}
    return defaults | checked(dict(known), table, model, where)


def _processor(folder: Path, model: str) -> dict[str, Any]:
    """What is stated of the preprocessing: processor_config.json where it has an image processor, as the library."""
    nested: Any = None
    if (folder / PROCESSOR).exists():
        nested = _object(folder / PROCESSOR, model).get("image_processor")
    if nested is None and (folder / PREPROCESSOR).exists():
        nested = _object(folder / PREPROCESSOR, model)
    if nested is None:
        raise EncoderError(
            f"the model {model!r} can't be loaded: it does not say how its images are prepared; looked for "
            f"{PREPROCESSOR} and for image_processor in {PROCESSOR}",
            hint="Copy the file from where the model was published: guessed sizes and colours give other embeddings.",
        )
    if not isinstance(nested, dict):
        raise refusal(model, PROCESSOR, nested, "an object")
    return nested


def _preprocess(
    stated: Mapping[str, Any], family: rules.Family, size: int, model: str
) -> tuple[Preprocess, dict[str, Any]]:
    """Our preprocessing and the library's settings. EncoderError for steps that ours does not have."""
    kind = stated.get("image_processor_type") or stated.get("feature_extractor_type") or family.image_processor
    kind = str(kind).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if kind not in rules.PROCESSORS:
        expected = f"one of {', '.join(rules.PROCESSORS)}"
        raise refusal(model, f"{PREPROCESSOR}: image_processor_type", kind, expected)
    known = {key: value for key, value in stated.items() if key in rules.PROCESSOR and value is not None}
    for key in ("size", "crop_size"):  # the library writes what is not used as null
        if isinstance(known.get(key), dict):
            known[key] = {name: one for name, one in known[key].items() if one is not None}
    checked(known, rules.PROCESSOR, model, PREPROCESSOR)
    values = rules.PROCESSORS[kind] | known
    square = kind == "ViTImageProcessor"
    resize, crop = _size(values["size"], square), _size(values.get("crop_size") or size, True)
    cropped, full = bool(values.get("do_center_crop")), {"height": size, "width": size}
    if "shortest_edge" in resize:
        fits = resize["shortest_edge"] == size and cropped and crop == full
    else:
        fits = resize == full and (not cropped or crop == full)
    if not fits:
        seen = f"a resize to {resize}, {'a crop to ' + str(crop) if cropped else 'no crop'}"
        expected = f"the image tower's {size} x {size}, squeezed to it or cropped from a shortest edge of {size}"
        raise refusal(model, PREPROCESSOR, seen, expected)
    normalised = values.get("do_normalize", True)
    preprocess = Preprocess.from_open_clip(
        {
            "size": size,
            "mean": values["image_mean"] if normalised else 0.0,
            "std": values["image_std"] if normalised else 1.0,
            "interpolation": "bilinear" if values["resample"] == _BILINEAR else "bicubic",
            "resize_mode": "shortest" if "shortest_edge" in resize else "squash",
            "crop": "floor" if "shortest_edge" in resize else "round",
        }
    )
    return preprocess, known | {"image_processor_type": kind}


def _size(value: Any, square: bool) -> dict[str, int]:
    if isinstance(value, dict):
        return dict(value)
    return {"height": value, "width": value} if square else {"shortest_edge": value}


def _context(folder: Path, text: Mapping[str, Any], model: str) -> tuple[int, bool]:
    """How many tokens are read, and whether the tokenizer hands on a mask."""
    settings = _object(folder / SETTINGS, model) if (folder / SETTINGS).exists() else {}
    places = int(text["max_position_embeddings"])
    if text.get("model_type") in ("roberta", "xlm-roberta"):
        places -= int(text["pad_token_id"]) + 1  # positions count from there
    if places < 1:
        raise refusal(model, "text_config.max_position_embeddings", text["max_position_embeddings"], "room for a token")
    stated = settings.get("model_max_length")
    longest = int(stated) if isinstance(stated, int | float) and 1 <= stated < places else places
    inputs = settings.get("model_input_names")
    return longest, not isinstance(inputs, list) or "attention_mask" in inputs
