"""Seconds of a cold `medlens search`, beside a hand-written script that does the same on the same vectors.

    python benchmarks/cold_search.py [--frames 100000] [--rounds 5] [--model M]

"Cold" is a process that starts from nothing; the files are in the system's cache for both. The store holds made-up unit
vectors under the model's name. The peer is what an engineer writes by hand: open_clip, faiss.read_index on float32
vectors, a list of names beside it. Rounds are interleaved; both must name the same best frame. Prints medians, the
least and the most, and the ratio. On a busy machine only the ratio means anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.store import Store
from retrieval.model_source import open_model, resolve_model

ROOT = Path(__file__).resolve().parents[1]
QUERY = "axial CT of the chest with a pleural effusion"
FRAMES_PER_FILE = 1000

PEER = """
import json, sys
import faiss, numpy as np, open_clip, torch

folder, place, query = sys.argv[1:]
model = open_clip.create_model("local-dir:" + folder).eval()
tokenizer = open_clip.get_tokenizer("local-dir:" + folder)
index = faiss.read_index(place + "/flat.faiss")
with open(place + "/names.json") as file:
    names = json.load(file)
with torch.inference_mode():
    x = model.encode_text(tokenizer([query]), normalize=True).float().numpy()
scores, rows = index.search(x, 10)
for rank, (score, row) in enumerate(zip(scores[0], rows[0]), 1):
    print(json.dumps({"rank": rank, "score": float(score), "name": names[row]}))
"""


def fill(place: Path, spec: dict[str, object], dim: int, frames: int) -> None:
    """A store of `frames` made-up frames, and the peer's index and names of the very same vectors."""
    import faiss

    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(dim)
    names: list[str] = []
    with Store.create(place / "store", spec) as store:
        archive = store.catalog.archive_id(place / "archive")
        for number, start in enumerate(range(0, frames, FRAMES_PER_FILE)):
            count = min(FRAMES_PER_FILE, frames - start)
            vectors = rng.normal(size=(count, dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            uid = f"2.25.{number + 1}"
            values = dict.fromkeys(COLUMNS) | {"sop_instance_uid": uid, "study_instance_uid": f"{uid}.1"}
            record = InstanceRecord(
                values | {"series_instance_uid": f"{uid}.2", "modality": "CT"}, None, "image", count
            )
            numbers = tuple(range(1, count + 1))
            stat = FileStat(f"{number}.dcm", 1, 1)
            store.catalog.commit(archive, [IndexedFile(stat, record, numbers, vectors, content_hash=uid)], [])
            index.add(vectors.astype(np.float16).astype(np.float32))  # the catalog keeps float16
            names += [f"{uid}#{n}" for n in numbers]
        store.refresh()
    faiss.write_index(index, str(place / "flat.faiss"))
    (place / "names.json").write_text(json.dumps(names), encoding="utf-8")


def cold(command: list[str]) -> tuple[float, list[dict[str, object]]]:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{command[:4]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return taken, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a shipped model or a model folder")
    args = parser.parse_args()

    source = resolve_model(args.model)
    if source.folder is None:
        parser.error("name a model that lies in a folder")
    _, _, spec = open_model(source)
    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        place = Path(made)
        fill(place, spec.to_json(), spec.embed_dim, args.frames)
        program = "from cli.medlens_app import main; main()"
        ours = [sys.executable, "-c", program, "search", QUERY, "--store", str(place / "store"), "--format", "jsonl"]
        peer = [sys.executable, "-c", PEER, str(source.folder), str(place), QUERY]
        ways = {"medlens search": ours, "hand-written": peer}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            first = {}
            for name, command in ways.items():
                taken, answers = cold(command)
                first[name] = answers[0]
                if number:  # the first round fills the system's cache of files
                    seconds[name].append(taken)
            best = first["medlens search"]
            if f"{best['sop_instance_uid']}#{best['frame_number']}" != first["hand-written"]["name"]:
                raise SystemExit(f"the two do not agree on the best frame: {first}")

    base = statistics.median(seconds["hand-written"])
    print(f"{args.frames} x {spec.embed_dim} vectors, {spec.name}")
    print(f"{'':16}{'seconds':>9}{'least..most':>16}  x faster than hand-written")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name:16}{middle:9.2f}{f'{min(taken):.2f}..{max(taken):.2f}':>16}  {base / middle:.2f}")


if __name__ == "__main__":
    main()
