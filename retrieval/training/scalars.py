"""The TensorBoard log of a run: loss, rates and temperature per step, and the dev figures per evaluation.

A resumed run repeats the steps after its last state. When the log is opened, TensorBoard drops the entries from that
step on, so that no step is logged twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from retrieval.errors import TrainingError
from retrieval.optional import require_optional
from retrieval.training.validation import RECALL_AT, Figures


class Scalars(Protocol):
    """A destination for the numbers of a run. Steps count from 1."""

    def step(self, step: int, values: Mapping[str, float]) -> None: ...

    def evaluation(self, step: int, figures: Figures) -> None: ...

    def close(self) -> None: ...


class NoScalars:
    """Discards all numbers."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def evaluation(self, step: int, figures: Figures) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardScalars:
    """Writes TensorBoard event files into a folder."""

    def __init__(self, folder: Path, done: int) -> None:
        """`done` is the number of steps that the run has behind it. Raises TrainingError as `require_tensorboard` and
        for a folder that can't be written."""
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer: Any = SummaryWriter(str(folder), purge_step=done + 1)
        except OSError as exc:
            raise TrainingError(f"the TensorBoard log {folder.name!r} can't be written: {exc.strerror}") from exc

    def step(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.flush()  # a run that is stopped leaves the steps that it made

    def evaluation(self, step: int, figures: Figures) -> None:
        for source, found in figures.retrieval.items():
            for way, values in (("image_to_text", found.image_to_text), ("text_to_image", found.text_to_image)):
                for k, value in values.items():
                    self._writer.add_scalar(f"dev/{source}/{way}_R@{k}", value.value, step)
        for source, labelled in figures.zero_shot.items():
            for each in labelled:
                self._writer.add_scalar(f"dev/{source}/{each.label_set}_accuracy", each.accuracy.value, step)
        if figures.retrieval:
            self._writer.add_scalar(f"dev/mean_R@{RECALL_AT}", figures.recall(), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Raises TrainingError if the package is missing."""
    require_optional("tensorboard", "the TensorBoard log", TrainingError)
