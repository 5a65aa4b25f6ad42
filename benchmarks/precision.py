"""What bfloat16 gains on this machine, and what it costs: a model's image tower beside itself in float32.

    python benchmarks/precision.py PICTURES [--model M] [--limit 400] [--rounds 5] [--device cpu]

PICTURES is a folder of pictures. Both towers encode them from memory, in turn. Prints milliseconds a picture, the
median (least to most), the ratio within rounds; the least cosine of an embedding to its float32 twin, and how many of
the ten nearest other pictures stay the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from retrieval.encoders.clip import ClipEncoder

NEAREST = 10
SUFFIXES = (".png", ".jpg", ".jpeg")


def nearest(vectors: np.ndarray) -> np.ndarray:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1)[:, :NEAREST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    files = [path for path in sorted(args.pictures.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files = files[:: max(1, len(files) // args.limit)][: args.limit]
    if len(files) <= NEAREST:
        raise SystemExit(f"{args.pictures} holds {len(files)} pictures, expected more than {NEAREST}")
    pictures = [np.asarray(Image.open(path).convert("L")) for path in files]
    encoders = {name: ClipEncoder.load(args.model, args.device, name) for name in ("fp32", "bf16")}
    for name, encoder in encoders.items():
        print(f"{name}: runs in {encoder.device.precision} on {encoder.device.name}; {encoder.device.reason}")
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(args.rounds):
        for name, encoder in encoders.items():
            clock = time.perf_counter()
            encoder.encode_images(pictures)
            taken[name].append(1000 * (time.perf_counter() - clock) / len(pictures))
    for name, times in taken.items():
        print(f"{name}: {statistics.median(times):.2f} ms a picture ({min(times):.2f} to {max(times):.2f})")
    ratios = [a / b for a, b in zip(taken["fp32"], taken["bf16"], strict=True)]
    print(f"bf16 is {statistics.median(ratios):.2f} times as quick ({min(ratios):.2f} to {max(ratios):.2f})")
    exact, fast = (encoder.encode_images(pictures) for encoder in encoders.values())
    same = [len(np.intersect1d(a, b)) for a, b in zip(nearest(exact), nearest(fast), strict=True)]
    print(
        f"{len(pictures)} pictures: least cosine {(exact * fast).sum(axis=1).min():.5f}, "
        f"{np.mean(same) / NEAREST:.1%} of the nearest {NEAREST} stay"
    )


if __name__ == "__main__":
    main()
