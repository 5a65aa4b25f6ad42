"""The processes of one run, as torchrun starts them: one per GPU, on one or several machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from retrieval.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """The number of processes and the rank of this one. The first process writes files."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """The first process's `value` (anything that can be pickled), in every process."""
        if self.count == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def all_reduce(self, values: torch.Tensor) -> None:
        """Replace the values by their sum over the processes."""
        if self.count > 1:
            dist.all_reduce(values)

    def all_reduce_gradients(self, model: torch.nn.Module) -> None:
        """The sum over the processes of what each has; a parameter that none has a gradient for stays without."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        having = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
        dist.all_reduce(having)
        for parameter, number in zip(parameters, having.tolist(), strict=True):
            if number:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def average_statistics(self, model: torch.nn.Module) -> None:
        """Running statistics, each gathered on its own share of a batch, to their mean."""
        if self.count == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.count


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """The run's processes and the device of this one: under torchrun, GPU by local rank. Alone without torchrun.

    Raises TrainingError if torchrun's variables are there and the others can't be joined.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as exc:
        raise TrainingError(
            f"this process can't join the {count} processes of WORLD_SIZE: {exc}",
            hint="Start all processes with: torchrun --nproc-per-node N --no-python medlens train CONFIG",
        ) from exc
    try:
        yield Processes(dist.get_rank(), count), device
    finally:
        dist.destroy_process_group()
