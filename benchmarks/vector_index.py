"""Vector indexes at equal recall: build time, memory, opening, single query and batch, and what a filter costs.

    pip install usearch hnswlib
    python benchmarks/vector_index.py 1000000 --work /tmp/vectors [--only flat,ivf-rabitq,faiss] [--keep]

Clustered vectors (see clustered_vectors), asked with queries that are none of them. Each index is built and written in
one process of one thread, and opened and asked in another. What has a width of search (nprobe, ef, expansion) is set
to the narrowest that finds 0.99 of the nearest ten of these very queries; medlens has chosen its own from its own
vectors before it saw them. Then all that are open are asked in turn, ten queries at a time. Wall clock and processor
time both: where they part, others were using the machine. Memory is what a process has resident after its searches,
mapped pages included, less what it had after importing. Truth is the exact search over the same float16 vectors.
`faiss` is IVF with RaBitQ and float32 refinement (float16 beyond four million), used bare. Ratios are to the first
index that is named. With --keep a later run of the same command builds only what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clustered_vectors import Clustered

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
DIM, K, ASKED, ROUND, CHUNK = 512, 10, 200, 10, 65_536
RECALL = 0.99
BIG = 4_000_000
WIDTHS = [2**i for i in range(11)]
Found = list[list[int]]


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def chunks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), CHUNK):
        yield start, rows[start : start + CHUNK].astype(np.float32)


@dataclass(frozen=True)
class Kind:
    """`build` writes a file; `load` reads it and returns a search of queries [Q, D] by width."""

    build: Callable[[Path, np.ndarray], None]
    load: Callable[[Path], Callable[[np.ndarray, int], Found]]
    widths: list[int]


def build_flat(path: Path, rows: np.ndarray) -> None:
    """The index file as a store has it."""
    from indexer.vectors.file import write_flat, write_whole

    ids = np.arange(1, len(rows) + 1, dtype=np.int64)

    def write(file: Any) -> dict[str, Any]:
        batches = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        meta = {"kind": "frame", "store_id": "s", "last_id": len(rows), "seq": 0}
        return write_flat(file, DIM, ids, batches) | meta

    write_whole(path, write)


def build_compressed(path: Path, rows: np.ndarray) -> None:
    from indexer.vectors.choose import optimize
    from indexer.vectors.opening import IndexFile

    build_flat(path, rows)
    outcome = optimize(IndexFile(path, DIM, "frame", "s"), Unchanging(rows), rows[:0], kind="ivf-rabitq")
    if outcome is None or outcome[1].kind != "ivf-rabitq":
        raise RuntimeError("no compressed index reaches the recall")
    print(f"medlens chose {outcome[1]}", file=sys.stderr)


def load_medlens(path: Path) -> Callable[[np.ndarray, int], Found]:
    from indexer.vectors.index import CatalogIndex

    index = CatalogIndex.load(path)
    return lambda asked, _: [[i - 1 for i, _ in hits] for hits in index.search(asked, K)]


class Unchanging:
    """A catalog in which nothing has happened since the file was written."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def iter_vectors(self, kind: str, after_id: int = 0, batch: int = 4096) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(())

    def vectors_of(self, ids: Any, kind: str = "frame") -> tuple[np.ndarray, np.ndarray]:
        found = np.array(sorted(ids), dtype=np.int64)
        return found, np.asarray(self._rows[found - 1])

    def deleted_since(self, kind: str, seq: int) -> tuple[int, np.ndarray]:
        return seq, np.empty(0, dtype=np.int64)


def build_faiss(path: Path, rows: np.ndarray) -> None:
    import faiss

    nlist = min(4096, int(2 ** round(np.log2(4 * np.sqrt(len(rows))))))  # more take hours to train
    refined = "RFlat" if len(rows) <= BIG else "Refine(SQfp16)"  # float32 would not fit into memory
    index = faiss.index_factory(DIM, f"IVF{nlist},RaBitQ,{refined}", faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), 40 * nlist), replace=False))
    index.train(rows[sample].astype(np.float32))
    for _, batch in chunks(rows):
        index.add(batch)
    faiss.write_index(index, str(path))


