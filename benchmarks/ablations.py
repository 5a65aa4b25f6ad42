"""What each trick of training is worth: the default model's configuration with one thing changed, cross-validated.

    python benchmarks/ablations.py DATA OUT [--plan data/training/ablations.yaml] [--only NAME ...] [--folds 3]
        [--device cuda --jobs 8]

DATA is the folder that data/training/medlens-base.yaml reads. Its training rows are split into folds by case; each
variant is trained once for each fold without that fold, and judged on it. The dev rows play no part, so that what is
chosen here does not flatter the figures of the card. The plan names the changes, and what is changed for all of them.

OUT/VARIANT/FOLD.npz keeps how each row of its fold was judged: runs that are there already are not done again.
OUT/ablations.json has the table that the model card shows: figures over all folds, differences paired, intervals over
cases (95 %, bootstrap).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import MedlensError
from retrieval.evaluation.evaluate import Evaluation, Options, evaluate
from retrieval.evaluation.pairs import evaluation_rows, read_pairs
from retrieval.evaluation.wording import AS_WRITTEN
from retrieval.evaluation.zero_shot import ACCURACY, AMONG_OCCURRING
from retrieval.statistics.bootstrap import Judgement, differences
from retrieval.statistics.measures import mean_where
from retrieval.training.checkpoint import work_folder
from retrieval.training.config import TrainingConfig, load_config
from retrieval.training.run import train
from retrieval.zeroshot.labels import load_labels

TRAINING = Path(__file__).resolve().parents[1] / "data/training"
JUDGED = {"medpix": ("modality", "plane", "body_region"), "covid_cxr": ()}  # sets, and their label sets
WORDED = "medpix"  # the set whose sentences are changed by a word
BASE = "default"
CASES, CHANCE = " cases", " chance"
FIXED = Options(resamples=1, shuffles=1)


def changed(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with some of its leaves replaced."""
    out = dict(values)
    for key, value in change.items():
        out[key] = (
            changed(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
        )
    return out


def fold_of(group: str, folds: int) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % folds


def write_fold(config: TrainingConfig, folder: Path, fold: int, folds: int) -> dict[Path, Path]:
    """Write the pairs files with one fold of the training rows as dev rows; those by the files that they stand for."""
    out = {}
    for source in config.data:
        place = folder / source.pairs.parent.name / source.pairs.name
        place.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(line) for line in source.pairs.read_text("utf-8").splitlines() if line.strip()]
        for row in rows:
            row["image"] = str(source.pairs.parent.resolve() / row["image"])
            if row.get("split") == "dev":
                row["split"] = "test"  # nobody's
            elif place.parent.name in JUDGED and fold_of(str(row["group"]), folds) == fold:
                row["split"] = "dev"
        place.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        out[source.pairs] = place
    return out


def configured(config: TrainingConfig, change: Mapping[str, Any], files: Mapping[Path, Path], out: Path) -> Any:
    values = changed(config.model_dump(exclude_unset=True), change)
    values["data"] = [source | {"pairs": files[source["pairs"]]} for source in values["data"]]
    return TrainingConfig.model_validate(values | {"output": out, "ablations": ()})


def one_run(config: TrainingConfig, folds: Path, kept: Path, device: str) -> tuple[str, float]:
    """Train, and keep how each row of the fold was judged."""
    started = time.monotonic()
    train(config, device=device)
    encoder = ClipEncoder.load(str(config.output), device, "fp32")
    items: dict[str, np.ndarray] = {}
    for name, label_sets in JUDGED.items():
        rows, paths = evaluation_rows(read_pairs(folds / name))
        found = encoder.encode_images([np.array(Image.open(path).convert("L")) for path in paths])
        labels = [(load_labels(label), label) for label in label_sets]
        for figure, judgement, statistic in told(
            evaluate(rows, encoder, found, label_sets=labels, options=FIXED), name
        ):
            items[figure] = judgement.statistics[statistic](np.eye(len(judgement.groups)))  # a mean's own items
            items[f"{figure}{CASES}"] = np.array([f"{name} {group}" for group in judgement.groups])
            items[f"{figure}{CHANCE}"] = np.full(len(judgement.groups), judgement.chance[statistic])
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(kept.with_suffix(".partial.npz"), **items)
    kept.with_suffix(".partial.npz").rename(kept)
    shutil.rmtree(work_folder(config))
    shutil.rmtree(config.output)
    return f"{kept.parent.name} {kept.stem}", time.monotonic() - started


