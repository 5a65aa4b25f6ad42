"""What a decoding process does with one file: from bytes to a record and small pictures. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset

from indexer.dicom.budget import Warn, ignore
from indexer.dicom.frame_attributes import with_frames
from indexer.dicom.header import read_record
from indexer.dicom.safe_read import open_dicom
from indexer.reading.frames import FramePolicy
from indexer.records import FileStat, InstanceRecord
from indexer.render.aspect import pixel_aspect, squared
from indexer.render.frame import render_frame
from indexer.render.pixels import Pixels
from indexer.render.precheck import check_before_decoding
from indexer.sources.opening import digest, fetched, opened
from indexer.sources.source import Where
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import NotDicomError, PixelDecodeError, UnsupportedImageError
from retrieval.language.sentences import sentences
from retrieval.types import RenderProfile, Uint8Image

_PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")


@dataclass(frozen=True)
class ReadSettings:
    """The settings that are equal for every file of a run."""

    pseudonym_key: bytes
    preprocess: Preprocess
    profile: RenderProfile
    frames: FramePolicy = FramePolicy()
    keep_descriptions: bool = True


@dataclass(frozen=True)
class FileToRead:
    """A file to read. `candidates` are content hashes of indexed files that it may be a copy of."""

    stat: FileStat
    where: Where
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class SameBytes:
    """A file that needs no decoding because its bytes are those of an indexed file."""

    content_hash: str


@dataclass(frozen=True)
class ReadFile:
    """A file that was read: its record, and its selected frames, scaled to the model's input size."""

    record: InstanceRecord
    frame_numbers: tuple[int, ...]
    pictures: tuple[Uint8Image, ...]
    sentences: tuple[str, ...]
    content_hash: str


@dataclass(frozen=True)
class FramesToRead:
    """Frames of a file that is in the catalog; `content_hash` is of its bytes then, empty if that was not kept."""

    where: Where
    sop_instance_uid: str
    frame_numbers: tuple[int, ...]
    content_hash: str = ""


@dataclass(frozen=True)
class OtherContent:
    """A file that does not hold any more what the catalog has of it."""


@dataclass(frozen=True)
class PictureRequest:
    """One frame of a file for people, or for a query: at most `longest` pixels along an edge, None for all."""

    where: Where
    profile: RenderProfile = RenderProfile()
    frame_number: int = 1
    window: str | None = None
    longest: int | None = None


_settings: ReadSettings | None = None


def set_settings(settings: ReadSettings) -> None:
    """Store the settings in this process, so that they are not sent with every file. Called once in each worker."""
    global _settings
    _settings = settings


def read_file(file: FileToRead) -> ReadFile | SameBytes:
    """Read, check, render and fit one DICOM file, unless it is a copy of a candidate. Raises DicomError."""
    if _settings is None:
        raise ValueError("set_settings must be called in this process first")
    where = fetched(file.where)
    content_hash = digest(where) if file.candidates else ""
    if content_hash in file.candidates:
        return SameBytes(content_hash)
    notes: list[str] = []
    ds = open_dicom(where, warn=notes.append)
    record = read_record(ds, _settings.pseudonym_key, keep_descriptions=_settings.keep_descriptions)
    numbers: tuple[int, ...] = ()
    pictures: tuple[Uint8Image, ...] = ()
    if record.kind == "image":
        pixels = check_before_decoding(ds, warn=notes.append)
        there = record.number_of_frames if pixels is None else min(record.number_of_frames, pixels.frames)
        numbers = _settings.frames.select(there)
        pictures = tuple(_fitted(ds, n, pixels, notes.append) for n in numbers)
        record = with_frames(replace(record, number_of_frames=there), ds, numbers, notes.append)
    record = replace(record, warnings=tuple(dict.fromkeys((*record.warnings, *notes))))
    found = tuple(sentences(record.report_text)) if record.kind == "report" else ()
    return ReadFile(record, numbers, pictures, found, content_hash or digest(where))


def read_frames(request: FramesToRead) -> tuple[Uint8Image, ...] | OtherContent:
    """The frames of a file that was indexed before, as the model of the settings sees them. Raises DicomError."""
    if _settings is None:
        raise ValueError("set_settings was not called in this worker")
    where = fetched(request.where)
    if request.content_hash and digest(where) != request.content_hash:
        return OtherContent()
    ds = open_dicom(where)
    if not request.content_hash:
        record = read_record(ds, _settings.pseudonym_key, keep_descriptions=False)
        if record.sop_instance_uid != request.sop_instance_uid:
            return OtherContent()
    pixels = check_before_decoding(ds)
    return tuple(_fitted(ds, number, pixels, ignore) for number in request.frame_numbers)


def _fitted(ds: Dataset, number: int, pixels: Pixels | None, warn: Warn) -> Uint8Image:
    """Return a frame as the model sees it: square pixels, the model's size."""
    if _settings is None:
        raise ValueError("set_settings must be called in this process first")
    picture = render_frame(ds, number, _settings.profile, pixels=pixels, warn=warn)
    return _settings.preprocess.fit(squared(picture, pixel_aspect(ds, number, warn)))


def read_picture(request: PictureRequest) -> Uint8Image:
    """Read one frame of a DICOM file, or an ordinary picture file, as uint8 [H, W] or [H, W, 3] with square pixels.

    Raises DicomError: NotDicomError for a file that is neither, others for what can't be shown.
    """
    where = fetched(request.where)
    try:
        ds = open_dicom(where)
    except NotDicomError as error:
        picture = _ordinary_picture(where, error)
    else:
        pixels = check_before_decoding(ds)
        picture = render_frame(ds, request.frame_number, request.profile, window=request.window, pixels=pixels)
        picture = squared(picture, pixel_aspect(ds, request.frame_number))
    if request.longest is None or max(picture.shape[:2]) <= request.longest:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((request.longest, request.longest), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _ordinary_picture(where: Where, error: NotDicomError) -> Uint8Image:
    """Read a picture from a file that is not DICOM. Raises `error` for an empty file or one that is not regular."""
    try:
        with opened(where) as file:
            if not file.read(1):
                raise error
            file.seek(0)
            with Image.open(file, formats=_PICTURE_FORMATS) as image:
                if image.mode in ("I;16", "I;16B", "I", "F"):
                    return _scaled(np.asarray(image, np.float64))
                return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except UnidentifiedImageError as exc:
        raise NotDicomError(
            "the file is neither a DICOM file nor a picture",
            hint=f"Name a DICOM file or a picture: {', '.join(_PICTURE_FORMATS)}.",
        ) from exc
    except Image.DecompressionBombError as exc:
        raise UnsupportedImageError(
            f"the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels", hint="Use a smaller picture."
        ) from exc
    except (OSError, ValueError, SyntaxError) as exc:
        raise PixelDecodeError(
            f"the picture is damaged or incomplete ({type(exc).__name__})",
            hint="Copy it again from its source.",
        ) from exc


def _scaled(values: npt.NDArray[np.float64]) -> Uint8Image:
    """Scale grey values of more than 8 bits to 0..255, between the percentiles used for a file without a window."""
    low, high = np.percentile(values, RenderProfile.percentiles)
    scaled = (values - low) / max(high - low, 1e-12)
    grey: Uint8Image = np.floor(scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return grey
