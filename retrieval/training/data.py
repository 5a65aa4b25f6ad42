"""Reads pairs files into training rows (texts, attributes, split by patient) and caches their pixels in one file."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import TrainingError
from retrieval.language.captions import sentences_of
from retrieval.language.figures import shares_of_caption
from retrieval.on_disk import written_whole
from retrieval.row_files import FileLine, RowFile, read_row_file
from retrieval.training.config import Source
from retrieval.zeroshot.labels import LabelSet

Progress = Callable[[str, int, int], None]
SPLITS = ("train", "dev", "test")
_READ_AHEAD = 256  # images


@dataclass(frozen=True)
class TrainingRow:
    """One image with its texts (text, weight) and labels: an index per label set, -1 if unknown."""

    image: Path
    group: str
    split: str
    source: int
    texts: tuple[tuple[str, float], ...]
    labels: tuple[int, ...] = ()
    line: int = 0  # the line in its file; 0 for an image from a folder

    @property
    def caption(self) -> str:
        """The first text, which evaluation uses."""
        return self.texts[0][0]


@dataclass(frozen=True)
class Corpus:
    """All rows of a run, and the SHA-256 of each pairs file by the name of its source (`source_names`)."""

    rows: tuple[TrainingRow, ...]
    digests: dict[str, str] = field(default_factory=dict)

    def of_split(self, split: str) -> npt.NDArray[np.int64]:
        return np.array([i for i, row in enumerate(self.rows) if row.split == split], np.int64)


def read_corpus(sources: Sequence[Source], label_sets: Sequence[LabelSet]) -> Corpus:
    """Read all pairs files. Rows without any of the texts of their source are left out.

    Raises TrainingError for a missing or malformed file, for a label set that the run does not have, for a source
    without a training row, and for a group that is on both sides of the split.
    """
    rows: list[TrainingRow] = []
    digests: dict[str, str] = {}
    names = [label_set.name for label_set in label_sets]
    for number, (name, source) in enumerate(zip(source_names(sources), sources, strict=True)):
        unknown = sorted({*source.attributes, *source.constants}.difference(names))
        if unknown:
            raise TrainingError(
                f"{source.pairs.name} has attributes for {', '.join(unknown)}, which is not a label set of the run; "
                f"its label sets are: {', '.join(names) or 'none'}",
                hint="Add the label set under label_sets, or remove the attribute.",
            )
        if source.store is not None and source.pairs == Path():
            raise TrainingError(
                "a store can't be read as a pairs file; its images and reports must be exported first",
                hint="`medlens train` exports them. In Python, use medlens.export_pairs.",
            )
        file = read_pairs_file(source.pairs)
        digests[name] = file.sha256
        taken = [line for line in file.lines if _is_taken(line, source)]
        found = [row for line in taken if (row := _row(line, number, source, label_sets)).texts]
        if not any(row.split == "train" for row in found):
            raise TrainingError(
                f"{source.pairs.name} has no row of the split 'train' with a text",
                hint=f"The fields with texts are: {', '.join([*source.texts, *source.templates]) or 'none'}"
                + (f", in rows whose {', '.join(source.only)} is one of `only`." if source.only else "."),
            )
        rows.extend(found)
    _refuse_leaks(rows)
    return Corpus(tuple(rows), digests)


def cache_pixels(
    rows: Sequence[TrainingRow], preprocess: Preprocess, path: Path, progress: Progress
) -> npt.NDArray[np.uint8]:
    """All images as grey uint8 [N, height, width], fitted by `preprocess` and memory-mapped from `path`.

    The file is written once per set of rows and size. A resumed run maps the existing file.
    """
    height, width = preprocess.size
    shape = (len(rows), height, width)
    if not rows:
        return np.zeros(shape, np.uint8)
    key = hashlib.sha256(json.dumps([preprocess.to_json(), [str(r.image) for r in rows]]).encode()).hexdigest()
    stamp = path.with_suffix(".key")
    if path.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return np.memmap(path, np.uint8, "r", shape=shape)
    stamp.unlink(missing_ok=True)
    with written_whole(path, alone=True) as made:  # a new file, because truncating a mapped file would crash its reader
        pixels = np.memmap(made, np.uint8, "w+", shape=shape)
        with ThreadPoolExecutor() as threads:  # decoding and resizing release the GIL
            for start in range(0, len(rows), _READ_AHEAD):
                read = threads.map(lambda row: preprocess.fit(read_grey(row)), rows[start : start + _READ_AHEAD])
                for i, picture in enumerate(read, start):
                    pixels[i] = picture
                    progress("reading images", i + 1, len(rows))
        pixels.flush()
    stamp.write_text(key, encoding="utf-8")
    return np.memmap(path, np.uint8, "r", shape=shape)


def read_grey(row: TrainingRow) -> npt.NDArray[np.uint8]:
    """The image of a row at its own size, grey [H, W] uint8. Raises TrainingError if it can't be read."""
    try:
        with Image.open(row.image) as picture:
            if picture.mode[:1] in "IF":  # Pillow would clip its values to white
                raise ValueError(f"its pixels have the mode {picture.mode}, expected 8 bits per channel")
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as exc:
        raise TrainingError(f"the training image {row.image.name!r} can't be read: {exc}") from exc


