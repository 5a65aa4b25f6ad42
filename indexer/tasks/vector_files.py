"""Read vectors from an untrusted npz or parquet file, within the bounds of what the store could use.

A file names each frame of the store at most once, so more rows than the store has frames are refused before anything is
read; no memory is allocated because of a header alone. An npz file is read here in pieces. A parquet file, whose pages
can claim any size, is read by pyarrow in a guarded process with limits on memory and time.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from indexer.guard.pool import GuardedPool
from retrieval.errors import DicomError, StoreError

_HINT = (
    "Use an npz file with the arrays vectors, sop_instance_uid and frame_number, or a file that `medlens export` wrote."
)
_MOST_TEXT = 1 << 18  # characters of a model's description
_LONGEST_UID = 256  # characters; 64 by the standard
_MOST_DIRECTORY = 1 << 20  # bytes in which a zip file lists its members
_MOST_FOOTER = 64 << 20  # bytes in which a parquet file describes itself
_MOST_DESCRIBED = 100_000  # row groups, or columns and what they are nested in
_MOST_COLUMNS = 1000
_PIECE = 1 << 20  # bytes that are unpacked at a time
_LARGEST_GROUP = 900 << 20  # bytes of float16 vectors in one row group
_SPARE_MEMORY = 1 << 30
_DEADLINE_S = 300.0


class UnsuitableFile(Exception):
    """The reason why a file is refused, in words that quote nothing of its content."""


@dataclass(frozen=True)
class Bounds:
    """What a store could use: vectors of `dim` numbers, of at most `rows` frames."""

    dim: int
    rows: int


@dataclass(frozen=True)
class VectorRows:
    """`vectors` [n, dim] float16 for n frames, and the description of the model that made them, if there is one."""

    uids: list[str]
    frame_numbers: list[int]
    vectors: npt.NDArray[np.float16]
    model: dict[str, Any] | None


def read_vectors(path: Path, bounds: Bounds) -> VectorRows:
    """Read an npz or a parquet file. Raises StoreError for any other, damaged or too large file."""
    try:
        if path.exists() and not path.is_file():
            raise UnsuitableFile("it is not a regular file")
        return _parquet(path, bounds) if path.suffix.lower() == ".parquet" else _npz(path, bounds)
    except UnsuitableFile as exc:
        raise StoreError(f"the vectors of {path.name} can't be read: {exc}", hint=_HINT) from exc
    except FileNotFoundError as exc:
        raise StoreError(f"the file {path.name} does not exist") from exc
    except OSError as exc:
        why = exc.strerror or type(exc).__name__
        raise StoreError(f"the vectors of {path.name} can't be read: {why}", hint=_HINT) from exc


def _require_rows(count: int, bounds: Bounds) -> None:
    if count > bounds.rows:
        shown = count if count < 10**15 else "over 10^15"
        raise UnsuitableFile(f"the file has {shown} vectors, but the store has {bounds.rows} frames")


def _model(text: str | bytes | None) -> dict[str, Any] | None:
    """Return the description of a model; None if there is none, or it is not a JSON object."""
    if text is None:
        return None
    if len(text) > _MOST_TEXT:
        raise UnsuitableFile(f"the description of its model has {len(text)} characters; expected at most {_MOST_TEXT}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UnsuitableFile(f"the description of its model is not valid JSON ({type(exc).__name__})") from exc
    return value if isinstance(value, dict) else None


# -- npz


def _npz(path: Path, bounds: Bounds) -> VectorRows:
    with path.open("rb") as file:
        _require_short_directory(file)
        try:
            with zipfile.ZipFile(file) as archive:
                return _npz_rows(archive, bounds)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, UnicodeDecodeError) as exc:
            raise UnsuitableFile(f"it is not an npz file, or it is damaged ({type(exc).__name__})") from exc


def _npz_rows(archive: zipfile.ZipFile, bounds: Bounds) -> VectorRows:
    with _member(archive, "vectors") as (stream, shape, dtype, fortran):
        if dtype.kind != "f" or dtype.itemsize > 8 or len(shape) != 2 or shape[1] != bounds.dim:
            raise UnsuitableFile(
                f"its vectors are {_described(dtype, shape)}; expected floats of shape (N, {bounds.dim})"
            )
        _require_rows(shape[0], bounds)
        vectors = np.empty(shape[::-1] if fortran else shape, dtype="<f2")
        _fill(stream, vectors.reshape(-1), dtype)
    with _member(archive, "sop_instance_uid") as (stream, shape, dtype, _):
        if dtype.kind != "U" or not 0 < dtype.itemsize <= 4 * _LONGEST_UID or len(shape) != 1:
            raise UnsuitableFile(
                f"its UIDs are {_described(dtype, shape)}; expected texts of up to {_LONGEST_UID} characters"
            )
        uids = _column(stream, shape, dtype, bounds)
    with _member(archive, "frame_number") as (stream, shape, dtype, _):
        if dtype.kind not in "iu" or len(shape) != 1:
            raise UnsuitableFile(
                f"its frame numbers are {_described(dtype, shape)}; expected one dimension of integers"
            )
        numbers = _column(stream, shape, dtype, bounds)
    model = None
    if "model.npy" in archive.namelist():
        with _member(archive, "model") as (stream, shape, dtype, _):
            if dtype.kind != "U" or shape != () or not 0 < dtype.itemsize <= 4 * _MOST_TEXT:
                raise UnsuitableFile(
                    f"its model is {_described(dtype, shape)}; expected one text of up to {_MOST_TEXT} characters"
                )
            model = _model(str(np.frombuffer(_exactly(stream, dtype.itemsize), dtype)[0]))
    return VectorRows(uids, numbers, vectors.T if fortran else vectors, model)


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any], bool]]:
    """An array in an npz file before its first byte: the stream, shape, dtype, and whether columns come first."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as exc:
        raise UnsuitableFile(f"it has no array {name}") from exc
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsuitableFile(f"its array {name} is compressed by method {info.compress_type}; expected deflate")
    with archive.open(info) as stream:
        try:
            version = npy.read_magic(stream)
            if version != (1, 0):  # its header can't be longer than 64 KiB, and is what NumPy writes of such arrays
                raise UnsuitableFile(f"its array {name} has version {version} of the npy format; expected (1, 0)")
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as exc:
            raise UnsuitableFile(f"the header of its array {name} can't be read ({type(exc).__name__})") from exc
        if dtype.hasobject or min(shape, default=0) < 0:
            raise UnsuitableFile(f"its array {name} is {_described(dtype, shape)}; Python objects are not read")
        yield stream, shape, dtype, fortran


