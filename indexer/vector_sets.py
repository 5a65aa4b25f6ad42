"""The sets of vectors that a store has: what is embedded, in which table its vectors are, in which file its index lies.

One row a set. The catalog's tables, deletions and checks, the index files, what `medlens optimize` measures and what
`medlens verify` looks at all follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

VectorKind = Literal["frame", "sentence"]


@dataclass(frozen=True)
class VectorSet:
    """One set. `kind` names it in the log of deletions, in the index file and in the manifest.

    `tables` leads from the table with the vectors (columns `id` and `vector`) along its foreign keys to the one that
    hangs on an instance. `query_kind` is the set of the other modality, whose vectors ask this one when an index is
    measured: a sentence lies elsewhere than the pictures it describes.
    """

    kind: VectorKind
    tables: tuple[str, ...]
    index_file: str
    query_kind: VectorKind


VECTOR_SETS: Mapping[VectorKind, VectorSet] = {
    each.kind: each
    for each in (
        VectorSet("frame", ("frames",), "frames.faiss", query_kind="sentence"),
        VectorSet("sentence", ("sentences", "reports"), "sentences.faiss", query_kind="frame"),
    )
}
if set(VECTOR_SETS) != set(get_args(VectorKind)):
    raise TypeError("every VectorKind needs its VectorSet")
