"""The file of a derived index: what FAISS reads, and behind it a trailer that says what it is and how far it got.

First an IndexIDMap over float16 vectors, which `faiss.read_index` opens; then, if there is one, the compressed index;
then the checksums of all those bytes, by blocks; then the trailer, JSON with its checksum and length. FAISS does not
look behind its own bytes, so one file, replaced in one step, holds all. A block is compared with its checksum when it
is first read (`blocks`), so that no damaged byte of a file takes part in an answer and opening one stays cheap.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexer.vectors.blocks import CheckedFile, ChecksumWriter, blocks_of
from indexer.vectors.compressed import Compressed, MappedLists, Tuning
from indexer.vectors.flat import Flat, load_faiss, new_flat
from indexer.vectors.parts import Part, VectorFile, new_part
from retrieval.bounded import parse_json
from retrieval.errors import StoreCorrupt
from retrieval.on_disk import make_folder_like_its_parent, written_whole
from retrieval.types import Ids

_MAGIC = b"MEDLENS4"
_WITHOUT_SUMS = b"MEDLENS3"  # of medlens 0.1.0
_FOOTER = struct.Struct("<IQ8s")  # crc of the JSON, its length, magic


@dataclass(frozen=True)
class OpenedFile:
    """An open, mapped file with the content of its trailer. It remains valid when another file gets its name."""

    file: FileIO
    bytes: npt.NDArray[np.uint8]  # the mapped file, unchecked
    checked: CheckedFile
    meta: dict[str, Any]


class Outdated(StoreCorrupt):
    """An index file of medlens 0.1.0, without checksums. `seq` is the last deletion of the catalog that it includes."""

    def __init__(self, path: Path, seq: int) -> None:
        super().__init__(f"the index file {path.name} was written by medlens 0.1.0 and has no checksums")
        self.seq = seq


class WritableFile(Protocol):
    """What the parts of an index file are written to."""

    def write(self, data: Any, /) -> int: ...

    def tell(self) -> int: ...


def write_whole(path: Path, write: Callable[[WritableFile], dict[str, Any]]) -> None:
    """Write a file completely or not at all: `write` fills a temporary file and returns the trailer; then it is synced
    and renamed.
    """
    make_folder_like_its_parent(path.parent)
    with written_whole(path, durable=True, like=path.parent) as temporary, temporary.open("wb") as file:
        summed = ChecksumWriter(file)
        meta = write(summed)
        sums = summed.sums().tobytes()
        text = json.dumps(meta | {"sums_crc": zlib.crc32(sums)}, sort_keys=True).encode()
        file.write(sums + text + _FOOTER.pack(zlib.crc32(text), len(text), _MAGIC))


def write_flat(file: WritableFile, dim: int, ids: Ids, vectors: Iterable[npt.NDArray[np.float16]]) -> dict[str, Any]:
    """Write an IndexIDMap of float16 vectors [len(ids), dim], in chunks. Returns their offsets, for the trailer.

    The header is what FAISS writes for an empty index: two counts are set in it, and the two arrays, whose lengths are
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
        raise RuntimeError(f"{file.tell() - offset} bytes of vectors were written; expected {expected - offset}")
    file.write(struct.pack("<Q", len(ids)))
    file.write(np.ascontiguousarray(ids, dtype="<i8").data)
    return {"dim": dim, "count": len(ids), "vectors_at": offset}


def write_compressed(file: WritableFile, compressed: Compressed) -> dict[str, Any]:
    """Write the compressed index at the file's position. Returns the trailer's entries."""
    faiss = load_faiss()
    start = file.tell()
    faiss.write_index(compressed.faiss_index, faiss.PyCallbackIOWriter(file.write, 1 << 20))
    tuning = {"nprobe": compressed.tuning.nprobe, "per_answer": compressed.tuning.per_answer}
    size = file.tell() - start
    return {"compressed_at": start, "compressed_bytes": size, "list_bytes": compressed.list_bytes, "tuning": tuning}


def open_file(path: Path) -> OpenedFile:
    """Open and map the file.

    Raises FileNotFoundError if there is none, StoreCorrupt if it is cut or its trailer is damaged.
    """
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
    if magic not in (_MAGIC, _WITHOUT_SUMS) or length > size - _FOOTER.size:
        raise damaged(path, "its end is missing, or another version of medlens wrote it")
    text_at = size - _FOOTER.size - length
    text = content[text_at : size - _FOOTER.size].tobytes()
    if zlib.crc32(text) != crc:
        raise damaged(path, "its trailer's checksum is wrong")
    meta = _trailer(path, text, size)
    if "sums_crc" not in meta:
        raise Outdated(path, meta["seq"])
    payload = flat_end(meta) + meta.get("compressed_bytes", 0)
    if text_at != payload + 4 * blocks_of(payload):
        raise damaged(path, f"it has {text_at} bytes for {meta['count']} vectors of {meta['dim']} numbers")
    sums = content[payload:text_at].tobytes()
    if zlib.crc32(sums) != meta["sums_crc"]:
        raise damaged(path, "its list of checksums is damaged")
    error = partial(damaged, path, "a checksum is wrong")
    return OpenedFile(file, content, CheckedFile(file, payload, np.frombuffer(sums, dtype="<u4"), error), meta)