def figures(out: Path, name: str, folds: int) -> Judgement | None:
    """All folds of a variant as if they were one set of rows; None where runs are missing."""
    files = [out / name / f"{fold}.npz" for fold in range(folds)]
    if not all(file.exists() for file in files):
        return None
    runs = [np.load(file) for file in files]
    names = [figure for figure in runs[0] if not figure.endswith((CASES, CHANCE))]
    values = {figure: np.concatenate([run[figure] for run in runs]) for figure in names}
    groups = [str(case) for figure in names for run in runs for case in run[f"{figure}{CASES}"]]
    # One row for each item of each figure; a figure is the mean over its own.
    every = np.concatenate(list(values.values()))
    owner = np.repeat(np.arange(len(names)), [len(of) for of in values.values()])
    statistics = {
        figure: mean_where(every, (owner == number) & np.isfinite(every)) for number, figure in enumerate(names)
    }
    chances = {figure: float(np.mean(np.concatenate([run[f"{figure}{CHANCE}"] for run in runs]))) for figure in names}
    return Judgement(groups, statistics, chances)


def told(evaluation: Evaluation, name: str) -> Iterator[tuple[str, Judgement, str]]:
    of = "" if name == WORDED else f"{name}: "
    for result in evaluation.retrieval:
        yield f"{of}{result.name} R@10", result.direction.judgement, "R@10"
    for each in evaluation.zero_shot:
        found = AMONG_OCCURRING if AMONG_OCCURRING in each.judgement.statistics else ACCURACY
        yield each.labels.name, each.judgement, found
    if name == WORDED:
        for wording in evaluation.wordings:
            yield wording.name, wording.judgement, AS_WRITTEN


def table(out: Path, plan: Mapping[str, Any], folds: int) -> dict[str, Any]:
    base = figures(out, BASE, folds)
    if base is None:
        raise SystemExit(f"not all runs of {BASE} are there")
    lines: list[dict[str, Any]] = []
    for name, change in variants_of(plan).items():
        found = base if name == BASE else figures(out, name, folds)
        if found is None:
            continue
        line: dict[str, Any] = {"variant": name, "change": change}
        line["figures"] = {figure: found.point(figure) for figure in found.statistics}
        if found is base:
            line["chance"] = dict(found.chance)
        else:
            line["difference"] = {n: (d.value, d.low, d.high) for n, d in differences(base, found).items()}
        lines.append(line)
    judged = (
        f"Each trained {folds} times, without a part of its training rows, and judged on that part: figures are over "
        f"the training rows of {' and '.join(JUDGED)}, {len(set(base.groups))} cases, each in a gallery of its part."
    )
    note = [plan["note"]] if "note" in plan else []
    return {"schedule": plan.get("common") or {}, "judged": " ".join([judged, *note]), "variants": lines}


def variants_of(plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {BASE: {}} | {name: change or {} for name, change in (plan["variants"] or {}).items()}


def show(document: Mapping[str, Any]) -> None:
    first = document["variants"][0]["figures"]
    print(f"{'':24}" + "".join(f"{name[-22:]:>24}" for name in first))
    for line in document["variants"]:
        differing = line.get("difference")
        cells = (
            [f"{100 * v:.1f}" for v in first.values()]
            if differing is None
            else [f"{100 * v:+.1f} ({100 * a:+.1f} to {100 * b:+.1f})" for v, a, b in differing.values()]
        )
        print(f"{line['variant']:24}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--plan", type=Path, default=TRAINING / "ablations.yaml")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--runs-only", action="store_true", help="the table is made later, by the same command")
    args = parser.parse_args()
    started = time.monotonic()
    plan = yaml.safe_load(args.plan.read_text("utf-8"))
    config = load_config(TRAINING / "medlens-base.yaml", args.data.resolve())
    out = args.out.resolve()
    places = [out / "folds" / str(fold) for fold in range(args.folds)]
    files = [write_fold(config, place, fold, args.folds) for fold, place in enumerate(places)]
    waiting = []
    for name, change in variants_of(plan).items():
        if args.only is not None and name not in args.only:
            continue
        merged = changed(plan.get("common") or {}, change)
        for fold, place in enumerate(places):
            one = configured(config, merged, files[fold], out / name / f"model-{fold}")
            if not (kept := out / name / f"{fold}.npz").exists():
                waiting.append((one, place, kept))
    print(f"{len(waiting)} runs", file=sys.stderr, flush=True)
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, start, torch.set_num_threads, (threads,)) as pool:
        running = set()
        while waiting or running:
            while waiting and len(running) < args.jobs and time.monotonic() - started < args.seconds:
                one, place, kept = waiting.pop(0)
                running.add(pool.submit(one_run, one, place, kept, args.device))
            if not running:
                break
            done = next(as_completed(running))
            running.remove(done)
            try:
                what, seconds = done.result()
            except (MedlensError, RuntimeError) as exc:
                what, seconds = f"{type(exc).__name__}: {exc}", 0
            print(f"{time.monotonic() - started:6.0f} s: {what} took {seconds:.0f} s", file=sys.stderr, flush=True)
    if args.runs_only:
        return
    document = table(out, plan, args.folds)
    show(document)
    (out / "ablations.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
