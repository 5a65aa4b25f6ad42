"""Errors that libraries raise while pixel data are read or decoded, translated to ours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.errors import BytesLengthException

from retrieval.errors import DicomError, PixelDecodeError

# Errors of pydicom, imagecodecs and NumPy that occurred on 10,000 broken files. Not MemoryError, which is handled by
# the guard: it tries the file once more in a fresh worker.
LIBRARY_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # imagecodecs' errors, NotImplementedError and RecursionError among them
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    BytesLengthException,
    zlib.error,
)


@contextmanager
def library_errors(action: str) -> Iterator[None]:
    """Translate any error of a library to a PixelDecodeError that names the action.

    Only the kind and the start of the message are kept; of an OSError only the system's words, because it contains a
    path.
    """
    try:
        yield
    except DicomError:
        raise
    except LIBRARY_ERRORS as exc:
        text = (exc.strerror or "") if isinstance(exc, OSError) else " ".join(str(exc).split())[:160]
        raise PixelDecodeError(
            f"{action}: {type(exc).__name__}{': ' + text if text else ''}; the file is probably truncated or corrupt"
        ) from exc
