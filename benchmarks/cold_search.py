"""Seconds of a cold `medlens search`, beside a hand-written script that does the same on the same vectors.

    python benchmarks/cold_search.py [--frames 100000] [--rounds 5] [--model FOLDER | --biomedclip] [--uncached]

"Cold" is a process that starts from nothing; the files are in the system's cache for both, unless `--uncached` drops
those of the model and the store before each start. The store holds made-up unit vectors under the model's name, and
made-up reports of every other study, which the default search asks, too; the peer knows vectors alone. `--biomedclip`
makes a model of BiomedCLIP's shape with random weights. The peer is what an engineer writes by hand: open_clip,
faiss.read_index on float32 vectors, a list of names beside it. Rounds are interleaved; by pictures alone both must name
the same best frame. Prints medians, the least and the most, the processor's seconds, and the ratio; and the same for
`medlens --help`. On a busy machine only the ratio and the processor's seconds mean anything, and these beside those of
importing NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.store.store import Store
from retrieval.encoders.known_models import remember_model
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import open_encoder

ROOT = Path(__file__).resolve().parents[1]
QUERY = "axial CT of the chest with a pleural effusion"
FRAMES_PER_STUDY = 100
WORDS = ("axial", "ct", "mr", "chest", "knee", "pleural", "effusion", "no", "without", "fracture", "left", "heart")

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
    """A store of `frames` made-up frames, every other study with a made-up report, and the peer's index and names of
    the very same vectors."""
    import faiss

    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(dim)
    names: list[str] = []
    with Store.create(place / "store", spec) as store:
        archive = store.catalog.files.archive_id(place / "archive")
        files: list[IndexedFile] = []
        for number, start in enumerate(range(0, frames, FRAMES_PER_STUDY)):
            count = min(FRAMES_PER_STUDY, frames - start)
            vectors = rng.normal(size=(count, dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            study = f"2.25.{number + 1}"
            values = dict.fromkeys(COLUMNS) | {"study_instance_uid": study}
            image = values | {"sop_instance_uid": f"{study}.1", "series_instance_uid": f"{study}.2", "modality": "CT"}
            record = InstanceRecord(image, None, "image", count)
            numbers = tuple(range(1, count + 1))
            files.append(IndexedFile(FileStat(f"{number}.dcm", 1, 1), record, numbers, vectors, content_hash=study))
            if number % 2:
                said = values | {
                    "sop_instance_uid": f"{study}.3",
                    "series_instance_uid": f"{study}.4",
                    "modality": "SR",
                }
                text = " ".join([*rng.choice(WORDS, 30), *(f"finding{n}" for n in rng.integers(0, 5000, 30))])
                report = InstanceRecord(said, None, "report", report_text=text)
                files.append(IndexedFile(FileStat(f"{number}.sr", 1, 1), report, content_hash=f"{study}.3"))
            index.add(vectors.astype(np.float16).astype(np.float32))  # the catalog keeps float16
            names += [f"{study}.1#{n}" for n in numbers]
        store.catalog.files.commit(archive, files, [])
        store.refresh()
    faiss.write_index(index, str(place / "flat.faiss"))
    (place / "names.json").write_text(json.dumps(names), encoding="utf-8")


def make_biomedclip(folder: Path) -> Path:
    """A model of BiomedCLIP's shape, 12 layers of BERT-base and a ViT-B/16, with random weights, as a folder that
    open_clip loads offline."""
    import open_clip
    from safetensors.torch import save_file

    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_models import bert_config, pieces, write_tokenizer

    vocabulary = [*pieces(QUERY.lower().split()), *(f"[unused{i}]" for i in range(30_400))]
    write_tokenizer(folder, vocabulary)
    (folder / "config.json").write_text(json.dumps(bert_config(len(vocabulary), 768, 12, 3072)), encoding="utf-8")
    vision = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_model_pretrained": False}
    text |= {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}
    config = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CustomTextCLIP(**config)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    return folder


def drop_from_cache(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold(command: list[str]) -> tuple[float, float, str]:
    """Seconds on the clock, seconds of the processor, and what was printed."""
    # Compiled modules are kept, as they are where medlens is installed.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command[:4]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def best_of(printed: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a shipped model or a model folder")
    parser.add_argument("--biomedclip", action="store_true", help="a made-up model of BiomedCLIP's shape")
    parser.add_argument("--uncached", action="store_true", help="model and store are read from the disk")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        place = Path(made)
        source = resolve_model(str(make_biomedclip(place / "biomedclip")) if args.biomedclip else args.model)
        if source.folder is None:
            parser.error("name a model that lies in a folder")
        spec = open_encoder(source.source).spec
        os.environ["XDG_DATA_HOME"] = str(place / "home")  # a store does not say where its model lies
        remember_model(spec, source)
        fill(place, spec.to_json(), spec.embed_dim, args.frames)
        medlens = [sys.executable, "-c", "from cli.medlens_app import main; main()"]
        search = [*medlens, "search", QUERY, "--store", str(place / "store"), "--format", "jsonl"]
        peer = [sys.executable, "-c", PEER, str(source.folder), str(place), QUERY]
        ways = {"medlens search": search, "by pictures alone": [*search, "--ranker", "dense"], "hand-written": peer}
        ways |= {"medlens --help": [*medlens, "--help"], "import numpy": [sys.executable, "-c", "import numpy"]}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        processor: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            printed = {}
            for name, command in ways.items():
                if args.uncached:
                    drop_from_cache(source.folder, place)
                taken, used, printed[name] = cold(command)
                if number:  # the first round fills the system's cache of files
                    seconds[name].append(taken)
                    processor[name].append(used)
            best, theirs = best_of(printed["by pictures alone"]), best_of(printed["hand-written"])
            if f"{best['sop_instance_uid']}#{best['frame_number']}" != theirs["name"]:
                raise SystemExit(f"the two do not agree on the best frame: {best}, {theirs}")

    base = statistics.median(seconds["hand-written"])
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{args.frames} x {spec.embed_dim} vectors, {spec.name}")
    print(f"{'':18}{'seconds':>9}{'least..most':>16}{'processor':>11}  x faster than hand-written")
    for name, taken in seconds.items():
        middle, used = statistics.median(taken), statistics.median(processor[name])
        ratio = f"  {base / middle:.1f}" if name in ("medlens search", "by pictures alone", "hand-written") else ""
        print(f"{name:18}{middle:9.2f}{f'{min(taken):.2f}..{max(taken):.2f}':>16}{used:11.2f}{ratio}")


if __name__ == "__main__":
    main()
