"""What one training step costs in memory: a batch of 4,096 in chunks (GradCache) beside plain batches.

    python benchmarks/training_memory.py [--batch 4096] [--chunk 64] [--limit-gb 8]

The model is the default one (data/training/medlens-base.yaml, at its full image size), the images are noise that the
script draws, each with a caption of its own. Every row is a process of its own: the peak is the most resident memory it
ever had (ru_maxrss, which is the kernel's figure), "before" what it had before its first step, "the step's" the
difference. Plain batches double as long as the next is expected to stay under the limit; the line through the last two
says what the large batch would take.

A chunked step encodes everything twice: its price in images/s is in the same table, measured in the second step (in the
first, of the large batch, where there is only one).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 64  # files; a row names one of them
GB = 1e9


@dataclass(frozen=True)
class Cost:
    batch: int
    chunk: int | None
    before: float  # bytes
    peak: float  # bytes
    rate: float  # images/s

    @property
    def step(self) -> float:
        return self.peak - self.before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096, help="the large batch")
    parser.add_argument("--chunk", type=int, default=64, help="images encoded at a time")
    parser.add_argument("--limit-gb", type=float, default=8.0, help="no plain batch that would need more")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a single row, as JSON
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(vars(step(args.batch, None if args.plain else args.chunk))))
        return
    costs = []
    batch = args.chunk
    while batch <= args.batch:
        costs.append(measured(batch, None))
        batch *= 2
        if predicted(costs, batch) > args.limit_gb * GB:
            break
    costs.append(measured(args.chunk * 2, args.chunk))
    costs.append(measured(args.batch, args.chunk))
    show(costs, args.batch)


def step(batch: int, chunk: int | None) -> Cost:
    """Set a run up, do two steps (one where they are long), and say what they took."""

    from retrieval.training.config import load_config
    from retrieval.training.context import TrainingContext
    from retrieval.training.data import read_corpus
    from retrieval.training.set_up import set_up

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        config = load_config(ROOT / "data" / "training" / "medlens-base.yaml")
        schedule = {"batch_size": batch, "chunk_size": chunk, "small_image_size": None}
        source = config.data[0].model_copy(
            update={"pairs": write_pairs(made, batch), "texts": {"text": 1.0}, "templates": {}, "attributes": {}}
        )
        config = config.model_copy(
            update={
                "data": (source,),
                "label_sets": {},
                "output": made / "out",
                "schedule": config.schedule.model_copy(update=schedule),
            }
        )
        corpus = read_corpus(config.data, [])
        run = set_up(TrainingContext(config, corpus, [], made))
        before = peak_memory()
        seconds = []
        for _ in range(1 if batch >= 1024 else 2):
            began = time.perf_counter()
            run._train_step(np.arange(batch))
            seconds.append(time.perf_counter() - began)
        return Cost(batch, chunk, before, peak_memory(), batch / seconds[-1])


def write_pairs(folder: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (200, 200), np.uint8)).save(folder / f"{i}.png")
    lines = [
        {"image": f"{i % PICTURES}.png", "text": f"case number {i}", "group": str(i), "split": "train"}
        for i in range(rows)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder / "pairs.jsonl"


def peak_memory() -> float:
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)


def measured(batch: int, chunk: int | None) -> Cost:
    what = ["--plain"] if chunk is None else ["--chunk", str(chunk)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", "--batch", str(batch), *what], stdout=subprocess.PIPE, text=True, check=True
    )
    found = Cost(**json.loads(done.stdout.splitlines()[-1]))
    print(f"measured: batch {batch}, {found.peak / GB:.2f} GB", file=sys.stderr)
    return found


def predicted(costs: list[Cost], batch: int) -> float:
    """The peak of a plain batch by the line through the last two; with one, its step grows with the batch."""
    plain = [cost for cost in costs if cost.chunk is None]
    last = plain[-1]
    slope = last.step / last.batch
    if len(plain) > 1:
        slope = (last.peak - plain[-2].peak) / (last.batch - plain[-2].batch)
    return last.peak + slope * (batch - last.batch)


def show(costs: list[Cost], large: int) -> None:
    first = costs[0]
    titles = f"{'before':>8} {'peak':>8} {'the step':>10} {'ratio':>6} {'images/s':>9} {'ratio':>6}"
    print(f"{'batch':>6} {'chunk':>6} {titles}")
    for cost in costs:
        print(
            f"{cost.batch:>6} {cost.chunk or 'none':>6} {cost.before / GB:>6.2f}GB {cost.peak / GB:>6.2f}GB "
            f"{cost.step / GB:>8.2f}GB {cost.step / first.step:>6.2f} {cost.rate:>9.1f} {cost.rate / first.rate:>6.2f}"
        )
    chunked = costs[-1]
    plain = predicted(costs, large)
    print(
        f"batch {large} plain, by the line through the largest two: {plain / GB:.1f} GB at the peak; in chunks of "
        f"{chunked.chunk} {chunked.peak / GB:.2f} GB, {plain / chunked.peak:.1f} times less"
    )


if __name__ == "__main__":
    main()
