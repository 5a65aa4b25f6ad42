"""Small good files of every kind that medlens reads, for mutants to be made of."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import mutation
import numpy as np
import numpy.typing as npt
import pydicom
from catalog_factory import SPEC, indexed
from lossless_jpeg import lossless_jpeg
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from test_indexer_report_text import code, item, number
from test_indexer_rle import encoded as rle
from test_retrieval_light import write_bert_clip
from tiny_models import write_clip

from indexer.catalog.labels import SavedSet
from indexer.records import FileStat, Rejection
from indexer.store.store import Store
from indexer.tasks.exchange import export_frames
from retrieval.types import SearchFilter

Array = npt.NDArray[Any]

UNCOMPRESSED_FRAMES, DEFLATED_FRAMES = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"
JPEG_XL, JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.110"
_OF_SYNTAX = {
    uid.ExplicitVRLittleEndian: "native",
    uid.ImplicitVRLittleEndian: "native",
    uid.ExplicitVRBigEndian: "native",
    uid.DeflatedExplicitVRLittleEndian: "deflated",
    uid.RLELossless: "RLE",
    uid.JPEGBaseline8Bit: "JPEG",
    uid.JPEGExtended12Bit: "JPEG",
    uid.JPEGLossless: "JPEG, lossless",
    uid.JPEGLosslessSV1: "JPEG, lossless",
    uid.JPEGLSLossless: "JPEG-LS",
    uid.JPEGLSNearLossless: "JPEG-LS",
    uid.JPEG2000Lossless: "JPEG 2000",
    uid.JPEG2000: "JPEG 2000",
}
FRAMES = 40  # in the store that vectors are imported into


def grey(bits: int) -> Array:
    """A ramp with noise in it, so that codecs have something to do."""
    values = np.add.outer(np.arange(40), np.arange(56)) * ((1 << bits) // 96)
    noise = np.random.default_rng(bits).integers(0, 1 << max(bits - 4, 1), values.shape)
    return np.clip(values + noise, 0, (1 << bits) - 1).astype(np.uint8 if bits <= 8 else np.uint16)


def colour() -> Array:
    return np.stack([grey(8), grey(8)[::-1], 255 - grey(8)], axis=-1)


def dataset(frames: list[Array], syntax: str, bits: int, number_of: int, **elements: Any) -> Dataset:
    like, ds = frames[0], Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = uid.SecondaryCaptureImageStorage, f"1.2.826.0.1.{number_of}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.826.0.2.{number_of}", f"1.2.826.0.3.{number_of}"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Canary^Jane", "ID4711", "19520307"
    ds.Modality, ds.StudyDescription, ds.BodyPartExamined = "OT", "Chest of Jane Canary, born 7 March 1952", "CHEST"
    ds.Rows, ds.Columns = like.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if like.ndim == 3 else (1, "MONOCHROME2")
    if like.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PixelRepresentation, ds.BitsAllocated = 0, like.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = bits, bits - 1
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    if like.ndim == 2 and bits > 8:
        ds.WindowCenter, ds.WindowWidth, ds.RescaleSlope, ds.RescaleIntercept = 1000, 2000, 1, -100
        ds.PixelSpacing = [1, 0.5]
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, path: Path) -> Path:
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    if ds.file_meta.TransferSyntaxUID.type:
        ds.save_as(path, enforce_file_format=True)
        return path
    ds.preamble = bytes(128)  # pydicom's list of syntaxes ends before JPEG XL
    pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=True, force_encoding=True, enforce_file_format=False)
    return path


Encode = Callable[[Array], bytes]


def _jxl(**options: Any) -> Encode:
    return lambda a: bytes(imagecodecs.jpegxl_encode(a, **options))


def _compressed() -> list[tuple[str, str, int, Array, Encode]]:
    """Kind, transfer syntax, bits, values, and how each frame becomes a codestream."""
    b8, b12, b16, rgb = grey(8), grey(12), grey(16), colour()
    jpeg, j2k = imagecodecs.jpeg8_encode, imagecodecs.jpeg2k_encode
    return [
        ("JPEG", uid.JPEGBaseline8Bit, 8, b8, lambda a: bytes(jpeg(a, level=80))),
        ("JPEG", uid.JPEGBaseline8Bit, 8, rgb, lambda a: bytes(jpeg(a, level=80, subsampling="420"))),
        ("JPEG", uid.JPEGExtended12Bit, 12, b12, lambda a: bytes(jpeg(a, level=80, bitspersample=12))),
        ("JPEG, lossless", uid.JPEGLosslessSV1, 16, b16, lambda a: lossless_jpeg(a, 16)),
        ("JPEG, lossless", uid.JPEGLossless, 12, b12, lambda a: lossless_jpeg(a, 12, predictor=6, restart_rows=3)),
        ("JPEG, lossless", uid.JPEGLossless, 8, rgb, lambda a: lossless_jpeg(a, 8, predictor=4, scans=3)),
        ("JPEG-LS", uid.JPEGLSLossless, 8, b8, lambda a: bytes(imagecodecs.jpegls_encode(a))),
        ("JPEG-LS", uid.JPEGLSLossless, 12, b12, lambda a: bytes(imagecodecs.jpegls_encode(a))),
        ("JPEG-LS", uid.JPEGLSNearLossless, 8, rgb, lambda a: bytes(imagecodecs.jpegls_encode(a, level=3))),
        ("JPEG 2000", uid.JPEG2000Lossless, 16, b16, lambda a: bytes(j2k(a, level=0, codecformat="J2K"))),
        ("JPEG 2000", uid.JPEG2000, 8, rgb, lambda a: bytes(j2k(a, level=30, codecformat="J2K"))),
        ("JPEG 2000", uid.JPEG2000Lossless, 8, b8, lambda a: bytes(j2k(a, level=0, codecformat="JP2"))),
        ("HTJ2K", uid.HTJ2KLossless, 8, b8, lambda a: bytes(imagecodecs.htj2k_encode(a, reversible=True))),
        ("HTJ2K", uid.HTJ2KLossless, 12, b12, lambda a: bytes(imagecodecs.htj2k_encode(a, reversible=True))),
        ("HTJ2K", uid.HTJ2K, 8, rgb, lambda a: bytes(imagecodecs.htj2k_encode(a, level=0.01, reversible=False))),
        ("JPEG XL", JPEG_XL_LOSSLESS, 8, b8, _jxl(lossless=True)),
        ("JPEG XL", JPEG_XL_LOSSLESS, 16, b16, _jxl(lossless=True, usecontainer=True)),
        ("JPEG XL", JPEG_XL, 8, rgb, _jxl(level=80)),
        ("JPEG XL", JPEG_XL, 8, b8, lambda a: bytes(imagecodecs.jpegxl_encode_jpeg(jpeg(a, level=80)))),
        ("deflated frames", DEFLATED_FRAMES, 12, b12, lambda a: zlib.compress(a.tobytes())[2:-4]),
        ("deflated frames", DEFLATED_FRAMES, 8, rgb, lambda a: zlib.compress(a.tobytes())),
        ("uncompressed frames", UNCOMPRESSED_FRAMES, 16, b16, lambda a: a.tobytes()),
        ("uncompressed frames", UNCOMPRESSED_FRAMES, 8, rgb, lambda a: a.tobytes()),
    ]


def pictures(folder: Path) -> dict[str, list[Path]]:
    """DICOM files by how their pixels are written: made here, and those of pydicom."""
    found: dict[str, list[Path]] = {}
    for n, (kind, syntax, bits, values, encode) in enumerate(_compressed()):
        frames = [values, values[::-1].copy()] if n % 2 else [values]
        ds = dataset(frames, syntax, bits, n)
        streams = [encode(frame) for frame in frames]
        ds.PixelData = encapsulate([stream + bytes(len(stream) % 2) for stream in streams])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        found.setdefault(kind, []).append(written(ds, folder / f"made{n}.dcm"))
    for n, values in enumerate((grey(8), grey(16), colour())):
        made = rle(values)
        made.StudyInstanceUID, made.Modality = "1.2.3.4", "OT"
        found.setdefault("RLE", []).append(written(made, folder / f"rle{n}.dcm"))
    for n, (syntax, bits, values, more) in enumerate(_native()):
        ds = dataset([values], syntax, bits, 100 + n, **more)
        big = syntax == uid.ExplicitVRBigEndian
        ds.PixelData = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
        ds["PixelData"].VR = "OW"
        kind = "deflated" if syntax == uid.DeflatedExplicitVRLittleEndian else "native"
        found.setdefault(kind, []).append(written(ds, folder / f"native{n}.dcm"))
    for path in map(Path, mutation.seeds(60_000)):
        meta = getattr(pydicom.dcmread(path, stop_before_pixels=True, force=True), "file_meta", {})
        found[_OF_SYNTAX.get(meta.get("TransferSyntaxUID"), "native")].append(path)
    return found


def _native() -> list[tuple[str, int, Array, dict[str, Any]]]:
    palette = {
        "PhotometricInterpretation": "PALETTE COLOR",
        **{f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in ("Red", "Green", "Blue")},
        **{f"{name}PaletteColorLookupTableData": bytes(range(256)) for name in ("Red", "Green", "Blue")},
    }
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(reversed(range(256)))
    return [
        (uid.ExplicitVRLittleEndian, 12, grey(12), {}),
        (uid.ImplicitVRLittleEndian, 8, grey(8), palette),
        (uid.ExplicitVRBigEndian, 16, grey(16), {"PhotometricInterpretation": "MONOCHROME1"}),
        (uid.ExplicitVRLittleEndian, 8, colour(), {"PhotometricInterpretation": "YBR_FULL"}),
        (uid.ExplicitVRLittleEndian, 8, grey(8), {"VOILUTSequence": Sequence([table])}),
        (uid.DeflatedExplicitVRLittleEndian, 12, grey(12), {}),
        (uid.DeflatedExplicitVRLittleEndian, 8, colour(), {}),
    ]


def reports(folder: Path) -> list[Path]:
    """Structured reports with sections, codes, measurements and names, and those of pydicom."""
    found = []
    for n, sentence in enumerate(("No effusion. A nodule of 4 mm on the left.", "no " * 400, "\u80ba\u708e " * 40)):
        tree = item(
            "CONTAINER",
            "Report",
            item("PNAME", "Reader", PersonName="Canary^Jane"),
            item("CONTAINER", "Findings", item("TEXT", "Finding", TextValue=sentence)),
            item("CODE", "Impression", ConceptCodeSequence=code("Pneumonia")),
            number("Diameter", "4.2", "mm", "millimetre"),
        )
        ds = dataset([grey(8)], uid.ExplicitVRLittleEndian, 8, 200 + n)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(ds, keyword)
        ds.SpecificCharacterSet, ds.Modality = "ISO_IR 192", "SR"
        ds.SOPClassUID = uid.ComprehensiveSRStorage
        for element in tree:
            ds.add(element)
        found.append(written(ds, folder / f"report{n}.dcm"))
    files = Path(pydicom.data.__file__).parent / "test_files"
    return [*found, files / "reportsi.dcm", files / "test-SR.dcm"]


def ordinary(folder: Path) -> list[Path]:
    """Pictures that are not DICOM."""
    found = []
    for n, values in enumerate((grey(8), colour())):
        for form in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
            found.append(folder / f"picture{n}.{form.lower()}")
            Image.fromarray(values).save(found[-1], form)
    return found


def rows(folder: Path) -> dict[str, list[Path]]:
    """Pairs files, truth files and label sets."""
    pairs = [
        {"image": f"{n}.png", "group": f"p{n // 2}", "split": "dev" if n % 3 else "train", "text": "No effusion."}
        for n in range(12)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    table = ["file,patient,effusion,nodule", *(f"{n}.png,p{n // 2},{n % 2},{(n + 1) % 2}" for n in range(12))]
    (folder / "truth.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    listed = ["sop_instance_uid,frame_number,labels", *(f'1.2.{n},1,"effusion;nodule"' for n in range(12))]
    (folder / "listed.csv").write_text("\n".join(listed) + "\n", encoding="utf-8")
    (folder / "set.yaml").write_text(LABELS, encoding="utf-8")
    (folder / "choice.yaml").write_text(CHOICE, encoding="utf-8")
    return {
        "pairs, JSON lines": [folder / "pairs.jsonl"],
        "truth, CSV": [folder / "truth.csv", folder / "listed.csv"],
        "label set": [folder / "set.yaml", folder / "choice.yaml"],
    }


LABELS = """name: findings
title: Two findings
kind: independent
labels:
  - {name: effusion, prompts: [an effusion, pleural effusion], absent: [no effusion], values: [Effusion]}
  - name: nodule
    prompts:
      - "a nodule"
      - >-
        a small
        nodule
