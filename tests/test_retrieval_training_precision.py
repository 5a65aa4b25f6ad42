"""bf16: forward passes in half the bits, everything that is kept in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_world import make_world, write_run
from safetensors.torch import load_file

from retrieval.training.config import TrainingConfig
from retrieval.training.context import TrainingContext
from retrieval.training.data import read_corpus
from retrieval.training.run import train
from retrieval.training.set_up import set_up
from retrieval.zeroshot.labels import load_labels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def config_of(world: Path, name: str, *, locked: bool = True, **schedule: Any) -> TrainingConfig:
    values = {"epochs": 6, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 5, "evaluate_every": 6}
    text = {"start": "start", "context_length": 12, "locked": locked}
    return write_run(world, name, text=text, schedule=values | {"precision": "bf16"} | schedule)


def losses(config: TrainingConfig) -> list[float]:
    found: list[float] = []
    train(config, on_epoch=lambda epoch, loss, figures: found.append(loss))
    return found


def weights(config: TrainingConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output / "open_clip_model.safetensors")


@pytest.mark.parametrize(("chunk_size", "epochs"), [(None, 6), (8, 3)])
def test_it_learns_as_fp32_does(world: Path, chunk_size: int | None, epochs: int) -> None:
    half, whole = (
        config_of(world, f"{precision}-{chunk_size}", precision=precision, chunk_size=chunk_size, epochs=epochs)
        for precision in ("bf16", "fp32")
    )
    there, here = losses(half), losses(whole)
    assert there != here, "nothing was computed in bf16"
    assert there[-1] < 0.9 * there[0]
    assert there[0] == pytest.approx(here[0], rel=0.02)  # seeds 3 to 5: at most 0.5 % apart
    assert there[-1] == pytest.approx(here[-1], rel=0.15)  # and at most 4 % after six epochs
    assert all(bool(value.isfinite().all()) for value in weights(half).values())
    assert "forward passes in bf16" in (half.output / "README.md").read_text()


@pytest.mark.parametrize("locked", [True, False])
def test_what_is_kept_is_in_float32(world: Path, tmp_path: Path, locked: bool) -> None:
    config = config_of(world, f"kept-{locked}", locked=locked, chunk_size=None if locked else 8)
    labels = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, labels)
    run = set_up(TrainingContext(config, corpus, labels, tmp_path))
    inside: set[torch.dtype] = set()
    run.model.visual.register_forward_hook(lambda module, inputs, output: inside.add(output.dtype))
    run._train_step(np.arange(24))
    assert inside == {torch.bfloat16}
    state = [*run.model.state_dict().values(), *run.ema.state_dict().values()]
    state += [value for each in run.optimizer.state_dict()["state"].values() for value in each.values()]
    assert {value.dtype for value in state if value.is_floating_point()} == {torch.float32}
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert any(bool(gradient.any()) for gradient in gradients)


def test_a_killed_run_goes_on_bit_for_bit(world: Path) -> None:
    changes = {"epochs": 2, "evaluate_every": 1, "chunk_size": 8}
    whole, killed = (config_of(world, name, **changes) for name in ("whole", "killed"))
    train(whole)

    def kill(epoch: int, loss: float, figures: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(killed, on_epoch=kill)
    train(killed)
    there, here = weights(killed), weights(whole)
    assert all(torch.equal(value, there[name]) for name, value in here.items())
