"""Label sets: the labels of a zero-shot classification, and the prompts for each label.

A label set is a small YAML file. With `kind: exclusive`, exactly one label is right (CT or MR) and the labels compete.
With `kind: independent`, the labels are findings, and any number of them can be present. Each finding is classified
alone, by its `prompts` against its `absent` prompts, as CheXzero does (Tiu et al. 2022).

Several prompts per label make the result depend less on one wording. Their embeddings are averaged, as CLIP does
(Radford et al. 2021, section 3.1.4).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retrieval.bounded import read_bytes
from retrieval.errors import LabelSetError
from retrieval.neutral import shortened
from retrieval.resources import data_folder

MOST_BYTES = 1_000_000  # the size of a label file; the largest shipped one has 3,000 bytes

_MOST_EXPLAINED = 10  # things that are wrong, in one message
NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]


ABSENT = ("normal", "no {label}", "normal, no {label}")
"""The absent prompts of a finding without its own. They contain "normal", because models of this kind hardly respond to
"no" (benchmarks/zero_shot.py has the figures)."""


class Label(BaseModel):
    """One label: its name, its prompts, and the attribute values that mean it (`CR`, `DX`: radiograph).

    `absent` has the prompts for the absence of a finding; without them, those of `ABSENT` are used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NonEmpty
    prompts: tuple[NonEmpty, ...] = Field(min_length=1)
    values: tuple[NonEmpty, ...] = ()
    absent: tuple[NonEmpty, ...] = ()

    @property
    def absent_prompts(self) -> tuple[str, ...]:
        return self.absent or tuple(prompt.format(label=self.name) for prompt in ABSENT)


class LabelSet(BaseModel):
    """Labels with a name and a title. `kind` says whether the labels are exclusive or independent findings.

    `modalities` are the DICOM codes of the images that the set is meant for; empty if it is meant for all images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NonEmpty
    title: str = ""
    kind: Literal["exclusive", "independent"] = "exclusive"
    modalities: tuple[NonEmpty, ...] = ()
    labels: tuple[Label, ...] = Field(min_length=1)

    @property
    def independent(self) -> bool:
        return self.kind == "independent"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that changes a score: the kind, the labels and their prompts."""
        labels = [[x.name, x.prompts, x.absent_prompts if self.independent else ()] for x in self.labels]
        return hashlib.sha256(json.dumps([self.kind, labels]).encode()).hexdigest()

    @model_validator(mode="after")
    def _a_choice(self) -> LabelSet:
        if not self.independent and len(self.labels) < 2:
            raise ValueError(
                "labels: an exclusive set needs at least 2 labels; for a single finding, use kind: independent"
            )
        if not self.independent and (odd := [label.name for label in self.labels if label.absent]):
            raise ValueError(f"the label {odd[0]!r} has absent prompts, which only kind: independent allows")
        return self

    @model_validator(mode="after")
    def _no_label_twice(self) -> LabelSet:
        counts = Counter(label.name.casefold() for label in self.labels)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"these labels occur twice: {shortened(twice)}")
        return self

    @model_validator(mode="after")
    def _no_value_of_two_labels(self) -> LabelSet:
        owner: dict[str, str] = {}
        for label in self.labels:
            for value in {v.casefold() for v in (label.name, *label.values)}:
                if owner.setdefault(value, label.name) != label.name:
                    means = f"both {shortened([owner[value]])!r} and {shortened([label.name])!r}"
                    raise ValueError(f"the value {shortened([value])!r} means {means}")
        return self

    def label_of(self, value: object) -> int | None:
        """The index of the label that an attribute value means; None if no label has this value."""
        return self._index_of.get(str(value).casefold())

    @cached_property
    def _index_of(self) -> dict[str, int]:
        """The index of each label by its name and values. Copies of a set share it, so a copy must not change its
        labels."""
        found: dict[str, int] = {}
        for i, label in enumerate(self.labels):
            for name in (label.name, *label.values):
                found.setdefault(name.casefold(), i)
        return found


def shipped_label_sets() -> dict[str, Path]:
    """The label sets that are part of medlens, by name."""
    return {path.stem: path for path in sorted((data_folder() / "labels").glob("*.yaml"))}


