"""What libraries raise while pixel data is read or decoded, as our errors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import DicomError, PixelDecodeError

# What pydicom, imagecodecs and NumPy were seen to raise on 10,000 broken files. Not MemoryError: that is
# for the guard, which tries the file once more in a fresh worker.
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
    zlib.error,
)


@contextmanager
def library_errors(action: str) -> Iterator[None]:
    """Turn whatever a library raises into a PixelDecodeError that says what was being done.

    Only the kind and the start of the message are kept; of an OSError only the system's words, as it holds a path.
    """
    try:
        yield
    except DicomError:
        raise
    except LIBRARY_ERRORS as exc:
        said = (exc.strerror or "") if isinstance(exc, OSError) else " ".join(str(exc).split())[:160]
        raise PixelDecodeError(
            f"{action}: {type(exc).__name__}{': ' + said if said else ''}; the file is probably truncated or corrupt"
        ) from exc
