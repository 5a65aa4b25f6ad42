"""Two processes on gloo against one with the joint batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_world import make_world, write_run
from training_process import train_and_keep_gradients

from retrieval.errors import TrainingError
from retrieval.training.processes import Processes, joined

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def together(config: Path, gradients: Path) -> list[list[str]]:
    """What each of two processes printed."""
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS.parent),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "training_process.py"), str(config), str(gradients / str(rank))],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        answers = [process.communicate(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-2000:] for _, error in answers)
    return [said.splitlines() for said, _ in answers]


CHANGES: dict[str, Any] = {
    "image": {"timm_model": "test_vit", "image_size": 160, "drop_path": 0.0},  # no statistics of a batch
    "objective": {"loss": "siglip", "near_equal": 0.99},
    "schedule": {"epochs": 1, "batch_size": 23, "warmup_steps": 3, "evaluate_every": 1, "keep_best": True},
}


@pytest.fixture(scope="module")
def gradients_of_one(world: Path) -> Path:
    write_run(world, "one", **CHANGES)
    train_and_keep_gradients(world / "one.yaml", world / "gradients", lambda said: None)
    return world / "gradients"


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_two_processes_have_the_gradients_of_one(
    world: Path, gradients_of_one: Path, tmp_path: Path, chunk_size: int | None
) -> None:
    changes = dict(CHANGES)
    if chunk_size is not None:
        changes["schedule"] = CHANGES["schedule"] | {"chunk_size": chunk_size}
    config = write_run(world, f"two-{chunk_size}", **changes)
    answers = together(world / f"two-{chunk_size}.yaml", tmp_path)
    assert answers == [["epoch 1", "True 1 1"], ["False 1 1"]], "one table, one model"
    assert (config.output / "README.md").is_file()
    places = (gradients_of_one, tmp_path / "0", tmp_path / "1")
    alone, first, second = (torch.load(place, weights_only=True) for place in places)
    assert alone.keys() == first.keys() == second.keys()
    assert {"logit_scale", "logit_bias", "visual.trunk.patch_embed.proj.weight"} < alone.keys()
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name])
        scale = float(gradient.abs().max())
        torch.testing.assert_close(first[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=name)


def test_without_torchrun_a_run_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(torch.device("cpu")) as (processes, device):
        assert (processes, device.type) == (Processes(0, 1), "cpu")
        assert processes.broadcast("x") == "x"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    refused = pytest.raises(TrainingError, match="can't join the 2 processes of WORLD_SIZE")
    with refused as caught, joined(torch.device("cpu")):
        raise AssertionError("joined nobody")
    assert "torchrun" in caught.value.hint
