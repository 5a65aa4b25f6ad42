"""Label sets: what zero-shot classification chooses from, and how each label is said.

A label set is a small YAML file. Several phrasings per label make the answer depend less on one wording; they are
averaged in embedding space, as CLIP does (Radford et al. 2021, section 3.1.4).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retrieval.errors import LabelSetError
from retrieval.resources import data_folder

NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Label(BaseModel):
    """One label: its name, the prompts that say it, the attribute values that mean it (`CR`, `DX`: radiograph)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NonEmpty
    prompts: tuple[NonEmpty, ...] = Field(min_length=1)
    values: tuple[NonEmpty, ...] = ()


class LabelSet(BaseModel):
    """Labels of which exactly one holds for an image (softmax over them is meaningful), with a name and a title."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NonEmpty
    title: str = ""
    labels: tuple[Label, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _no_label_twice(self) -> LabelSet:
        names = [label.name.casefold() for label in self.labels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"labels given twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _no_value_of_two_labels(self) -> LabelSet:
        owner: dict[str, str] = {}
        for label in self.labels:
            for value in {v.casefold() for v in (label.name, *label.values)}:
                if owner.setdefault(value, label.name) != label.name:
                    raise ValueError(f"the value {value!r} means both {owner[value]!r} and {label.name!r}")
        return self

    def label_of(self, value: object) -> int | None:
        """Index of the label that an attribute value means, None if there is none."""
        wanted = str(value).casefold()
        for i, label in enumerate(self.labels):
            if wanted == label.name.casefold() or wanted in (v.casefold() for v in label.values):
                return i
        return None


def shipped_label_sets() -> dict[str, Path]:
    """Label sets that came with medlens, by name."""
    return {path.stem: path for path in sorted((data_folder() / "labels").glob("*.yaml"))}


def load_labels(name_or_file: str) -> LabelSet:
    """A shipped label set by name, a YAML file, or labels inline, separated by commas ("pneumothorax, normal").

    Raises LabelSetError with what is wrong and where.
    """
    text = name_or_file.strip()
    shipped = shipped_label_sets()
    if text in shipped:
        return _read(shipped[text])
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        return _read(path)
    if "," in text:
        names = [part.strip() for part in text.split(",") if part.strip()]
        return _validated({"name": "inline", "labels": [{"name": n, "prompts": [n]} for n in names]}, "--labels")
    near = difflib.get_close_matches(text, shipped, n=1)
    raise LabelSetError(
        f"there is no label set {text!r}: it is none of {', '.join(shipped)} and no file"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        hint='Name a shipped set, a YAML file, or the labels themselves: --labels "pneumothorax, normal".',
    )


def _is_file(path: Path) -> bool:
    """Whether a file lies there. A text that is too long for a path, such as a list of many labels, is none."""
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError):  # RuntimeError: ~name of nobody
        return False


def _read(path: Path) -> LabelSet:
    try:
        values = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise LabelSetError(f"the label file {path.name!r} can't be read: {why}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: no UTF-8, or a date such as 2001-13-01
        raise LabelSetError(f"the label file {path.name!r} is no YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise LabelSetError(
            f"the label file {path.name!r} holds {type(values).__name__}, expected keys name and labels"
        )
    return _validated(values, path.name)


def _validated(values: dict[str, Any], where: str) -> LabelSet:
    try:
        return LabelSet.model_validate(values)
    except ValidationError as exc:
        raise LabelSetError(f"{where}: {explain(exc)}") from exc


def explain(exc: ValidationError) -> str:
    """pydantic's complaints in one line: where, and what."""
    parts = []
    for error in exc.errors(include_url=False, include_input=False):
        place = ".".join(str(p) for p in error["loc"])
        message = error["msg"].removeprefix("Value error, ")
        message = "unknown key" if error["type"] == "extra_forbidden" else message
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)
