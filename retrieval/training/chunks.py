"""Processes a large batch in small chunks, in one or several processes, with the gradients of the whole batch.

A contrastive loss needs the features of the whole batch, but not all activations at the same time (GradCache: Gao et
al. 2021). Features are computed chunk by chunk without a graph, the loss gives the gradient of each feature, and each
chunk is encoded again to propagate its gradient. This costs one more forward pass, and the memory is that of a chunk.
Several processes share the chunks; all processes get all features (so negatives are global), and the gradients of the
parameters are summed. The statistics of batch norm are those of a chunk, or of the share of a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from retrieval.training.processes import Processes

TRACKING = "track_running_stats"  # of batch norms
Encode = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class _Part:
    """A chunk that this process encodes. `graph` has its features if they are encoded only once."""

    items: slice
    seed: int
    graph: torch.Tensor | None


@dataclass(frozen=True)
class _Pending:
    encode: Encode
    leaf: torch.Tensor
    parts: list[_Part]


class Chunks:
    """Encodes the items of one step in chunks. Without a size and in one process, all items are encoded at once."""

    def __init__(
        self, size: int | None, model: torch.nn.Module, seed_of: Callable[[int], int], processes: Processes
    ) -> None:
        """`seed_of` gives the seed of a chunk's random numbers (dropout), so that both passes draw the same."""
        self._size, self._model, self._seed_of, self._processes = size, model, seed_of, processes
        self._pending: list[_Pending] = []
        self._encoded = 0

    def features(self, encode: Encode, count: int, dim: int) -> torch.Tensor:
        """[count, dim]. `encode` gives the features of a slice of the items, and depends on nothing else."""
        if self._size is None and self._processes.count == 1:
            return encode(slice(0, count))
        size = self._size if self._size is not None else -(-count // self._processes.count)
        twice = self._size is not None
        tracking = [m for m in self._model.modules() if twice and getattr(m, TRACKING, False)]
        for module in tracking:
            setattr(module, TRACKING, False)  # the second pass updates them, once
        leaf = torch.zeros(count, dim, device=next(self._model.parameters()).device)
        parts = []
        for number, start in enumerate(range(0, count, size)):
            seed = self._seed_of(self._encoded + number)
            if number % self._processes.count != self._processes.rank:
                continue
            items = slice(start, min(start + size, count))
            torch.manual_seed(seed)
            with torch.set_grad_enabled(not twice):
                found = encode(items)
            leaf[items] = found.detach()
            parts.append(_Part(items, seed, None if twice else found))
        self._encoded += -(-count // size)
        for module in tracking:
            setattr(module, TRACKING, True)
        self._processes.all_reduce(leaf)  # each row is 0 in all processes but one
        leaf.requires_grad_()
        self._pending.append(_Pending(encode, leaf, parts))
        return leaf

    def backward(self, loss: torch.Tensor) -> None:
        """The gradients of all parameters, the same in every process. Afterwards nothing is pending."""
        loss.backward()  # type: ignore[no-untyped-call]
        if self._processes.rank > 0:  # what the loss gave directly (temperature, bias) is whole in each process
            self._model.zero_grad(set_to_none=True)
        for pending in self._pending:
            gradient = pending.leaf.grad
            if gradient is None:  # the loss does not depend on these features
                continue
            for part in pending.parts:
                found = part.graph
                if found is None:
                    torch.manual_seed(part.seed)
                    found = pending.encode(part.items)
                found.backward(gradient[part.items])  # type: ignore[no-untyped-call]
        self._pending.clear()
        self._processes.all_reduce_gradients(self._model)
