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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from indexer.keywords import COLUMNS
from indexer.output_formats import beside, json_lines, npz, parquet
from indexer.outputs import Output, require_not_of_archive, require_outputs
from indexer.store.store import Store
from indexer.tasks.vector_files import Bounds, read_vectors
from retrieval.encoders.spec import differing
from retrieval.errors import StoreError, StoreIncompatible
from retrieval.neutral import neutral_values
from retrieval.optional import require_optional

FORMATS = ("npz", "parquet", "faiss")
_KEPT = (*COLUMNS, "patient_pseudonym", "burned_in_text")
_ARRAYS = ("ids", "vectors", "sop_instance_uid", "frame_number", "attributes", "model")
_MODEL = "medlens_model"  # a key of a Parquet file's metadata
_KEYS = json_lines("the keys of exported vectors", {"id", "sop_instance_uid", "frame_number", *_KEPT})
EXPORTS = {
    "npz": npz("an export of vectors as npz", _ARRAYS),
    "parquet": parquet("an export of vectors as Parquet", _MODEL),
    "faiss": beside("an export of vectors for FAISS", b"IxMp", ".jsonl", _KEYS),
}
_CHUNK = 4096


@dataclass(frozen=True)
class ImportResult:
    """How many vectors an import replaced, and how many were identical already."""

    replaced: int = 0
    unchanged: int = 0


def export_frames(store: Store, path: Path, form: str | None = None, *, force: bool = False) -> int:
    """Write the vectors of all frames to a file that appears only when it is complete. Returns their number.

    `form` is one of FORMATS, by default that of the path's ending. A file that is not an export of that form is
    replaced only with `force`. Raises StoreError for another form, OutputError if the file can't be written or
    replaced.
    """
    form = form or path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise StoreError(
            f"unknown export format {form!r}", hint=f"Use one of these with --format: {', '.join(FORMATS)}."
        )
    written = Output(path, EXPORTS[form], force)
    require_outputs(written)
    require_not_of_archive(store, written)
    with written.whole() as place:
        if form == "npz":
            return _write_npz(store, place)
        if form == "parquet":
            return _write_parquet(store, place)
        keys = Output(path.with_name(f"{path.name}.jsonl"), _KEYS, force)
        require_outputs(keys)
        with keys.whole() as beside_it:
            return _write_faiss(store, place, beside_it)


def import_frames(store: Store, path: Path, *, any_model: bool = False) -> ImportResult:
    """Replace vectors of the store's frames by those in an npz or parquet file, all in one transaction or none.

    Raises StoreIncompatible if another model made them (with `any_model` a file that names no model is accepted).
    Raises StoreError if the file can't be read, has more rows than the store has frames, names a frame twice or one
    that the store does not have, or has vectors that are not finite, not of unit norm or of another size.
    """
    dim = int(store.model["embed_dim"])
    rows = read_vectors(path, Bounds(dim, store.catalog.counts().frames))
    _require_same_model(store, rows.model, path, any_model)
    if not len(rows.uids) == len(rows.frame_numbers) == len(rows.vectors):
        raise StoreError(
            f"{path.name} has {len(rows.uids)} UIDs and {len(rows.frame_numbers)} frame numbers for "
            f"{len(rows.vectors)} vectors"
        )
    infinite, off = _unfit(rows.vectors)
    if infinite:
        raise StoreError(f"{infinite} vectors of {path.name} contain NaN or infinity; nothing was imported")
    if off:
        raise StoreError(
            f"{off} vectors of {path.name} do not have unit norm; nothing was imported",
            hint="Divide each vector by its length.",
        )
    replaced = store.catalog.frames.replace_vectors(rows.uids, rows.frame_numbers, rows.vectors)
    store.refresh()  # also after an import that was stopped before
    return ImportResult(replaced, len(rows.uids) - replaced)


def _unfit(vectors: npt.NDArray[np.float16]) -> tuple[int, int]:
    """Return how many vectors are not finite, and how many others are not of unit norm."""
    infinite = off = 0
    for start in range(0, len(vectors), _CHUNK):
        some = vectors[start : start + _CHUNK].astype(np.float32)
        finite = np.isfinite(some).all(axis=1)
        infinite += int((~finite).sum())
        off += int((np.abs(np.linalg.norm(some[finite], axis=1) - 1) > 0.01).sum())
    return infinite, off


def _batches(store: Store) -> Iterator[tuple[Any, Any, list[tuple[str, int, dict[str, Any]]]]]:
    """Yield ids, vectors, and (SOP Instance UID, frame number, attributes) of the frames, in chunks."""
    for ids, vectors in store.catalog.vectors.iter_vectors("frame", batch=_CHUNK):
        found = store.catalog.frames.get(ids.tolist())
        there = np.array([i in found for i in ids.tolist()], dtype=np.bool_)  # one may be deleted meanwhile
        keys = [(key.sop_instance_uid, key.frame_number, _shown(attributes)) for key, attributes in found.values()]
        yield ids[there], vectors[there], keys


def _shown(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes without control characters, as in any output. UIDs are keys and are not changed."""
    exported = {name: attributes.get(name) for name in _KEPT}
    return {name: value if name.endswith("_uid") else neutral_values(value) for name, value in exported.items()}


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
    schema = pa.schema(fields, metadata={_MODEL: _json(store.model)})
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


def _write_faiss(store: Store, path: Path, keys_path: Path) -> int:
    from indexer.vectors.file import write_flat

    with keys_path.open("w", encoding="utf-8") as file:
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


def _require_same_model(store: Store, model: dict[str, Any] | None, path: Path, any_model: bool) -> None:
    if not isinstance(model, dict):
        if any_model:
            return
        raise StoreIncompatible(
            f"{path.name} does not name the model that made its vectors",
            hint="If you know that the store's model made them, add --any-model.",
        )
    unlike = differing(store.model, model)
    if unlike:
        name = str(model.get("name"))[:100]
        raise StoreIncompatible(
            f"the vectors of {path.name} were made by the model {name!r}, but the store belongs to "
            f"{store.model.get('name')!r}; the models differ in {', '.join(unlike)}",
            hint=(
                "Vectors of different models can't be compared. Index the archive with the other model "
                "into another store."
            ),
        )


def _pyarrow() -> tuple[Any, Any]:
    require_optional("pyarrow", "a Parquet file", StoreError)
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet
