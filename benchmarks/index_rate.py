"""Frames per second of `index_archive` beside those of the encoder alone on the same pictures, already in memory.

    python benchmarks/index_rate.py [ARCHIVE] [--pairs FOLDER] [--rounds 5] [--model M] [--workers N]

ARCHIVE is a folder of DICOM files; without one, the test files of pydicom's wheel. With --pairs, a folder that holds a
`pairs.jsonl` (image, modality), whose images are wrapped as uncompressed DICOM first, in a temporary folder.
Each round: index into a new store; index again, nothing having changed; encode the same pictures from memory. Worker
processes' start and all reading, decoding, rendering and committing count; loading the model does not. Prints medians,
the least and the most, and the ratio to the encoder alone. On a busy machine only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom.data
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from indexer.archive import iter_files
from indexer.guard import GuardedPool
from indexer.pipeline import index_archive
from indexer.reading import FileToRead, ReadFile, ReadSettings, read_file, set_settings
from indexer.store import Store
from retrieval.encoder import ClipEncoder
from retrieval.types import Uint8Image

T = TypeVar("T")


def wrapped(pairs: Path, folder: Path) -> Path:
    """The images of a pairs set as uncompressed DICOM files in `folder`."""
    for line in (pairs / "pairs.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        uid = f"2.25.{int(hashlib.sha256(row['image'].encode()).hexdigest()[:30], 16)}"
        with Image.open(pairs / row["image"]) as image:
            pixels = np.asarray(image.convert("L"))
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = CTImageStorage if row.get("modality") == "CT" else MRImageStorage
        ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, f"{uid}.1", f"{uid}.2"
        ds.Modality = "CT" if row.get("modality") == "CT" else "MR"
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        ds.save_as(folder / f"{uid[5:25]}.dcm", enforce_file_format=True)
    return folder


def pictures_of(archive: Path, encoder: ClipEncoder) -> list[Uint8Image]:
    """What `index_archive` hands to the encoder, one picture per SOP instance and frame."""
    settings = ReadSettings(b"\0" * 32, encoder.spec.preprocess, encoder.spec.render_profile)
    walk = iter_files(archive, on_rejection=lambda rejection: None)
    seen: dict[str, tuple[Uint8Image, ...]] = {}
    with GuardedPool(read_file, workers=2, initializer=set_settings, initargs=(settings,)) as pool:
        for _, read in pool.map(FileToRead(stat, path) for stat, path in walk):
            if isinstance(read, ReadFile):
                seen[read.record.sop_instance_uid] = read.pictures
    return [picture for pictures in seen.values() for picture in pictures]


def timed(function: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", nargs="?", type=Path, default=Path(pydicom.data.__file__).parent / "test_files")
    parser.add_argument("--pairs", type=Path, help="wrap this pairs set as the archive")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()

    encoder = ClipEncoder.load(args.model)
    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        temporary = Path(made)
        archive = wrapped(args.pairs, temporary) if args.pairs else args.archive
        pictures = pictures_of(archive, encoder)
        files = sum(1 for _ in iter_files(archive, on_rejection=lambda rejection: None))
        print(f"{files} files, {len(pictures)} pictures; {encoder.name} on {encoder.device}")
        if not pictures:
            parser.error("the archive holds no picture")
        encoder.encode_images(pictures[:64])  # the first call is slower
        seconds: dict[str, list[float]] = {"encoder alone": [], "index_archive, new": [], "index_archive, again": []}
        frames = 0
        for number in range(args.rounds):
            with (
                tempfile.TemporaryDirectory(prefix="medlens-bench-") as place,
                Store.create(Path(place) / "store", encoder.spec.to_json()) as store,
            ):
                taken, report = timed(lambda s=store: index_archive([archive], s, encoder, workers=args.workers))
                seconds["index_archive, new"].append(taken)
                frames = report.frames
                taken, again = timed(lambda s=store: index_archive([archive], s, encoder, workers=args.workers))
                seconds["index_archive, again"].append(taken)
                if again.indexed or again.frames:
                    raise SystemExit(f"round {number}: the second run indexed {again.indexed} files, expected none")
            seconds["encoder alone"].append(timed(lambda: encoder.encode_images(pictures))[0])

    counts = {name: (frames if name != "encoder alone" else len(pictures)) for name in seconds}
    base = statistics.median(seconds["encoder alone"]) / len(pictures)
    print(f"{'':22}{'seconds':>9}{'least..most':>16}{'files/s':>10}{'frames/s':>10}  x encoder alone (frames/s)")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        spread = f"{min(taken):.2f}..{max(taken):.2f}"
        per_file = "" if name == "encoder alone" else f"{files / middle:.0f}"
        is_again = name.endswith("again")
        per_frame = "" if is_again else f"{counts[name] / middle:.0f}"
        ratio = "" if is_again else f"{base / (middle / max(counts[name], 1)):.2f}"
        print(f"{name:22}{middle:9.2f}{spread:>16}{per_file:>10}{per_frame:>10}  {ratio}")


if __name__ == "__main__":
    main()
