"""Whether the answers of a mixed store make sense to a person who asks: the measure for every change of search.

    python benchmarks/answers.py PAIRS --tool make_archive.py [--split dev] [--model M] [--only cases,phrases ...]
        [--work FOLDER] [--out FILE.json]

PAIRS holds sets of image-text pairs, a folder each (medpix, covid_cxr, roco_test ...); the tool writes one of them as a
DICOM archive with a structured report a study. All sets go into one archive: CT and MR, radiographs, ultrasound,
mammograms, photographs. It is indexed once; stores with fewer reports are copies from which the reports of the other
studies are deleted, as `make_archive.py --reports SHARE` chooses them. The rows must be ones that the model did not
learn from (`--split dev`).

- cases    A study is asked for by its title and by its findings, where these share no four words in a row with its
           report: recall at 10 and mean reciprocal rank of the rankers dense, text and hybrid, with 0 to 100 % of the
           studies having a report; the paired difference of hybrid and the better of the other two.
- phrases  A phrase of six words that the report of one study alone has: in how many of 100 that study is first.
- words    200 queries made of modality, region, plane and side, as `axial CT of the chest`: precision among the first
           10 (or as many as there are), by the truth of the pairs.
- denials  Queries that deny a finding: how many of the first 10 show the part of the body that is spoken of.
- nonsense Sentences about nothing that the store has, and captions of pictures that the store has: how many are said to
           have no good match.
- paging   Whether `k` and `depth` change the order of the first 10.

Intervals are 95 %, from resampling cases (groups) or queries.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from query_quality import Known, grams, report_of

import medlens
from retrieval.encoders.clip import ClipEncoder
from retrieval.language.sentences import sentences
from retrieval.search.bm25 import tokens
from retrieval.search.query import Level, Query, Ranker

SETS = (
    "medpix",
    "covid_cxr",
    "nih_cxr",
    "scoliosis",
    "pocus",
    "busi",
    "mias",
    "fundus",
    "dental_pan",
    "arcade",
    "polyps",
    "ham10000",
    "lc25000_lung",
)
MOST_OF_A_SET = 200  # pictures
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PARTS = ("cases", "phrases", "words", "denials", "nonsense", "paging")
DRAWS = 2000
QUERIES = 200

MODALITIES = {
    "CT": ("CT", "computed tomography"),
    "MR": ("MRI", "MR scan"),
    "CR": ("x-ray", "radiograph"),
    "US": ("ultrasound", "sonography"),
    "MG": ("mammogram", "mammography"),
    "XA": ("angiogram",),
    "PX": ("panoramic radiograph",),
    "OP": ("fundus photograph",),
    "ES": ("endoscopy",),
    "DERM": ("dermoscopy",),
    "SM": ("microscopy",),
}
REGIONS = {
    "head": ("head", "brain"),
    "chest": ("chest", "thorax"),
    "abdomen": ("abdomen",),
    "pelvis": ("pelvis",),
    "spine": ("spine",),
    "breast": ("breast",),
    "eye": ("eye",),
    "heart": ("heart",),
    "skin": ("skin",),
    "colon": ("colon",),
    "jaw": ("jaw",),
}
REGION_OF = {  # of the pairs' own names
    "Thorax": "chest",
    "Lung": "chest",
    "Spine and Muscles": "spine",
    "Reproductive and Urinary System": "pelvis",
    "Dental/Jaw": "jaw",
}
PLANES = ("axial", "coronal", "sagittal", "frontal")
TEMPLATES = ("{plane} {modality} of the {side} {region}", "{side} {region} {modality} {plane}", "{region} {modality}")
DENIALS = {  # a query, and the region that it speaks of
    "no pleural effusion": "chest",
    "cardiomegaly, no pleural effusion": "chest",
    "chest x-ray without pneumothorax": "chest",
    "no consolidation in the lungs": "chest",
    "lungs are clear, no infiltrate": "chest",
    "no pneumonia": "chest",
    "no pulmonary nodule": "chest",
    "no intracranial hemorrhage": "head",
    "brain without midline shift": "head",
    "no hydrocephalus": "head",
    "no mass in the brain": "head",
    "no herniation of a lumbar disc": "spine",
    "spine without fracture": "spine",
    "no spinal stenosis": "spine",
    "no free air in the abdomen": "abdomen",
    "liver without focal lesion": "abdomen",
    "no bowel obstruction": "abdomen",
    "no mass in the breast": "breast",
    "mammogram without calcification": "breast",
    "no diabetic retinopathy": "eye",
}
_WHO = ("the train", "my neighbour", "a brass band", "the committee", "an old sailor", "the parliament", "our tomcat")
_DOES = ("leaves for", "sings about", "votes against", "paints", "forgets", "sells", "refuses to mention")
_WHAT = ("Lisbon", "a marmalade sandwich", "the second violin", "interest rates", "a wooden bridge", "Tuesday's paper")
_NOISE = ("asdf qwer zxcv", "for (int i = 0; i < n; i++)", "https://example.org/cart?item=9", "lorem ipsum dolor")


class Archive:
    """The rows of all sets, the DICOM files made of them, and the stores with all and with some of their reports."""

    def __init__(self, pairs: Path, tool: Path, split: str, work: Path, model: str | None) -> None:
        self.tool = _module(tool)
        self.encoder = Known(ClipEncoder.load(model))
        self.work = work
        self.rows: list[dict[str, Any]] = []
        folder = work / "archive"
        for name in SETS:
            lines = (pairs / name / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [row | {"set": name} for row in map(json.loads, lines) if row["split"] == split][:MOST_OF_A_SET]
            self.rows += rows
            if not (folder / name).exists():
                wanted = [str(pairs / name), str(folder / name), "--split", split, "--geometry"]
                subprocess.run(
                    [sys.executable, str(tool), *wanted, "--limit", str(MOST_OF_A_SET)],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
        self.row_of = {self.tool.uid(row["group"], row["image"]): row for row in self.rows}
        self.whole = work / "store"
        if not self.whole.exists():
            medlens.index([folder], self.whole, model=model)

    def store(self, share: float) -> medlens.Store:
        """The store in which `share` of the studies have a report."""
        place = self.work / f"store-{share:g}"
        if share == 1:
            return medlens.open(self.whole)
        if not place.exists():
            shutil.copytree(self.whole, place)
            silent = {g for g in self.groups if not self.tool.has_report(g, share)}
            with medlens.open(place) as store:
                reports = [self.tool.uid(group, "SR") for group in sorted(silent)]
                medlens.erase(store, medlens.plan_erasure(store, series=reports))
        return medlens.open(place)

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(row["group"] for row in self.rows))

    def study(self, group: str) -> str:
        return str(self.tool.uid(group))

    def search(self, store: medlens.Store, words: str, **settings: Any) -> medlens.SearchResults:
        return store.search(Query(words, **settings), encoder=self.encoder)

    def truth(self, hit: medlens.Hit) -> dict[str, Any]:
        """What the pairs say of a hit: modality, region, plane and side."""
        return truth_of(self.row_of[hit.key.sop_instance_uid])


def truth_of(row: dict[str, Any]) -> dict[str, Any]:
    region = str(row.get("body_region") or ("Chest" if row["set"] == "covid_cxr" else ""))
    side = str(row.get("laterality") or "")
    if row["set"] == "mias":
        side = next((s for s in ("left", "right") if s in row["text"]), "")
    return {
        "modality": row.get("modality"),
        "region": REGION_OF.get(region, region.lower()),
        "plane": str(row.get("plane") or "").lower(),
        "side": side,
    }


def cases(archive: Archive) -> dict[str, Any]:
    """See the module: recall and reciprocal ranks of the rankers by the share of studies with a report."""
    asked = []
    for group in archive.groups:
        row = next(row for row in archive.rows if row["group"] == group)
        for field in ("case_title", "case_findings"):
            text = row.get(field)
            if text and not grams(text) & grams(report_of(group, archive.rows)):
                asked.append((group, text))
    groups = [group for group, _ in asked]
    out: dict[str, Any] = {"queries": len(asked), "cases": len(set(groups))}
    print(f"\ncases: {len(asked)} queries of {len(set(groups))} cases in {len(archive.groups)} studies")
    print(f"{'reports':8}{'ranker':10}{'R@10':>8} {'95 %':17}{'MRR':>8} {'95 %':17}")
    for share in SHARES:
        ranks: dict[str, list[int]] = {}
        with archive.store(share) as store:
            for ranker in (Ranker.DENSE, Ranker.TEXT, Ranker.HYBRID):
                if share == 0 and ranker is Ranker.TEXT:
                    ranks[str(ranker)] = [10**6] * len(asked)
                    continue
                ranks[str(ranker)] = [_rank(archive, store, text, group, ranker) for group, text in asked]
        out[f"{share:g}"] = _compared(f"{share:6.0%}", groups, ranks)
    return out


def _rank(archive: Archive, store: medlens.Store, text: str, group: str, ranker: Ranker) -> int:
    try:
        hits = archive.search(store, text, ranker=ranker, level=Level.STUDY, k=len(archive.groups)).hits
    except medlens.QueryError:
        return 10**6  # nothing to compare
    study = archive.study(group)
    return next((hit.rank for hit in hits if hit.attributes["study_instance_uid"] == study), 10**6)


def _compared(title: str, groups: Sequence[str], ranks: dict[str, list[int]]) -> dict[str, Any]:
    measures: dict[str, Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]] = {
        "R@10": lambda r: 100.0 * (r <= 10),
        "MRR": lambda r: 100 / r,
    }
    values = {name: {m: f(np.array(r)) for m, f in measures.items()} for name, r in ranks.items()}
    better = {m: max(("dense", "text"), key=lambda name: float(values[name][m].mean())) for m in measures}
    values["less"] = {m: values["hybrid"][m] - values[better[m]][m] for m in measures}
    out = {}
    for name, by_measure in values.items():
        cells = {m: _interval(v, groups) for m, v in by_measure.items()}
        label = name if name != "less" else "- better"
        print(f"{title:8}{label:10}" + "".join(f"{c[0]:8.1f} ({c[1]:5.1f} to {c[2]:5.1f}) " for c in cells.values()))
        out[label] = cells
        title = ""
    return out


def _interval(values: npt.NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by resampling whole groups."""
    numbers = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    at = np.array([numbers[group] for group in groups])
    rng = np.random.default_rng(1)
    counts = rng.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), DRAWS)[:, at]
    low, high = np.percentile((counts * values).sum(axis=1) / counts.sum(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def phrases(archive: Archive) -> dict[str, Any]:
    """See the module: how often the one study whose report has a phrase is first."""
    reports = {group: report_of(group, archive.rows) for group in archive.groups}
    holders: dict[tuple[str, ...], set[str]] = {}
    for group, report in reports.items():
        for gram in grams(report):
            holders.setdefault(gram, set()).add(group)
    rng = np.random.default_rng(2)
    asked = []
    for group, report in reports.items():
        own = []
        for sentence in sentences(report):
            words = sentence.split()
            for start in range(len(words) - 5):
                piece = " ".join(words[start : start + 6])
                stems = tokens(piece)
                if len(stems) >= 4 and all(holders.get(gram) == {group} for gram in grams(piece)):
                    own.append(piece)
        if own:
            asked.append((group, str(own[int(rng.integers(len(own)))])))
    asked = [asked[i] for i in sorted(rng.permutation(len(asked))[:100].tolist())]
    print(f"\nphrases: {len(asked)} that one report alone has; the study is first")
    out: dict[str, Any] = {"queries": len(asked)}
    for share in SHARES[1:]:
        with archive.store(share) as store:
            left = [(g, t) for g, t in asked if archive.tool.has_report(g, share)]
            missed = [t for g, t in left if _rank(archive, store, t, g, Ranker.HYBRID) != 1]
        print(f"{share:6.0%}  {len(left) - len(missed)} of {len(left)}")
        out[f"{share:g}"] = {"first": len(left) - len(missed), "of": len(left), "missed": missed}
    return out


def words(archive: Archive) -> dict[str, Any]:
    """See the module: precision of queries that name what a header knows."""
    truths = [truth_of(row) for row in archive.rows]
    made: dict[str, dict[str, str]] = {}
    for modality, region, plane, side in product(MODALITIES, REGIONS, ("", *PLANES), ("", "left", "right")):
        wanted = {"modality": modality, "region": region, "plane": plane, "side": side}
        wanted = {name: value for name, value in wanted.items() if value}
        if sum(all(t[name] == value for name, value in wanted.items()) for t in truths) < 5:
            continue
        for template, a, b in product(TEMPLATES, MODALITIES[modality], REGIONS[region]):
            if template != TEMPLATES[2] or not (plane or side):
                query = template.format(modality=a, region=b, plane=plane, side=side)
                made[" ".join(query.split())] = wanted
    rng = np.random.default_rng(3)
    chosen = [list(made)[i] for i in sorted(rng.permutation(len(made))[:QUERIES].tolist())]
    out: dict[str, Any] = {"queries": len(chosen)}
    print(f"\nwords: {len(chosen)} queries of {len(made)}; precision among the first 10")
    for share in (0.0, 0.5):
        by_query, by_name = [], {name: [] for name in ("modality", "region", "plane", "side")}
        with archive.store(share) as store:
            for query in chosen:
                hits = [archive.truth(hit) for hit in archive.search(store, query, k=10).hits]
                wanted = made[query]
                there = sum(all(t[n] == v for n, v in wanted.items()) for t in truths)
                right = [all(t[n] == v for n, v in wanted.items()) for t in hits]
                by_query.append(100 * sum(right) / min(10, there))
                for name, value in wanted.items():
                    by_name[name].append(100 * sum(t[name] == value for t in hits) / len(hits))
        mean, low, high = _interval(np.array(by_query), chosen)
        parts = {name: float(np.mean(v)) for name, v in by_name.items() if v}
        print(f"{share:6.0%}  {mean:5.1f} ({low:5.1f} to {high:5.1f})   ", {n: round(v, 1) for n, v in parts.items()})
        worst = sorted(zip(by_query, chosen, strict=True))[:10]
        out[f"{share:g}"] = {"precision": (mean, low, high), "by": parts, "worst": worst}
    return out


def denials(archive: Archive) -> dict[str, Any]:
    """See the module: whether who denies a finding is still shown the part of the body that he names."""
    out: dict[str, Any] = {}
    print(f"\ndenials: {len(DENIALS)} queries; of the first 10, those of the part of the body that is spoken of")
    for share in (0.0, 0.5, 1.0):
        shares, rankers = {}, {}
        with archive.store(share) as store:
            for query, region in DENIALS.items():
                results = archive.search(store, query, k=10)
                shares[query] = 10 * sum(archive.truth(hit)["region"] == region for hit in results.hits)
                rankers[query] = results.ranker
        mean, low, high = _interval(np.array(list(shares.values()), float), list(shares))
        hybrid = sum(ranker == "hybrid" for ranker in rankers.values())
        print(f"{share:6.0%}  {mean:5.1f} ({low:5.1f} to {high:5.1f})   reports were asked in {hybrid}")
        out[f"{share:g}"] = {"precision": (mean, low, high), "hybrid": hybrid, "queries": shares}
    return out


def nonsense(archive: Archive) -> dict[str, Any]:
    """See the module: what is said to have no good match."""
    rng = np.random.default_rng(4)
    made = [" ".join(parts) for parts in product(_WHO, _DOES, _WHAT)]
    asked = [made[i] for i in rng.permutation(len(made))[:80].tolist()]
    asked += [f"{word} {number}" for number, word in enumerate(_NOISE * 5)]
    captions = list(dict.fromkeys(r["text"] for r in archive.rows if r["set"] in ("medpix", "covid_cxr")))
    captions = [captions[i] for i in sorted(rng.permutation(len(captions))[:100].tolist())]
    out: dict[str, Any] = {}
    print("\nnonsense: said to have no good match")
    for share in (0.0, 0.5, 1.0):
        with archive.store(share) as store:
            flagged = {
                name: [q for q in queries if _flagged(archive.search(store, q))]
                for name, queries in (("nonsense", asked), ("captions", captions))
            }
        sizes = f"nonsense {len(flagged['nonsense'])} of {len(asked)}, captions {len(flagged['captions'])}"
        print(f"{share:6.0%}  {sizes} of {len(captions)}")
        out[f"{share:g}"] = flagged | {"of": (len(asked), len(captions))}
    return out


def _flagged(results: medlens.SearchResults) -> bool:
    return getattr(results, "good_match", True) is False


def paging(archive: Archive) -> dict[str, Any]:
    """See the module: whether parameters of paging change the order."""
    asked = list(dict.fromkeys(r["text"] for r in archive.rows if r["set"] == "medpix"))[:40] + list(DENIALS)
    settings: Iterable[dict[str, int]] = ({"k": 10}, {"k": 50}, {"k": 10, "depth": 10}, {"k": 10, "depth": 100})
    with archive.store(0.5) as store:
        pages = [
            [[hit.key for hit in archive.search(store, query, **setting).hits[:10]] for query in asked]
            for setting in settings
        ]
    same = sum(all(page[i] == pages[0][i] for page in pages) for i in range(len(asked)))
    print(f"\npaging: the first 10 are the same for every k and depth in {same} of {len(asked)}")
    return {"same": same, "of": len(asked)}


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_archive", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--tool", type=Path, required=True, help="make_archive.py")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--work", type=Path, help="keep archive and stores here, and use what is there")
    parser.add_argument("--out", type=Path, help="all figures and queries as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        archive = Archive(args.pairs, args.tool, args.split, args.work or Path(made), args.model)
        print(f"{archive.encoder.name}; {len(archive.rows)} pictures of {len(archive.groups)} studies")
        figures = {part: globals()[part](archive) for part in args.only.split(",") if part in PARTS}
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
