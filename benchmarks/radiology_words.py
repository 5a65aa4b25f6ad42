"""Makes data/terms/words.txt: how many texts about radiology have each word, by which search tells unusual words.

    python benchmarks/radiology_words.py SHARED_DATA [--out data/terms/words.txt]

Counts the texts that training may see: captions, titles and findings of the training rows of all sets of pairs, and the
texts without images. A word is what the report index makes of it (`retrieval.search.bm25.tokens`), and must be in three
texts at least. Prints how unusual the training captions are, which is where UNUSUAL comes from.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from retrieval.search.bm25 import tokens
from retrieval.search.unusual import familiarity

LEAST = 3
OF_PAIRS = ("text", "case_title", "case_findings")
OF_TEXTS = ("text", "caption", "indication", "findings", "impression")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("data/terms/words.txt"))
    args = parser.parse_args()
    texts: dict[str, None] = {}
    for path in sorted(args.data.glob("pairs/*/pairs.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if row["split"] == "train":
                texts |= {str(row[name]): None for name in OF_PAIRS if row.get(name)}
    captions = list(texts)
    for path in sorted(args.data.glob("texts/*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            texts[" ".join(str(row[name]) for name in OF_TEXTS if row.get(name))] = None
    counts = Counter(word for text in texts for word in set(tokens(text)))
    lines = [f"{word} {count}" for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    lines = [line for line in lines if int(line.split()[1]) >= LEAST]
    args.out.write_text("\n".join([f"# {len(texts)} texts", *lines]) + "\n", encoding="utf-8")
    print(f"{len(lines)} words of {len(texts)} texts")
    scores = [familiarity([text]).score for text in captions]
    for percent in (0.1, 0.5, 1, 5, 50):
        print(f"{percent} % of the {len(captions)} captions and titles are below {np.percentile(scores, percent):.2f}")


if __name__ == "__main__":
    main()
