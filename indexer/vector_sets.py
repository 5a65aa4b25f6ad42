"""The sets of vectors of a store: what is embedded, the table of its vectors, and the file of its index.

Each set is one row. The catalog's tables, deletions and checks, the index files, `medlens optimize` and `medlens
verify` all follow from these rows.
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
    refers to an instance. `query_kind` is the set of the other modality, whose vectors are used as queries when an
    index is measured: a sentence lies elsewhere than the pictures it describes.
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
    raise TypeError("every VectorKind needs a VectorSet")
