"""Gradients of a batch in chunks against those of the whole, and rates by group of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_world import make_world, write_run
from safetensors.torch import load_file

from retrieval.errors import TrainingError
from retrieval.training.chunks import Chunks
from retrieval.training.config import TrainingConfig
from retrieval.training.context import TrainingContext
from retrieval.training.data import read_corpus
from retrieval.training.processes import Processes
from retrieval.training.run import train
from retrieval.training.set_up import set_up
from retrieval.zeroshot.labels import load_labels

IMAGE = {"timm_model": "test_vit", "image_size": 160, "drop_path": 0.0}  # layer norms: no statistics of a batch


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def config_of(world: Path, name: str, locked: bool = True, image: Any = IMAGE, **schedule: Any) -> TrainingConfig:
    return write_run(
        world,
        name,
        image=image,
        text={"start": "start", "context_length": 12, "locked": locked},
        objective={"loss": "siglip", "hard_negatives": ["side", "negation"]},
        schedule={"epochs": 1, "batch_size": 24, "warmup_steps": 1, "evaluate_every": 1} | schedule,
    )


def gradients(config: TrainingConfig, work: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Those of the first step, before they are clipped, without dropout."""
    labels = [load_labels(name) for name in config.label_sets]
    run = set_up(TrainingContext(config, read_corpus(config.data, labels), labels, work))
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found: dict[str, torch.Tensor] = {}
    passes: list[int] = []

    def keep(*_: Any) -> None:
        found.update({n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None})

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", keep)
    run.model.visual.register_forward_hook(lambda *_: passes.append(1))
    run._train_step(np.arange(24))
    assert len(passes) == (1 if config.schedule.chunk_size is None else 10), "not encoded in chunks, twice"
    return found


@pytest.mark.parametrize("locked", [True, False])
def test_chunks_give_the_gradients_of_the_batch(
    world: Path, tmp_path: Path, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gradients(config_of(world, "whole", locked), tmp_path / "whole", monkeypatch)
    parts = gradients(config_of(world, "parts", locked, chunk_size=5), tmp_path / "parts", monkeypatch)
    assert whole.keys() == parts.keys()
    assert any(name.startswith("text.transformer") for name in whole) != locked
    assert {"logit_scale", "logit_bias"} < whole.keys()
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=name)


def test_both_passes_of_a_chunk_draw_the_same_and_count_once() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4))
    inputs = torch.randn(10, 4)
    seen: list[torch.Tensor] = []

    def encode(part: slice) -> torch.Tensor:
        out: torch.Tensor = model(inputs[part])
        seen.append(out.detach().clone())
        return out

    chunks = Chunks(4, model, lambda number: 100 + number, Processes())
    features = chunks.features(encode, 10, 4)
    assert features.shape == (10, 4)
    assert model[1].num_batches_tracked.item() == 0
    chunks.backward(features.square().sum())
    assert [len(part) for part in seen] == [4, 4, 2] * 2
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(seen[0] == 0, seen[1] == 0), "each chunk draws its own"
    assert model[1].num_batches_tracked.item() == 3
    assert model[1].weight.grad is not None


def test_a_run_in_chunks(world: Path) -> None:
    image = {"timm_model": "test_efficientnet", "image_size": 32, "drop_path": 0.1}
    config = config_of(world, "chunked", image=image, chunk_size=8)
    result = train(config)
    assert "batch 24 (encoded 8 at a time)" in (result.folder / "README.md").read_text()
    again = train(config_of(world, "chunked-again", image=image, chunk_size=8))
    tensors = [load_file(each.folder / "open_clip_model.safetensors") for each in (result, again)]
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())


def test_each_group_of_layers_has_its_rate(world: Path, tmp_path: Path) -> None:
    image = {"timm_model": "test_efficientnet", "image_size": 32, "locked_groups": 2, "layer_decay": 0.5}
    config = config_of(world, "rates", image=image, learning_rate=0.01, text_learning_rate=0.002)
    text = config.text.model_copy(update={"locked": False, "locked_groups": 2, "layer_decay": 0.5})
    config = config.model_copy(update={"text": text})
    labels = [load_labels(name) for name in config.label_sets]
    run = set_up(TrainingContext(config, read_corpus(config.data, labels), labels, tmp_path))
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    rates = {names[id(p)]: group["peak"] for group in run.optimizer.param_groups for p in group["params"]}
    assert "visual.trunk.conv_stem.weight" not in rates
    assert "visual.trunk.blocks.0.0.conv.weight" not in rates
    assert "text.transformer.embeddings.word_embeddings.weight" not in rates
    assert "text.transformer.encoder.layer.0.output.dense.weight" not in rates
    expected = {
        "visual.trunk.blocks.1.0.conv_exp.weight": 0.01 / 16,  # four groups lie above it
        "visual.trunk.conv_head.weight": 0.01 / 2,
        "visual.trunk.classifier.weight": 0.01,
        "text.transformer.encoder.layer.1.output.dense.weight": 0.002 / 2,
        "text.proj.0.weight": 0.002,
    }
    assert {name: rates[name] for name in expected} == pytest.approx(expected)
    assert rates["logit_scale"] == 0.01
    trunk = sorted({rate for name, rate in rates.items() if name.startswith("visual.")})
    assert trunk == pytest.approx([0.01 / 2**depth for depth in (4, 3, 2, 1, 0)])
    card = (train(config).folder / "README.md").read_text()
    rated = "each group of layers at 0.5 of the rate of the one above it"
    assert f"from scratch, {rated}" in card
    assert f"its first 2 groups of layers locked, {rated}; 16 dimensions" in card
    many = config.model_copy(update={"text": text.model_copy(update={"locked_groups": 4})})
    with pytest.raises(TrainingError, match=r"text\.locked_groups is 4, expected at most 3, the groups of layers"):
        train(many.model_copy(update={"output": tmp_path / "many"}))
