"""What each trick of training is worth: the default model's configuration with one thing changed, judged on dev rows.

    python benchmarks/ablations.py DATA OUT [--only NAME ...] [--plan data/training/ablations.yaml]

DATA is the folder that data/training/medlens-base.yaml reads. The plan names the changes, and a schedule shorter than
the default model's, so that a CPU gets through: differences are between equally short runs. Variants that OUT has
already are not trained again. OUT/ablations.json has the table that the model card shows; differences are paired,
intervals are over cases (95 %, bootstrap).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.evaluation.evaluate import Compared, Evaluation, Options, compare, evaluate
from retrieval.evaluation.pairs import evaluation_rows, read_pairs
from retrieval.evaluation.wording import AS_SAID
from retrieval.evaluation.zero_shot import ACCURACY, AMONG_OCCURRING
from retrieval.training.config import TrainingConfig, load_config
from retrieval.training.loop import train
from retrieval.zeroshot.labels import load_labels

TRAINING = Path(__file__).resolve().parents[1] / "data/training"
JUDGED = "pairs/medpix/pairs.jsonl"
LABELS = ("modality", "plane", "body_region")
BASE = "default"


def changed(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with some of its leaves replaced."""
    out = dict(values)
    for key, value in change.items():
        out[key] = (
            changed(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
        )
    return out


def configured(config: TrainingConfig, change: Mapping[str, Any], output: Path) -> TrainingConfig:
    return TrainingConfig.model_validate(changed(config.model_dump(exclude_unset=True), change) | {"output": output})


def trained(config: TrainingConfig, pixels: Path | None) -> None:
    """Train unless that is done. `pixels` has the decoded images of another run."""
    if (config.output / "README.md").exists():
        return
    work = config.output.with_name(f"{config.output.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    if pixels is not None:
        for file in (*pixels.glob("*.pixels"), *pixels.glob("*.key")):
            if not (work / file.name).exists():
                shutil.copy(file, work / file.name)
    train(
        config, on_epoch=lambda epoch, loss, _: print(f"  {config.output.name} epoch {epoch}: {loss:.3f}", flush=True)
    )


class Rows:
    """The dev rows, and what a model makes of them."""

    def __init__(self, data: Path) -> None:
        self.rows, self.paths = evaluation_rows(read_pairs(data / JUDGED))
        self.labels = [(load_labels(name), name) for name in LABELS]

    def judged(self, folder: Path) -> Evaluation:
        encoder = ClipEncoder.from_source(resolve_model(str(folder)), "cpu")
        fit = encoder.spec.preprocess.fit
        images = encoder.encode_images([fit(np.array(Image.open(path).convert("L"))) for path in self.paths])
        return evaluate(self.rows, encoder, images, label_sets=self.labels, options=Options(shuffles=1))


def figures(evaluation: Evaluation) -> dict[str, float]:
    found = {f"{way.name} R@10": way.estimates["R@10"].value for way in evaluation.ways}
    found |= {each.labels.name: each.estimates[_right(each.estimates)].value for each in evaluation.zero_shot}
    return found | {each.name: each.estimates[AS_SAID].value for each in evaluation.wordings}


def _right(found: Mapping[str, Any]) -> str:
    return AMONG_OCCURRING if AMONG_OCCURRING in found else ACCURACY


def against(compared: Compared) -> dict[str, tuple[float, float, float]]:
    """The same figures less the default's, with their paired intervals."""
    found = {}
    for task, differing in compared.differences.items():
        if "R@10" in differing:
            found[f"{task.partition(',')[0]} R@10"] = differing["R@10"]
        elif AS_SAID in differing:
            found[task] = differing[AS_SAID]
        else:
            found[task.removeprefix("zero-shot ")] = differing[_right(differing)]
    return {name: (d.value, d.low, d.high) for name, d in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--plan", type=Path, default=TRAINING / "ablations.yaml")
    args = parser.parse_args()
    plan = yaml.safe_load(args.plan.read_text("utf-8"))
    config = load_config(TRAINING / "medlens-base.yaml", args.data.resolve())
    out = args.out.resolve()
    rows, pixels = Rows(args.data), None
    base: Evaluation | None = None
    table = []
    variants = {BASE: {}} | plan["variants"]
    for name, change in variants.items():
        if args.only is not None and name not in (BASE, *args.only):
            continue
        merged = changed(changed({}, plan["common"]), change or {})
        one = configured(config, merged, out / name)
        trained(one, pixels)
        if pixels is None:
            pixels = out / f"{name}.work"
        else:
            shutil.rmtree(out / f"{name}.work", ignore_errors=True)
        judged = rows.judged(one.output)
        base = base or judged
        row: dict[str, Any] = {"variant": name, "change": change or {}, "figures": figures(judged)}
        if judged is not base:
            row["difference"] = against(compare(base, judged))
        table.append(row)
        print(json.dumps(row), flush=True)
        (out / "ablations.json").write_text(
            json.dumps({"schedule": plan["common"], "rows": len(rows.rows), "variants": table}, indent=1) + "\n",
            "utf-8",
        )


if __name__ == "__main__":
    main()
