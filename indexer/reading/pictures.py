"""Pictures of files for queries and for people, decoded in a guarded process like everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from indexer.dicom.header import read_record
from indexer.dicom.safe_read import read_header
from indexer.guard.pool import GuardedPool
from indexer.reading.files import PictureRequest, read_picture
from indexer.records import Origin
from indexer.sources.opening import fetched
from indexer.sources.source import Where
from retrieval.errors import DicomError, InvalidImage, NotDicomError, UnsupportedImageError
from retrieval.types import RenderProfile, Uint8Image


@dataclass(frozen=True)
class QueryImage:
    """A file that is part of a query. `key` is the store's pseudonym key; None if the store lacks it."""

    picture: PictureRequest
    key: bytes | None


def load_picture(
    where: Where, profile: RenderProfile, *, frame_number: int = 1, window: str | None = None
) -> Uint8Image:
    """Load one frame of a DICOM file, or a PNG or JPEG, as uint8 [H, W] or [H, W, 3].

    Raises InvalidImage for a file that is not an image, another DicomError for DICOM that can't be shown. Messages name
    the file without its folders.
    """
    _, outcome = next(load_pictures([PictureRequest(where, profile, frame_number, window)], workers=1))
    if isinstance(outcome, DicomError):
        raise _unusable(where, outcome) from outcome
    return outcome


def load_pictures(
    requests: Iterable[PictureRequest], *, workers: int = 2
) -> Iterator[tuple[PictureRequest, Uint8Image | DicomError]]:
    """Load several pictures, in order. A file that can't be read gives its error instead of a picture."""
    with GuardedPool(read_picture, workers=workers) as pool:
        yield from pool.map(requests)


def load_query_images(images: Sequence[QueryImage]) -> list[tuple[Uint8Image, Origin]]:
    """Load the pictures of a query with the origin in their headers. A PNG or JPEG has no known origin.

    Raises as `load_picture` does.
    """
    loaded = []
    with GuardedPool(_read_query_image, workers=min(2, len(images))) as pool:
        for image, outcome in pool.map(images):
            if isinstance(outcome, DicomError):
                raise _unusable(image.picture.where, outcome) from outcome
            loaded.append(outcome)
    return loaded


def _read_query_image(image: QueryImage) -> tuple[Uint8Image, Origin]:
    where = fetched(image.picture.where)
    picture = read_picture(replace(image.picture, where=where))
    try:
        record = read_record(read_header(where), image.key or bytes(32), keep_descriptions=False)
    except (NotDicomError, UnsupportedImageError):
        return picture, Origin()
    patient = record.patient_pseudonym if image.key is not None else None
    return picture, Origin(record.sop_instance_uid, record.study_instance_uid, patient, record.burned_in_text)


def _unusable(where: Where, error: DicomError) -> DicomError | InvalidImage:
    kind = InvalidImage if isinstance(error, NotDicomError) else type(error)
    return kind(f"{where.name or str(where)!r} can't be used as an image: {error}", hint=error.hint)
