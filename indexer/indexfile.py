"""The file of a derived index: what FAISS wrote, and behind it a trailer that says what it is and how far it got.

The trailer is JSON (kind, dim, count, store_id, last_id, seq) with its checksum and length. FAISS does not look behind
its own bytes, so one file, replaced in one step, holds both. The vectors themselves are not summed: reading a gigabyte
to open an index would defeat mapping it.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval.errors import StoreCorrupt

_MAGIC = b"MEDLENS1"
_FOOTER = struct.Struct("<IQ8s")  # crc of the JSON, its length, magic


def write_index_file(path: Path, write: Callable[[str], None], meta: dict[str, Any]) -> None:
    """`write(name)` makes the index in a temporary file, which is sealed, synced and renamed to `path`, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(str(temporary))
        text = json.dumps(meta, sort_keys=True).encode()
        with temporary.open("ab") as file:
            file.write(text + _FOOTER.pack(zlib.crc32(text), len(text), _MAGIC))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_meta(path: Path) -> dict[str, Any]:
    """The trailer. FileNotFoundError if there is no file, StoreCorrupt if it is damaged or cut."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < _FOOTER.size:
                raise damaged(path, f"it has {size} bytes")
            file.seek(size - _FOOTER.size)
            crc, length, magic = _FOOTER.unpack(file.read(_FOOTER.size))
            if magic != _MAGIC or length > size - _FOOTER.size:
                raise damaged(path, "its end is missing")
            file.seek(size - _FOOTER.size - length)
            text = file.read(length)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StoreCorrupt(f"the index file {path.name} can't be read: {reason(exc, path)}") from exc
    if zlib.crc32(text) != crc:
        raise damaged(path, "its trailer's checksum is wrong")
    meta: dict[str, Any] = json.loads(text)
    payload = size - _FOOTER.size - length
    if payload < meta["count"] * (2 * meta["dim"] + 8):
        raise damaged(path, f"it has {payload} bytes for {meta['count']} vectors of {meta['dim']} numbers")
    return meta


def damaged(path: Path, why: str) -> StoreCorrupt:
    """The error for an index file that can't be used."""
    return StoreCorrupt(f"the index file {path.name} is damaged: {why}", hint="Delete it; it is built anew.")


def reason(exc: BaseException, path: Path) -> str:
    """What an OSError or FAISS says, in one line without the folder."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = str(exc).replace(f"{path.parent}{os.sep}", "")
    return text.splitlines()[0][:200] if text else type(exc).__name__
