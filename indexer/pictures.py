"""Pictures of files for queries and for people, decoded in a guarded worker like everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.guard import GuardedPool
from indexer.reading import PictureRequest, read_picture
from retrieval.errors import DicomError, InvalidImage, NotDicomError
from retrieval.types import RenderProfile, Uint8Image


def load_picture(path: Path, profile: RenderProfile, *, frame_number: int = 1, window: str | None = None) -> Uint8Image:
    """One frame of a DICOM file, or a PNG or JPEG, as uint8 [H, W] or [H, W, 3].

    Raises InvalidImage for a file that is no image, another DicomError for DICOM that can't be shown; both name the
    file without its folders.
    """
    _, outcome = next(load_pictures([PictureRequest(path, profile, frame_number, window)], workers=1))
    if isinstance(outcome, DicomError):
        kind = InvalidImage if isinstance(outcome, NotDicomError) else type(outcome)
        raise kind(f"{path.name!r} can't be used as an image: {outcome}", hint=outcome.hint) from outcome
    return outcome


def load_pictures(
    requests: Iterable[PictureRequest], *, workers: int = 2
) -> Iterator[tuple[PictureRequest, Uint8Image | DicomError]]:
    """The same for many, in order; what can't be read comes as its error."""
    with GuardedPool(read_picture, workers=workers) as pool:
        yield from pool.map(requests)
