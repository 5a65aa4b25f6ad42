"""Vectors made elsewhere take the place of those that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.schema import deletions, frames, instances
from retrieval.errors import StoreError

_CHUNK = 5000


def replace_vectors(
    connection: sa.Connection, uids: Sequence[str], numbers: Sequence[int], vectors: npt.NDArray[np.float16]
) -> int:
    """Give frames, named by SOP Instance UID and frame number, other vectors [n, D]; how many differed from the old.

    A frame with another vector is another row: its id is new and the old one is in the log of deletions, so the indexes
    see it. StoreError for a frame that is named twice or isn't there.
    """
    wanted = dict(zip(zip(uids, numbers, strict=True), vectors, strict=True))
    if len(wanted) < len(uids):
        (_, number), times = Counter(zip(uids, numbers, strict=True)).most_common(1)[0]
        raise StoreError(f"a frame (number {number}) is named {times} times; nothing was replaced")
    found, changed = 0, list[tuple[int, dict[str, Any]]]()
    held = sorted({uid for uid, _ in wanted})
    query = sa.select(
        frames.c.id, frames.c.instance_id, frames.c.frame_number, frames.c.vector, instances.c.sop_instance_uid
    ).select_from(frames.join(instances))
    for start in range(0, len(held), _CHUNK):
        chunk = held[start : start + _CHUNK]
        for row in connection.execute(query.where(instances.c.sop_instance_uid.in_(chunk))):
            vector = wanted.get((row.sop_instance_uid, row.frame_number))
            if vector is None:
                continue
            found += 1
            new = vector.astype("<f2").tobytes()
            if new != row.vector:
                values = {"instance_id": row.instance_id, "frame_number": row.frame_number, "vector": new}
                changed.append((row.id, values))
    if found < len(wanted):
        raise StoreError(
            f"{len(wanted) - found} of {len(wanted)} frames are not in the store; nothing was replaced",
            hint="Index their files first: attributes come from the files, vectors can come from elsewhere.",
        )
    changed.sort(key=lambda one: one[0])  # new ids in the order of the old
    for start in range(0, len(changed), _CHUNK):
        part = changed[start : start + _CHUNK]
        connection.execute(sa.delete(frames).where(frames.c.id.in_([i for i, _ in part])))
        connection.execute(sa.insert(deletions), [{"row_id": i, "kind": "frame"} for i, _ in part])
        connection.execute(sa.insert(frames), [values for _, values in part])
    return len(changed)
