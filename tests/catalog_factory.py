"""Made-up files for tests of the catalog: what a file holds follows from its UID and its content alone."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from retrieval.types import RowFilter, SearchFilter

DIM = 8
SPEC: dict[str, Any] = {"name": "demo", "weights_sha256": "ab" * 32, "embed_dim": DIM, "render": {"name": "header"}}


def vectors(text: str, count: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Unit vectors [count, dim], the same for the same text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    out = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def only(ids: npt.NDArray[np.int64] | None) -> RowFilter | None:
    """A filter that these rows pass; None for none."""
    return None if ids is None else RowFilter(SearchFilter({"made": ("up",)}), lambda where: ids)


def indexed(
    path: str,
    uid: str,
    content: str = "",
    *,
    frames: int = 2,
    mtime: int = 0,
    sentences: tuple[str, ...] = (),
    hashed: bool = True,
    **attributes: Any,
) -> IndexedFile:
    """A file of `uid` with some content, whose vectors are `vectors(f"{uid}/{content}", frames)`."""
    values = dict.fromkeys(COLUMNS) | {"sop_instance_uid": uid, "study_instance_uid": f"{uid}.study"} | attributes
    record = InstanceRecord(
        attributes=values,
        patient_pseudonym=f"p{uid}",
        kind="report" if sentences else "image",
        number_of_frames=frames,
        report_text=" ".join(sentences),
    )
    return IndexedFile(
        stat=FileStat(path, len(content), mtime),
        record=record,
        frame_numbers=tuple(range(1, frames + 1)),
        frame_vectors=vectors(f"{uid}/{content}", frames),
        sentences=sentences,
        sentence_vectors=vectors(f"{uid}/{content}/text", len(sentences)) if sentences else None,
        content_hash=content_hash(uid, content) if hashed else "",
    )


def content_hash(uid: str, content: str) -> str:
    return hashlib.sha256(f"{uid}/{content}".encode()).hexdigest()