def load_faiss(path: Path) -> Callable[[np.ndarray, int], Found]:
    import faiss

    index = faiss.read_index(str(path))

    def search(asked: np.ndarray, nprobe: int) -> Found:
        ivf = faiss.IVFRaBitQSearchParameters(nprobe=nprobe, qb=8)
        parameters = faiss.IndexRefineSearchParameters(k_factor=10, base_index_params=ivf)
        return index.search(asked, K, params=parameters)[1].tolist()

    return search


def build_hnswlib(path: Path, rows: np.ndarray) -> None:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(max_elements=len(rows), M=32, ef_construction=100)
    index.set_num_threads(1)
    for at, batch in chunks(rows):
        index.add_items(batch, np.arange(at, at + len(batch)))
    index.save_index(str(path))


def load_hnswlib(path: Path) -> Callable[[np.ndarray, int], Found]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.load_index(str(path))
    index.set_num_threads(1)

    def search(asked: np.ndarray, ef: int) -> Found:
        index.set_ef(ef)
        return index.knn_query(asked, k=K)[0].tolist()

    return search


def build_usearch(path: Path, rows: np.ndarray) -> None:
    from usearch.index import Index

    index = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=32, expansion_add=100)
    for at, batch in chunks(rows):
        index.add(np.arange(at, at + len(batch)), batch, threads=1)
    index.save(str(path))


def load_usearch(path: Path) -> Callable[[np.ndarray, int], Found]:
    from usearch.index import Index

    index = Index.restore(str(path))

    def search(asked: np.ndarray, expansion: int) -> Found:
        index.expansion_search = expansion
        return [list(map(int, row)) for row in np.atleast_2d(index.search(asked, K, threads=1).keys)]

    return search


KINDS = {
    "ivf-rabitq": Kind(build_compressed, load_medlens, [0]),
    "flat": Kind(build_flat, load_medlens, [0]),
    "faiss": Kind(build_faiss, load_faiss, WIDTHS),
    "hnswlib": Kind(build_hnswlib, load_hnswlib, WIDTHS[4:]),
    "usearch": Kind(build_usearch, load_usearch, WIDTHS[4:]),
}


def recall(found: Found, truth: Found) -> float:
    return float(np.mean([len(set(one) & set(best)) / K for one, best in zip(found, truth, strict=True)]))


def serve(work: Path, name: str) -> None:
    """Open an index, say how that went, then answer a round of queries for each line of the input: where it starts."""
    import faiss

    faiss.omp_set_num_threads(1)
    queries, truth = np.load(work / "queries.npy"), np.load(work / "truth.npy").tolist()
    kind, before = KINDS[name], resident_mb()
    load_medlens(work / "tiny")(queries[:1], 0)  # what is imported late is imported now
    started = time.perf_counter()
    search = kind.load(work / name)
    opened = 1000 * (time.perf_counter() - started)
    few = queries[:1] if name == "flat" else queries  # it is the truth
    width, reached = kind.widths[0], 0.0
    for width in kind.widths:
        reached = recall(search(few, width), truth[: len(few)])
        if reached >= RECALL:
            break
    started = time.process_time()
    search(queries[:ROUND] if name == "flat" else queries, width)
    batch = (ROUND if name == "flat" else ASKED) / (time.process_time() - started)
    facts = {"open_ms": opened, "recall": reached, "width": width, "batch_per_cpu_s": batch}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        wall, cpu = [], []
        for query in queries[int(line) : int(line) + ROUND]:
            clock, used = time.perf_counter(), time.process_time()
            search(query[None], width)
            wall.append(1000 * (time.perf_counter() - clock))
            cpu.append(1000 * (time.process_time() - used))
        print(json.dumps({"wall": wall, "cpu": cpu, "resident_mb": resident_mb() - before}), flush=True)


def build(work: Path, name: str) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    rows = np.load(work / "rows.npy", mmap_mode="r")
    clock, used = time.perf_counter(), time.process_time()
    KINDS[name].build(work / name, rows)
    print(json.dumps({"build_s": time.perf_counter() - clock, "build_cpu_s": time.process_time() - used}))


