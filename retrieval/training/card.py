"""The model card: written by the program, from the configuration and the figures, so that it can't say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.terms import UNKNOWN_TERMS, read_terms
from retrieval.evaluation.retrieval import RetrievalFigures
from retrieval.evaluation.zero_shot import ZeroShotFigures
from retrieval.training.ablations import ablation_lines
from retrieval.training.config import ImageTower, TextTower, TrainingConfig
from retrieval.training.data import Corpus, source_names
from retrieval.training.packaged import PREFIX
from retrieval.training.unpaired import UnpairedSet

if TYPE_CHECKING:
    from retrieval.training.teacher import TeacherReport
    from retrieval.training.validation import Epoch, Figures


def model_card(
    config: TrainingConfig,
    corpus: Corpus,
    unpaired: Sequence[UnpairedSet],
    teacher: TeacherReport | None,
    figures: Figures,
    epochs: Sequence[Epoch],
    kept: int,
    started: Sequence[str] = (),
) -> tuple[str, dict[str, Any]]:
    """Markdown for README.md, and the same figures for metrics.json. `kept` is the epoch that the figures are of,
    `started` what is to be said of the model that the run went on from."""
    lines = [
        f"# {config.name}",
        "",
        *([config.description.strip(), ""] if config.description else []),
        "A pair of encoders for medlens, trained contrastively on images and their texts. open_clip opens this folder",
        "with `local-dir:`. Not a medical device: it finds and sorts images, it diagnoses nothing.",
        "",
        f"**Terms of the weights:** {terms_of_training(config)}.",
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
    for each in unpaired:
        digest = f"`{each.digest[:16]}...`" if each.digest is not None else "a folder"
        groups = len({row.group for row in each.rows})
        lines.append(f"| {each.name}, images alone | {len(each.rows)} | 0 | {groups} | {each.terms} | {digest} |")
    lines += [
        "",
        "No patient is on both sides of the split. The dev rows were not trained on.",
        "",
        *started,
        "## Retrieval",
    ]
    for name, found in figures.retrieval.items():
        lines += ["", *_retrieval_table(name, found)]
    if teacher is not None:
        lines += ["", *_beside_teacher(figures, teacher)]
    lines += ["", "## Zero-shot labels", "", *_zero_shot_table(figures.zero_shot)]
    lines += [
        "",
        "Figures are shares with a 95 % interval (bootstrap over patients) and what guessing would give.",
        "",
        "## How",
        "",
        f"Image tower {config.image.timm_model} at {config.image.image_size} px, {_image_start(config)}; text tower "
        f"{_text_start(config)}{_text_lock(config)}; "
        f"{config.embed_dim} dimensions; {len(epochs)} epochs, batch {config.schedule.batch_size}"
        f"{_chunks(config)}{', forward passes in bf16' if config.schedule.precision == 'bf16' else ''}, "
        f"seed {config.seed}. {_warm_up(config, corpus, unpaired)}{_objective(config)}{_teacher(config, teacher)}"
        f"{_start_share(config)}{_choice(config, len(epochs), kept)}",
        "",
        *_epochs_table(epochs, kept, teacher),
        "",
        *ablation_lines(config.ablations),
        "## Limits",
        "",
        "It knows what its sets show and little else; other modalities, other regions and rare findings are guesses.",
        f"It does not read {_unread(config)} reliably. Sets this small make figures uncertain: read the intervals.",
        "",
    ]
    metrics = {
        "retrieval": {name: asdict(found) for name, found in figures.retrieval.items()},
        "zero_shot": {name: [asdict(f) for f in found] for name, found in figures.zero_shot.items()},
        "epochs": [asdict(epoch) for epoch in epochs],
        "kept_epoch": kept,
    }
    if teacher is not None:
        theirs = {name: asdict(found) for name, found in teacher.figures.retrieval.items()}
        who = {
            "name": teacher.name,
            "weights_sha256": teacher.weights_sha256,
            "embed_dim": teacher.embed_dim,
        }
        metrics["teacher"] = who | {"retrieval": theirs}
    return "\n".join(lines), metrics


def terms_of_training(config: TrainingConfig) -> str:
    """The terms of a trained model's weights in one line, from the `terms` of the configuration's data sets.

    "terms unknown" if no set states terms. The terms of a model that the run went on from are included.
    """
    images = config.warm_up.images if config.warm_up is not None else ()
    sets = [source.terms.strip() for source in config.data] + [entry.terms.strip() for entry in images]
    stated = list(dict.fromkeys(terms for terms in sets if terms))
    if config.continue_from is not None and (before := read_terms(config.continue_from)) != UNKNOWN_TERMS:
        stated.append(f"the model that training went on from: {before}")
    if not stated:
        return UNKNOWN_TERMS
    silent = sum(not terms for terms in sets)
    return (
        "learned from data under these terms: "
        + "; ".join(stated)
        + (f"; {silent} of {len(sets)} data sets do not state their terms" if silent else "")
    )


def _start(start: str) -> str:
    """What training started from, without the folder it lay in."""
    return start if start.startswith(PREFIX) else Path(start).name


def _text_start(config: TrainingConfig) -> str:
    return (
        "from the same"
        if config.continue_from is not None
        else f"from a sentence encoder ({_start(config.text.start)})"
    )


def _text_lock(config: TrainingConfig) -> str:
    text = config.text
    if text.locked:
        return ", locked but for its projection"
    locked = f", its first {text.locked_groups} groups of layers locked" if text.locked_groups else ""
    return f"{locked}{_layer_rates(text)}"


def _image_start(config: TrainingConfig) -> str:
    image = config.image
    if image.start is None and config.continue_from is None:
        return f"from scratch{_layer_rates(image)}"
    locked = f", its first {image.locked_groups} groups of layers locked" if image.locked_groups else ""
    if image.start is None:
        return f"from the model that it went on from{locked}{_layer_rates(image)}"
    return f"started from weights trained on photographs ({_start(image.start)}){locked}{_layer_rates(image)}"


def _layer_rates(tower: ImageTower | TextTower) -> str:
    decay = tower.layer_decay
    return f", each group of layers at {decay} of the rate of the one above it" if decay < 1 else ""


def _unread(config: TrainingConfig) -> str:
    denied = "negation" in config.objective.hard_negatives
    return "sides ('left')" if denied else "negation ('no effusion') or sides ('left')"


def _chunks(config: TrainingConfig) -> str:
    size = config.schedule.chunk_size
    return f" (encoded {size} at a time)" if size is not None else ""


def _warm_up(config: TrainingConfig, corpus: Corpus, unpaired: Sequence[UnpairedSet]) -> str:
    if config.warm_up is None:
        return ""
    images = len(corpus.of_split("train")) + sum(len(each.rows) for each in unpaired)
    return (
        f"Before that the image tower was warmed up without texts on {images} images, for {config.warm_up.epochs} "
        f"epochs of batch {config.warm_up.batch_size}: two views of each to be told from those of all others (SimCLR). "
    )


def _objective(config: TrainingConfig) -> str:
    """The loss and the tricks, as they were configured."""
    objective, augmentation = config.objective, config.augmentation
    flip = augmentation.flip
    wrong = {"side": "with left and right exchanged", "negation": "with its first finding denied"}
    parts = [
        "Sigmoid loss over pairs (SigLIP)" if objective.loss == "siglip" else "Softmax loss over batches (InfoNCE)",
        "equal texts as positives",
    ]
    if objective.near_equal is not None:
        parts.append(f"texts of a cosine of {objective.near_equal} or more too")
    if kinds := " and ".join(wrong[kind] for kind in objective.hard_negatives if kind in wrong):
        parts.append(f"each caption {kinds} as a hard negative of its image")
    if "finding" in objective.hard_negatives:
        parts.append(f"another patient's caption of the same {objective.region} with other findings as a hard negative")
    if "mirror" in objective.hard_negatives:
        parts.append("the mirrored image as a hard negative of a text that names a side")
    if any(source.sentences for source in config.data):
        parts.append("single sentences drawn from long texts")
    if any(source.captions for source in config.data):
        parts.append("figure captions, whole or by the sentence, without what they say of arrows, marks and panels")
    if flip:
        parts.append(f"{100 * flip:.0f} % of images mirrored, left and right exchanged in their texts")
    hidden = {
        "a coarser resolution": augmentation.coarse,
        "grey borders": augmentation.borders,
        "covered marks": augmentation.marks,
        "black and white exchanged": augmentation.inverted,
    }
    if said := [f"{what} ({100 * share:.0f} %)" for what, share in hidden.items() if share]:
        parts.append(f"to hide the source of some images, {', '.join(said)}")
    return "; ".join(parts) + "."


def _teacher(config: TrainingConfig, teacher: TeacherReport | None) -> str:
    if teacher is None or config.teacher is None:
        return ""
    settings = config.teacher
    at = f"temperature {settings.temperature}" if settings.temperature is not None else "its own temperature"
    through = ", through a linear head," if teacher.embed_dim != config.embed_dim else ""
    return (
        f" Taught by {teacher.name} ({teacher.embed_dim} dimensions, weights `{teacher.weights_sha256[:16]}...`, "
        f"{teacher.runs_on}): {settings.embedding_weight} times the distance of the embeddings{through} and "
        f"{settings.similarity_weight} times the divergence of the similarities within a batch, the teacher's at {at}."
    )


def _beside_teacher(figures: Figures, teacher: TeacherReport) -> list[str]:
    """R@10 of student and teacher on the same rows."""
    lines = [
        f"Beside its teacher {teacher.name}, on the same dev rows (which the teacher's makers may have trained on):",
        "",
        "| R@10 | image to text: student | teacher | text to image: student | teacher |",
        "|---|---|---|---|---|",
    ]
    for name, mine in figures.retrieval.items():
        theirs = teacher.figures.retrieval[name]
        cells = [
            way[10]
            for pair in ("image_to_text", "text_to_image")
            for way in (getattr(mine, pair), getattr(theirs, pair))
        ]
        lines.append(f"| {name} " + "".join(f"| {cell} " for cell in cells) + "|")
    return lines


def _start_share(config: TrainingConfig) -> str:
    share = config.schedule.start_share
    return f" The weights are {100 * share:.0f} % those of the model that it went on from." if share else ""


def _choice(config: TrainingConfig, trained: int, kept: int) -> str:
    """What was done to the weights by looking at the dev rows."""
    schedule = config.schedule
    if not schedule.keep_best:
        return ""
    judged = schedule.judged_by or "all sources"
    early = f", stopped early (of {schedule.epochs} epochs)" if trained < schedule.epochs else ""
    return (
        f" The weights are those of epoch {kept}, the best of the evaluated ones by R@10 on the dev rows of {judged}"
        f"{early}: the figures above are of the rows that chose them, and a little flattered."
    )


def _epochs_table(epochs: Sequence[Epoch], kept: int, teacher: TeacherReport | None) -> list[str]:
    judged = [epoch for epoch in epochs if epoch.recall is not None]
    names = list(dict.fromkeys(name for epoch in judged for name in epoch.recall or {}))
    lines = [
        "".join(f"| {title} " for title in ["epoch", "loss", *(f"{name}: R@10 both ways" for name in names)]) + "|",
        "|---" * (2 + len(names)) + "|",
    ]
    if teacher is not None:
        found = [teacher.figures.retrieval[name] for name in names]
        recall = [_both_ways(each.image_to_text[10].value, each.text_to_image[10].value) for each in found]
        lines.append("".join(f"| {cell} " for cell in ["the teacher", "", *recall]) + "|")
    for epoch in judged:
        recall = [_both_ways(*ways) for ways in (epoch.recall or {}).values()]
        star = " (kept)" if epoch.number == kept else ""
        lines.append("".join(f"| {cell} " for cell in [f"{epoch.number}{star}", f"{epoch.loss:.3f}", *recall]) + "|")
    return lines


def _both_ways(forth: float, back: float) -> str:
    return f"{100 * forth:.1f} / {100 * back:.1f} %"


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
