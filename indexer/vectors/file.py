"""The file of a derived index: what FAISS reads, and behind it a trailer that says what it is and how far it got.

First an IndexIDMap over float16 vectors, which `faiss.read_index` opens; then, if there is one, the compressed index;
then the trailer, JSON with its checksum and length. FAISS does not look behind its own bytes, so one file, replaced in
one step, holds all. The vectors themselves are not summed: reading a gigabyte to open an index would defeat mapping it.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from indexer.vectors.compressed import Compressed, Tuning
from indexer.vectors.flat import Flat, load_faiss, new_flat
from indexer.vectors.parts import Part, RowFile, new_part
from retrieval.errors import StoreCorrupt
from retrieval.on_disk import make_folder_like_its_parent, written_whole
from retrieval.types import Ids

_MAGIC = b"MEDLENS3"
_FOOTER = struct.Struct("<IQ8s")  # crc of the JSON, its length, magic


@dataclass(frozen=True)
class OpenedFile:
    """A file that is open and mapped, with what its trailer says. It stays what it is when the name is given away."""

    file: FileIO
    bytes: npt.NDArray[np.uint8]  # the mapped file
    meta: dict[str, Any]


def write_whole(path: Path, write: Callable[[IO[bytes]], dict[str, Any]]) -> None:
    """`write` fills a temporary file and returns the trailer; the file is sealed, synced and renamed, or nothing is."""
    make_folder_like_its_parent(path.parent)
    with written_whole(path, durable=True, like=path.parent) as temporary, temporary.open("wb") as file:
        text = json.dumps(write(file), sort_keys=True).encode()
        file.write(text + _FOOTER.pack(zlib.crc32(text), len(text), _MAGIC))


def write_flat(file: IO[bytes], dim: int, ids: Ids, vectors: Iterable[npt.NDArray[np.float16]]) -> dict[str, Any]:
    """Write an IndexIDMap of float16 vectors [len(ids), dim], some at a time; where things lie, for the trailer.

    What FAISS writes of an empty one gives the header: two counts are set in it, and the two arrays, whose lengths are
    its last 16 bytes, are filled.
    """
    faiss = load_faiss()
    head = bytearray(faiss.serialize_index(faiss.IndexIDMap(new_flat(dim))).tobytes()[:-16])
    for fourcc in (b"IxMp", b"IxSQ"):
        place = head.index(fourcc)
        struct.pack_into("<iq", head, place + 4, dim, len(ids))
    head += struct.pack("<Q", len(ids) * dim * 2)
    file.write(head)
    offset = file.tell()
    for batch in vectors:
        file.write(np.ascontiguousarray(batch, dtype="<f2").data)
    expected = offset + len(ids) * dim * 2
    if file.tell() != expected:
        raise RuntimeError(f"{file.tell() - offset} bytes of vectors were written, expected {expected - offset}")
    file.write(struct.pack("<Q", len(ids)))
    file.write(np.ascontiguousarray(ids, dtype="<i8").data)
    return {"dim": dim, "count": len(ids), "vectors_at": offset, "head_crc": zlib.crc32(head)}


def write_compressed(file: IO[bytes], compressed: Compressed) -> dict[str, Any]:
    """Write the compressed index where the file is; the trailer's entries."""
    faiss = load_faiss()
    start = file.tell()
    faiss.write_index(compressed.faiss_index, faiss.PyCallbackIOWriter(file.write, 1 << 20))
    tuning = {"nprobe": compressed.tuning.nprobe, "per_answer": compressed.tuning.per_answer}
    return {"compressed_at": start, "compressed_bytes": file.tell() - start, "tuning": tuning}


