"""One process of a run, as torchrun would start it: `python training_process.py CONFIG GRADIENTS`, under its variables.

GRADIENTS is where the gradients of the first step go, before they are clipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from retrieval.training import loop
from retrieval.training.config import load_config
from retrieval.training.run import TrainingResult, train


def train_and_keep_gradients(config: Path, gradients: Path, say: Callable[[str], Any]) -> TrainingResult:
    step = loop.Loop._train_step

    def first_step(self: loop.Loop, batch: Any) -> float:
        clip = torch.nn.utils.clip_grad_norm_

        def keep(*args: Any) -> Any:
            if self.step == 0:
                torch.save(
                    {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}, gradients
                )
            return clip(*args)

        torch.nn.utils.clip_grad_norm_ = keep
        try:
            return step(self, batch)
        finally:
            torch.nn.utils.clip_grad_norm_ = clip

    loop.Loop._train_step = first_step
    try:
        return train(load_config(config), on_epoch=lambda epoch, loss, figures: say(f"epoch {epoch}\n"))
    finally:
        loop.Loop._train_step = step


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = train_and_keep_gradients(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdout.write)
    sys.stdout.write(f"{result.first} {result.epochs} {result.kept}\n")
    sys.stdout.flush()
    os._exit(0)  # gloo's threads have aborted a Python 3.13 that tore itself down, after all was done