def _trailer(path: Path, text: bytes, size: int) -> dict[str, Any]:
    """The trailer's values. A checksum tells an accident, not a lie: each is of its type and within the file."""
    try:
        meta = parse_json(text)
    except ValueError as exc:
        raise damaged(path, "its trailer is not JSON") from exc
    if not isinstance(meta, dict) or not all(isinstance(meta.get(name), str) for name in ("kind", "store_id")):
        raise damaged(path, "its trailer says too little")
    numbers = {name: meta.get(name) for name in ("dim", "count", "vectors_at", "last_id", "seq")}
    numbers |= {name: meta[name] for name in ("compressed_at", "compressed_bytes", "list_bytes") if name in meta}
    tuning = meta.get("tuning", {})
    tuned = isinstance(tuning, dict) and all(type(value) is int and 0 < value < 1 << 31 for value in tuning.values())
    for name, value in numbers.items():
        most = 1 << 62 if name in ("last_id", "seq") else size
        if type(value) is not int or not 0 <= value <= most or not tuned:
            raise damaged(path, f"its trailer says {name} {str(value)[:40]!r}")
    return meta


def flat_end(meta: dict[str, Any]) -> int:
    """Return where the float16 vectors and their ids end."""
    return int(meta["vectors_at"] + meta["count"] * (2 * meta["dim"] + 8) + 8)


def read_part(path: Path, opened: OpenedFile) -> Part:
    """Return the rows of an opened file; only the ids are read. Raises StoreCorrupt if they are damaged.

    FAISS is loaded only for a compressed index; the trailer states where flat vectors are.
    """
    meta, content, checked = opened.meta, opened.bytes, opened.checked
    dim, count, start = meta["dim"], meta["count"], meta["vectors_at"]
    end = start + 2 * dim * count
    vectors = content[start:end].view("<f2").reshape(count, dim)
    checked.require(0, start)
    checked.require(end, end + 8 + 8 * count)
    ids = content[end + 8 : end + 8 + 8 * count].view("<i8").astype(np.int64)
    if np.any(ids[1:] <= ids[:-1]):
        raise damaged(path, "its ids do not ascend")
    compressed = _compressed(path, opened) if "compressed_at" in meta else None
    flat = Flat(
        vectors,
        lambda: _flat_index(path, opened),
        lambda first, stop: checked.require(start + 2 * dim * first, start + 2 * dim * stop),
    )
    return new_part(ids, flat, vector_file=VectorFile(opened.file, checked, start, dim), compressed=compressed)


def _compressed(path: Path, opened: OpenedFile) -> Compressed:
    """The compressed index of an opened file. What FAISS reads now is checked now, a list when it is searched."""
    meta, content, checked = opened.meta, opened.bytes, opened.checked
    start, expected = meta["compressed_at"], (meta["dim"], meta["count"])
    checked.require(start, start + meta["compressed_bytes"] - meta["list_bytes"])
    try:
        faiss_index = _read_index(content[start:])
        lists = MappedLists(faiss_index, content, checked)
        compressed = Compressed(faiss_index, Tuning(**meta["tuning"]), lists)
        size = (faiss_index.d, len(compressed))
    except (RuntimeError, AttributeError) as exc:
        raise damaged(path, reason(exc, path)) from exc
    if size != expected:
        raise damaged(path, f"its compressed index has (numbers, rows) {size}, expected {expected}")
    return compressed


def _flat_index(path: Path, opened: OpenedFile) -> tuple[Any, Any]:
    """Return the index of all vectors, which FAISS reads in the mapped file, and the owners of its memory."""
    faiss = load_faiss()
    content, dim, count = opened.bytes, opened.meta["dim"], opened.meta["count"]
    opened.checked.require(0, flat_end(opened.meta))
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
    """Return the FAISS index that the bytes begin with. It refers to them, so they must outlive it."""
    faiss = load_faiss()
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(content), content.size)
    return faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)


def damaged(path: Path, why: str) -> StoreCorrupt:
    """Return the error for an index file that can't be used."""
    return StoreCorrupt(
        f"the index file {path.name} is damaged: {why}", hint="Delete the file; medlens rebuilds it from the catalog."
    )


def reason(exc: BaseException, path: Path) -> str:
    """Return the message of an OSError or of FAISS, in one line without the folder."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = str(exc).replace(f"{path.parent}{os.sep}", "")
    return text.splitlines()[0][:200] if text else type(exc).__name__
