"""Vectors out to other tools and back in: one row per frame, with its key and attributes.

`npz` has `ids` [N], `vectors` [N, D] float16, `sop_instance_uid` [N], `frame_number` [N], `attributes` [N] (JSON texts)
and `model` (JSON); `parquet` has the attributes as columns and the model in the schema's metadata; `faiss` is an
IndexIDMap by catalog id with a JSON-lines file of keys and attributes beside it. Patients stay pseudonyms, and paths,
which can hold names, stay out.

What comes in are vectors for frames that the store has, found by SOP Instance UID and frame number, made by the store's
own model elsewhere: by a faster machine, or restored from an export. Frames that the store doesn't know are refused.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from indexer.keywords import COLUMNS
from indexer.store.store import Store
from retrieval.encoders.spec import differing
from retrieval.errors import StoreError, StoreIncompatible
from retrieval.optional import require_optional

FORMATS = ("npz", "parquet", "faiss")
_KEPT = (*COLUMNS, "patient_pseudonym", "burned_in_text")
_CHUNK = 4096


@dataclass(frozen=True)
class Imported:
    """How many vectors an import replaced, and how many were the same already."""

    replaced: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class _Rows:
    uids: list[str]
    frame_numbers: list[int]
    vectors: npt.NDArray[np.float32]
    model: dict[str, Any] | None


def export_frames(store: Store, path: Path, form: str | None = None) -> int:
    """Write the vectors of all frames to a file that appears only when it is whole; how many there were.

    `form` is one of FORMATS, by default what the path ends with. StoreError if it is none, or can't be written.
    """
    form = form or path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise StoreError(f"{form!r} is no format of an export", hint=f"Name one with --format: {', '.join(FORMATS)}.")
    write: Callable[[Store, Path], int] = {"npz": _write_npz, "parquet": _write_parquet, "faiss": _write_faiss}[form]
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
            count = write(store, Path(folder) / path.name)
            for made in sorted(Path(folder).iterdir(), reverse=True):  # the vectors, the shorter name, come last
                made.replace(path.with_name(made.name))
    except OSError as exc:
        raise StoreError(
            f"the export {path.name} can't be written: {exc.strerror or type(exc).__name__}",
            hint="Check the folder, the permissions and the room on the disk.",
        ) from exc
    return count


def import_frames(store: Store, path: Path, *, any_model: bool = False) -> Imported:
    """Replace vectors of the store's frames by those in an npz or parquet file, all in one transaction or none.

    StoreIncompatible if they are another model's (with `any_model` a file that names none is taken), StoreError if the
    file can't be read, names a frame twice or one that the store hasn't, or has vectors that are not finite, not of
    unit norm or of another size.
    """
    rows = _read(path)
    _require_same_model(store, rows.model, path, any_model)
    dim = int(store.model["embed_dim"])
    if rows.vectors.ndim != 2 or rows.vectors.shape[1] != dim:
        raise StoreIncompatible(f"the vectors of {path.name} have shape {rows.vectors.shape}, expected (N, {dim})")
    if not len(rows.uids) == len(rows.frame_numbers) == len(rows.vectors):
        raise StoreError(
            f"{path.name} has {len(rows.uids)} UIDs and {len(rows.frame_numbers)} frame numbers for "
            f"{len(rows.vectors)} vectors"
        )
    wrong = ~np.isfinite(rows.vectors).all(axis=1)
    if wrong.any():
        raise StoreError(f"{int(wrong.sum())} vectors of {path.name} hold NaN or infinity; nothing was imported")
    off = np.abs(np.linalg.norm(rows.vectors, axis=1) - 1) > 0.01
    if off.any():
        raise StoreError(
            f"{int(off.sum())} vectors of {path.name} are not of unit norm; nothing was imported",
            hint="Divide each vector by its length.",
        )
    replaced = store.catalog.frames.replace_vectors(rows.uids, rows.frame_numbers, rows.vectors.astype("<f2"))
    if replaced:
        store.refresh()
    return Imported(replaced, len(rows.uids) - replaced)


def _batches(store: Store) -> Iterator[tuple[Any, Any, list[tuple[str, int, dict[str, Any]]]]]:
    """Ids, vectors, and (SOP Instance UID, frame number, attributes) of the frames, some at a time."""
    for ids, vectors in store.catalog.vectors.iter_vectors("frame", batch=_CHUNK):
        found = store.catalog.frames.get(ids.tolist())
        there = np.array([i in found for i in ids.tolist()], dtype=np.bool_)  # one may be deleted meanwhile
        keys = [
            (key.sop_instance_uid, key.frame_number, {name: attributes.get(name) for name in _KEPT})
            for key, attributes in found.values()
        ]
        yield ids[there], vectors[there], keys


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _write_npz(store: Store, path: Path) -> int:
    ids, vectors, keys = _whole(store)
    columns: dict[str, Any] = {
        "ids": ids,
        "vectors": vectors,
        "sop_instance_uid": np.array([uid for uid, _, _ in keys], dtype=np.str_),
        "frame_number": np.array([number for _, number, _ in keys], dtype=np.int64),
        "attributes": np.array([_json(attributes) for _, _, attributes in keys], dtype=np.str_),
        "model": np.array(_json(store.model)),
    }
    with path.open("wb") as file:
        np.savez(file, **columns)
        _sync(file)
    return len(ids)


def _whole(store: Store) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16], list[tuple[str, int, Any]]]:
    ids, vectors, keys = [], [], []
    for some_ids, some_vectors, some_keys in _batches(store):
        ids.append(some_ids)
        vectors.append(some_vectors)
        keys += some_keys
    if not ids:
        return np.empty(0, np.int64), np.empty((0, int(store.model["embed_dim"])), np.float16), keys
    return np.concatenate(ids), np.concatenate(vectors), keys


def _write_parquet(store: Store, path: Path) -> int:
    pa, pq = _pyarrow()
    dim = int(store.model["embed_dim"])
    fields = [("id", pa.int64()), ("sop_instance_uid", pa.string()), ("frame_number", pa.int32())]
    fields += [(name, pa.string()) for name in _KEPT if name != "sop_instance_uid"]
    fields += [("vector", pa.list_(pa.float32(), dim))]
    schema = pa.schema(fields, metadata={"medlens_model": _json(store.model)})
    count = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for ids, vectors, keys in _batches(store):
                numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
                columns = {"id": ids, "sop_instance_uid": [k[0] for k in keys], "frame_number": [k[1] for k in keys]}
                for name in _KEPT:
                    if name != "sop_instance_uid":
                        columns[name] = [None if k[2][name] is None else str(k[2][name]) for k in keys]
                columns["vector"] = pa.FixedSizeListArray.from_arrays(numbers, dim)
                writer.write_table(pa.table(columns, schema=schema))
                count += len(ids)
        _sync(file)
    return count


def _write_faiss(store: Store, path: Path) -> int:
    from indexer.vectors.file import write_flat

    with path.with_name(f"{path.name}.jsonl").open("w", encoding="utf-8") as file:
        ids = []
        for some_ids, _, keys in _batches(store):
            for i, (uid, number, attributes) in zip(some_ids.tolist(), keys, strict=True):
                file.write(_json({"id": i} | attributes | {"sop_instance_uid": uid, "frame_number": number}) + "\n")
            ids.append(some_ids)
        _sync(file)
    listed = np.concatenate(ids) if ids else np.empty(0, np.int64)
    vectors = (
        store.catalog.frames.vectors_of(listed[i : i + _CHUNK].tolist())[1] for i in range(0, len(listed), _CHUNK)
    )
    with path.open("wb") as out:
        write_flat(out, int(store.model["embed_dim"]), listed, vectors)
        _sync(out)
    return len(listed)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path) -> _Rows:
    from indexer.vectors.file import reason

    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with np.load(path, allow_pickle=False) as values:
            model = json.loads(str(values["model"])) if "model" in values else None
            uids, numbers = values["sop_instance_uid"].tolist(), values["frame_number"].tolist()
            return _Rows(uids, numbers, values["vectors"].astype(np.float32), model)
    except FileNotFoundError as exc:
        raise StoreError(f"there is no file {path.name}") from exc
    except (KeyError, ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as exc:
        raise StoreError(
            f"{path.name} can't be read as vectors: {reason(exc, path.absolute())}",
            hint="An npz file with vectors, sop_instance_uid and frame_number, or what `medlens export` writes.",
        ) from exc


def _read_parquet(path: Path) -> _Rows:
    _, pq = _pyarrow()
    table = pq.read_table(path, columns=["sop_instance_uid", "frame_number", "vector"])
    model = (table.schema.metadata or {}).get(b"medlens_model")
    column = table["vector"].combine_chunks()
    flat = np.asarray(column.flatten(), dtype=np.float32)
    vectors = flat.reshape(len(table), -1) if len(table) else flat.reshape(0, column.type.list_size)
    uids, numbers = table["sop_instance_uid"].to_pylist(), table["frame_number"].to_pylist()
    return _Rows(uids, numbers, vectors, json.loads(model) if model else None)


def _require_same_model(store: Store, model: dict[str, Any] | None, path: Path, any_model: bool) -> None:
    if not isinstance(model, dict):
        if any_model:
            return
        raise StoreIncompatible(
            f"{path.name} doesn't say by which model its vectors were made",
            hint="If you know that it was the store's own, say so with --any-model.",
        )
    unlike = differing(store.model, model)
    if unlike:
        raise StoreIncompatible(
            f"the vectors of {path.name} were made by the model {model.get('name')!r}, the store belongs to "
            f"{store.model.get('name')!r}; they differ in {', '.join(unlike)}",
            hint="Vectors of two models can't be compared: index with the other model into a store of its own.",
        )


def _pyarrow() -> tuple[Any, Any]:
    require_optional("pyarrow", "a Parquet file", StoreError)
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet
