"""A store's vectors on a GPU: the exact search as medlens answers it, beside bare FAISS on the same GPU.

    python benchmarks/vector_gpu.py 1000000 --work /tmp/vectors [--ivf] [--device cuda]

Clustered vectors (see clustered_vectors), asked with queries that are none of them. `medlens` is an index file opened
and moved to the GPU: what it proposes is scored exactly from the mapped file. `bare flat` is FAISS's GpuIndexFlatIP in
float16, `bare ivf` (with --ivf) its GpuIndexIVFScalarQuantizer in float16, at the fewest lists that find 0.99 of the
nearest ten. `processor` is medlens's exact search on all cores. Asked in turn; milliseconds of one query, the median
(least to greatest), then queries per second of a batch. Truth is the processor's exact search.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clustered_vectors import Clustered

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vector_index import CHUNK, DIM, RECALL, Found, K, build_flat, recall

ASKED, BATCH, FEW = 200, 1000, 5
Search = Callable[[np.ndarray], Found]


def on_gpu(index: Any, rows: np.ndarray) -> Any:
    for start in range(0, len(rows), CHUNK):
        index.add(rows[start : start + CHUNK].astype(np.float32))
    return index


def bare_flat(rows: np.ndarray) -> Search:
    import faiss

    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    index = on_gpu(faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), DIM, config), rows)
    return lambda asked: index.search(asked, K)[1].tolist()


def bare_ivf(rows: np.ndarray, queries: np.ndarray, truth: Found) -> Search:
    import faiss

    nlist = int(2 ** round(np.log2(4 * np.sqrt(len(rows)))))
    index = faiss.GpuIndexIVFScalarQuantizer(
        faiss.StandardGpuResources(), DIM, nlist, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    sample = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), 40 * nlist), replace=False))
    index.train(rows[sample].astype(np.float32))
    on_gpu(index, rows)
    for nprobe in (2**i for i in range(11)):
        index.nprobe = nprobe
        if recall(index.search(queries, K)[1].tolist(), truth) >= RECALL:
            break
    print(f"bare ivf: {nlist} lists, {index.nprobe} of them visited")
    return lambda asked: index.search(asked, K)[1].tolist()


def made(what: str, make: Callable[[], Search]) -> Search:
    started = time.perf_counter()
    search = make()
    print(f"{what}: ready after {time.perf_counter() - started:.1f} s", flush=True)
    return search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--ivf", action="store_true")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    from indexer.vectors.gpu import move_to_gpu
    from indexer.vectors.index import CatalogIndex

    args.work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    clusters = Clustered(args.count, DIM)
    rows, queries = clusters.write(args.work / "rows.npy"), clusters.queries(ASKED)
    many = clusters.queries(BATCH, seed=4)
    build_flat(args.work / "flat", rows)
    print(f"{args.count} x {DIM}, made in {time.perf_counter() - started:.0f} s")
    exact = CatalogIndex.load(args.work / "flat")
    plain: Search = lambda asked: [[i - 1 for i, _ in hits] for hits in exact.search(asked, K)]  # noqa: E731
    truth = plain(queries)

    def moved() -> Search:
        index = CatalogIndex.load(args.work / "flat")
        if args.device != "cpu":
            move_to_gpu(index, args.device)
        return lambda asked: [[i - 1 for i, _ in hits] for hits in index.search(asked, K)]

    searches = {"medlens": made("medlens", moved)}
    if args.device != "cpu":
        searches["bare flat"] = made("bare flat", lambda: bare_flat(rows))
        if args.ivf:
            searches["bare ivf"] = made("bare ivf", lambda: bare_ivf(rows, queries, truth))
    searches["processor"] = plain
    taken: dict[str, list[float]] = {name: [] for name in searches}
    for search in searches.values():
        search(queries[:1])
    for number, query in enumerate(queries):
        for name, search in searches.items():
            if name == "processor" and number >= FEW:
                continue
            clock = time.perf_counter()
            search(query[None])
            taken[name].append(1000 * (time.perf_counter() - clock))
    for name, search in searches.items():
        few = name == "processor"
        found = recall(search(queries[: FEW if few else ASKED]), truth[: FEW if few else ASKED])
        clock = time.perf_counter()
        search(many[: 4 * FEW if few else BATCH])
        rate = (4 * FEW if few else BATCH) / (time.perf_counter() - clock)
        times = taken[name]
        ratio = np.median(times) / np.median(taken["bare flat" if "bare flat" in taken else "medlens"])
        print(
            f"{name:10}: {np.median(times):8.3f} ms ({min(times):.3f} to {max(times):.3f}), 95 % under "
            f"{np.percentile(times, 95):.3f}, {ratio:.2f} of bare flat, recall {found:.4f}, {rate:.0f} a second",
            flush=True,
        )


if __name__ == "__main__":
    main()
