"""Pictures per second of `index_archive`, of the encoder alone, and of a plain loop, on the same files.

    python benchmarks/index_rate.py [ARCHIVE] [--limit N] [--rounds 5] [--model M | --random ViT-B-16] [--workers N]

ARCHIVE is a folder of DICOM files; without one, the test files of pydicom's wheel. --random takes one of open_clip's
architectures with random weights. Each round, in turn: index into a new store; index again, nothing having changed;
encode the same pictures from memory; and the loop that an engineer writes: pydicom, a min-max window, open_clip's
transform and model in float32 in batches of 32, IndexFlatIP and a list of UIDs, in one process, what fails passed over.
The start of the worker processes and all reading, rendering and committing count; loading the model does not. The
loop takes a multi-frame file's middle frame and no reports, and may fail where medlens reads, so its rate is over the
pictures that it has. Prints medians, the least and the most, and ratios of the rates within each round.
The rerun of a large archive is measured by catalog_rate.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import open_clip
import pydicom
import pydicom.data
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from indexer.guard.pool import GuardedPool
from indexer.reading.files import FileToRead, ReadFile, ReadSettings, read_file, set_settings
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.sources.folders import iter_files
from indexer.store.store import Store
from retrieval.encoders.clip import ClipEncoder, choose_device
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.torch_model import open_model
from retrieval.types import Uint8Image

T = TypeVar("T")


def random_model(architecture: str, folder: Path) -> Path:
    """A folder with random weights for one of open_clip's architectures that has its own tokenizer."""
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise SystemExit(f"open_clip has no {architecture!r}; there are {', '.join(open_clip.list_models())}")
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    document = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(document), "utf-8")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def pictures_of(archive: Path, encoder: ClipEncoder) -> list[Uint8Image]:
    """What `index_archive` hands to the encoder, one picture per SOP instance and frame."""
    settings = ReadSettings(b"\0" * 32, encoder.spec.preprocess, encoder.spec.render_profile)
    walk = iter_files(archive, on_rejection=lambda rejection: None)
    seen: dict[str, tuple[Uint8Image, ...]] = {}
    with GuardedPool(read_file, workers=2, initializer=set_settings, initargs=(settings,)) as pool:
        for _, read in pool.map(FileToRead(stat, path) for stat, path in walk):
            if isinstance(read, ReadFile):
                seen[read.record.sop_instance_uid] = read.pictures
    return [picture for pictures in seen.values() for picture in pictures]