def open_file(path: Path) -> OpenedFile:
    """The file, mapped. FileNotFoundError if there is none, StoreCorrupt if it is damaged or cut."""
    try:
        file = FileIO(path)
        size = os.fstat(file.fileno()).st_size
        if size < _FOOTER.size:
            raise damaged(path, f"it has {size} bytes")
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StoreCorrupt(f"the index file {path.name} can't be read: {reason(exc, path)}") from exc
    crc, length, magic = _FOOTER.unpack(content[-_FOOTER.size :].tobytes())
    if magic != _MAGIC or length > size - _FOOTER.size:
        raise damaged(path, "its end is missing, or another version of medlens wrote it")
    text = content[size - _FOOTER.size - length : size - _FOOTER.size].tobytes()
    if zlib.crc32(text) != crc:
        raise damaged(path, "its trailer's checksum is wrong")
    meta: dict[str, Any] = json.loads(text)
    flat_end = meta["vectors_at"] + meta["count"] * (2 * meta["dim"] + 8) + 8
    payload = size - _FOOTER.size - length
    if payload != flat_end + meta.get("compressed_bytes", 0):
        raise damaged(path, f"it has {payload} bytes for {meta['count']} vectors of {meta['dim']} numbers")
    return OpenedFile(file, content, meta)


def read_part(path: Path, opened: OpenedFile) -> Part:
    """The rows of an opened file, nothing of them read yet but the ids. StoreCorrupt if it is no index of ours.

    FAISS is loaded for a compressed index; what lies flat is where the trailer says, behind the header that it sums.
    """
    meta, content = opened.meta, opened.bytes
    dim, count, start = meta["dim"], meta["count"], meta["vectors_at"]
    if zlib.crc32(content[:start].data) != meta["head_crc"]:
        raise damaged(path, "its header's checksum is wrong")
    end = start + 2 * dim * count
    vectors = content[start:end].view("<f2").reshape(count, dim)
    ids = content[end + 8 : end + 8 + 8 * count].view("<i8").astype(np.int64)
    if np.any(ids[1:] <= ids[:-1]):
        raise damaged(path, "its ids do not ascend")
    compressed = None
    if "compressed_at" in meta:
        try:
            compressed = Compressed(_read_index(content[meta["compressed_at"] :]), Tuning(**meta["tuning"]), content)
            size = (compressed.faiss_index.d, len(compressed))
        except (RuntimeError, AttributeError) as exc:
            raise damaged(path, reason(exc, path)) from exc
        if size != (dim, count):
            raise damaged(
                path, f"its compressed index has {size[1]} rows of {size[0]} numbers, expected {count}, {dim}"
            )
    flat = Flat(vectors, lambda: _flat_index(path, content, dim, count))
    return new_part(ids, flat, row_file=RowFile(opened.file, start, dim), compressed=compressed)


def _flat_index(path: Path, content: npt.NDArray[np.uint8], dim: int, count: int) -> tuple[Any, Any]:
    """The index of all vectors, which FAISS reads where they lie in the mapped file, and the owners of its memory."""
    faiss = load_faiss()
    try:
        whole = _read_index(content)
        inner = faiss.downcast_index(whole.index)
        seen = (type(inner).__name__, inner.d, inner.ntotal, inner.code_size)
    except (RuntimeError, AttributeError) as exc:
        raise damaged(path, reason(exc, path)) from exc
    if seen != ("IndexScalarQuantizer", dim, count, 2 * dim):
        raise damaged(path, f"its index is {seen}, expected {count} float16 vectors of {dim} numbers")
    return inner, (whole, content)


def _read_index(content: npt.NDArray[np.uint8]) -> Any:
    """The FAISS index that the bytes begin with. It looks into them: they have to outlive it."""
    faiss = load_faiss()
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(content), content.size)
    return faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)


def damaged(path: Path, why: str) -> StoreCorrupt:
    """The error for an index file that can't be used."""
    return StoreCorrupt(f"the index file {path.name} is damaged: {why}", hint="Delete it; it is built anew.")


def reason(exc: BaseException, path: Path) -> str:
    """What an OSError or FAISS says, in one line without the folder."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = str(exc).replace(f"{path.parent}{os.sep}", "")
    return text.splitlines()[0][:200] if text else type(exc).__name__
