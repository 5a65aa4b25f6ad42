"""The card's table of ablations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.errors import TrainingError
from retrieval.training.ablations import ablation_lines

DOCUMENT = {
    "schedule": {"schedule": {"epochs": 6}},
    "rows": 189,
    "variants": [
        {"variant": "default", "change": {}, "figures": {"R@10": 0.471, "plane": 0.9}},
        {
            "variant": "scratch",
            "change": {"image": {"start": None, "locked_groups": 0}},
            "figures": {"R@10": 0.19, "plane": 0.91},
            "difference": {"R@10": [-0.281, -0.41, -0.164], "plane": [0.01, -0.02, 0.04]},
        },
    ],
}


def test_the_table_has_figures_then_differences_bold_where_they_are_clear(tmp_path: Path) -> None:
    (tmp_path / "ablations.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    lines = ablation_lines(tmp_path / "ablations.json")
    assert "schedule.epochs: 6" in lines[2] and "189 dev rows" in lines[2]
    assert lines[4:] == [
        "| change | R@10 | plane |",
        "|---|---|---|",
        "| none | 47.1 | 90.0 |",
        "| image.start: null, image.locked_groups: 0 | **-28.1 (-41.0 to -16.4)** | +1.0 (-2.0 to +4.0) |",
        "",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schedule": {}, "rows": 1, "variants": []}', None])
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"other\.json"):
        ablation_lines(path)
