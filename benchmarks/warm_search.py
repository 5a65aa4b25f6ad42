"""A filtered search through the Python API, beside the two things that it can't do without.

    python benchmarks/warm_search.py [--frames 100000] [--rounds 30] [--model FOLDER]

The floor is encoding the text (as medlens does it) and one bare call of FAISS on all vectors, float16 as medlens keeps
them: without a filter, a catalog, or attributes. The search opens nothing anew, but looks whether the catalog has
changed, applies the filter, and gives the ten best with their attributes. Filters pass about 0.01 %, 1 %, 50 % and all
of the frames. "first" is a filter's first search since the catalog changed. Rounds are interleaved; prints medians, the
least and the most, and the ratio to the floor of the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.store.store import Store
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.search.query import Query
from retrieval.types import SearchFilter

QUERY = "axial CT of the chest with a pleural effusion"
PARTS = (0.0001, 0.01, 0.5)  # of the frames, by body part; the rest has another
BATCH = 1000
WARM_UP = 15


def fill(store: Store, dim: int, frames: int) -> faiss.Index:
    """One instance per frame; the bare index of the same vectors."""
    rng = np.random.default_rng(0)
    bare = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    archive = store.catalog.files.archive_id("/archive")
    parts = rng.choice(len(PARTS) + 1, size=frames, p=[*PARTS, 1 - sum(PARTS)])
    for start in range(0, frames, BATCH):
        files = []
        vectors = rng.normal(size=(min(BATCH, frames - start), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for number, vector in enumerate(vectors, start):
            uid = f"2.25.{number + 1}"
            values = dict.fromkeys(COLUMNS) | {"sop_instance_uid": uid, "modality": "CT"}
            values |= {"body_part_examined": f"PART{parts[number]}", "study_instance_uid": f"2.25.9.{number // 50}"}
            values |= {
                "image_orientation_patient": "1\\0\\0\\0\\1\\0",
                "image_position_patient": f"0\\0\\{number % 50}",
            }
            record = InstanceRecord(values | {"series_instance_uid": f"2.25.8.{number // 50}"}, None, "image", 1)
            stat = FileStat(f"{number}.dcm", 1, 1)
            files.append(IndexedFile(stat, record, (1,), vector[None, :], content_hash=uid))
        store.catalog.files.commit(archive, files, [])
        bare.add(vectors)
    store.refresh()
    return bare


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--model", help="a shipped model or a model folder")
    args = parser.parse_args()

    encoder = open_encoder(args.model)
    with (
        tempfile.TemporaryDirectory(prefix="medlens-bench-") as made,
        Store.create(Path(made) / "store", encoder.spec.to_json()) as store,
    ):
        bare = fill(store, encoder.embed_dim, args.frames)
        filters = {f"{share:.2%}": {"body_part_examined": (f"PART{i}",)} for i, share in enumerate(PARTS)}
        filters["all"] = {"modality": ("CT",)}
        wheres = {name: SearchFilter(equals) for name, equals in filters.items()}

        def search(where: SearchFilter) -> object:
            return store.search(Query(QUERY, where=where), encoder=encoder)

        vector = encoder.encode_text([QUERY])
        for _ in range(WARM_UP):  # an index that is asked often enough changes from NumPy to FAISS
            search(wheres["all"])
        first = {f"{name}, first": timed(lambda w=where: search(w)) for name, where in wheres.items()}
        taken: dict[str, list[float]] = {name: [] for name in ("encoding the text", "bare FAISS", *wheres)}
        for number in range(args.rounds + 1):
            now = {"encoding the text": timed(lambda: encoder.encode_text([QUERY]))}
            now["bare FAISS"] = timed(lambda: bare.search(vector, 10))
            now |= {name: timed(lambda w=where: search(w)) for name, where in wheres.items()}
            for name, milliseconds in now.items():
                if number:
                    taken[name].append(milliseconds)
    floor = statistics.median(map(sum, zip(taken["encoding the text"], taken["bare FAISS"], strict=True)))
    print(f"{args.frames} x {encoder.embed_dim} vectors, {encoder.name}; the floor is {floor:.1f} ms", file=sys.stdout)
    print(f"{'':20}{'ms':>8}{'least..most':>18}  x the floor")
    for name, values in [*taken.items(), *((name, [value]) for name, value in first.items())]:
        middle = statistics.median(values)
        print(f"{name:20}{middle:8.1f}{f'{min(values):.1f}..{max(values):.1f}':>18}  {middle / floor:.2f}")


if __name__ == "__main__":
    main()
