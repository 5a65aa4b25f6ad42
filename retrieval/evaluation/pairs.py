"""Reads the rows of a pairs file and checks them for leakage: no model is evaluated on its training images.

A pairs file has one JSON object per line: `image` (a path relative to the file), a text, `group` (the patient or case),
`split`, and any other fields. Patients on both sides of a split are refused, and so are equal files. Images that only
look the same (a figure that two collections share) are counted and reported, because a threshold can be wrong.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.errors import EvaluationError
from retrieval.evaluation.rows import SEVERAL, EvaluationRows, draw_groups
from retrieval.neutral import shortened
from retrieval.row_files import TRAIN, FileLine, plain, read_row_file

FILE_NAMES = ("pairs.jsonl", "labels.jsonl")
ALL = "all"
THUMBNAIL = 32  # pixels along an edge
ALIKE = 0.99  # two images whose thumbnails have at least this correlation count as the same image
_OWN = ("image", "group", "split")

Progress = Callable[[str, int, int], None]
Fingerprint = tuple[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Pair:
    """One row of a pairs file, with the path of its image."""

    line: FileLine
    image: Path
    group: str
    split: str

    @property
    def number(self) -> int:
        return self.line.number


@dataclass(frozen=True)
class PairsFile:
    """All rows of a pairs file, and its SHA-256."""

    path: Path
    sha256: str
    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        return f"{self.path.absolute().parent.name}/{self.path.name}"

    @property
    def training_rows(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.split == TRAIN]

    def of_split(self, split: str) -> list[Pair]:
        """The rows of a split. Raises EvaluationError, which lists the splits of the file, if no row has it."""
        if split == ALL:
            return list(self.pairs)
        found = [pair for pair in self.pairs if pair.split == split]
        if not found:
            there = sorted({pair.line.text("split") or "none (for training)" for pair in self.pairs})
            raise EvaluationError(
                f"{self.name} has no row of the split {split!r}; its splits are: {shortened(there)}",
                hint=f"Name another split with --split, or use --split {ALL} for all rows.",
            )
        return found


def read_pairs(path: Path) -> PairsFile:
    """Read a pairs file, or the pairs file of a folder. Raises EvaluationError if it is missing or malformed."""
    if path.is_dir():
        inside = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not inside:
            raise EvaluationError(
                f"the folder {path.absolute().name!r} has no pairs file, expected {' or '.join(FILE_NAMES)}"
            )
        path = inside[0]
    file = read_row_file(path, what="pairs file", error=EvaluationError)
    if not file.lines:
        raise EvaluationError(f"the pairs file {path.name!r} is empty")
    pairs = []
    for line in file.lines:
        line.require("image", "group", error=EvaluationError)
        pairs.append(Pair(line, file.folder / str(line.values["image"]), line.text("group"), line.split))
    return PairsFile(path, file.sha256, tuple(pairs))


def evaluation_rows(
    pairs: PairsFile,
    *,
    split: str = "dev",
    text: str = "text",
    query: str | None = None,
    trained_on: Sequence[PairsFile] = (),
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> tuple[EvaluationRows, list[Path]]:
    """The rows of a split, and the paths of their images.

    `text` names the field with the text of an image, `query` another field whose text is a query for the image.
    `trained_on` are other files whose training rows the model has seen. Raises EvaluationError for a field that no row
    has, for missing images, and for patients or files that are on both sides.
    """
    whole = pairs.of_split(split)
    kept = draw_groups([pair.group for pair in whole], limit or len(whole), seed)
    chosen = [whole[i] for i in kept]
    _require_images(pairs, chosen)
    if query:
        _require_field(pairs, chosen, query, "--query")
    if text != "text":
        _require_field(pairs, chosen, text, "--text")
    others = [pair for pair in pairs.pairs if split != ALL and pair.split != split]
    _refuse_shared_groups(pairs, chosen, others, f"another split of {pairs.name}")
    seen = [pair for pair in others if pair.split == TRAIN]
    for file in trained_on:
        _refuse_shared_groups(pairs, chosen, file.training_rows, f"the training rows of {file.name}")
        seen += file.training_rows
    notes = _check_pictures(pairs, chosen, [pair for pair in seen if pair.image.is_file()], progress)
    own = [pair.line.text(text) for pair in chosen]
    names = dict.fromkeys(name for pair in chosen for name in pair.line.values if name not in (*_OWN, text, query))
    if len(chosen) < len(whole):
        notes.append(f"{len(chosen)} of {len(whole)} rows were drawn, in whole groups")
    rows = EvaluationRows(
        name=pairs.path.absolute().parent.name,
        texts=tuple((t,) if t else () for t in own),
        groups=tuple(pair.group for pair in chosen),
        fields={name: tuple(_value(pair.line.values.get(name)) for pair in chosen) for name in names},
        queries=tuple(pair.line.text(query) or None for pair in chosen) if query else None,
        documents=tuple(own) if query else None,
        facts={
            "pairs": pairs.name,
            "sha256": pairs.sha256,
            "split": split,
            "text": text,
            "query": query,
            "limit": limit,
            "seed": seed,
            "training_images_compared": len(seen),
        },
        notes=tuple(notes),
    )
    return rows, [pair.image for pair in chosen]


def _value(value: object) -> str | None:
    """The value of a field as text; several values are joined."""
    if isinstance(value, list):
        value = SEVERAL.join(plain(one) for one in value)
    return None if isinstance(value, dict) else plain(value) or None


def _require_images(pairs: PairsFile, rows: Sequence[Pair]) -> None:
    gone = [pair for pair in rows if not pair.image.is_file()]
    if gone:
        raise EvaluationError(
            f"{len(gone)} of {len(rows)} images of {pairs.name} are missing, the first in line {gone[0].number}",
            hint="Paths are relative to the pairs file. Restore the images, or remove their rows: a smaller gallery is "
            "easier.",
        )


def _require_field(pairs: PairsFile, rows: Sequence[Pair], name: str, option: str) -> None:
    if not any(pair.line.text(name) for pair in rows):
        there = dict.fromkeys(key for pair in rows for key in pair.line.values if key not in _OWN)
        raise EvaluationError(
            f"no row of {pairs.name} has the field {name!r}; its fields are: {shortened(there)}",
            hint=f"Name one of these fields with {option}.",
        )


def _refuse_shared_groups(pairs: PairsFile, chosen: Sequence[Pair], others: Sequence[Pair], where: str) -> None:
    mine: dict[str, int] = {}
    for pair in chosen:
        mine.setdefault(pair.group, pair.number)
    shared = {pair.group: pair.number for pair in others if pair.group in mine}
    if shared:
        group, elsewhere = next(iter(shared.items()))
        raise EvaluationError(
            f"{len(shared)} of the {len(set(mine))} groups of {pairs.name} to evaluate are also in {where} "
            f"(the first: lines {mine[group]} and {elsewhere})",
            hint="Split by patient: all rows of a group belong to one split. Shared patients make figures too good.",
        )


def _check_pictures(pairs: PairsFile, chosen: Sequence[Pair], seen: Sequence[Pair], progress: Progress) -> list[str]:
    """Refuse files that the model has seen, and return a note about images that look like one it has seen."""
    if not seen:
        return []
    total = len(chosen) + len(seen)
    mine: list[Fingerprint] = []
    theirs: list[Fingerprint] = []
    for at, pair in enumerate([*chosen, *seen], 1):
        (mine if at <= len(chosen) else theirs).append(_fingerprint(pair))
        progress("comparing with the training images", at, total)
    known = {digest for digest, _ in theirs}
    equal = [pair for pair, (digest, _) in zip(chosen, mine, strict=True) if digest in known]
    if equal:
        raise EvaluationError(
            f"{len(equal)} images of {pairs.name} are also training images, the first in line {equal[0].number}",
            hint="Remove them from one split: a model must not be evaluated on images that it has seen.",
        )
    most = (np.stack([t for _, t in mine]) @ np.stack([t for _, t in theirs]).T).max(axis=1)
    alike = [pair.number for pair, value in zip(chosen, most, strict=True) if value >= ALIKE]
    if not alike:
        return []
    shown = ", ".join(map(str, alike[:5])) + (" ..." if len(alike) > 5 else "")
    return [
        f"{len(alike)} of {len(chosen)} images look like a training image of another patient or set "
        f"(lines {shown}) and may be copies of it"
    ]


def _fingerprint(pair: Pair) -> Fingerprint:
    """SHA-256 of the file, and a thumbnail of zero mean and unit norm [THUMBNAIL * THUMBNAIL]; zeros if Pillow can't
    read the file."""
    content = pair.image.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.draft("L", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = picture.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    except (OSError, ValueError, Image.DecompressionBombError):
        # DICOM or damaged: compared by its bytes alone. Encoding it raises the error.
        return digest, np.zeros(THUMBNAIL**2, np.float32)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return digest, values / norm if norm else values
