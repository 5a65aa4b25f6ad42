"""New files as rows, many at a time: each instance with its frames, report, sentences and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from indexer.catalog.schema import files, frame_attributes, frames, instances, reports, sentences
from indexer.catalog.vectors import NORM_TOLERANCE
from indexer.keywords import BY_FRAME, COLUMNS
from indexer.records import FileStat, IndexedFile, Rejection, Tally
from retrieval.types import FrameKey


@dataclass(frozen=True)
class PackedFile:
    """A file that was read, and its vectors as the catalog stores them."""

    file: IndexedFile
    frame_vectors: list[bytes]
    sentence_vectors: list[bytes]


def pack(file: IndexedFile, dim: int | None) -> PackedFile:
    """Pack a file's vectors.

    Raises ValueError if they are not finite, not of unit norm, or not of `dim` numbers, if given.
    """
    uid = file.record.sop_instance_uid
    if len(set(file.frame_numbers)) != len(file.frame_numbers) or any(n < 1 for n in file.frame_numbers):
        raise ValueError(f"{uid}: the frame numbers are {file.frame_numbers}; expected distinct numbers from 1")
    return PackedFile(
        file,
        packed(file.frame_vectors, len(file.frame_numbers), dim, f"the frame vectors of {uid}"),
        packed(file.sentence_vectors, len(file.sentences), dim, f"the sentence vectors of {uid}"),
    )


def insert_files(connection: sa.Connection, archive_id: int, items: Sequence[PackedFile], tally: Tally) -> None:
    """Insert files that are entirely new, with few statements. The tally counts what they contain."""
    if not items:
        return
    file_ids = _new_ids(connection, files, len(items))
    connection.execute(
        sa.insert(files),
        [
            {"id": file_id}
            | file_row(archive_id, file.stat, "indexed", None, file.content_hash, file.record.sop_instance_uid)
            for file_id, file in zip(file_ids, (item.file for item in items), strict=True)
        ],
    )
    ids = _new_ids(connection, instances, len(items))
    connection.execute(
        sa.insert(instances),
        [
            {
                "id": instance_id,
                "file_id": file_id,
                "kind": record.kind,
                "patient_pseudonym": record.patient_pseudonym,
                "burned_in_text": record.burned_in_text,
                **{column: _storable(record.attributes.get(column)) for column in COLUMNS},
            }
            for instance_id, file_id, record in zip(ids, file_ids, (i.file.record for i in items), strict=True)
        ],
    )
    frame_rows = [
        {
            "instance_id": instance_id,
            "frame_number": number,
            "short_key": FrameKey(item.file.record.sop_instance_uid, number).short,
            "vector": vector,
        }
        for instance_id, item in zip(ids, items, strict=True)
        for number, vector in zip(item.file.frame_numbers, item.frame_vectors, strict=True)
    ]
    if frame_rows:
        connection.execute(sa.insert(frames), frame_rows)
    tally.frames += len(frame_rows)
    for record in (item.file.record for item in items):
        if record.kind == "other":
            tally.not_embedded[str(record.attributes.get("modality") or "unknown")] += 1
        tally.warnings.update(record.warnings)
    by_frame = [
        {"instance_id": instance_id, "frame_number": number, **{name: values.get(name) for name in BY_FRAME}}
        for instance_id, item in zip(ids, items, strict=True)
        for number, values in item.file.record.frame_attributes.items()
    ]
    if by_frame:
        connection.execute(sa.insert(frame_attributes), by_frame)
    _insert_reports(connection, ids, items, tally)


def _insert_reports(connection: sa.Connection, ids: Sequence[int], items: Sequence[PackedFile], tally: Tally) -> None:
    with_report = [
        (instance_id, item)
        for instance_id, item in zip(ids, items, strict=True)
        if item.file.record.report_text or item.file.sentences
    ]
    if not with_report:
        return
    report_ids = _new_ids(connection, reports, len(with_report))
    connection.execute(
        sa.insert(reports),
        [
            {"id": report_id, "instance_id": instance_id, "text": _storable(item.file.record.report_text)}
            for report_id, (instance_id, item) in zip(report_ids, with_report, strict=True)
        ],
    )
    sentence_rows = [
        {"report_id": report_id, "position": position, "text": _storable(text), "vector": vector}
        for report_id, (_, item) in zip(report_ids, with_report, strict=True)
        for position, (text, vector) in enumerate(zip(item.file.sentences, item.sentence_vectors, strict=True))
    ]
    if sentence_rows:
        connection.execute(sa.insert(sentences), sentence_rows)
    tally.reports += len(with_report)
    tally.sentences += len(sentence_rows)


def file_row(
    archive_id: int,
    stat: FileStat,
    status: str,
    note: Rejection | None,
    content_hash: str = "",
    uid: str | None = None,
) -> dict[str, Any]:
    """The row of a file."""
    return {
        "archive_id": archive_id,
        "path": stat.path,
        "size": stat.size,
        "mtime_ns": stat.stamp,
        "status": status,
        "reason": note.reason if note else "",
        "detail": _storable(note.detail) if note else "",
        "content_hash": content_hash or None,
        "sop_instance_uid": uid,
    }


def _new_ids(connection: sa.Connection, table: sa.Table, count: int) -> Sequence[int]:
    """Ids for new rows, so that many rows can be inserted at a time. To return ids, SQLite inserts rows one by one.

    No other process can take these ids: this transaction holds the write lock, or they come from PostgreSQL's sequence.
    """
    if connection.dialect.name == "postgresql":
        sequence = sa.func.nextval(sa.func.pg_get_serial_sequence(table.name, "id"))
        query = sa.select(sequence).select_from(sa.func.generate_series(1, count))
        return list(connection.execute(query).scalars())
    last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0))).scalar_one()
    return range(last + 1, last + 1 + count)


def packed(vectors: Any, count: int, dim: int | None, what: str) -> list[bytes]:
    """Vectors [count, dim] as the catalog stores them. ValueError for others, not finite, or not of unit norm."""
    if vectors is None:
        if count:
            raise ValueError(f"{what} are missing; expected {count}")
        return []
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[0] != count or (count and dim is not None and array.shape[1] != dim):
        raise ValueError(f"{what} have shape {array.shape}; expected ({count}, {dim if dim is not None else 'D'})")
    norms = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):  # also false for NaN
        raise ValueError(f"{what} have norms {norms[:5]}; expected 1")
    return [row.tobytes() for row in array.astype("<f2")]


def _storable(value: Any) -> Any:
    """Return a text without characters that no database accepts: NUL and lone surrogates."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return value
