"""Broken files by the thousand: seeded mutants of good files, made and rendered inside a worker."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

import pydicom.data
from pydicom.misc import is_dicom

from indexer.dicom.safe_read import open_dicom
from indexer.render.frame import render_frame
from indexer.render.precheck import check_before_decoding

_WORST = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]


class Mutant(NamedTuple):
    path: str
    seed: int


def render_all(path: str) -> str:
    """SHA-256 over all frames, at most 4, rendered as the indexer does."""
    ds = open_dicom(path)
    check_before_decoding(ds)
    digest = hashlib.sha256()
    for number in range(1, min(int(ds.get("NumberOfFrames") or 1), 4) + 1):
        digest.update(render_frame(ds, number).tobytes())
    return digest.hexdigest()


def render_mutant(mutant: Mutant) -> str:
    data = mutate(Path(mutant.path).read_bytes(), mutant.seed)
    fd, name = tempfile.mkstemp(suffix=".dcm")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        return render_all(name)
    finally:
        os.unlink(name)  # noqa: PTH108


def mutate(data: bytes, seed: int) -> bytes:
    """One to eight changes: bytes flipped, numbers made extreme, pieces cut out, doubled, zeroed, the end cut off.

    Half of them hit the first 2 kB or the pixel data's beginning, where the structure is.
    """
    rng = random.Random(seed)
    out = bytearray(data)
    pixels = max(data.rfind(b"\xe0\x7f\x10\x00"), 0)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        if len(out) < 16:
            break
        place = rng.choice(
            [
                rng.randrange(min(len(out), 2048)),
                min(pixels + rng.randrange(256), len(out) - 1),
                rng.randrange(len(out)),
                rng.randrange(len(out)),
            ]
        )
        size = min(rng.choice([1, 2, 4, 8, 64, 512]), len(out) - place)
        kind = rng.randrange(8)
        if kind <= 2:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            width = rng.choice([1, 2, 4])
            worst = rng.choice(_WORST) & (1 << 8 * width) - 1
            out[place : place + width] = worst.to_bytes(width, rng.choice(["little", "big"]))
        elif kind == 4:
            del out[place : place + size]
        elif kind == 5:
            out[place:place] = out[place : place + size]
        elif kind == 6:
            out[place : place + size] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
        else:
            del out[rng.randrange(len(out)) :]
    return bytes(out)


def seeds(largest: int = 300_000) -> list[str]:
    """pydicom's own test files with pixels, in its wheel and, where it is installed, in pydicom-data."""
    wheel = Path(pydicom.data.__file__).parent / "test_files"
    folders = [wheel]
    try:
        import data_store
    except ImportError:
        pass
    else:
        folders.append(Path(data_store.__file__).parent / "data")
    paths = sorted(path for folder in folders for path in folder.rglob("*.dcm"))
    return [str(path) for path in paths if path.stat().st_size <= largest and is_dicom(path) and _has_pixels(path)]


def _has_pixels(path: Path) -> bool:
    return b"\xe0\x7f\x10\x00" in path.read_bytes()


def mutants(count: int, seed: int = 0) -> list[Mutant]:
    """`count` mutants over all the seeds, the same ones every time."""
    paths = seeds()
    return [Mutant(paths[n % len(paths)], seed + n) for n in range(count)]