def _described(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{str(dtype)[:60]} of shape {str(shape)[:60]}"


def _fill(stream: IO[bytes], out: npt.NDArray[np.float16], dtype: np.dtype[Any]) -> None:
    """Read numbers into `out` [n], in pieces."""
    step = _PIECE // dtype.itemsize
    for start in range(0, len(out), step):
        count = min(step, len(out) - start)
        with np.errstate(over="ignore"):  # a value that float16 can't represent becomes infinity and is refused
            out[start : start + count] = np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)


def _column(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], bounds: Bounds) -> list[Any]:
    _require_rows(shape[0], bounds)
    out: list[Any] = []
    while len(out) < shape[0]:
        count = min(_PIECE // dtype.itemsize, shape[0] - len(out))
        out += np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype).tolist()
    return out


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise UnsuitableFile("it ends within an array")
    return data


def _require_short_directory(file: IO[bytes]) -> None:
    """Refuse a long list of members: `zipfile` reads it at once, whatever length the file declares."""
    size = file.seek(0, 2)
    file.seek(max(0, size - (1 << 16) - 64))
    tail = file.read((1 << 16) + 64)
    at = tail.rfind(b"PK\5\6")
    length = struct.unpack_from("<I", tail, at + 12)[0] if 0 <= at <= len(tail) - 22 else 0
    locator = tail.rfind(b"PK\6\7", 0, max(at, 0))
    if locator >= 0 and locator + 16 <= len(tail):  # beyond 4 GB
        file.seek(min(struct.unpack_from("<Q", tail, locator + 8)[0], size))
        record = file.read(56)
        length = max(length, struct.unpack_from("<Q", record, 40)[0] if len(record) == 56 else 0)
    if length > _MOST_DIRECTORY:
        raise UnsuitableFile(f"its list of arrays has {length} bytes; expected at most {_MOST_DIRECTORY}")
    file.seek(0)


# -- parquet


@dataclass(frozen=True)
class _Group:
    """A row group of a parquet file; number -1 stands for the file's metadata."""

    path: Path
    number: int
    bounds: Bounds


def _parquet(path: Path, bounds: Bounds) -> VectorRows:
    _require_pyarrow()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        if len(tail) < 8 or tail[4:] != b"PAR1":
            raise UnsuitableFile("it is not a Parquet file")
        if (footer := struct.unpack("<I", tail[:4])[0]) > _MOST_FOOTER:
            raise UnsuitableFile(f"its metadata have {footer} bytes; expected at most {_MOST_FOOTER}")
    memory = _SPARE_MEMORY + 8 * bounds.rows * (4 * bounds.dim + _LONGEST_UID)
    with GuardedPool(_read_group, workers=1, memory_limit=memory, deadline_s=_DEADLINE_S) as pool:
        (groups, model) = _guarded(pool, [_Group(path, -1, bounds)])[0]
        parts = _guarded(pool, [_Group(path, number, bounds) for number in range(groups)])
    vectors = [part[2] for part in parts]
    return VectorRows(
        [uid for part in parts for uid in part[0]],
        [number for part in parts for number in part[1]],
        np.concatenate(vectors) if vectors else np.empty((0, bounds.dim), np.float16),
        _model(model),
    )


