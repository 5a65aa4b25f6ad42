"""Images without captions, for the warm-up: a folder of pictures, or the training rows of a JSON-lines file.

Held-out images are excluded: images of rows that are not for training, copies of them, and other images of their
patients.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import TrainingError
from retrieval.row_files import TRAIN, read_row_file
from retrieval.training.config import Source, TrainingConfig, Unpaired
from retrieval.training.data import Corpus, TrainingRow, read_pairs_file, require_split

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class UnpairedSet:
    """What one entry of `warm_up.images` gave. `digest` is the SHA-256 of its file, None for a folder; `left_out` are
    the images that are held out, or that the run has already."""

    name: str
    terms: str
    rows: tuple[TrainingRow, ...]
    digest: str | None
    left_out: int


def read_unpaired(config: TrainingConfig, corpus: Corpus) -> list[UnpairedSet]:
    """The images of `warm_up.images` that the warm-up may see; none without a warm-up.

    Raises TrainingError for an entry that is neither a folder nor a JSON-lines file, or that gives no image.
    """
    if config.warm_up is None:
        return []
    held = _HeldOut(config.data)
    known = {row.image.resolve() for row in corpus.rows if row.split == "train"}
    sets = []
    for entry in config.warm_up.images:
        rows, digest = _rows_of(entry, held)
        found = [row for row in rows if row.image.resolve() not in known and not held.holds(row)]
        if not found:
            raise TrainingError(
                f"warm_up.images: {entry.path.name!r} has no new image; all are held out or already part of the run",
                hint=f"Expected an image folder ({', '.join(SUFFIXES)}), or a JSON-lines file with training rows.",
            )
        known.update(row.image.resolve() for row in found)
        name = entry.path.name if entry.path.is_dir() else "/".join(entry.path.parts[-2:])
        sets.append(UnpairedSet(name, entry.terms, tuple(found), digest, len(rows) - len(found)))
        logger.info("%s: %d images without captions, %d left out", name, len(found), len(rows) - len(found))
    return sets


class _HeldOut:
    """The images and patients of all rows that are not for training, also of those without a text."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.groups_of: dict[Path, str] = {}
        self._groups: set[str] = set()
        self._images: set[Path] = set()
        for source in sources:
            for line in read_pairs_file(source.pairs).lines:
                image, group = (source.pairs.parent / str(line.values["image"])).resolve(), line.text("group")
                self.groups_of[image] = group
                if line.split != TRAIN:
                    self._groups.add(group)
                    self._images.add(image)
        self._sizes = Counter(path.stat().st_size for path in self._images if path.is_file())
        self._digests: set[str] | None = None

    def holds(self, row: TrainingRow) -> bool:
        path = row.image.resolve()
        return row.split != "train" or row.group in self._groups or path in self._images or self._is_copy(path)

    def _is_copy(self, path: Path) -> bool:
        """Whether the file's bytes are those of a held-out image."""
        if not path.is_file() or path.stat().st_size not in self._sizes:
            return False
        if self._digests is None:
            self._digests = {_sha256(image) for image in self._images if image.is_file()}
        return _sha256(path) in self._digests


def _rows_of(entry: Unpaired, held: _HeldOut) -> tuple[list[TrainingRow], str | None]:
    if entry.path.is_dir():
        files = sorted(path for path in entry.path.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        groups = (held.groups_of.get(path.resolve(), str(path.relative_to(entry.path))) for path in files)
        return [TrainingRow(path, group, "train", -1, ()) for path, group in zip(files, groups, strict=True)], None
    file = read_row_file(
        entry.path,
        what="list of images",
        error=TrainingError,
        hint="warm_up.images lists image folders and JSON-lines files, relative to the folder of the pairs files.",
    )
    rows = []
    for line in file.lines:
        line.require("image", error=TrainingError)
        require_split(line)
        image = str(line.values["image"])
        rows.append(TrainingRow(file.folder / image, line.text("group") or image, line.split, -1, (), line=line.number))
    return rows, file.sha256


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
