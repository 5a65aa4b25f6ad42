"""A drawn world to train on in seconds: coloured shapes with captions, a label set, and the configuration of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw
from tiny_models import write_text_start

from retrieval.training.config import TrainingConfig, load_config

SHAPES, TONES = ("circle", "square", "cross"), ("dark", "bright")
WORDS = ("circle", "square", "cross", "dark", "bright", "grey", "shape", "a", "elephant", "radiograph", "##graph")


def draw(path: Path, shape: str, tone: str, rng: np.random.Generator) -> None:
    picture = Image.new("L", (48, 48), 110)
    pen, fill = ImageDraw.Draw(picture), 20 if tone == "dark" else 240
    x, y, r = *rng.integers(18, 30, 2).tolist(), int(rng.integers(10, 15))
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.rectangle((x - r, y - 2, x + r, y + 2), fill=fill)
        pen.rectangle((x - 2, y - r, x + 2, y + r), fill=fill)
    picture.save(path)


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def make_world(root: Path) -> Path:
    """Fill `root` with a text start, a pairs set of shapes, a label set, and the configuration of a run."""
    write_text_start(root / "start", WORDS)
    rng = np.random.default_rng(0)
    (root / "shapes").mkdir()
    rows = []
    for i in range(96):
        shape, tone = SHAPES[i % 3], TONES[i // 3 % 2]
        draw(root / "shapes" / f"{i}.png", shape, tone, rng)
        split = "dev" if i >= 72 else "train"
        row = {"image": f"{i}.png", "text": f"a {tone} {shape}", "group": f"g{i // 2}", "split": split, "shape": shape}
        rows.append(row)
    write_rows(root / "shapes", rows)
    labels = [{"name": shape, "prompts": [f"a {shape}", shape]} for shape in SHAPES]
    (root / "shape.yaml").write_text(yaml.safe_dump({"name": "shape", "labels": labels}))
    (root / "run.yaml").write_text(yaml.safe_dump(settings_of_run()))
    return root


def settings_of_run(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "shapes",
        "output": "out/shapes",
        "seed": 3,
        "embed_dim": 16,
        "image": {"timm_model": "test_efficientnet", "image_size": 32, "drop_path": 0.1},
        "text": {"start": "start", "context_length": 12},
        "label_sets": {"shape.yaml": 1.0},
        "data": [
            {"pairs": "shapes/pairs.jsonl", "attributes": {"shape": "shape"}, "terms": "drawn by the test, any use"}
        ],
        "schedule": {"epochs": 40, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 5, "evaluate_every": 20},
    }
    return values | changes


def write_run(world: Path, name: str, **changes: Any) -> TrainingConfig:
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings_of_run(output=f"out/{name}", **changes)))
    return load_config(path)


GREYS = 24
LETTERS = "abcdefghijklmnopqrstuvwx"


def make_grey_world(root: Path) -> Path:
    """Fill `root` with a text start and two pairs sets of plain grey pictures, each level of grey with its own word.

    `old`, and `new`, which says the words the other way round: what is learned of one is forgotten for the other."""
    write_text_start(root / "start", [f"tone{letter}" for letter in LETTERS])
    rng = np.random.default_rng(1)
    for name, letters in (("old", LETTERS), ("new", LETTERS[::-1])):
        rows: list[dict[str, Any]] = []
        (root / name).mkdir()
        for i in range(6 * GREYS):
            level, split = i % GREYS, "dev" if i < GREYS else "train"
            noise = rng.integers(-2, 3, (40, 40))
            Image.fromarray((10 + 10 * level + noise).astype(np.uint8)).save(root / name / f"{i}.png")
            text = f"tone{letters[level]}"
            rows.append({"image": f"{i}.png", "text": text, "group": f"{name}{split}{i // 2}", "split": split})
        write_rows(root / name, rows)
    return root