def load_labels(name_or_file: str, *, independent: bool = False) -> LabelSet:
    """A label set: a shipped set by name, a YAML file, or inline labels separated by commas ("pneumothorax, normal").

    `independent` makes inline labels independent findings; a set from a file has a kind of its own. Raises
    LabelSetError for a label set that does not exist or is not valid.
    """
    text = name_or_file.strip()
    found = _load(text, independent)
    if independent and not found.independent:
        raise LabelSetError(
            f"the labels of {found.name!r} are exclusive, expected independent findings",
            hint="Remove --independent, or write a label file of your own with kind: independent.",
        )
    return found


def _load(text: str, independent: bool) -> LabelSet:
    shipped = shipped_label_sets()
    if text in shipped:
        return _read(shipped[text])
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        return _read(path)
    if "," in text:
        names = [part.strip() for part in text.split(",") if part.strip()]
        if not names:
            raise LabelSetError("--labels has no label between the commas")
        kind = "independent" if independent else "exclusive"
        labels = [{"name": n, "prompts": [n]} for n in names]
        return _validated({"name": "inline", "kind": kind, "labels": labels}, "--labels")
    near = difflib.get_close_matches(text, shipped, n=1)
    raise LabelSetError(
        f"there is no label set {text!r}: it is neither a file nor one of the shipped sets {', '.join(shipped)}"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        hint='Name a shipped set, a YAML file, or the labels themselves: --labels "pneumothorax, normal".',
    )


def single_phrasings(labels: LabelSet) -> tuple[LabelSet, ...]:
    """Copies of the set with one prompt per label: the i-th copy has the i-th prompt (the last, if there are fewer).

    The spread of a figure over the copies shows how much it depends on the wording.
    """

    def with_one_prompt(label: Label, i: int) -> Label:
        absent = label.absent_prompts[min(i, len(label.absent_prompts) - 1)]
        one = {"prompts": (label.prompts[min(i, len(label.prompts) - 1)],)}
        return label.model_copy(update=one | ({"absent": (absent,)} if labels.independent else {}))

    most = max(len(label.prompts) for label in labels.labels)
    return tuple(
        labels.model_copy(update={"labels": tuple(with_one_prompt(label, i) for label in labels.labels)})
        for i in range(most)
    )


def plain_softmax(labels: LabelSet) -> LabelSet:
    """The labels as an exclusive set with their bare names as prompts: common practice, as a baseline."""
    bare = tuple(label.model_copy(update={"prompts": (label.name,), "absent": ()}) for label in labels.labels)
    return labels.model_copy(update={"kind": "exclusive", "labels": bare})


def _is_file(path: Path) -> bool:
    """Whether the path is an existing file. False for a text that is too long for a path, such as a list of labels."""
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError):  # RuntimeError: ~name of an unknown user
        return False


class _Plain(yaml.SafeLoader):
    """YAML without aliases, because a few bytes of aliases can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"the alias *{event.anchor} is not allowed; write the value itself")
        return super().compose_node(parent, index)


def _read(path: Path) -> LabelSet:
    try:
        values = yaml.load(read_bytes(path.expanduser(), MOST_BYTES).decode("utf-8-sig"), _Plain)
    except (OSError, RuntimeError) as exc:
        if isinstance(exc, RecursionError):
            raise LabelSetError(f"the label file {path.name!r} is nested too deeply") from exc
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise LabelSetError(f"the label file {path.name!r} can't be read: {why}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: not UTF-8, or a date such as 2001-13-01
        raise LabelSetError(f"the label file {path.name!r} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise LabelSetError(
            f"the label file {path.name!r} contains a {type(values).__name__}, expected the keys name, kind and labels"
        )
    return _validated(values, path.name, "docs/label.md shows a label file with its keys.")


def _validated(values: dict[str, Any], where: str, hint: str = "") -> LabelSet:
    try:
        return LabelSet.model_validate(values)
    except ValidationError as exc:
        raise LabelSetError(f"{where}: {explain(exc)}", hint=hint) from exc


def explain(exc: ValidationError) -> str:
    """The errors of pydantic in one line, each with its place."""
    parts, errors = [], exc.errors(include_url=False, include_input=False)
    places = [error["loc"] for error in errors]
    # A list whose only items are invalid is "too short" as well, which says nothing new.
    errors = [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(place[: len(error["loc"])] == error["loc"] != place for place in places)
    ]
    for error in errors[:_MOST_EXPLAINED]:
        place = ".".join(str(p)[:60] for p in error["loc"])
        message = error["msg"].removeprefix("Value error, ")
        message = "unknown key" if error["type"] == "extra_forbidden" else message
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts) + (f"; and {len(errors) - len(parts)} more" if len(errors) > len(parts) else "")
