"""Makes store-0.1.0 and store-0.1.0.sql: what version 0.1.0 of medlens wrote. Run it with that version's code:

    git worktree add CHECKOUT 8b241f7
    PYTHONPATH=CHECKOUT python tests/reference/make_store.py FOLDER_OR_DATABASE_URL

It indexes /tmp/archive-0.1.0 (two of pydicom's files, a report, a cine of three frames, a patient who is erased, a copy
and a broken file) with the model that ships with 0.1.0, keeps the labels of the set `modality`, and erases one patient.
The catalog in the folder is repacked, which takes it from 160 to 34 kB:

    sqlite3 catalog.sqlite "PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM"

Of the store in a database (an empty one, XDG_DATA_HOME=LOCAL) are kept LOCAL/medlens/stores/*/pseudonym.key and

    pg_dump --no-owner --no-privileges --inserts DATABASE | grep -v '^\\\\' > store-0.1.0.sql
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

ARCHIVE = Path("/tmp/archive-0.1.0")
ERASED = "1.2.3.4.5"
REPORT = "Small left pleural effusion. No pneumothorax."
MODIFIED_NS = 1_800_000_000 * 10**9


def make_archive() -> None:
    shutil.rmtree(ARCHIVE, ignore_errors=True)
    ARCHIVE.mkdir()
    for name in ("MR_small.dcm", "CT_small.dcm"):
        shutil.copy(str(get_testdata_file(name)), ARCHIVE / name)
    shutil.copy(ARCHIVE / "MR_small.dcm", ARCHIVE / "copy of MR_small.dcm")
    (ARCHIVE / "broken.dcm").write_bytes((ARCHIVE / "MR_small.dcm").read_bytes()[:3000])
    made(ARCHIVE / "cine.dcm", "1.2.3.4.4", "somebody", frames=3)
    made(ARCHIVE / "erased.dcm", ERASED, "who is erased", frames=1)
    report = dcmread(str(get_testdata_file("reportsi.dcm")))
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.6"
    report.StudyInstanceUID, report.PatientID = "1.2.3.4.4.1", "somebody"
    finding = Dataset()
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", REPORT
    report.ContentSequence = [finding]
    report.save_as(ARCHIVE / "report.dcm")
    for path in ARCHIVE.iterdir():
        os.utime(path, ns=(MODIFIED_NS, MODIFIED_NS))


def made(path: Path, uid: str, patient: str, frames: int) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    ds.PatientID, ds.PatientAge, ds.Modality, ds.StudyDate = patient, "061Y", "US", "20260102"
    ds.Rows = ds.Columns = 32
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 8, 8, 7, frames
    ds.PixelData = np.random.default_rng(frames).integers(0, 256, (frames, 32, 32), dtype=np.uint8).tobytes()
    ds.save_as(path, enforce_file_format=True)


def medlens(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from cli.medlens_app import main; main()", *arguments], check=True)


def make_store(location: str) -> None:
    medlens("index", str(ARCHIVE), "--store", location, "--device", "cpu")
    medlens("classify", "--labels", "modality", "--save", "--store", location, "--format", "jsonl", "-o", "/dev/null")
    medlens("delete", "--where", f"SOPInstanceUID = {ERASED}", "--store", location, "--yes")
    medlens("search", "axial slice of the brain", "--store", location)  # derives the index files
    medlens("verify", "--store", location)


if __name__ == "__main__":
    make_archive()
    make_store(sys.argv[1])
