"""What composed queries and reports are worth, on image-text pairs that the model did not see in training.

    python benchmarks/query_quality.py FOLDER [--split dev] [--model M] [--text-field case_title]

FOLDER holds `pairs.jsonl` (image, text, group, split; modality, plane, body_region and the text fields where they are
known) and its images. Every group becomes a study: its images, and its captions as the report. Searches go through
`Store.search`.

1. Composed. The question is a picture and the target's caption; the target any image with that caption. The picture is
   another image of the same case with another caption, or one of another case of equal modality, plane and region,
   itself left out of the answers. Ranker dense: the captions lie in the reports, which would be a leak.
2. Reports. The question is a text of the case that is not its report (its title, its findings), the target its study;
   cases whose text shares four words in a row with the report are left out. Once with all reports; once with those of
   every second study taken away, and only such studies asked for.

Prints recall at 1, 5 and 10 and the mean reciprocal rank, with 95 % intervals from resampling whole cases; below, the
differences, paired.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.store.store import Store
from retrieval.encoders.clip import ClipEncoder
from retrieval.language.sentences import sentences
from retrieval.search.bm25 import tokens
from retrieval.search.query import ImagePart, Level, Query, Ranker
from retrieval.types import Embeddings, Uint8Image

ALL = 1_000_000
DRAWS = 2000
PICTURES_PER_TARGET = 3


class Known:
    """The encoder with a memory: a picture or text is encoded once."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self.inner, self.name, self.embed_dim = encoder, encoder.name, encoder.embed_dim
        self._seen: dict[bytes | str, npt.NDArray[np.float32]] = {}

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return self._encoded(texts, list(texts), self.inner.encode_text)

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        return self._encoded(images, [image.tobytes() for image in images], self.inner.encode_images)

    def _encoded(self, items: Sequence[Any], keys: Sequence[Any], encode: Callable[[Any], Embeddings]) -> Embeddings:
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._seen}
        if new:
            self._seen.update(zip(new, encode(list(new.values())), strict=True))
        return np.stack([self._seen[key] for key in keys])


def fill(place: Path, rows: list[dict[str, Any]], pictures: list[Uint8Image], encoder: Known, silent: set[str]) -> None:
    """A store of the rows; groups in `silent` get no report."""
    vectors = encoder.encode_images(pictures)
    with Store.create(place, encoder.inner.spec.to_json()) as store:
        archive = store.catalog.files.archive_id(place / "archive")
        files = []
        for number, (row, vector) in enumerate(zip(rows, vectors, strict=True)):
            values = dict.fromkeys(COLUMNS) | {"study_instance_uid": row["group"], "series_instance_uid": row["group"]}
            record = InstanceRecord(values | {"sop_instance_uid": str(number)}, row["group"], "image", 1)
            stat = FileStat(f"{number}.dcm", 1, 1)
            files.append(IndexedFile(stat, record, (1,), vector[None, :], content_hash=str(number)))
        for group in dict.fromkeys(row["group"] for row in rows):
            if group not in silent:
                said = report_of(group, rows)
                lines = tuple(sentences(said))
                values = dict.fromkeys(COLUMNS) | {"study_instance_uid": group, "sop_instance_uid": f"{group} report"}
                record = InstanceRecord(values, group, "report", report_text=said)
                stat = FileStat(f"{group}.sr", 1, 1)
                item = IndexedFile(stat, record, sentences=lines, sentence_vectors=encoder.encode_text(lines))
                files.append(item)
        store.catalog.files.commit(archive, files, [])
        store.refresh()


def report_of(group: str, rows: list[dict[str, Any]]) -> str:
    return "\n".join(dict.fromkeys(row["text"] for row in rows if row["group"] == group))


def rank_of(store: Store, query: Query, encoder: Known, targets: set[str], left_out: str, column: str) -> int:
    """The rank of the first target; one more than there are answers, if none is among them."""
    hits = [hit for hit in store.search(query, encoder=encoder).hits if hit.attributes["sop_instance_uid"] != left_out]
    found = [n for n, hit in enumerate(hits, 1) if hit.attributes[column] in targets]
    return found[0] if found else ALL


