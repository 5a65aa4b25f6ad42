"""Label sets: what zero-shot classification chooses from, and how each label is said.

A label set is a small YAML file. `kind: exclusive` is a choice, of which one label holds (CT or MR): its labels
compete. `kind: independent` are findings of which any number may hold: each is judged alone, its `prompts` against its
`absent` prompts, as CheXzero does (Tiu et al. 2022), so that one finding takes nothing from another.

Several phrasings per label make the answer depend less on one wording; they are averaged in embedding space, as CLIP
does (Radford et al. 2021, section 3.1.4).
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
from retrieval.resources import data_folder

MOST_BYTES = 1_000_000  # of a label file; the largest that ships has 3,000

NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]


ABSENT = ("normal", "no {label}", "normal, no {label}")
"""How the absence of a finding is said where its label set does not: with "normal" in it, since models of this kind
hardly hear the "no" (benchmarks/zero_shot.py has the figures)."""


class Label(BaseModel):
    """One label: its name, the prompts that say it, the attribute values that mean it (`CR`, `DX`: radiograph), and
    for a finding the prompts that say it is not there (without them, those of `ABSENT`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NonEmpty
    prompts: tuple[NonEmpty, ...] = Field(min_length=1)
    values: tuple[NonEmpty, ...] = ()
    absent: tuple[NonEmpty, ...] = ()

    @property
    def absent_prompts(self) -> tuple[str, ...]:
        return self.absent or tuple(said.format(label=self.name) for said in ABSENT)


class LabelSet(BaseModel):
    """Labels with a name and a title. `kind`: exactly one of them holds, or each is a question of its own.

    `modalities` are DICOM's codes of the pictures that the set is meant for, none if it is meant for all."""

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
        """SHA-256 over all that changes a score: the kind, the labels and how they are said."""
        said = [[x.name, x.prompts, x.absent_prompts if self.independent else ()] for x in self.labels]
        return hashlib.sha256(json.dumps([self.kind, said]).encode()).hexdigest()

    @model_validator(mode="after")
    def _a_choice(self) -> LabelSet:
        if not self.independent and len(self.labels) < 2:
            raise ValueError("labels: a choice needs at least 2 labels; a finding alone is kind: independent")
        if not self.independent and (odd := [label.name for label in self.labels if label.absent]):
            raise ValueError(f"absent prompts are for kind: independent, and {odd[0]!r} has some")
        return self

    @model_validator(mode="after")
    def _no_label_twice(self) -> LabelSet:
        counts = Counter(label.name.casefold() for label in self.labels)
        twice = sorted(name for name, count in counts.items() if count > 1)
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
        return self._index_of.get(str(value).casefold())

    @cached_property
    def _index_of(self) -> dict[str, int]:
        """By name and value. A copy of the set keeps it, so copies change how labels are said, not which there are."""
        found: dict[str, int] = {}
        for i, label in enumerate(self.labels):
            for name in (label.name, *label.values):
                found.setdefault(name.casefold(), i)
        return found


def shipped_label_sets() -> dict[str, Path]:
    """Label sets that came with medlens, by name."""
    return {path.stem: path for path in sorted((data_folder() / "labels").glob("*.yaml"))}


def load_labels(name_or_file: str, *, independent: bool = False) -> LabelSet:
    """A shipped label set by name, a YAML file, or labels inline, separated by commas ("pneumothorax, normal").

    `independent` makes inline labels findings of which any number may hold; a set that is read says its own kind.
    Raises LabelSetError with what is wrong and where.
    """
    text = name_or_file.strip()
    found = _load(text, independent)
    if independent and not found.independent:
        raise LabelSetError(
            f"the label set {found.name!r} is a choice of one label, and was asked for as independent findings",
            hint="Write kind: independent in a label file of your own, or leave --independent away.",
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
            raise LabelSetError("--labels: there is no label between the commas")
        kind = "independent" if independent else "exclusive"
        labels = [{"name": n, "prompts": [n]} for n in names]
        return _validated({"name": "inline", "kind": kind, "labels": labels}, "--labels")
    near = difflib.get_close_matches(text, shipped, n=1)
    raise LabelSetError(
        f"there is no label set {text!r}: it is none of {', '.join(shipped)} and no file"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        hint='Name a shipped set, a YAML file, or the labels themselves: --labels "pneumothorax, normal".',
    )


def single_phrasings(labels: LabelSet) -> tuple[LabelSet, ...]:
    """The set once per phrasing: the i-th says each label by its i-th prompt alone (the last, where it has fewer).

    The spread of a figure over them is how much the answer hangs on the wording.
    """

    def said(label: Label, i: int) -> Label:
        absent = label.absent_prompts[min(i, len(label.absent_prompts) - 1)]
        one = {"prompts": (label.prompts[min(i, len(label.prompts) - 1)],)}
        return label.model_copy(update=one | ({"absent": (absent,)} if labels.independent else {}))

    most = max(len(label.prompts) for label in labels.labels)
    return tuple(
        labels.model_copy(update={"labels": tuple(said(label, i) for label in labels.labels)}) for i in range(most)
    )


def plain_softmax(labels: LabelSet) -> LabelSet:
    """The same labels as a choice between their bare names: what is commonly done, to compare with."""
    bare = tuple(label.model_copy(update={"prompts": (label.name,), "absent": ()}) for label in labels.labels)
    return labels.model_copy(update={"kind": "exclusive", "labels": bare})


def _is_file(path: Path) -> bool:
    """Whether a file lies there. A text that is too long for a path, such as a list of many labels, is none."""
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError):  # RuntimeError: ~name of nobody
        return False


class _Plain(yaml.SafeLoader):
    """YAML without aliases: a few bytes of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"aliases (*{event.anchor}) are not taken; write the value out")
        return super().compose_node(parent, index)


def _read(path: Path) -> LabelSet:
    try:
        values = yaml.load(read_bytes(path.expanduser(), MOST_BYTES).decode("utf-8-sig"), _Plain)
    except (OSError, RuntimeError) as exc:
        if isinstance(exc, RecursionError):
            raise LabelSetError(f"the label file {path.name!r} is nested too deeply") from exc
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise LabelSetError(f"the label file {path.name!r} can't be read: {why}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: no UTF-8, or a date such as 2001-13-01
        raise LabelSetError(f"the label file {path.name!r} is no YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise LabelSetError(
            f"the label file {path.name!r} holds {type(values).__name__}, expected keys name, kind and labels"
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