def _guarded(pool: GuardedPool[_Group, Any], items: list[_Group]) -> list[Any]:
    done: list[Any] = []
    for _, result in pool.map(items):
        if isinstance(result, DicomError):  # the worker died, or exceeded its memory or time
            raise UnsuitableFile("reading it needs more memory or time than its number of vectors explains")
        if isinstance(result, str):
            raise UnsuitableFile(result)
        done.append(result)
    return done


def _read_group(group: _Group) -> Any:
    """Run in a guarded process: return (row groups, model) of a file, or (UIDs, frame numbers, vectors) of a group; a
    text if refused.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with closing(_opened(pq, group.path)) as file:
            return _description(file, group.bounds) if group.number < 0 else _group_rows(file, group)
    except UnsuitableFile as exc:
        return str(exc)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as exc:
        return f"it is not a parquet file, or damaged ({type(exc).__name__})"


def _opened(parquet: Any, path: Path) -> Any:
    return parquet.ParquetFile(path, thrift_string_size_limit=_MOST_FOOTER, thrift_container_size_limit=_MOST_DESCRIBED)


def _description(file: Any, bounds: Bounds) -> tuple[int, bytes | None]:
    import pyarrow.types as kinds

    described, schema = file.metadata, file.schema_arrow
    _require_rows(described.num_rows, bounds)
    if described.num_row_groups > described.num_rows or described.num_columns > _MOST_COLUMNS:
        raise UnsuitableFile(
            f"it has {described.num_row_groups} row groups and {described.num_columns} columns, which is too many"
        )
    wanted: dict[str, Callable[[Any], bool]] = {
        "sop_instance_uid": lambda kind: kinds.is_string(kind) or kinds.is_large_string(kind),
        "frame_number": kinds.is_integer,
        "vector": lambda kind: _is_list(kind) and kinds.is_floating(kind.value_type),
    }
    for name, fits in wanted.items():
        if schema.names.count(name) != 1:
            raise UnsuitableFile(f"it has {schema.names.count(name)} columns named {name}; expected one")
        if not fits(schema.field(name).type):
            raise UnsuitableFile(f"its column {name} has a different type from the one `medlens export` writes")
    for number in range(described.num_row_groups):
        _require_moderate(described.row_group(number), bounds)
    return described.num_row_groups, (schema.metadata or {}).get(b"medlens_model")


def _require_moderate(row_group: Any, bounds: Bounds) -> None:
    rows = row_group.num_rows
    if 2 * rows * bounds.dim > _LARGEST_GROUP:
        raise UnsuitableFile(f"a row group has {rows} rows, which is too many; write smaller row groups")
    for column in (row_group.column(i) for i in range(row_group.num_columns)):
        of = column.path_in_schema.split(".")[0]
        if of == "vector" and column.num_values != rows * bounds.dim:
            raise UnsuitableFile(
                f"{rows} vectors have {column.num_values} numbers; expected {bounds.dim} for each vector"
            )
        if of in ("vector", "sop_instance_uid", "frame_number"):
            most = _PIECE + 2 * rows * (8 * bounds.dim + 4 * _LONGEST_UID)
            if column.total_uncompressed_size > most:
                raise UnsuitableFile(
                    f"a column of {rows} rows unpacks to {column.total_uncompressed_size} bytes, which is too many"
                )


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _group_rows(file: Any, group: _Group) -> tuple[list[str], list[int], npt.NDArray[np.float16]]:
    """Read in chunks, so that a page that unpacks to more than it declares is noticed before all of it is in memory."""
    dim, uids, numbers = group.bounds.dim, list[str](), list[int]()
    vectors: list[npt.NDArray[np.float16]] = []
    columns = ["sop_instance_uid", "frame_number", "vector"]
    for batch in file.iter_batches(4096, row_groups=[group.number], columns=columns, use_threads=False):
        column = batch.column("vector")
        if any(batch.column(name).null_count for name in columns) or len(column.flatten()) != dim * len(batch):
            raise UnsuitableFile(f"some rows lack a value, or have a vector without exactly {dim} numbers")
        with np.errstate(over="ignore"):
            vectors.append(np.asarray(column.flatten(), dtype="<f2").reshape(-1, dim))
        uids += batch.column("sop_instance_uid").to_pylist()
        numbers += batch.column("frame_number").to_pylist()
        _require_rows(len(uids), group.bounds)
        if any(len(uid) > _LONGEST_UID for uid in uids[-len(batch) :]):
            raise UnsuitableFile(f"some of its UIDs have more than {_LONGEST_UID} characters")
    return uids, numbers, np.concatenate(vectors) if vectors else np.empty((0, dim), np.float16)


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise StoreError(
            "reading and writing Parquet needs the package pyarrow", hint="Run: pip install 'medlens[parquet]'"
        ) from exc
