"""Frames a second of `medlens classify` over a store's vectors, beside a hand-written loop over the same vectors.

    python benchmarks/classify_store.py [--frames 1000000] [--rounds 3] [--labels modality]

The store holds made-up unit vectors under the default model's name. The peer reads all vectors into one array from a
FAISS file and writes name, label and scores of each row with csv: what a notebook does. medlens reads its catalog, in
bounded memory, and knows studies and keys. Both are whole processes; rounds are interleaved. Prints medians, the
least and the most, the processor's seconds, and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from cold_search import cold, fill

from retrieval.encoders.numpy_text.encoder import open_encoder

PEER = """
import csv, json, sys
import faiss, numpy as np
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.zeroshot.labels import load_labels

place, labels, out = sys.argv[1:]
encoder = open_encoder(None, "cpu")
said = load_labels(labels).labels
text = np.stack([encoder.encode_text(list(label.prompts)).mean(axis=0) for label in said])
text /= np.linalg.norm(text, axis=1, keepdims=True)
index = faiss.read_index(place + "/flat.faiss")
vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
names = json.load(open(place + "/names.json"))
logits = 100 * vectors @ text.T
shares = np.exp(logits - logits.max(axis=1, keepdims=True))
shares /= shares.sum(axis=1, keepdims=True)
best = shares.argmax(axis=1)
with open(out, "w", newline="") as file:
    writer = csv.writer(file)
    for name, b, row in zip(names, best, shares):
        writer.writerow([name, said[b].name, *row])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--labels", default="modality")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        place = Path(made)
        encoder = open_encoder(None, "cpu")
        fill(place, encoder.spec.to_json(), encoder.embed_dim, args.frames)
        program = "from cli.medlens_app import main; main()"
        ours = [sys.executable, "-c", program, "classify", "--store", str(place / "store"), "--labels", args.labels]
        commands = {
            "medlens classify": [*ours, "--format", "csv", "-o", str(place / "ours.csv")],
            "by hand": [sys.executable, "-c", PEER, str(place), args.labels, str(place / "peer.csv")],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            (place / "ours.csv").unlink(missing_ok=True)
            for name, command in commands.items():
                seconds, processor, _ = cold(command)
                taken[name].append((seconds, processor))
        for name, rounds in taken.items():
            seconds = [s for s, _ in rounds]
            print(
                f"{name:17} {statistics.median(seconds):6.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), processor "
                f"{statistics.median(p for _, p in rounds):.1f} s, "
                f"{args.frames / statistics.median(seconds):,.0f} frames/s"
            )
        ratios = [a / b for (a, _), (b, _) in zip(taken["medlens classify"], taken["by hand"], strict=True)]
        print(f"medlens takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})")
        agree = _labels(place / "ours.csv", "label") == _labels(place / "peer.csv", None)
        print("the same labels" if agree else "OTHER labels")


def _labels(path: Path, column: str | None) -> list[str]:
    import csv

    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    at = rows.pop(0).index(column) if column else 1
    return [row[at] for row in rows]


if __name__ == "__main__":
    main()
