"""What a run logs for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_world import make_world, write_run

from retrieval.errors import TrainingError
from retrieval.training.run import TrainingResult, train

EPOCHS, STEPS = 4, 3  # an epoch has three steps
SCHEDULE = {"epochs": EPOCHS, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 3, "evaluate_every": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logging_run(world: Path, name: str, logs: Path, stop_after: int | None = None, **options: Any) -> TrainingResult:
    def stop(epoch: int, loss: float, figures: Any) -> None:
        if epoch == stop_after:
            raise KeyboardInterrupt

    config = write_run(world, name, schedule=SCHEDULE)
    return train(config, tensorboard=logs, on_epoch=stop, **options)


def test_every_step_and_every_evaluation_is_there(world: Path, tmp_path: Path) -> None:
    result = logging_run(world, "logged", tmp_path)
    found = logged(tmp_path / "shapes")  # the run's name
    steps = list(range(1, EPOCHS * STEPS + 1))
    for tag in ("train/loss", "train/learning_rate", "train/text_learning_rate", "train/temperature"):
        assert [step for step, _ in found[tag]] == steps, tag
    rates = [value for _, value in found["train/learning_rate"]]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01], rel=1e-5)  # the warm-up
    assert rates[-1] < rates[3]
    assert found["train/temperature"][0][1] == pytest.approx(0.07, rel=0.05)
    recall = found["dev/shapes/image_to_text_R@1"]
    assert [step for step, _ in recall] == [6, 12]
    assert recall[-1][1] == pytest.approx(result.figures.retrieval["shapes"].image_to_text[1].value)
    accuracy = found["dev/shapes/shape_accuracy"]
    assert accuracy[-1] == (12, pytest.approx(result.figures.zero_shot["shapes"][0].accuracy.value))
    assert found["dev/mean_R@10"][-1][1] == pytest.approx(result.figures.recall())


def test_a_run_that_goes_on_has_no_step_twice(world: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        logging_run(world, "stopped", tmp_path / "stopped", stop_after=3)  # its state is of epoch 2
    before = logged(tmp_path / "stopped" / "shapes")["train/loss"]
    assert len(before) == 3 * STEPS
    logging_run(world, "stopped", tmp_path / "stopped")
    logging_run(world, "whole", tmp_path / "whole")
    assert logged(tmp_path / "stopped" / "shapes") == logged(tmp_path / "whole" / "shapes")
    logging_run(world, "stopped", tmp_path / "stopped", restart=True)
    assert logged(tmp_path / "stopped" / "shapes") == logged(tmp_path / "whole" / "shapes")


def test_a_missing_package_or_folder_is_said_before_the_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="'shapes' can't be written: Not a directory"):
        logging_run(world, "blocked", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match="needs the package tensorboard") as caught:
        logging_run(world, "missing", tmp_path)
    assert "medlens[tensorboard]" in caught.value.hint
    assert not (world / "out" / "missing.work").exists()
