"""Hard negatives "same region, other finding": what may be drawn, and a run with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drawn_world import make_world, write_rows, write_run

from retrieval.errors import TrainingError
from retrieval.language.captions import findings, with_synonyms
from retrieval.training.config import TrainingConfig
from retrieval.training.context import TrainingContext
from retrieval.training.data import Corpus, TrainingRow, read_corpus
from retrieval.training.loop import Loop
from retrieval.training.other_findings import OtherFindings
from retrieval.training.run import train
from retrieval.training.set_up import set_up
from retrieval.zeroshot.labels import load_labels

SCHEDULE = {"epochs": 2, "batch_size": 6, "evaluate_every": 2, "warmup_steps": 3}
ROWS = [  # text, patient, region, split
    ("a large effusion", "p1", "chest", "train"),
    ("rib fracture", "p2", "chest", "train"),
    ("no effusion", "p3", "chest", "train"),
    ("effusion on the left", "p4", "chest", "train"),
    ("nodule of the lung", "p1", "chest", "train"),
    ("a tumour", "p5", "chest", "train"),
    ("radiograph", "p6", "chest", "train"),
    ("hydrocephalus", "p7", "head", "train"),
    ("cyst", "p8", "head", "train"),
    ("aneurysm", "p9", "", "train"),
    ("hernia", "d1", "chest", "dev"),
]


@pytest.mark.parametrize(
    ("text", "there", "denied"),
    [
        (
            "No effusion or pneumothorax. Large masses, no calcification.",
            {"mass"},
            {"effus", "pneumothor", "calcificat"},
        ),
        ("Lymphadenopathy; oedema and a haematoma", {"adenopath", "edem", "hematom"}, set()),
        ("possible infarction", {"infarct"}, set()),
        ("chest radiograph of a child", set(), set()),
    ],
)
def test_findings_of_a_text(text: str, there: set[str], denied: set[str]) -> None:
    assert findings(text) == (there, denied)


def test_forms_of_a_word_and_names_of_a_finding_agree() -> None:
    for one, other in [("effusion", "effusions"), ("metastasis", "metastases"), ("opacity", "opacities")]:
        assert findings(one) == findings(other)
    for one, other in [("a mass", "a tumour"), ("pneumonia", "consolidation"), ("thrombosis", "embolus")]:
        assert findings(other)[0] <= with_synonyms(findings(one)[0])
    assert not findings("calcification")[0] & with_synonyms(findings("mass")[0]), "granuloma is called both: no bridge"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def regions(world: Path) -> dict[str, Any]:
    """What a configuration says of a source whose texts name findings."""
    labels = [{"name": name, "prompts": [f"{name} radiograph"]} for name in ("chest", "head")]
    (world / "region.yaml").write_text(yaml.safe_dump({"name": "body_region", "labels": labels}))
    rows = [
        {"image": f"{i}.png", "text": text, "group": group, "region": region, "split": split}
        for i, (text, group, region, split) in enumerate(ROWS)
    ]
    write_rows(world / "shapes", rows, "regions.jsonl")
    return {
        "data": [{"pairs": "shapes/regions.jsonl", "attributes": {"body_region": "region"}}],
        "label_sets": {"region.yaml": 1.0},
        "schedule": SCHEDULE,
    }


def run_of(config: TrainingConfig, work: Path) -> tuple[Loop, Corpus]:
    labels = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, labels)
    return set_up(TrainingContext(config, corpus, labels, work)), corpus


def drawn(others: OtherFindings, run: Loop, row: TrainingRow) -> set[str]:
    found = {others.draw(row, np.random.default_rng(seed)) for seed in range(60)}
    return {run.texts.all[number] for number in found if number is not None}


def test_a_caption_of_another_patient_the_same_region_and_another_finding(
    world: Path, regions: dict[str, Any], tmp_path: Path
) -> None:
    config = write_run(world, "drawn", objective={"hard_negatives": ["finding"]}, **regions)
    run, corpus = run_of(config, tmp_path)
    others = run.other_findings
    assert others is not None
    said = {row.caption: drawn(others, run, row) for row in corpus.rows if row.split == "train"}
    assert said == {
        "a large effusion": {"rib fracture", "a tumour"},  # not the nodule: its own patient's
        "rib fracture": {"a large effusion", "effusion on the left", "nodule of the lung", "a tumour"},
        "no effusion": {"a large effusion", "rib fracture", "effusion on the left", "nodule of the lung", "a tumour"},
        "effusion on the left": {"rib fracture", "nodule of the lung", "a tumour"},
        "nodule of the lung": {"rib fracture", "effusion on the left"},  # not the tumour: it may be the nodule
        "a tumour": {"a large effusion", "rib fracture", "effusion on the left"},
        "radiograph": set(),  # says nothing of findings: it may show any
        "hydrocephalus": {"cyst"},
        "cyst": {"hydrocephalus"},
        "aneurysm": set(),  # of no known region
    }


def test_what_the_objective_takes_for_a_positive_is_never_drawn(
    world: Path, regions: dict[str, Any], tmp_path: Path
) -> None:
    objective = {"hard_negatives": ["finding"], "near_equal": 0.9}
    run, corpus = run_of(write_run(world, "near", objective=objective, **regions), tmp_path)
    others, row = run.other_findings, corpus.rows[0]
    assert others is not None
    assert run.encode_texts.pooled is not None
    fracture, tumour = run.texts.ids["rib fracture"], run.texts.ids["a tumour"]
    pooled = torch.eye(len(run.texts.all))
    run.encode_texts.pooled = pooled
    assert drawn(others, run, row) == {"rib fracture", "a tumour"}
    pooled[fracture] = pooled[run.texts.ids[row.caption]]
    assert drawn(others, run, row) == {"a tumour"}
    run.texts.assertions[fracture] = -1
    assert drawn(others, run, row) == {"rib fracture", "a tumour"}, "near, but it claims something else"
    pooled[tumour] = pooled[fracture]
    assert drawn(others, run, row) == {"rib fracture"}


def test_the_draw_is_a_function_of_seed_and_step(world: Path, regions: dict[str, Any], tmp_path: Path) -> None:
    run, corpus = run_of(
        write_run(world, "steps", objective={"hard_negatives": ["side", "finding"]}, **regions), tmp_path
    )
    rows = [row for row in corpus.rows if row.split == "train"]
    chosen = [run.texts.ids[row.caption] for row in rows]
    first = run._wrong(rows, chosen)
    assert (3, run.texts.ids["effusion on the right"]) in first
    assert sorted({i for i, _ in first}) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert run._wrong(rows, chosen) == first
    run.step = 1
    assert run._wrong(rows, chosen) != first


def test_a_run_with_them_and_its_card(world: Path, regions: dict[str, Any]) -> None:
    result = train(write_run(world, "run-of-findings", objective={"hard_negatives": ["finding"]}, **regions))
    card = " ".join((result.folder / "README.md").read_text().split())
    assert "another patient's caption of the same body_region with other findings as a hard negative" in card


def test_without_a_region_or_a_caption_to_draw_it_is_refused(
    world: Path, regions: dict[str, Any], tmp_path: Path
) -> None:
    config = write_run(world, "nowhere", objective={"hard_negatives": ["finding"], "region": "organ"}, **regions)
    with pytest.raises(TrainingError, match="'organ', expected a label set of the run \\(body_region\\)"):
        train(config)
    objective = {"hard_negatives": ["finding"], "region": "shape"}
    config = write_run(world, "nothing", objective=objective, schedule=SCHEDULE)
    with pytest.raises(TrainingError, match="no training image has a caption of the same region") as caught:
        train(config)
    assert "shape" in caught.value.hint
