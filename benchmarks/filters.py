"""Milliseconds to the ids that pass a filter, and to the answers among them, beside what one would write by hand.

    python benchmarks/filters.py [--instances 200000] [--rounds 5]

The store holds made-up instances of one frame each. Filters let through about 0.01 %, 1 % and 50 %. The peers: a list
of dicts, as read from a CSV file, tested by a Python lambda; and for the answers the whole index searched for as many
neighbours as it takes until ten pass. Rounds are interleaved, the catalog is opened anew for each, since it remembers
the ids of a filter. Both must agree. Prints medians, least and most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from indexer.catalog.filters.language import parse_filter
from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.store.store import Store
from retrieval.types import RowFilter, SearchFilter

DIM = 128
Row = dict[str, Any]
FILTERS: list[tuple[str, str, Callable[[Row], bool]]] = [
    ("0.01 %", "StudyDescription contains 'rare angio' and PatientAge > 0", lambda r: "rare angio" in r["d"].lower()),
    ("1 %", "Modality = MR and PatientAge between 60 and 61", lambda r: r["m"] == "MR" and 60 <= r["a"] <= 61),
    ("1 %, by date", "StudyDate = 2020-02 and Modality in (CT, MR)", lambda r: r["s"][:7] == "2020-02"),
    ("50 %", "Modality = CT or PatientAge is missing", lambda r: r["m"] == "CT"),
]


def fill(store: Store, count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    archive = store.catalog.files.archive_id("/a")
    rows: list[Row] = []
    for start in range(0, count, 5000):
        size = min(5000, count - start)
        vectors = rng.normal(size=(size, 1, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        files = []
        for n in range(size):
            day = date(2016, 1, 1) + timedelta(days=int(rng.integers(3000)))
            row = {
                "m": "CT" if rng.random() < 0.5 else "MR",
                "a": float(rng.integers(0, 100)),
                "s": day.isoformat(),
                "d": "CT Rare Angio of the chest" if rng.random() < 1e-4 else f"Examination {rng.integers(500)}",
            }
            uid = f"1.2.{start + n}"
            values = dict.fromkeys(COLUMNS) | {
                "sop_instance_uid": uid,
                "study_instance_uid": f"1.3.{(start + n) // 50}",
                "series_instance_uid": f"1.4.{(start + n) // 25}",
                "modality": row["m"],
                "patient_age": row["a"],
                "study_date": day,
                "study_description": row["d"],
            }
            record = InstanceRecord(values, f"p{(start + n) // 200}", "image", 1)
            files.append(IndexedFile(FileStat(uid, 1, 1), record, (1,), vectors[n], content_hash=uid))
            rows.append(row)
        store.catalog.files.commit(archive, files)
    return rows


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call(*arguments)
    return 1000 * (time.perf_counter() - start), answer


def said(times: list[float]) -> str:
    return f"{statistics.median(times):8.1f} ms ({min(times):.1f} to {max(times):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--instances", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        with Store.create(place, {"name": "made-up", "weights_sha256": "0" * 64, "embed_dim": DIM}) as store:
            rows = fill(store, options.instances)
            store.refresh()
        query = np.random.default_rng(1).normal(size=(1, DIM)).astype(np.float32)
        query /= np.linalg.norm(query)
        for name, where, test in FILTERS:
            times: dict[str, list[float]] = {"parse": [], "ids": [], "by hand": [], "search": [], "search by hand": []}
            passed = 0
            for _ in range(options.rounds):
                parse_filter.cache_clear()
                times["parse"].append(timed(parse_filter, where)[0])
                with Store.open(place) as store:
                    index = store.frames_index()
                    store.catalog.frames.ids_matching(
                        SearchFilter({"sop_instance_uid": ("1.2.7",)})
                    )  # the connection is up
                    took, ids = timed(store.catalog.frames.ids_matching, SearchFilter(where=where))
                    times["ids"].append(took)
                    took, mine = timed(by_hand, rows, test)
                    times["by hand"].append(took)
                    if ids.tolist() != mine:
                        sys.exit(f"{where}: {len(ids)} ids, {len(mine)} by hand")
                    allowed = RowFilter(SearchFilter(where=where), store.catalog.frames.ids_matching)
                    took, found = timed(index.search, query, 10, allowed)
                    times["search"].append(took)
                    took, other = timed(after, index, query, set(mine))
                    times["search by hand"].append(took)
                    if [i for i, _ in found[0]] != [i for i, _ in other]:
                        sys.exit(f"{where}: other answers")
                    passed = len(ids)
            print(f"{name}: {passed:,} of {options.instances:,} pass  {where}")
            for what, values in times.items():
                print(f"  {what:15}{said(values)}")
            ids_ratio = statistics.median(times["by hand"]) / statistics.median(times["ids"])
            search_ratio = statistics.median(times["search by hand"]) / statistics.median(times["search"])
            print(f"  by hand takes {ids_ratio:.2f} times as long for the ids, {search_ratio:.2f} for the answers")


def by_hand(rows: list[Row], test: Callable[[Row], bool]) -> list[int]:
    return [i for i, row in enumerate(rows, 1) if test(row)]


def after(index: Any, query: np.ndarray, allowed: set[int]) -> list[tuple[int, float]]:
    """Ten answers by searching everything for more and more neighbours and throwing away what does not pass."""
    k = 100
    while True:
        ranked = index.search(query, k)[0]
        kept = [(i, score) for i, score in ranked if i in allowed][:10]
        if len(kept) == min(10, len(allowed)) or len(ranked) < k:
            return kept
        k *= 8


if __name__ == "__main__":
    main()
