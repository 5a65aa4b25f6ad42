"""The card's table of ablations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_world import make_world, write_run

from retrieval.errors import TrainingError
from retrieval.training.ablations import ablation_lines
from retrieval.training.checkpoint import work_folder
from retrieval.training.run import train

DOCUMENT = {
    "schedule": {"schedule": {"epochs": 6}},
    "judged": "Judged on 189 rows.",
    "variants": [
        {
            "variant": "default",
            "change": {},
            "figures": {"R@10": 0.471, "plane": 0.9},
            "chance": {"R@10": 0.079, "plane": 1 / 3},
        },
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
    (tmp_path / "brief.json").write_text(json.dumps(DOCUMENT | {"schedule": {}}), encoding="utf-8")
    lines = ablation_lines([tmp_path / "ablations.json", tmp_path / "brief.json"])
    assert lines[4] == "Judged on 189 rows. All with schedule.epochs: 6."
    assert lines[12] == "Judged on 189 rows."
    assert lines[6:12] == [
        "| change | R@10 | plane |",
        "|---|---|---|",
        "| none | 47.1 | 90.0 |",
        "| guessing | 7.9 | 33.3 |",
        "| image.start: null, image.locked_groups: 0 | **-28.1 (-41.0 to -16.4)** | +1.0 (-2.0 to +4.0) |",
        "",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schedule": {}, "judged": "", "variants": []}', None])
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"other\.json"):
        ablation_lines([path])


def test_a_run_ends_before_it_begins_where_its_card_could_not_be_written(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    config = write_run(world, "early", ablations=["gone.json"])
    with pytest.raises(TrainingError, match=r"'gone\.json' can't be read"):
        train(config)
    assert not work_folder(config).exists()


def test_a_card_without_such_files_says_nothing_of_them() -> None:
    assert ablation_lines([]) == []