def source_names(sources: Sequence[Source]) -> list[str]:
    """A distinct name for each source: its folder, with the file name and a number where needed."""
    names = [source.pairs.parent.name for source in sources]
    if len(set(names)) < len(names):
        names = ["/".join(source.pairs.parts[-2:]) for source in sources]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    return names


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


def read_pairs_file(path: Path) -> RowFile:
    """Read the rows of a source. Raises TrainingError for a row without an image, a group or one of SPLITS."""
    file = read_row_file(
        path,
        what="pairs file",
        error=TrainingError,
        name="/".join(path.parts[-2:]),
        hint="Pairs files are searched in the folder of --data, by default beside the configuration.",
    )
    for line in file.lines:
        line.require("image", "group", error=TrainingError)
        require_split(line)
    return file


def require_split(line: FileLine) -> None:
    if line.split not in SPLITS:
        raise TrainingError(f"{line} has the split {line.split!r}, expected one of {', '.join(SPLITS)}")


def _is_taken(line: FileLine, source: Source) -> bool:
    if not source.judged and line.split != "train":
        return False
    return all(line.text(name) in values for name, values in source.only.items())


def _row(line: FileLine, number: int, source: Source, label_sets: Sequence[LabelSet]) -> TrainingRow:
    values = line.values
    texts = [(text, weight) for name, weight in source.texts.items() if (text := line.text(name))]
    lowered = {k: str(v).casefold() for k, v in values.items() if v not in (None, "")}
    # A template is left out if the row lacks one of its fields.
    texts += [(t.format(**lowered), w) for t, w in source.templates.items() if _fields_of(t) <= lowered.keys()]
    for name, weight in source.captions.items():
        texts += [(text, weight * share) for text, share in shares_of_caption(line.text(name))]
    for name, weight in source.sentences.items():
        found = sentences_of(line.text(name))
        texts += [(sentence, weight / len(found)) for sentence in found]
    labels = []
    for label_set in label_sets:
        template = source.attributes.get(label_set.name)
        if template is None:
            value = source.constants.get(label_set.name)
        elif "{" in template:
            value = template.format(**lowered) if _fields_of(template) <= lowered.keys() else None
        else:
            value = values.get(template)
        index = label_set.label_of(value) if value else None
        labels.append(-1 if index is None else index)
    image = source.pairs.parent / str(values["image"])
    return TrainingRow(image, line.text("group"), line.split, number, tuple(texts), tuple(labels), line.number)


def _fields_of(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _refuse_leaks(rows: Sequence[TrainingRow]) -> None:
    trained = {row.group: row.line for row in rows if row.split == "train"}
    held = {row.group: row.line for row in rows if row.split != "train" and row.group in trained}
    if held:
        group, line = next(iter(held.items()))
        raise TrainingError(
            f"{len(held)} groups are on both sides of the split (the first: lines {trained[group]} and {line})",
            hint="Split by patient: all rows of a group belong to one split.",
        )
