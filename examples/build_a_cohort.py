"""Build a cohort: index a folder, ask in words, keep the studies that pass a filter, write their UIDs and a page.

python examples/build_a_cohort.py ARCHIVE OUTPUT "CT of the chest" --where "PatientAge > 40"
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import medlens


def build_cohort(archive: Path, output: Path, words: str, where: str = "", k: int = 20) -> int:
    """Write `cohort.csv` into `output`, next to the store; returns how many studies it lists."""
    output.mkdir(parents=True, exist_ok=True)
    place = output / "store"
    medlens.index([archive], place)
    with medlens.open(place) as store:
        query = medlens.Query(words, level=medlens.Level.STUDY, where=medlens.SearchFilter(where=where), k=k)
        hits = store.search(query).hits
    with (output / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "score", "study_instance_uid", "patient_pseudonym", "modality", "study_date"])
        for hit in hits:
            values = hit.attributes
            writer.writerow(
                [
                    hit.rank,
                    round(hit.score, 4),
                    values["study_instance_uid"],
                    values["patient_pseudonym"],
                    values["modality"],
                    values["study_date"],
                ]
            )
    return len(hits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("words")
    parser.add_argument("--where", default="")
    options = parser.parse_args()
    print(build_cohort(options.archive, options.output, options.words, options.where), "studies")
