"""What decoding in guarded workers costs over decoding in process: python benchmarks/guard.py [--files 300].

Uncompressed CT in bulk, 512 x 512, 16 bits, made here. Each round decodes all files three ways, in turn: in process, in
one worker, in two. Medians over the rounds, with quartiles, and ratios taken within each round. With one worker, wall
time is the honest price; processor time of both processes together says what is spent besides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import guarded_work  # noqa: E402
import numpy as np  # noqa: E402
import pydicom  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402

from indexer.guard.pool import GuardedPool  # noqa: E402


def make_files(folder: Path, count: int) -> list[str]:
    """Copies of pydicom's CT, blown up to 512 x 512, each with noise of its own."""
    ds = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    body = np.kron(ds.pixel_array, np.ones((4, 4), np.int16))
    rng = np.random.default_rng(0)
    ds.Rows = ds.Columns = 512
    ds.WindowCenter, ds.WindowWidth = 40, 400
    paths = []
    for n in range(count):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{n + 1}"
        ds.PixelData = (body + rng.integers(-20, 20, body.shape, np.int16)).tobytes()
        paths.append(str(folder / f"{n}.dcm"))
        ds.save_as(paths[-1])
    return paths


def processor_seconds(pids: tuple[int, ...]) -> float:
    """Time on a processor of all threads of this process and of those given (Linux, to the nanosecond)."""
    tasks = [task for pid in (os.getpid(), *pids) for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def timed(work: Callable[[], int], pids: tuple[int, ...] = ()) -> tuple[float, float, int]:
    processor, begin = processor_seconds(pids), time.perf_counter()
    check = work()
    return time.perf_counter() - begin, processor_seconds(pids) - processor, check


def spread(values: list[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), options.files)
        with (
            GuardedPool(guarded_work.render, workers=1) as one,
            GuardedPool(guarded_work.render, workers=2) as two,
            GuardedPool(guarded_work.nothing, workers=1) as idle,
        ):
            ways: dict[str, Callable[[], int]] = {
                "in process": lambda: sum(int(guarded_work.render(path)[0, 0]) for path in paths),
                "1 worker": lambda: sum(int(picture[0, 0]) for _, picture in one.map(paths)),
                "2 workers": lambda: sum(int(picture[0, 0]) for _, picture in two.map(paths)),
                "1 worker, no work": lambda: len(list(idle.map(paths))),
            }
            pids = {
                "1 worker": one.worker_pids,
                "2 workers": two.worker_pids,
                "1 worker, no work": idle.worker_pids,
            }
            wall: dict[str, list[float]] = {name: [] for name in ways}
            processor: dict[str, list[float]] = {name: [] for name in ways}
            checks = set()
            for n in range(options.rounds + 1):
                for name, work in ways.items():
                    seconds, used, check = timed(work, pids.get(name, ()))
                    if n:  # the first round warms up
                        wall[name].append(1000 * seconds / len(paths))
                        processor[name].append(1000 * used / len(paths))
                    if "no work" not in name:
                        checks.add(check)
    if len(checks) != 1:
        print("the ways gave different pictures")
        return 1
    print(f"{len(paths)} uncompressed CT of 512 x 512, {options.rounds} rounds; ms per file: median (quartiles)")
    for name in ways:
        print(f"{name:18s} wall {spread(wall[name], '.3f')}  processor {spread(processor[name], '.3f')}")
    for name in list(ways)[1:3]:
        for kind, values in (("wall", wall), ("processor", processor)):
            ratios = [100 * (a / b - 1) for a, b in zip(values[name], values["in process"], strict=True)]
            print(f"{name:18s} {kind} over in process {spread(ratios, '+.1f')} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