"""
CHOICE = """name: modality
labels:
  - {name: CT, values: [CT, PT/CT], prompts: [a CT image]}
  - {name: MR, prompts: [an MR image]}
"""


def models(folder: Path) -> dict[str, list[Path]]:
    """Files of model folders, by what of a model they are. A mutant of one is put in its place in a copy."""
    folder.mkdir(exist_ok=True)
    bert, clip = write_bert_clip(folder / "bert"), write_clip(folder / "clip")
    # As a folder that was copied from elsewhere has it: its own files count, whatever they name.
    values = json.loads((bert / "open_clip_config.json").read_text("utf-8"))
    values["model_cfg"]["text_cfg"] |= {"hf_model_name": "some/bert", "hf_tokenizer_name": "some/bert"}
    (bert / "open_clip_config.json").write_text(json.dumps(values), encoding="utf-8")
    config, weights = "open_clip_config.json", "open_clip_model.safetensors"
    return {
        "model, configuration": [bert / config, clip / config, bert / "config.json"],
        "model, tokenizer": [bert / "tokenizer.json", bert / "tokenizer_config.json"],
        "model, weights": [bert / weights],
    }


def store(folder: Path) -> Path:
    """A store with frames, a report, saved labels, something erased, and its derived files."""
    place = folder / "store"
    with Store.create(place, SPEC | {"render_profile": {"name": "header"}}) as made:
        archive = made.catalog.files.archive_id("/a")
        plane = {"image_orientation_patient": "1\\0\\0\\0\\1\\0", "modality": "CT", "series_instance_uid": "1.3"}
        items = [
            indexed(f"{n}", f"1.2.{n}", frames=2, image_position_patient=f"0\\0\\{n}", **plane)
            for n in range(FRAMES // 2)
        ]
        report = indexed("sr", "1.99", frames=0, sentences=("No effusion.", "A nodule on the left."), modality="SR")
        gone = indexed("gone", "1.98", modality="MR")
        refused = (FileStat("refused", 1, 1), Rejection("refused", "not-dicom", "it is not DICOM"))
        made.catalog.files.commit(archive, [gone, *items, report], [refused])
        made.erase(SearchFilter({"modality": ("MR",)}))
        ids = made.catalog.frames.ids_matching(SearchFilter())
        saved = SavedSet("findings", ("effusion", "nodule"), "made", is_probability=True)
        made.catalog.labels.save(saved, [(ids, np.linspace(0, 1, 2 * len(ids)).reshape(-1, 2))])
        made.manifest["vector_indexes"] = {"frame": {"kind": "flat", "rows": FRAMES}}
        made.reports_index()
    return place


def exports(folder: Path, place: Path) -> dict[str, list[Path]]:
    """Vectors as medlens exports them, and as other writers may."""
    import pyarrow.parquet as pq

    with Store.open(place) as made:
        export_frames(made, folder / "vectors.npz")
        export_frames(made, folder / "vectors.parquet")
    table = pq.read_table(folder / "vectors.parquet")
    found = [folder / "vectors.parquet"]
    for compression in ("NONE", "SNAPPY", "GZIP"):
        found.append(folder / f"{compression}.parquet")
        options: dict[str, Any] = {"data_page_version": "2.0", "row_group_size": 9} if compression == "GZIP" else {}
        pq.write_table(table, found[-1], compression=compression, **options)
    return {"npz": [folder / "vectors.npz"], "parquet": found}


def npz_members(path: Path) -> dict[str, bytes]:
    """The arrays of an npz file, as the bytes of each."""
    with np.load(path) as values:
        found = {}
        for name in values.files:
            out = io.BytesIO()
            np.save(out, values[name])
            found[name] = out.getvalue()
    return found
