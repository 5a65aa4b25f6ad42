"""Initial weights of the image tower, trained on ordinary photographs, if a configuration names them.

A few thousand medical images teach a network of millions of weights little about edges and textures; photographs teach
it more. `locked_groups` of the configuration says how many groups of layers are not trained.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.faster import layer_groups
from retrieval.errors import TrainingError
from retrieval.training.packaged import package_folder

SUFFIXES = (".safetensors", ".pth", ".pt")
_COUNTER = "num_batches_tracked"


def find_weights(start: str) -> Path:
    """The file of weights to start from. `package:NAME` names an installed Python package.

    Raises TrainingError if there is no such file, or more than one.
    """
    root = package_folder(start, "the weights of the image tower")
    if root is None:
        path = Path(start)
        if not path.is_file() or path.suffix not in SUFFIXES:
            raise TrainingError(f"image.start {path.name!r} is not a weights file, expected {' or '.join(SUFFIXES)}")
        return path
    found = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES)
    if len(found) != 1:
        raise TrainingError(f"the Python package {root.name!r} has {len(found)} weights files, expected one")
    return found[0]


def load_start(trunk: torch.nn.Module, path: Path) -> None:
    """Fill a timm trunk from a file of weights of the same architecture, all but its last linear layer.

    Names are taken if they agree; else the tensors are matched in order, and every shape must agree: other
    implementations of an architecture name the same layers differently. Raises TrainingError if they are another's.
    """
    given = _tensors(path)
    wanted = [(n, t) for n, t in trunk.state_dict().items() if not n.endswith(_COUNTER)]
    head = _last_linear(trunk)
    body = [(n, t) for n, t in wanted if not n.startswith(head)]
    if all(name in given and given[name].shape == tensor.shape for name, tensor in body):
        values = {name: given[name] for name, _ in body}
    else:
        tensors = list(given.values())[: len(body)]
        if [t.shape for t in tensors] != [t.shape for _, t in body]:
            raise TrainingError(
                f"{path.name} has {len(given)} tensors that do not match the {len(wanted)} of the image tower",
                hint="Set image.timm_model to the architecture of the weights.",
            )
        values = {name: tensor for (name, _), tensor in zip(body, tensors, strict=True)}
    trunk.load_state_dict(values, strict=False)


def lock_groups(trunk: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """Lock the first `count` groups of layers (the stem is the first) and return those of their modules that hold
    running statistics: they have to stay in evaluation mode. Raises TrainingError if nothing would be left to train."""
    groups = layer_groups(trunk)
    if count >= len(groups):
        raise TrainingError(
            f"image.locked_groups is {count}, expected less than {len(groups)}, the groups of layers of the image tower"
        )
    locked = {name for group in groups[:count] for name in group}
    owners = set()
    for name, parameter in trunk.named_parameters():
        if name in locked:
            parameter.requires_grad_(False)
            owners.add(name.rpartition(".")[0])
    return [m for name, m in trunk.named_modules() if name in owners and hasattr(m, "running_mean")]


def groups_above(trunk: torch.nn.Module) -> dict[str, int]:
    """How many groups of layers lie above each parameter's own: 0 for the last."""
    groups = layer_groups(trunk)
    return {name: len(groups) - 1 - number for number, group in enumerate(groups) for name in group}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values: dict[str, Any] = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise TrainingError(f"the weights file {path.name} can't be read: {type(exc).__name__}") from exc
    items: Iterable[tuple[str, Any]] = values.items() if isinstance(values, dict) else ()
    return {name: t for name, t in items if isinstance(t, torch.Tensor) and not name.endswith(_COUNTER)}


def _last_linear(trunk: torch.nn.Module) -> str:
    names = [name for name, module in trunk.named_modules() if isinstance(module, torch.nn.Linear)]
    if not names:
        raise TrainingError(f"the image tower {type(trunk).__name__} has no linear layer")
    return f"{names[-1]}."
