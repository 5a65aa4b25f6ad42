"""Pairs files in, training rows out: texts, attributes, split by patient, and pixels in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.labels import LabelSet
from retrieval.preprocess import Preprocess
from retrieval.training.config import Source

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One image and what is known of it. `texts` are (text, weight); `labels` an index per label set, -1 if unknown."""

    image: Path
    group: str
    split: str
    source: int
    texts: tuple[tuple[str, float], ...]
    labels: tuple[int, ...] = ()

    @property
    def caption(self) -> str:
        """The first text: the one that evaluation asks for."""
        return self.texts[0][0]


@dataclass(frozen=True)
class Corpus:
    """All rows of a run, with the SHA-256 of each pairs file."""

    rows: tuple[Row, ...]
    digests: dict[str, str] = field(default_factory=dict)

    def of_split(self, split: str) -> npt.NDArray[np.int64]:
        return np.array([i for i, row in enumerate(self.rows) if row.split == split], np.int64)


def read_corpus(sources: Sequence[Source], label_sets: Sequence[LabelSet]) -> Corpus:
    """Read all pairs files. Raises TrainingError for a file that is missing or malformed, a source without a training
    row, or a group that lies on both sides of the split."""
    rows: list[Row] = []
    digests: dict[str, str] = {}
    for number, source in enumerate(sources):
        content = _read(source.pairs)
        digests[str(Path(*source.pairs.parts[-2:]))] = hashlib.sha256(content).hexdigest()
        found = [
            _row(line, at, number, source, label_sets)
            for at, line in enumerate(content.splitlines(), 1)
            if line.strip()
        ]
        if not any(row.split == "train" for row in found):
            raise TrainingError(f"{source.pairs.name} has no row whose split is 'train'")
        rows.extend(row for row in found if row.texts)
    _refuse_leaks(rows)
    return Corpus(tuple(rows), digests)


def cache_pixels(rows: Sequence[Row], preprocess: Preprocess, path: Path, progress: Progress) -> npt.NDArray[np.uint8]:
    """All images as grey uint8 [N, height, width], fitted as `preprocess` says, memory-mapped from `path`.

    The file is made once per set of rows and size; a resumed run maps what is there.
    """
    height, width = preprocess.size
    shape = (len(rows), height, width)
    key = hashlib.sha256(json.dumps([preprocess.to_json(), [str(r.image) for r in rows]]).encode()).hexdigest()
    stamp = path.with_suffix(".key")
    if path.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return np.memmap(path, np.uint8, "r", shape=shape)
    stamp.unlink(missing_ok=True)
    pixels = np.memmap(path, np.uint8, "w+", shape=shape)
    for i, row in enumerate(rows):
        try:
            with Image.open(row.image) as picture:
                pixels[i] = preprocess.fit(np.asarray(picture.convert("L")))
        except (OSError, ValueError) as exc:
            raise TrainingError(f"the training image {row.image.name!r} can't be read: {exc}") from exc
        progress("reading images", i + 1, len(rows))
    pixels.flush()
    stamp.write_text(key, encoding="utf-8")
    return np.memmap(path, np.uint8, "r", shape=shape)


def epoch_order(corpus: Corpus, sources: Sequence[Source], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Row numbers of one epoch in random order: a function of seed and epoch alone, so that a run can be resumed."""
    rng = np.random.default_rng([seed, epoch])
    parts = []
    for number, source in enumerate(sources):
        mine = np.array([i for i, r in enumerate(corpus.rows) if r.source == number and r.split == "train"], np.int64)
        if source.sample is not None and source.sample < len(mine):
            mine = rng.choice(mine, source.sample, replace=False)
        parts.append(mine)
    order = np.concatenate(parts)
    rng.shuffle(order)
    return order


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise TrainingError(
            f"the pairs file {Path(*path.parts[-2:])} can't be read: {exc.strerror}",
            hint="Pairs files are looked for in the folder given with --data, else beside the configuration.",
        ) from exc


def _row(line: bytes, at: int, number: int, source: Source, label_sets: Sequence[LabelSet]) -> Row:
    where = f"{source.pairs.name}, line {at}"
    try:
        values: dict[str, Any] = json.loads(line)
        image, group = source.pairs.parent / values["image"], str(values["group"])
    except (ValueError, TypeError) as exc:
        raise TrainingError(f"{where} is no JSON object: {exc}") from exc
    except KeyError as exc:
        raise TrainingError(f"{where} has no {exc.args[0]!r}, expected image, group and a text") from exc
    split = str(values.get("split") or "train")
    texts = [(" ".join(str(values[f]).split()), w) for f, w in source.texts.items() if str(values.get(f) or "").strip()]
    lowered = {k: str(v).casefold() for k, v in values.items() if v not in (None, "")}
    # A template that names a field which this row lacks says nothing about it.
    texts += [(t.format(**lowered), w) for t, w in source.templates.items() if _fields_of(t) <= lowered.keys()]
    labels = []
    for label_set in label_sets:
        fieldname = source.attributes.get(label_set.name)
        value = values.get(fieldname) if fieldname else source.constants.get(label_set.name)
        index = label_set.label_of(value) if value else None
        labels.append(-1 if index is None else index)
    return Row(image, group, split, number, tuple(texts), tuple(labels))


def _fields_of(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _refuse_leaks(rows: Sequence[Row]) -> None:
    train = {row.group for row in rows if row.split == "train"}
    both = sorted({row.group for row in rows if row.split != "train"} & train)
    if both:
        raise TrainingError(
            f"{len(both)} groups lie on both sides of the split (first: {both[0]!r})",
            hint="Split by patient: all rows of a group belong to one side.",
        )
