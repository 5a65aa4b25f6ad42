"""Zero-shot figures on rows that the default model was not trained on: calibration, unknown images, negation, side.

    python benchmarks/zero_shot.py DATA [--embeddings FILE.npz]

DATA is the folder with pairs/ and labelled/ that data/training/medlens-base.yaml names. Rows: the dev rows of medpix
and covid_cxr, and those paediatric radiographs that training never drew, nor any other of the same patient: each epoch
draws some of them by seed and epoch alone, so they can be worked out. Intervals are over patients (95 %, bootstrap).
Photographs come with scikit-learn and, if it is installed, scikit-image.
`--embeddings` keeps the images' embeddings, so that a second run is quick.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval.encoders.clip import ClipEncoder
from retrieval.evaluation.wording import heard_vectors
from retrieval.language.captions import exchanged
from retrieval.language.negation import polarity
from retrieval.search.bm25 import build_report_index, terms, tokens
from retrieval.statistics.bootstrap import Judgement
from retrieval.statistics.measures import auroc_of, mean_of, mean_statistic
from retrieval.training.config import load_config
from retrieval.training.data import epoch_order, read_corpus
from retrieval.zeroshot.calibration import nearest_distance
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.fitting import LabelledRows, fit_calibration
from retrieval.zeroshot.labels import load_labels, plain_softmax, single_phrasings

CONFIG = Path(__file__).resolve().parents[1] / "data/training/medlens-base.yaml"
FINDINGS = (
    "mass", "lesion", "enhancement", "fracture", "effusion", "hemorrhage", "edema", "opacity", "infiltrates", "cyst",
    "consolidation", "nodule", "tumor", "stenosis", "calcification", "dilatation", "pneumothorax", "pneumonia",
)  # fmt: skip


class Rows:
    """Rows of a source with their embeddings."""

    def __init__(self, rows: Sequence[dict[str, Any]], vectors: np.ndarray) -> None:
        self.rows = list(rows)
        self.vectors = vectors

    @property
    def groups(self) -> list[str]:
        return [row["group"] for row in self.rows]

    def where(self, keep: Sequence[bool]) -> Rows:
        chosen = np.flatnonzero(keep)
        return Rows([self.rows[i] for i in chosen], self.vectors[chosen])


def unseen(data: Path) -> list[bool]:
    """Which paediatric rows training never drew, nor any of their patient's."""
    config = load_config(CONFIG, data)
    corpus = read_corpus(config.data, [load_labels(name) for name in config.label_sets])
    drawn = set()
    for epoch in range(config.schedule.epochs):
        drawn |= set(epoch_order(corpus, config.data, config.seed, epoch).tolist())
    source = next(n for n, s in enumerate(config.data) if s.pairs.parent.name == "paediatric_cxr")
    mine = [i for i, row in enumerate(corpus.rows) if row.source == source]
    known = {corpus.rows[i].group for i in mine if i in drawn}
    return [corpus.rows[i].group not in known for i in mine]


def read(data: Path, kept: Path | None, encoder: ClipEncoder) -> tuple[Rows, Rows, Rows, np.ndarray]:
    """medpix dev, covid_cxr dev, unseen paediatric radiographs, embeddings of photographs."""
    have = dict(np.load(kept)) if kept and kept.exists() else {}
    out = []
    for name, file in (
        ("medpix", "pairs/medpix/pairs.jsonl"),
        ("covid_cxr", "pairs/covid_cxr/pairs.jsonl"),
        ("paediatric", "labelled/paediatric_cxr/labels.jsonl"),
    ):
        rows = [json.loads(line) for line in (data / file).read_text("utf-8").splitlines()]
        keep = unseen(data) if name == "paediatric" else [row["split"] == "dev" for row in rows]
        rows = [row for row, k in zip(rows, keep, strict=True) if k]
        if name not in have:
            folder = (data / file).parent
            have[name] = encoded(encoder, [np.asarray(Image.open(folder / r["image"]).convert("L")) for r in rows])
        out.append(Rows(rows, have[name]))
    if "photographs" not in have:
        have["photographs"] = encoded(encoder, photographs())
    if kept:
        np.savez(kept, **have)
    return out[0], out[1], out[2], have["photographs"]