def compare(work: Path, command: list[str], names: list[str]) -> None:
    facts: dict[str, dict[str, Any]] = {}
    for name in names:
        built = work / f"{name}.json"
        if not built.exists():
            done = subprocess.run([*command, "--build", name], stdout=subprocess.PIPE, check=True)
            built.write_bytes(done.stdout)
        facts[name] = json.loads(built.read_text())
        print(f"built {name}: {facts[name]}", file=sys.stderr)
    running = {
        name: subprocess.Popen([*command, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    }

    def said(name: str) -> dict[str, Any]:
        output = running[name].stdout
        assert output is not None
        return json.loads(output.readline())

    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in names}
    for name in names:
        facts[name] |= said(name)
    for start in range(0, ASKED, ROUND):
        for name in names:
            if name == "flat" and start >= 2 * ROUND:
                continue
            given = running[name].stdin
            assert given is not None
            print(start, file=given, flush=True)
            answer = said(name)
            facts[name]["resident_mb"] = answer["resident_mb"]
            for clock, taken in times[name].items():
                taken += answer[clock]
    for name in names:
        running[name].communicate()
        for clock, taken in times[name].items():
            facts[name] |= {f"{clock}_ms": np.median(taken), f"{clock}_p95": np.percentile(taken, 95)}
        facts[name]["cpu_ratio"] = facts[name]["cpu_ms"] / facts[names[0]]["cpu_ms"]
    columns = ["build_s", "build_cpu_s", "open_ms", "resident_mb", "recall", "width", "wall_ms", "wall_p95", "cpu_ms"]
    columns += ["cpu_p95", "cpu_ratio", "batch_per_cpu_s"]
    print(" | ".join(["index".ljust(10), *(column.rjust(11) for column in columns)]))
    for name in names:
        print(" | ".join([name.ljust(10), *(f"{facts[name][column]:11.4g}" for column in columns)]), flush=True)


def filters(path: Path, queries: np.ndarray) -> None:
    """Milliseconds of an exact search among some of the vectors, beside the exact search among all, interleaved."""
    import faiss

    from indexer.vectors.index import CatalogIndex
    from retrieval.types import RowFilter, SearchFilter

    faiss.omp_set_num_threads(1)
    index, rng = CatalogIndex.load(path), np.random.default_rng(5)
    shares: dict[str, Any] = {"none": None}
    for share in (0.0001, 0.01, 0.5):
        ids = np.sort(rng.choice(index.ids, size=int(share * len(index)), replace=False))
        shares[f"{100 * share:g} %"] = RowFilter(SearchFilter(), lambda _, ids=ids: ids)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in shares}
    for query in queries[:10]:
        for name, allowed in shares.items():
            clock, used = time.perf_counter(), time.process_time()
            index.search(query, K, allowed, exact=True)
            taken[name].append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - used)))
    unfiltered = np.median(taken["none"], axis=0)
    for name, times in taken.items():
        (wall, cpu), (_, least), (_, most) = np.median(times, axis=0), np.min(times, axis=0), np.max(times, axis=0)
        ratio = cpu / unfiltered[1]
        print(f"filter {name:>7}: {wall:8.2f} ms, cpu {cpu:8.2f} ({least:.2f} to {most:.2f}), {ratio:.4f} of all")


def prepare(work: Path, count: int) -> None:
    from indexer.vectors.index import CatalogIndex

    made = Clustered(count, DIM)
    rows, queries = made.write(work / "rows.npy"), made.queries(ASKED)
    np.save(work / "queries.npy", queries)
    build_flat(work / "tiny", rows[:100])
    build_flat(work / "flat", rows)
    exact = CatalogIndex.load(work / "flat").search(queries, K)
    np.save(work / "truth.npy", np.array([[i - 1 for i, _ in hits] for hits in exact]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        build(args.work, args.build)
        return
    if args.serve:
        serve(args.work, args.serve)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "truth.npy").exists():
        prepare(args.work, args.count)
    print(f"{args.count} x {DIM}")
    command = [sys.executable, __file__, str(args.count), "--work", str(args.work)]
    compare(args.work, command, args.only.split(","))
    filters(args.work / "flat", np.load(args.work / "queries.npy"))
    if not args.keep:
        shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
