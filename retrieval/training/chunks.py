"""A large batch in small parts, one after the other or in several processes, with the gradients of the whole.

A contrastive loss needs the features of the whole batch, but not at once what lies behind them (GradCache: Gao et al.
2021). Features are made chunk by chunk without a graph, the loss gives each its gradient, and each chunk is encoded
again to pass it on: time grows by one more forward pass, memory falls to that of a chunk. With several processes each
encodes its share of the chunks, all see all features (so negatives are global), and the parameters' gradients are
summed. Batch norm sees a chunk, or a process's share: with it, gradients are those of smaller statistics.
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
    """A chunk that this process encodes. `graph` holds its features where they are not encoded twice."""

    items: slice
    seed: int
    graph: torch.Tensor | None


@dataclass(frozen=True)
class _Pending:
    encode: Encode
    leaf: torch.Tensor
    parts: list[_Part]


class Chunks:
    """Encodes within one step. Without a size and in one process everything is encoded at once."""

    def __init__(
        self, size: int | None, model: torch.nn.Module, seed_of: Callable[[int], int], processes: Processes
    ) -> None:
        """`seed_of` numbers a chunk's random stream (dropout): both of its passes draw the same."""
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
        self._processes.all_reduce(leaf)  # each row is 0 but in one process
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
            if gradient is None:  # the loss did not ask for them
                continue
            for part in pending.parts:
                found = part.graph
                if found is None:
                    torch.manual_seed(part.seed)
                    found = pending.encode(part.items)
                found.backward(gradient[part.items])  # type: ignore[no-untyped-call]
        self._pending.clear()
        self._processes.all_reduce_gradients(self._model)
