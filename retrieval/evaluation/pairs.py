"""Rows out of a pairs file, checked for leakage: what a model is judged on must not be what it was trained on.

A pairs file has one JSON object a line: `image` (a path relative to the file), a text, `group` (the patient or case),
`split`, and whatever else is known. Patients on both sides of a split are refused, and so are equal files; pictures
that look the same (a figure that two collections share) are counted and said, since a threshold may err.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.errors import EvaluationError
from retrieval.evaluation.rows import SEVERAL, EvaluationRows, draw_groups, plain

FILE_NAMES = ("pairs.jsonl", "labels.jsonl")
ALL = "all"
THUMBNAIL = 32  # pixels along an edge
ALIKE = 0.99  # correlation of two thumbnails, from which two pictures are taken to be one
_OWN = ("image", "group", "split")

Progress = Callable[[str, int, int], None]
Fingerprint = tuple[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Line:
    """One line of a pairs file, as it stands there. `number` counts from 1."""

    number: int
    image: Path
    group: str
    split: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class PairsFile:
    """All lines of a pairs file, and its SHA-256."""

    path: Path
    sha256: str
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        return f"{self.path.absolute().parent.name}/{self.path.name}"

    def of_split(self, split: str) -> list[Line]:
        """Raises EvaluationError, naming the splits that there are, if no line has it."""
        if split == ALL:
            return list(self.lines)
        found = [line for line in self.lines if line.split == split]
        if not found:
            there = sorted({line.split or "none" for line in self.lines})
            raise EvaluationError(
                f"{self.name} has no row of the split {split!r}; its splits are: {', '.join(there)}",
                hint=f"Name another with --split, or --split {ALL} for every row.",
            )
        return found


def read_pairs(path: Path) -> PairsFile:
    """Read a pairs file, or the one in a folder. Raises EvaluationError for a file that is missing or malformed."""
    if path.is_dir():
        inside = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not inside:
            raise EvaluationError(f"the folder {path.absolute().name!r} holds none of {', '.join(FILE_NAMES)}")
        path = inside[0]
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise EvaluationError(f"the pairs file {path.name!r} can't be read: {exc.strerror}") from exc
    lines = [_line(path, number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise EvaluationError(f"the pairs file {path.name!r} is empty")
    return PairsFile(path, hashlib.sha256(content).hexdigest(), tuple(lines))


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
    """The rows of a split and where their images lie.

    `text` names the field with an image's own words, `query` another that asks for it. `trained_on` are other files
    whose training rows the model has seen. Raises EvaluationError for a field that no row has, images that are missing,
    and patients or files that are on both sides.
    """
    whole = pairs.of_split(split)
    kept = draw_groups([line.group for line in whole], limit or len(whole), seed)
    chosen = [whole[i] for i in kept]
    _require_images(pairs, chosen)
    if query:
        _require_field(pairs, chosen, query, "--query")
    if text != "text":
        _require_field(pairs, chosen, text, "--text")
    others = [line for line in pairs.lines if split != ALL and line.split != split]
    _refuse_shared_groups(pairs, chosen, others, f"another split of {pairs.name}")
    seen = [line for line in others if line.split in (None, "train")]
    for file in trained_on:
        learned = [line for line in file.lines if line.split in (None, "train")]
        _refuse_shared_groups(pairs, chosen, learned, f"the training rows of {file.name}")
        seen += learned
    notes = _check_pictures(pairs, chosen, [line for line in seen if line.image.is_file()], progress)
    own = [plain(line.values.get(text)) for line in chosen]
    names = dict.fromkeys(name for line in chosen for name in line.values if name not in (*_OWN, text, query))
    if len(chosen) < len(whole):
        notes.append(f"{len(chosen)} of {len(whole)} rows were drawn, by whole groups")
    rows = EvaluationRows(
        name=pairs.path.absolute().parent.name,
        texts=tuple((t,) if t else () for t in own),
        groups=tuple(line.group for line in chosen),
        fields={name: tuple(_value(line.values.get(name)) for line in chosen) for name in names},
        asked=tuple(plain(line.values.get(query)) or None for line in chosen) if query else None,
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
    return rows, [line.image for line in chosen]


def _line(path: Path, number: int, line: bytes) -> Line:
    where = f"{path.name}, line {number}"
    try:
        values = json.loads(line)
    except ValueError as exc:
        raise EvaluationError(f"{where} is no JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise EvaluationError(f"{where} is {type(values).__name__}, expected an object with image and group")
    missing = [name for name in ("image", "group") if not plain(values.get(name))]
    if missing:
        raise EvaluationError(
            f"{where} has no {' and no '.join(missing)}",
            hint="Every row needs an image and its group: the patient or case, over which intervals are taken.",
        )
    split = plain(values.get("split")) or None
    return Line(number, path.parent / str(values["image"]), plain(values["group"]), split, values)


def _value(value: object) -> str | None:
    """What a field says; several values are joined."""
    if isinstance(value, list):
        value = SEVERAL.join(plain(one) for one in value)
    return None if isinstance(value, dict) else plain(value) or None


def _require_images(pairs: PairsFile, lines: Sequence[Line]) -> None:
    gone = [line for line in lines if not line.image.is_file()]
    if gone:
        raise EvaluationError(
            f"{len(gone)} of {len(lines)} images of {pairs.name} are missing, the first of line {gone[0].number}",
            hint="Images are looked for relative to the pairs file. Take the rows out, or bring the images back: "
            "a gallery without them would be an easier one.",
        )


def _require_field(pairs: PairsFile, lines: Sequence[Line], name: str, option: str) -> None:
    if not any(plain(line.values.get(name)) for line in lines):
        there = dict.fromkeys(key for line in lines for key in line.values if key not in _OWN)
        raise EvaluationError(
            f"no row of {pairs.name} has the field {name!r}; there are: {', '.join(there)}",
            hint=f"Name one of them with {option}.",
        )


def _refuse_shared_groups(pairs: PairsFile, chosen: Sequence[Line], others: Sequence[Line], where: str) -> None:
    mine: dict[str, int] = {}
    for line in chosen:
        mine.setdefault(line.group, line.number)
    shared = {line.group: line.number for line in others if line.group in mine}
    if shared:
        group, elsewhere = next(iter(shared.items()))
        raise EvaluationError(
            f"{len(shared)} of {len(set(mine))} groups of {pairs.name} that are to be judged are in {where} too "
            f"(the first: lines {mine[group]} and {elsewhere})",
            hint="Split by patient: all rows of a group belong to one side. Figures on shared patients would flatter.",
        )


def _check_pictures(pairs: PairsFile, chosen: Sequence[Line], seen: Sequence[Line], progress: Progress) -> list[str]:
    """Refuse equal files among what the model has seen; say how many look alike."""
    if not seen:
        return []
    total = len(chosen) + len(seen)
    mine: list[Fingerprint] = []
    theirs: list[Fingerprint] = []
    for at, line in enumerate([*chosen, *seen], 1):
        (mine if at <= len(chosen) else theirs).append(_fingerprint(line))
        progress("comparing with the training images", at, total)
    known = {digest for digest, _ in theirs}
    equal = [line for line, (digest, _) in zip(chosen, mine, strict=True) if digest in known]
    if equal:
        raise EvaluationError(
            f"{len(equal)} images of {pairs.name} are training images too, the first of line {equal[0].number}",
            hint="Take them out of one side: a model is not judged on pictures that it has seen.",
        )
    most = (np.stack([t for _, t in mine]) @ np.stack([t for _, t in theirs]).T).max(axis=1)
    alike = [line.number for line, value in zip(chosen, most, strict=True) if value >= ALIKE]
    if not alike:
        return []
    shown = ", ".join(map(str, alike[:5])) + (" ..." if len(alike) > 5 else "")
    return [
        f"{len(alike)} of {len(chosen)} images look like a training image of another patient or set "
        f"(lines {shown}): perhaps the same picture twice"
    ]


def _fingerprint(line: Line) -> Fingerprint:
    """SHA-256 of the file, and a thumbnail of zero mean and unit norm [THUMBNAIL * THUMBNAIL]; zeros if it is none."""
    content = line.image.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.draft("L", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = picture.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    except (OSError, ValueError, Image.DecompressionBombError):
        # DICOM, or broken: compared by its bytes alone. Whoever encodes it says what is wrong with it.
        return digest, np.zeros(THUMBNAIL**2, np.float32)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return digest, values / norm if norm else values
