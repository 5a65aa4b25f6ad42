"""Kill indexing at random moments, and see whether what is left in the end is what an uninterrupted run leaves.

A trial starts indexing in processes of its own, kills one (SIGKILL) after a random time, and starts it again until it
ends. Children are forked, so that most of their time is indexing and not importing. The encoder is a cheap one that
writes down what it encodes, so that a frame that is encoded again after it was committed shows.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from fake_encoder import FakeEncoder
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from indexer.catalog.database import parse_url
from indexer.catalog.schema import metadata
from indexer.run import batches
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.place import CATALOG_FILE
from indexer.store.store import Store
from retrieval.errors import StoreError, StoreNotFound
from retrieval.types import Embeddings, Uint8Image

_PER_COMMIT = 4  # small, so that there are many moments that matter
_PACE_S = 0.003  # per picture: an encoder takes its time


class LoggingEncoder(FakeEncoder):
    """Encodes each picture by itself, so that the batch does not matter, and writes down the vector."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @property
    def batch_size(self) -> int:
        return _PER_COMMIT

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        vectors = [super(LoggingEncoder, self).encode_images([image]) for image in images]
        for vector in vectors:
            time.sleep(_PACE_S)
            os.write(self._log, vector.astype("<f2").tobytes().hex().encode() + b"\n")
        return np.concatenate(vectors) if vectors else super().encode_images([])


def make_archive(folder: Path, files: int, *, rivals: bool = True) -> Path:
    """Small images, each with pixels of its own, some of three frames; `rivals`: copies, conflicts and broken files."""
    rng = np.random.default_rng(0)
    for n in range(files):
        frames = 3 if n % 5 == 0 else 1
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, f"1.2.3.{n + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.4.{n // 10}", f"1.2.5.{n // 5}"
        ds.PatientID, ds.Modality = f"patient {n // 10}", "OT"
        ds.Rows = ds.Columns = 16
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        if frames > 1:
            ds.NumberOfFrames = frames
        ds.PixelData = rng.integers(0, 256, (frames, 16, 16), dtype=np.uint8).tobytes()
        path = folder / f"{n % 3}" / f"{n:04d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
        if rivals and n % 11 == 3:
            shutil.copy(path, folder / f"copy{n}.dcm")
        if rivals and n % 13 == 5:
            (folder / "2" / f"broken{n}.dcm").write_bytes(path.read_bytes()[:400])
        if rivals and n % 17 == 7:
            ds.PixelData = bytes(len(ds.PixelData))
            ds.save_as(folder / f"z{n}.dcm", enforce_file_format=True)
    return folder


def make_report(folder: Path, number: int) -> Path:
    """A structured report of a study of its own."""
    ds = dcmread(str(get_testdata_file("reportsi.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.6.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.4.{number}", f"1.2.7.{number}"
    ds.PatientID = f"patient {number}"
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.TextValue = f"Pleural effusion of {number + 1} cm. No pneumothorax."
    ds.ContentSequence = [item]
    path = folder / f"report{number}.dcm"
    ds.save_as(path)
    return path


def contents(store: Store) -> dict[str, Any]:
    """All rows of a store, by what they say rather than by their ids; without who is at work."""
    with store.catalog._database.reading() as connection:
        tables = {
            name: {row["id"]: row for row in map(dict, connection.execute(sa.select(table)).mappings())}
            for name, table in metadata.tables.items()
            if "id" in table.c and name != "workers"
        }
    files = {i: row["path"] for i, row in tables["files"].items()}
    key = {row["patient_pseudonym"]: row["study_instance_uid"] for row in tables["instances"].values()}
    for row in tables["instances"].values():
        row["patient_pseudonym"] = key[row["patient_pseudonym"]]  # every store has a key of its own
    uids = {i: row["sop_instance_uid"] for i, row in tables["instances"].items()}
    reports = {i: uids[row["instance_id"]] for i, row in tables["reports"].items()}

    def rows(name: str, **parents: dict[int, Any]) -> list[Any]:
        out = []
        for row in tables[name].values():
            named = {column: parents[column][row[column]] for column in parents}
            out.append(tuple(sorted({**row, **named, "id": 0}.items(), key=lambda item: item[0])))
        return sorted(out, key=repr)

    return {
        "files": rows("files"),
        "instances": rows("instances", file_id=files),
        "frames": rows("frames", instance_id=uids),
        "reports": rows("reports", instance_id=uids),
        "sentences": rows("sentences", report_id=reports),
    }


def committed_vectors(location: str | Path) -> set[str]:
    url = parse_url(location if isinstance(location, str) else location / CATALOG_FILE)
    if isinstance(location, Path) and not (location / CATALOG_FILE).exists():
        return set()
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("frames"):
                return set()
            found = connection.execute(sa.select(metadata.tables["frames"].c.vector)).scalars()
            return {bytes(vector).hex() for vector in found}
    finally:
        engine.dispose()


def index(archive: Path, location: str | Path, log: Path, local_dir: Path | None = None) -> None:
    """What a child does: open or make the store, index."""
    batches.MOST_FILES = _PER_COMMIT
    encoder = LoggingEncoder(log)
    try:
        store = Store.open(location, local_dir=local_dir)
    except StoreNotFound:
        try:
            store = Store.create(location, encoder.spec.to_json(), local_dir=local_dir)
        except StoreError:  # another process has been quicker
            store = Store.open(location, local_dir=local_dir)
    with store:
        index_archive([archive], store, encoder, IndexOptions(workers=1))


@dataclass
class Trial:
    """Kills, and what came of them."""

    archive: Path
    location: str | Path
    folder: Path  # for logs
    local_dir: Path | None = None
    kills: int = 0
    finished: int = 0
    encoded_again: list[str] = field(default_factory=list)
    at_work: float = 1.0  # seconds that an undisturbed run took

    def start(self, name: str) -> multiprocessing.process.BaseProcess:
        arguments = (self.archive, self.location, self.folder / name, self.local_dir)
        child = multiprocessing.get_context("fork").Process(target=index, args=arguments)
        child.start()
        return child

    def undisturbed(self) -> None:
        started = time.monotonic()
        child = self.start("undisturbed")
        child.join(300)
        if child.exitcode:
            raise RuntimeError(f"an undisturbed run ended with {child.exitcode}")
        self.at_work = time.monotonic() - started

    def life(self, rng: random.Random, processes: int = 1, most_kills: int = 10_000) -> None:
        """Index to the end, killing at random moments on the way. Adds to `kills`."""
        log = self.folder / f"log{self.finished}"
        killed_here = 0
        while True:
            before = committed_vectors(self.location)
            read_from = log.stat().st_size if log.exists() else 0
            victim, *others = [self.start(log.name) for _ in range(processes)]
            victim.join(rng.uniform(0, self.at_work) if killed_here < most_kills else 300)
            if victim.exitcode is None:
                victim.kill()
                victim.join()
                self.kills += 1
                killed_here += 1
            for child in others:
                child.join(300)
                if child.exitcode:
                    raise RuntimeError(f"a process ended with {child.exitcode} after another was killed")
            if log.exists():
                with log.open() as file:
                    file.seek(read_from)
                    self.encoded_again += sorted(set(file.read().split("\n")[:-1]) & before)
            if victim.exitcode == 0 or others:
                self.finished += 1
                return
            if victim.exitcode != -signal.SIGKILL:
                raise RuntimeError(f"a run ended with {victim.exitcode}")
