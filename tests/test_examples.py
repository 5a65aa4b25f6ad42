"""The scripts in examples/ do what they say, on small data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from command_line import copied
from drawn_world import draw, write_rows

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_every_example_is_tried_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"build_a_cohort", "judge_a_model"}


def test_a_cohort_is_built(tmp_path: Path) -> None:
    from build_a_cohort import build_cohort

    (tmp_path / "archive").mkdir()
    copied(("CT_small.dcm", "MR_small.dcm"), tmp_path / "archive")
    assert build_cohort(tmp_path / "archive", tmp_path / "out", "CT slice", where="Modality = CT") == 1
    [row] = csv.DictReader((tmp_path / "out" / "cohort.csv").open())
    assert row["modality"] == "CT" and row["study_instance_uid"].startswith("1.3.6.1.4.1.5962.")


def test_a_model_is_judged_on_pairs(tmp_path: Path) -> None:
    from judge_a_model import judge

    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        shape, tone = ("disc", "square")[number % 2], ("bright", "dark")[number % 3 == 0]
        draw(tmp_path / f"{number}.png", shape, tone, rng)
        text = f"{tone} {shape} {number}"
        rows.append({"image": f"{number}.png", "text": text, "group": str(number), "split": "dev"})
    lines = judge(write_rows(tmp_path, rows))
    assert len(lines) == 2 and all("R@10" in line and "chance 41.7" in line for line in lines)
