"""How long it takes to know 100,000 moved files again, against indexing them.

    python benchmarks/adoption.py [--files 100000] [--sample 200]

Moved: a catalog of made-up rows (one frame of 256 numbers each) for files of 4 kB that lie in a temporary folder. They
are indexed again after the archive's folder was renamed; after that, with new times; after their folders and names were
changed within it; and, in new folders, below another root. Each run is asked to neither encode a picture nor take in a
row. The encoder is a stand-in, since it is never used.

Indexed: a sample of made-up CT slices (512 x 512, 16 bits, 526 kB) with the default model on this machine; the time for
all is extrapolated from its rate. The same sample, moved with its times lost, tells what comparing files of real size
costs: they are read and hashed once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, IndexReport, InstanceRecord
from indexer.run.pipeline import index_archive
from indexer.sources.opening import digest
from indexer.store.store import Store
from indexer.tasks.indexing import index
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.spec import EncoderSpec
from retrieval.types import Embeddings, RenderProfile, Uint8Image

DIM, BATCH = 256, 512


class NoEncoder:
    """The model of the made-up store, which nothing is encoded with."""

    spec = EncoderSpec("none", "00" * 32, DIM, Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3), RenderProfile())
    name, embed_dim, batch_size = "none", DIM, 64

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        if images:
            raise RuntimeError(f"{len(images)} pictures were to be encoded again")
        return np.zeros((0, DIM), np.float32)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return np.zeros((len(texts), DIM), np.float32)


def made_up_store(place: Path, archive: Path, count: int) -> Store:
    rng = np.random.default_rng(0)
    store = Store.create(place, NoEncoder.spec.to_json())
    number = store.catalog.files.archive_id(archive)
    for start in range(0, count, BATCH):
        items = []
        for n in range(start, min(start + BATCH, count)):
            path = archive / f"{n // 1000:04d}" / f"{n:08d}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{n:08d}".encode() * 512)
            status = path.stat()
            vector = rng.normal(size=(1, DIM)).astype(np.float32)
            uid = f"1.2.826.0.1.3680043.8.498.{n}"
            values = dict.fromkeys(COLUMNS) | {"sop_instance_uid": uid, "study_instance_uid": f"1.2.{n // 100}"}
            items.append(
                IndexedFile(
                    FileStat(path.relative_to(archive).as_posix(), status.st_size, status.st_mtime_ns),
                    InstanceRecord(values, f"{n // 500:032x}", "image", 1),
                    (1,),
                    vector / np.linalg.norm(vector),
                    content_hash=digest(path),
                )
            )
        store.catalog.files.commit(number, items)
    store.refresh()
    return store


def slices(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for n in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.3.{n}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID, ds.Modality = "1.2.4", "1.2.5", "x", "CT"
        ds.Rows = ds.Columns = 512
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = rng.integers(0, 4096, (512, 512), dtype=np.uint16).tobytes()
        ds.save_as(folder / f"{n:06d}.dcm", enforce_file_format=True)


def new_times(folder: Path) -> None:
    for n, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        os.utime(path, ns=(10**18 + n, 10**18 + n))


def new_folders(old: Path, new: Path) -> None:
    for n, path in enumerate(sorted(path for path in old.rglob("*") if path.is_file())):
        target = new / f"{n % 97:02d}" / f"{n:x}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def report(what: str, count: int, seconds: float, note: str = "") -> None:
    print(f"{what:58s} {seconds:10.1f} s {count / seconds:10,.0f} files/s {note}", flush=True)


def adopted(store: Store, archive: Path, count: int, what: str) -> None:
    started = time.perf_counter()
    found = index_archive([archive], store, NoEncoder())  # type: ignore[list-item]
    seconds = time.perf_counter() - started
    if found.unchanged + found.moved != count or found.indexed or found.duplicates or found.rejected:
        raise RuntimeError(f"not all files were known again: {found}")
    report(what, count, seconds)


def moved(count: int, folder: Path) -> None:
    first, second, third, fourth = (folder / name for name in ("first", "second", "third", "fourth"))
    with made_up_store(folder / "store", first, count) as store:
        adopted(store, first, count, "unchanged, for comparison")
        first.rename(second)
        adopted(store, second, count, "mounted elsewhere")
        second.rename(third)
        new_times(third)
        adopted(store, third, count, "mounted elsewhere, times lost")
        new_folders(third, third / "sorted")
        adopted(store, third, count, "in other folders of the archive, with other names")
        new_folders(third / "sorted", fourth)
        adopted(store, fourth, count, "in other folders elsewhere, with other names")


def indexed(sample: int, count: int, folder: Path) -> None:
    slices(folder / "slices", sample)

    def run(archive: Path) -> tuple[float, IndexReport]:
        started: list[float] = []
        found = index([archive], folder / "real", on_model=lambda encoder: started.append(time.perf_counter()))
        return time.perf_counter() - started[0], found

    seconds, found = run(folder / "slices")
    report(f"indexed, {found.frames} slices of 526 kB", sample, seconds)
    print(f"{'indexed, extrapolated to all files':58s} {seconds * count / sample:10,.0f} s", flush=True)
    (folder / "slices").rename(folder / "moved")
    new_times(folder / "moved")
    seconds, found = run(folder / "moved")
    if found.unchanged != sample:
        raise RuntimeError(f"not all files were known again: {found}")
    report("the same slices mounted elsewhere, times lost", sample, seconds)
    print(f"{'that, extrapolated to all files':58s} {seconds * count / sample:10,.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        indexed(asked.sample, asked.files, Path(folder))
        moved(asked.files, Path(folder))


if __name__ == "__main__":
    main()
