"""The constants of a training run: its data, its device, and its callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from retrieval.training.config import TrainingConfig
from retrieval.training.data import Corpus, Progress, epoch_order
from retrieval.training.processes import Processes
from retrieval.training.teacher import TeacherReport
from retrieval.training.validation import Figures
from retrieval.zeroshot.labels import LabelSet

OnEpoch = Callable[[int, float, Figures | None], None]
OnTeacher = Callable[[TeacherReport], None]


def silent(*_: object) -> None:
    """A callback that does nothing."""


@dataclass(frozen=True)
class TrainingContext:
    """The constants of a run. `work` is the folder of its state; the first process fills it before the others read it.

    `restart` ignores an existing state. `rehearsal` names the sources that the continued model was trained on.
    `tensorboard` is the folder for logs, None for no logs. `before_writing` raises if the model must not be written.
    Only the first process calls the callbacks.
    """

    config: TrainingConfig
    corpus: Corpus
    label_sets: Sequence[LabelSet]
    work: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)
    restart: bool = False
    rehearsal: Sequence[str] = ()
    tensorboard: Path | None = None
    on_progress: Progress = silent
    on_epoch: OnEpoch = silent
    on_teacher: OnTeacher = silent
    before_writing: Callable[[], None] = silent

    def order_of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """The rows of one epoch, see `epoch_order`."""
        return epoch_order(self.corpus, self.config.data, self.config.seed, epoch)