def encoded(encoder: ClipEncoder, pictures: Sequence[np.ndarray]) -> np.ndarray:
    return encoder.encode_images([encoder.spec.preprocess.fit(np.ascontiguousarray(p)) for p in pictures])


def photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    out = [im[y : y + 210, x : x + 320] for im in load_sample_images().images for y in (0, 210) for x in (0, 320)]
    try:
        import skimage.data
    except ModuleNotFoundError:
        return out
    for name in ("astronaut", "brick", "camera", "cat", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass",
                 "gravel", "hubble_deep_field", "moon", "page", "rocket", "text"):  # fmt: skip
        try:
            picture = np.asarray(getattr(skimage.data, name)())
        except (OSError, ModuleNotFoundError):  # not in the wheel, and there may be no network
            continue
        out.append(picture[..., :3] if picture.ndim == 3 else picture)
    return out


def show(what: str, judged: Judgement) -> None:
    estimates = judged.estimates()
    print(f"{what:58}" + "  ".join(f"{n} {e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for n, e in estimates.items()))


def calibration(encoder: ClipEncoder, medpix: Rows, children: Rows) -> None:
    print("\nCalibration, cross-validated over patients (ECE in 10 bins; sets and thresholds asked for 0.90)")
    model = encoder.spec.to_json()
    for name, rows, key in (
        ("modality", medpix, "modality"),
        ("plane", medpix, "plane"),
        ("body_region", medpix, "body_region"),
        ("pneumonia", children, "label"),
    ):
        labels = load_labels(name)
        rows = rows.where([labels.label_of(row.get(key)) is not None for row in rows.rows])
        truth = np.array([labels.label_of(row[key]) for row in rows.rows])
        classifier = ZeroShotClassifier(labels, encoder, encoder.logit_scale)
        report(name, fit_calibration(classifier, LabelledRows(rows.vectors, truth, rows.groups, name, "0" * 64), model))
        wordings(encoder, labels, rows, truth)
    labels = load_labels("chexpert")
    ill = np.array([row["label"] != "normal" for row in children.rows], float)
    findings = np.full((len(ill), len(labels.names)), np.nan)
    for name, holds in (("no finding", 1 - ill), ("pneumonia", ill), ("lung opacity", ill)):
        findings[:, labels.names.index(name)] = holds
    classifier = ZeroShotClassifier(labels, encoder, encoder.logit_scale)
    rows = LabelledRows(children.vectors, findings, children.groups, "chexpert", "0" * 64)
    report("chexpert", fit_calibration(classifier, rows, model))


def report(name: str, kept: Any) -> None:
    for f in kept.held_out:
        print(f"  {name}{f' / {f.label}' if f.label else ''}: {f.rows} rows, {kept.patients} patients")
        print(f"    ECE {f.ece}; of the scores {f.ece_before:.3f}; if perfect on so few rows {f.ece_floor:.3f}")
        print(f"    AUROC {f.auroc}" + (f"; right {f.accuracy}" if f.accuracy else ""))
        print(
            f"    sets: coverage {f.coverage}, {f.set_size:.2f} labels"
            + (f"; sensitivity {f.sensitivity}" if f.sensitivity else "")
        )


def wordings(encoder: ClipEncoder, labels: Any, rows: Rows, truth: np.ndarray) -> None:
    def area(wording: Any) -> float:
        scores = ZeroShotClassifier(wording, encoder, encoder.logit_scale).scores(rows.vectors).astype(float)
        areas = mean_statistic([auroc_of(scores[:, i], truth == i) for i in np.unique(truth)])
        return float(areas(np.ones((1, len(truth))))[0])

    each = [area(said) for said in single_phrasings(labels)]
    print(
        f"    macro AUROC of the ensemble {area(labels):.3f}; one phrasing {min(each):.3f} to {max(each):.3f}; "
        f"bare names {area(plain_softmax(labels)):.3f}"
    )


def unknown(medpix: Rows, children: Rows, photos: np.ndarray) -> None:
    print("\nUnknown images: AUROC of the distance to the nearest calibration image of half the patients, ten splits")
    brain = medpix.vectors[[r["modality"] == "MR" and r["body_region"] == "Head" for r in medpix.rows]]
    for what, known, others in (
        ("chest radiographs / photographs", children, photos),
        ("chest radiographs / brain MR", children, brain),
        ("medpix, all regions / photographs", medpix, photos),
    ):
        groups = np.array(known.groups)
        areas, caught, wrong = [], [], []
        for seed in range(10):
            half = np.isin(groups, np.random.default_rng(seed).permutation(np.unique(groups))[::2])
            reference = known.vectors[half]
            own = 1 - np.where(groups[half][:, None] == groups[half][None], -1, reference @ reference.T).max(axis=1)
            inside, outside = (nearest_distance(v, reference) for v in (known.vectors[~half], others))
            border = np.quantile(own, 0.95, method="higher")
            caught.append((outside > border).mean())
            wrong.append((inside > border).mean())
            is_other = np.r_[np.zeros(len(inside), bool), np.ones(len(outside), bool)]
            areas.append(auroc_of(np.r_[inside, outside].astype(float), is_other)(np.ones((1, len(is_other))))[0])
        print(
            f"  {what} ({len(others)}): AUROC {np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f}); at 5 %: "
            f"{np.mean(caught):.2f} of them unknown, {np.mean(wrong):.3f} of known ones"
        )


def query_vector(encoder: ClipEncoder, text: str) -> np.ndarray:
    return heard_vectors([text], encoder.encode_text)[0]


def negation(encoder: ClipEncoder, medpix: Rows, covid: Rows, children: Rows) -> None:
    print('\nNegation: AUROC that "no X" ranks images that are said to show X below the others')
    for rows, name in ((medpix, "medpix dev captions"), (covid, "covid_cxr dev captions")):
        before, after, mixed, apart = [], [], [], []
        texts = [row["text"] for row in rows.rows]
        affirmed = [polarity(text).present.casefold() for text in texts]
        used = []
        for finding in FINDINGS:
            pattern = re.compile(rf"\b{finding}")
            shows = np.array([bool(pattern.search(text)) for text in affirmed])
            if len({g for g, s in zip(rows.groups, shows, strict=True) if s}) < 3:
                continue
            used.append(finding)
            before.append(auroc_of((rows.vectors @ encoder.encode_text([f"no {finding}"])[0]).astype(float), ~shows))
            after.append(auroc_of((rows.vectors @ query_vector(encoder, f"no {finding}")).astype(float), ~shows))
            asked = f"image with no {finding}"  # something present beside it
            mixed.append(auroc_of((rows.vectors @ encoder.encode_text([asked])[0]).astype(float), ~shows))
            apart.append(auroc_of((rows.vectors @ query_vector(encoder, asked)).astype(float), ~shows))
        found = {"as it is": mean_statistic(mixed), "taken apart": mean_statistic(apart)}
        show(f"  {name}, 'image with no X'", Judgement(rows.groups, found, dict.fromkeys(found, 0.5)))
        found = {"as it is": mean_statistic(before), "taken apart": mean_statistic(after)}
        show(f"  {name}, {len(used)} findings", Judgement(rows.groups, found, dict.fromkeys(found, 0.5)))
    healthy = np.array([row["label"] == "normal" for row in children.rows])
    for asked in ("no pneumonia", "chest radiograph without consolidation", "no airspace disease", "no infiltrate"):
        plain = auroc_of((children.vectors @ encoder.encode_text([asked])[0]).astype(float), healthy)
        apart = auroc_of((children.vectors @ query_vector(encoder, asked)).astype(float), healthy)
        found = {"as it is": plain, "taken apart": apart}
        show(f"  children's radiographs, {asked!r}", Judgement(children.groups, found, dict.fromkeys(found, 0.5)))

    print("Presence: share of captions with a negation in them that find their own image among the first 10")
    for rows, name in ((medpix, "medpix dev"), (covid, "covid_cxr dev")):
        texts = [row["text"] for row in rows.rows]
        mine = [i for i, text in enumerate(texts) if polarity(text).absent]
        found = {}
        for way, vectors in (
            ("as it is", encoder.encode_text([texts[i] for i in mine])),
            ("taken apart", np.stack([query_vector(encoder, texts[i]) for i in mine])),
        ):
            order = np.argsort(-(vectors @ rows.vectors.T), axis=1, kind="stable")[:, :10]
            hit = [any(texts[j] == texts[i] for j in row) for i, row in zip(mine, order, strict=True)]
            found[way] = mean_of(np.array(hit, float))
        show(
            f"  {name}, {len(mine)} captions",
            Judgement([rows.groups[i] for i in mine], found, dict.fromkeys(found, 0.0)),
        )
    print("  (all other captions are embedded as they are: nothing changes)")


def side(encoder: ClipEncoder, medpix: Rows, covid: Rows) -> None:
    print(
        "\nSide: share of sentences that name one side and lie nearer to their image than with left and right exchanged"
    )
    other = {"left": "right", "right": "left"}
    for rows, name in ((medpix, "medpix dev"), (covid, "covid_cxr dev")):
        right, groups = [], []
        for row, vector in zip(rows.rows, rows.vectors, strict=True):
            for sentence in re.split(r"(?<=[.;])\s+", row["text"]):
                sides = {word.lower() for word in re.findall(r"\b(?:left|right)\b", sentence, re.IGNORECASE)}
                if len(sides) == 1:
                    swapped = re.sub(r"(?i)\b(left|right)\b", lambda m: other[m.group().lower()], sentence)
                    own, false = encoder.encode_text([sentence, swapped])
                    right.append(float(vector @ own > vector @ false))
                    groups.append(row["group"])
        figures = {"right": mean_of(np.array(right))}
        show(f"  {name}, {len(right)} sentences", Judgement(groups, figures, {"right": 0.5}))


def side_in_reports(data: Path) -> None:
    """No model has a part in it, so that all captions may ask, of training too."""
    print("Side in reports: share of phrases such as 'left effusion' that rank their report above its mirrored twin")
    rows = [json.loads(line) for line in (data / "pairs/medpix/pairs.jsonl").read_text("utf-8").splitlines()]
    reports = {f"{row['text']} {row.get('case_findings') or ''}": row["group"] for row in rows}
    pairs = [(text, twin, group) for text, group in reports.items() if (twin := exchanged(text)) is not None]
    phrase = re.compile(rf"(?i)\b(?:left|right)(?:[ -][\w-]+){{0,2}}[ -](?:{'|'.join(FINDINGS)})")
    asked = [(n, m.group()) for n, (text, _, _) in enumerate(pairs) for m in phrase.finditer(text)]
    documents = {
        f"{n:06d}{which}": text for n, (*both, _) in enumerate(pairs) for which, text in zip("ab", both, strict=True)
    }
    two = np.array([{"left", "right"} <= set(tokens(pairs[n][0])) for n, _ in asked])
    groups = np.array([pairs[n][2] for n, _ in asked])
    for what, words in (("words alone", tokens), ("words and their sides", terms)):
        index = build_report_index(documents, words)
        scores = [index.scores(text, words)[2 * n : 2 * n + 2] for n, text in asked]
        right = np.array([1.0 if own > other else 0.5 * (own == other) for own, other in scores])
        for rows_of, chosen in (("all", np.ones(len(two), bool)), ("reports that name both sides", two)):
            judged = Judgement(groups[chosen].tolist(), {"right": mean_of(right[chosen])}, {"right": 0.5})
            show(f"  {what}, {rows_of} ({chosen.sum()}) ", judged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--embeddings", type=Path)
    args = parser.parse_args()
    encoder = ClipEncoder.load(device="cpu")
    medpix, covid, children, photos = read(args.data.resolve(), args.embeddings, encoder)
    print(
        f"{encoder.name}; medpix dev {len(medpix.rows)}, covid_cxr dev {len(covid.rows)}, unseen {len(children.rows)}"
    )
    negation(encoder, medpix, covid, children)
    side(encoder, medpix, covid)
    side_in_reports(args.data.resolve())
    unknown(medpix, children, photos)
    calibration(encoder, medpix, children)


if __name__ == "__main__":
    main()
