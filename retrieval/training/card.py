"""The model card: written by the program, from the configuration and the figures, so that it can't say otherwise."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.evaluation import RetrievalFigures, ZeroShotFigures
from retrieval.training.config import TrainingConfig
from retrieval.training.data import Corpus, source_names

if TYPE_CHECKING:
    from retrieval.training.loop import Figures


def model_card(config: TrainingConfig, corpus: Corpus, figures: Figures) -> tuple[str, dict[str, Any]]:
    """Markdown for README.md, and the same figures for metrics.json."""
    lines = [
        f"# {config.name}",
        "",
        *([config.description.strip(), ""] if config.description else []),
        "A pair of encoders for medlens, trained contrastively on images and their texts. open_clip opens this folder",
        "with `local-dir:`. Not a medical device: it finds and sorts images, it diagnoses nothing.",
        "",
        "## What it was trained on",
        "",
        "| set | train images | dev images | patients or cases | terms | SHA-256 of the pairs file |",
        "|---|---|---|---|---|---|",
    ]
    for number, (name, source) in enumerate(zip(source_names(config.data), config.data, strict=True)):
        rows = [row for row in corpus.rows if row.source == number]
        train, dev = (sum(row.split == s for row in rows) for s in ("train", "dev"))
        digest = corpus.digests[name][:16]
        groups = len({row.group for row in rows})
        lines.append(f"| {name} | {train} | {dev} | {groups} | {source.terms} | `{digest}...` |")
    lines += ["", "No patient is on both sides of the split. The dev rows were not trained on.", "", "## Retrieval"]
    for name, found in figures.retrieval.items():
        lines += ["", *_retrieval_table(name, found)]
    lines += ["", "## Zero-shot labels", "", *_zero_shot_table(figures.zero_shot)]
    lines += [
        "",
        "Figures are shares with a 95 % interval (bootstrap over patients) and what guessing would give.",
        "",
        "## How",
        "",
        f"Image tower {config.image.timm_model} at {config.image.image_size} px, from scratch; text tower from a "
        f"sentence encoder ({_start(config)}){', locked but for its projection' if config.text.locked else ''}; "
        f"{config.embed_dim} dimensions; {config.schedule.epochs} epochs, batch {config.schedule.batch_size}, "
        f"seed {config.seed}.",
        "",
        "## Limits",
        "",
        "It knows what its sets show and little else; other modalities, other regions and rare findings are guesses.",
        "It does not read negation ('no effusion') or sides ('left') reliably. Sets this small make figures uncertain:",
        "read the intervals.",
        "",
    ]
    metrics = {
        "retrieval": {name: asdict(found) for name, found in figures.retrieval.items()},
        "zero_shot": {name: [asdict(f) for f in found] for name, found in figures.zero_shot.items()},
    }
    return "\n".join(lines), metrics


def _start(config: TrainingConfig) -> str:
    """The text encoder that training started from, without the folder it lay in."""
    start = config.text.start
    return start if start.startswith("package:") else Path(start).name


def _retrieval_table(name: str, found: RetrievalFigures) -> list[str]:
    lines = [
        f"Dev rows of {name}: {found.images} images, {found.texts} different texts.",
        "",
        "| | image to text | text to image |",
        "|---|---|---|",
    ]
    return lines + [f"| R@{k} | {found.image_to_text[k]} | {found.text_to_image[k]} |" for k in found.image_to_text]


def _zero_shot_table(figures: dict[str, list[ZeroShotFigures]]) -> list[str]:
    lines = ["| dev rows of | labels | rows | right | balanced | commonest label |", "|---|---|---|---|---|---|"]
    for name, found in figures.items():
        for f in found:
            lines.append(
                f"| {name} | {f.label_set} | {f.rows} | {f.accuracy} | {100 * f.balanced_accuracy:.1f} % "
                f"| {100 * f.majority:.1f} % |"
            )
    return lines