def timed(function: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def plain_loop(paths: list[Path], visual: torch.nn.Module, transform: Callable[[Image.Image], torch.Tensor]) -> int:
    """Returns how many pictures it has in its index."""
    index: faiss.IndexFlatIP | None = None
    uids: list[str] = []
    batch: list[torch.Tensor] = []

    def flush() -> None:
        nonlocal index
        with torch.inference_mode():
            features = visual(torch.stack(batch))
        vectors = torch.nn.functional.normalize(features, dim=-1).numpy()
        index = index or faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        batch.clear()

    for path in paths:
        try:
            ds = pydicom.dcmread(path)
            values = ds.pixel_array.astype(np.float32)
            if values.ndim > 2 and values.shape[-1] != 3:
                values = values[len(values) // 2]
            low, high = values.min(), values.max()
            grey = ((values - low) / max(high - low, 1) * 255).astype(np.uint8)
            batch.append(transform(Image.fromarray(grey).convert("RGB")))
        except Exception:  # noqa: BLE001 - as such loops do
            continue
        uids.append(str(ds.SOPInstanceUID))
        if len(batch) == 32:
            flush()
    if batch:
        flush()
    if index is None or index.ntotal != len(uids):
        raise SystemExit("the plain loop indexed nothing")
    return len(uids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", nargs="?", type=Path, default=Path(pydicom.data.__file__).parent / "test_files")
    parser.add_argument("--limit", type=int, help="copy only so many of the archive's files, spread over it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--random", metavar="ARCHITECTURE")
    parser.add_argument("--workers", type=int)
    parser.add_argument(
        "--images-only", action="store_true", help="without the reports, whose sentences are encoded too"
    )
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("retrieval").setLevel(logging.INFO)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")

    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as place:
        named = str(random_model(args.random, Path(place))) if args.random else args.model
        model, tokenizer, spec = open_model(resolve_model(named))
    visual = model.eval().requires_grad_(False).visual  # the encoder puts its own in the model's place
    preprocess_cfg = open_clip.get_model_preprocess_cfg(model)
    transform = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    encoder = ClipEncoder(model, tokenizer, spec, choose_device("cpu"))
    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        archive = args.archive.resolve()
        paths = [archive / stat.path for stat, _ in iter_files(archive, on_rejection=lambda rejection: None)]
        if args.images_only:
            paths = [
                path
                for path in paths
                if "SR" not in pydicom.dcmread(path, specific_tags=["Modality"]).get("Modality", "")
            ]
        if args.limit or args.images_only:
            paths = paths[:: max(len(paths) // (args.limit or len(paths)), 1)][: args.limit]
            archive = Path(made)
            for number, path in enumerate(paths):
                shutil.copy2(path, archive / f"{number:06d}.dcm")
            paths = sorted(archive.iterdir())
        pictures = pictures_of(archive, encoder)
        print(f"{len(paths)} files, {len(pictures)} pictures; {encoder.name} on {encoder.device}")
        if not pictures:
            parser.error("the archive holds no picture")
        encoder.encode_images(pictures[:64])  # what the first batch alone pays for
        new, again, alone, loop = "index_archive, new", "index_archive, again", "encoder alone", "plain loop"
        seconds: dict[str, list[float]] = {name: [] for name in (alone, new, again, loop)}
        counts = {alone: len(pictures), again: len(paths)}
        for number in range(args.rounds):
            with (
                tempfile.TemporaryDirectory(prefix="medlens-bench-") as place,
                Store.create(Path(place) / "store", encoder.spec.to_json()) as store,
            ):
                taken, report = timed(
                    lambda s=store: index_archive([archive], s, encoder, IndexOptions(workers=args.workers))
                )
                seconds[new].append(taken)
                counts[new] = report.frames
                taken, rerun = timed(
                    lambda s=store: index_archive([archive], s, encoder, IndexOptions(workers=args.workers))
                )
                seconds[again].append(taken)
                if rerun.indexed or rerun.frames:
                    raise SystemExit(f"round {number}: the second run indexed {rerun.indexed} files, expected none")
            seconds[alone].append(timed(lambda: encoder.encode_images(pictures))[0])
            taken, counts[loop] = timed(lambda: plain_loop(paths, visual, transform))
            seconds[loop].append(taken)
    if not report.frames:
        raise SystemExit("nothing was indexed")
    said(seconds, counts, report.reports)


def said(seconds: dict[str, list[float]], counts: dict[str, int], reports: int) -> None:
    alone, new, _, loop = seconds
    print(f"load average {os.getloadavg()[0]:.1f}; {reports} reports with their sentences are indexed besides")
    print(f"{'':22}{'done':>7}{'seconds':>9}{'least..most':>16}{'per second':>12}")
    for name, taken in seconds.items():
        spread = f"{min(taken):.2f}..{max(taken):.2f}"
        rate = counts[name] / statistics.median(taken)
        print(f"{name:22}{counts[name]:7}{statistics.median(taken):9.2f}{spread:>16}{rate:12.1f}")
    for mine, peer in ((new, alone), (new, loop)):
        share = counts[mine] / counts[peer]
        ratios = [share * b / a for a, b in zip(seconds[mine], seconds[peer], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{mine}: {statistics.median(ratios):.2f} times the pictures per second of the {peer} {spread}")


if __name__ == "__main__":
    main()
