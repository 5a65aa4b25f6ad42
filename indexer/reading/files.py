"""What a decoding worker does with one file: bytes in, record and small pictures out. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn
from indexer.dicom.header import read_record
from indexer.dicom.safe_read import open_dicom
from indexer.reading.frames import FramePolicy
from indexer.records import FileStat, InstanceRecord
from indexer.render.aspect import pixel_aspect, squared
from indexer.render.frame import render_frame
from indexer.render.pixels import Pixels
from indexer.render.precheck import check_before_decoding
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import NotDicomError, PixelDecodeError, UnsupportedImageError
from retrieval.language.sentences import sentences
from retrieval.types import RenderProfile, Uint8Image

_PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")


@dataclass(frozen=True)
class ReadSettings:
    """What is the same for every file of a run."""

    pseudonym_key: bytes
    preprocess: Preprocess
    profile: RenderProfile
    frames: FramePolicy = FramePolicy()
    keep_descriptions: bool = True


@dataclass(frozen=True)
class FileToRead:
    """`candidates` are content hashes of indexed files that it may be a copy of."""

    stat: FileStat
    path: Path
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class SameBytes:
    """A file that needs no decoding: its bytes are those of a file that is indexed."""

    content_hash: str


@dataclass(frozen=True)
class ReadFile:
    """A file that was read: its record, and its chosen frames fitted to the model's input size."""

    record: InstanceRecord
    frame_numbers: tuple[int, ...]
    pictures: tuple[Uint8Image, ...]
    sentences: tuple[str, ...]
    content_hash: str


@dataclass(frozen=True)
class PictureRequest:
    """One frame of a file for people, or for a query: at most `longest` pixels along an edge, None for all."""

    path: Path
    profile: RenderProfile = RenderProfile()
    frame_number: int = 1
    window: str | None = None
    longest: int | None = None


_settings: ReadSettings | None = None


def set_settings(settings: ReadSettings) -> None:
    """Called once in each worker, so that the settings do not travel with every file."""
    global _settings
    _settings = settings


def read_file(file: FileToRead) -> ReadFile | SameBytes:
    """Read, check, render and fit one DICOM file, unless it is a copy of a candidate. Raises DicomError."""
    if _settings is None:
        raise ValueError("set_settings was not called in this worker")
    digest = _digest(file.path) if file.candidates else ""
    if digest in file.candidates:
        return SameBytes(digest)
    notes: list[str] = []
    ds = open_dicom(file.path, warn=notes.append)
    record = read_record(ds, _settings.pseudonym_key, keep_descriptions=_settings.keep_descriptions)
    numbers: tuple[int, ...] = ()
    pictures: tuple[Uint8Image, ...] = ()
    if record.kind == "image":
        pixels = check_before_decoding(ds, warn=notes.append)
        there = record.number_of_frames if pixels is None else min(record.number_of_frames, pixels.frames)
        numbers = _settings.frames.select(there)
        pictures = tuple(_fitted(ds, n, pixels, notes.append) for n in numbers)
        record = replace(record, number_of_frames=there)
    record = replace(record, warnings=tuple(dict.fromkeys((*record.warnings, *notes))))
    found = tuple(sentences(record.report_text)) if record.kind == "report" else ()
    return ReadFile(record, numbers, pictures, found, digest or _digest(file.path))


def _fitted(ds: Dataset, number: int, pixels: Pixels | None, warn: Warn) -> Uint8Image:
    """A frame as the model sees it: square pixels, the model's size."""
    if _settings is None:
        raise ValueError("set_settings was not called in this worker")
    picture = render_frame(ds, number, _settings.profile, pixels=pixels, warn=warn)
    return _settings.preprocess.fit(squared(picture, pixel_aspect(ds, number, warn)))


def read_picture(request: PictureRequest) -> Uint8Image:
    """One frame of a DICOM file, or an ordinary picture file, as uint8 [H, W] or [H, W, 3]. Pixels are square.

    Raises DicomError: NotDicomError for a file that is neither, others for what can't be shown.
    """
    try:
        ds = open_dicom(request.path)
    except NotDicomError:
        if not request.path.is_file() or not request.path.stat().st_size:
            raise  # a folder, a FIFO that would block, nothing at all: no picture either
        picture = _ordinary_picture(request.path)
    else:
        pixels = check_before_decoding(ds)
        picture = render_frame(ds, request.frame_number, request.profile, window=request.window, pixels=pixels)
        picture = squared(picture, pixel_aspect(ds, request.frame_number))
    if request.longest is None or max(picture.shape[:2]) <= request.longest:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((request.longest, request.longest), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _ordinary_picture(path: Path) -> Uint8Image:
    try:
        with Image.open(path, formats=_PICTURE_FORMATS) as image:
            if image.mode in ("I;16", "I;16B", "I", "F"):
                return _scaled(np.asarray(image, np.float64))
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except UnidentifiedImageError as exc:
        raise NotDicomError(
            "the file is neither DICOM nor a picture",
            hint=f"Give a DICOM file, or one of {', '.join(_PICTURE_FORMATS)}.",
        ) from exc
    except Image.DecompressionBombError as exc:
        raise UnsupportedImageError(
            f"the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels", hint="Give a smaller one."
        ) from exc
    except (OSError, ValueError, SyntaxError) as exc:
        raise PixelDecodeError(
            f"the picture is damaged or cut short ({type(exc).__name__})",
            hint="Fetch it again from where it came from.",
        ) from exc


def _scaled(values: npt.NDArray[np.float64]) -> Uint8Image:
    """Grey values of more than 8 bits to 0..255 between the percentiles that a file without a window gets."""
    low, high = np.percentile(values, RenderProfile.percentiles)
    scaled = (values - low) / max(high - low, 1e-12)
    grey: Uint8Image = np.floor(scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return grey


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