def composed(store: Store, rows: list[dict[str, Any]], pictures: list[Uint8Image], encoder: Known, same: bool) -> None:
    rng = np.random.default_rng(0)
    groups: list[str] = []
    ranks: dict[str, list[int]] = {"image": [], "text": [], "both": []}
    for row in rows:
        alike = [
            j
            for j, other in enumerate(rows)
            if (
                other["group"] == row["group"] and other["text"] != row["text"]
                if same
                else other["group"] != row["group"]
                and all(other.get(name) == row.get(name) for name in ("modality", "plane", "body_region"))
            )
        ]
        targets = {str(n) for n, r in enumerate(rows) if (r["group"], r["text"]) == (row["group"], row["text"])}
        for j in rng.permutation(alike)[:PICTURES_PER_TARGET].tolist():
            groups.append(row["group"])
            image = ImagePart(pictures[j])
            for name, ask in (("image", [image]), ("text", [row["text"]]), ("both", [image, row["text"]])):
                query = Query(ask, ranker=Ranker.DENSE, k=len(rows))
                ranks[name].append(rank_of(store, query, encoder, targets, str(j), "sop_instance_uid"))
    of = "another image of the same case" if same else "an image of another case, alike in modality, plane and region"
    show(f"composed: {of} + the target's caption; {len(rows)} images", groups, ranks, "both")


def reports(store: Store, rows: list[dict[str, Any]], encoder: Known, field: str, asked: set[str], what: str) -> None:
    groups: list[str] = []
    rankers = (Ranker.DENSE, Ranker.TEXT, Ranker.HYBRID)
    ranks: dict[str, list[int]] = {str(ranker): [] for ranker in rankers}
    for group in dict.fromkeys(row["group"] for row in rows):
        text = next(row for row in rows if row["group"] == group).get(field)
        if not text or group not in asked or grams(text) & grams(report_of(group, rows)):
            continue
        groups.append(group)
        for ranker in rankers:
            query = Query(text, ranker=ranker, level=Level.STUDY, k=len(rows))
            ranks[str(ranker)].append(rank_of(store, query, encoder, {group}, "", "study_instance_uid"))
    studies = len({row["group"] for row in rows})
    show(f"reports: {field} asks for the study, {what}; {studies} studies", groups, ranks, "hybrid")


def grams(text: str) -> set[tuple[str, ...]]:
    words = tokens(text)
    return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}


def show(title: str, groups: list[str], ranks: dict[str, list[int]], chosen: str) -> None:
    """A table, and the differences of `chosen` to the others, with intervals by case."""
    cases = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    at = np.array([cases[group] for group in groups])
    rng = np.random.default_rng(1)
    counts = np.stack(
        [np.bincount(rng.integers(0, len(cases), len(cases)), minlength=len(cases)) for _ in range(DRAWS)]
    )
    weights = counts[:, at] / counts[:, at].sum(axis=1, keepdims=True)
    measures: dict[str, Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]] = {
        "R@1": lambda r: (r <= 1) * 1.0,
        "R@5": lambda r: (r <= 5) * 1.0,
        "R@10": lambda r: (r <= 10) * 1.0,
        "MRR": lambda r: 1 / r,
    }
    print(f"\n{title}\n{len(groups)} questions of {len(cases)} cases")

    def line(name: str, values: dict[str, npt.NDArray[np.float64]]) -> None:
        cells = []
        for value in values.values():
            low, high = np.percentile(weights @ value, [2.5, 97.5])
            cells.append(f"{100 * value.mean():6.1f} ({100 * low:5.1f} to {100 * high:5.1f})")
        print(f"{name:18}" + "  ".join(cells))

    print(f"{'':18}" + "  ".join(f"{name:>6} {'95 %':16}" for name in measures))
    score = {name: {m: f(np.array(r)) for m, f in measures.items()} for name, r in ranks.items()}
    for name, values in score.items():
        line(name, values)
    for name in score:
        if name != chosen:
            line(f"{chosen} - {name}", {m: score[chosen][m] - score[name][m] for m in measures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model")
    parser.add_argument("--text-field", action="append", help="default: case_title and case_findings")
    args = parser.parse_args()
    lines = (args.folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == args.split]
    pictures = [np.asarray(Image.open(args.folder / row["image"]).convert("L")) for row in rows]
    encoder = Known(ClipEncoder.load(args.model))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    silent = set(groups[::2])
    print(f"{encoder.name}; {args.folder.name}, split {args.split}")
    with tempfile.TemporaryDirectory(prefix="medlens-bench-") as made:
        fill(Path(made) / "all", rows, pictures, encoder, set())
        fill(Path(made) / "half", rows, pictures, encoder, silent)
        with Store.open(Path(made) / "all") as store:
            for same in (True, False):
                composed(store, rows, pictures, encoder, same)
            for field in args.text_field or ("case_title", "case_findings"):
                reports(store, rows, encoder, field, set(groups), "all have a report")
        with Store.open(Path(made) / "half") as store:
            for field in args.text_field or ("case_title", "case_findings"):
                reports(store, rows, encoder, field, silent, "those asked for have no report")


if __name__ == "__main__":
    main()
