"""The best weights by dev recall, the early stop, and the run's table, also over a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_world import make_world, settings_of_run, write_rows, write_run

from retrieval.errors import TrainingError
from retrieval.evaluation.retrieval import RetrievalFigures
from retrieval.statistics.bootstrap import Estimate
from retrieval.training.config import TrainingConfig
from retrieval.training.run import train
from retrieval.training.validation import Figures, Validator


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def figures_of(forth: float, back: float, name: str = "shapes") -> Figures:
    def estimates(value: float) -> dict[int, Estimate]:
        return {k: Estimate(value, value, value, 0.1) for k in (1, 5, 10)}

    return Figures({name: RetrievalFigures(24, 6, estimates(forth), estimates(back))}, {})


@pytest.fixture
def dictated(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The recall that each evaluation of a run will find, first to last; 0 when they are used up."""
    recalls: list[float] = []

    def figures(self: Validator, model: Any, resamples: int = 2000) -> Figures:
        return figures_of(*[recalls.pop(0)] * 2) if resamples == 1 else figures_of(0.0, 0.0)

    monkeypatch.setattr(Validator, "figures", figures)
    return recalls


def config_of(world: Path, name: str, epochs: int, **schedule: Any) -> TrainingConfig:
    values = {"epochs": epochs, "batch_size": 24, "warmup_steps": 3, "evaluate_every": 1, "keep_best": True}
    return write_run(world, name, schedule=values | schedule)


def weights(folder: Path) -> bytes:
    return (folder / "open_clip_model.safetensors").read_bytes()


def test_the_mean_over_ways_and_sources() -> None:
    two = Figures(figures_of(0.2, 0.4).retrieval | figures_of(0.8, 0.6, "others").retrieval, {})
    assert two.recall() == pytest.approx(0.5)
    assert two.recall("shapes") == pytest.approx(0.3)
    assert two.recall("others") == pytest.approx(0.7)


def test_the_best_epoch_is_written_and_its_equal_is_not(world: Path, dictated: list[float]) -> None:
    states: list[bytes] = []
    dictated += [0.1, 0.5, 0.5, 0.2]
    result = train(config_of(world, "best", 4))
    assert (result.epochs, result.kept) == (4, 2)
    for last in (2, 4):  # the same schedule, its last weights at the second and the fourth epoch
        dictated[:] = np.linspace(0.1, 0.9, last).tolist()
        config = config_of(world, f"best-{last}", 4, patience=4)

        def stop(epoch: int, loss: float, figures: Figures | None, last: int = last) -> None:
            if epoch == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(config, on_epoch=stop)
        dictated[:] = [0.0] * 4
        states.append(weights(train(config).folder))
    assert weights(result.folder) == states[0] != states[1]


def test_patience_ends_the_run_and_the_card_says_so(world: Path, dictated: list[float]) -> None:
    dictated += [0.3, 0.6, 0.5, 0.6]
    result = train(config_of(world, "patient", 9, patience=2))
    assert (result.epochs, result.kept, dictated) == (4, 2, [])
    card = (result.folder / "README.md").read_text()
    assert "4 epochs, batch 24" in card
    assert (
        "those of epoch 2, the best of the evaluated ones by R@10 on the dev rows of all sources, stopped early" in card
    )
    assert "| 2 (kept) |" in card
    assert "| 60.0 / 60.0 % |" in card
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["kept_epoch"] == 2
    assert [epoch["recall"]["shapes"][0] for epoch in metrics["epochs"]] == [0.3, 0.6, 0.5, 0.6]
    dictated += [1.0]
    again = train(config_of(world, "patient", 9, patience=2))  # over is over: nothing more is trained
    assert (again.epochs, again.kept, dictated) == (4, 2, [1.0])


def test_without_it_the_last_epoch_is_written(world: Path, dictated: list[float]) -> None:
    dictated += [0.9, 0.1]
    result = train(config_of(world, "last", 2, keep_best=False))
    assert (result.epochs, result.kept) == (2, 2)
    assert "flattered" not in (result.folder / "README.md").read_text()


def test_a_killed_run_chooses_as_one_that_was_not(world: Path) -> None:
    whole = train(config_of(world, "whole", 6, patience=3, evaluate_every=2))

    def kill(epoch: int, loss: float, figures: Figures | None) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    config = config_of(world, "killed", 6, patience=3, evaluate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_epoch=kill)
    resumed = train(config)
    assert (resumed.epochs, resumed.kept, resumed.figures) == (whole.epochs, whole.kept, whole.figures)
    assert weights(resumed.folder) == weights(whole.folder)
    tables = [json.loads((result.folder / "metrics.json").read_text())["epochs"] for result in (whole, resumed)]
    assert tables[0] == tables[1]
    assert [epoch["number"] for epoch in tables[0]] == list(range(1, whole.epochs + 1))


def test_what_cant_choose_is_refused(world: Path) -> None:
    with pytest.raises(TrainingError, match=r"dev rows of 'medpix'; the sources with dev rows are: shapes"):
        train(config_of(world, "unknown", 1, judged_by="medpix"))
    write_rows(world / "shapes", [{"image": f"{i}.png", "text": "a", "group": str(i)} for i in range(24)], "no.jsonl")
    with pytest.raises(TrainingError, match="needs dev rows; the sources with dev rows are: none"):
        train(
            write_run(
                world,
                "none",
                data=[{"pairs": "shapes/no.jsonl"}],
                label_sets={},
                schedule={"epochs": 1, "batch_size": 24, "keep_best": True},
            )
        )
    with pytest.raises(TrainingError, match="patience needs keep_best: true"):
        write_run(world, "odd", schedule=settings_of_run()["schedule"] | {"patience": 2})
