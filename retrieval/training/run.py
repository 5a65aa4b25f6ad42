"""The training run, from a configuration to a model folder."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from retrieval.encoders.clip import ClipEncoder, choose_device
from retrieval.encoders.fingerprint import sha256_of
from retrieval.encoders.terms import write_terms
from retrieval.errors import TrainingError
from retrieval.training.ablations import ablation_lines
from retrieval.training.card import model_card, terms_of_training
from retrieval.training.checkpoint import export, load_state, save_state, work_folder
from retrieval.training.config import TrainingConfig
from retrieval.training.context import OnEpoch, OnTeacher, TrainingContext, silent
from retrieval.training.continuing import continuing_lines, keep_start_card, rehearsed, require_same_model
from retrieval.training.data import Corpus, Progress, read_corpus, source_names
from retrieval.training.forgetting import Forgetting, compared
from retrieval.training.loop import Loop
from retrieval.training.model_folder import WEIGHTS_NAME
from retrieval.training.processes import joined
from retrieval.training.scalars import NoScalars, Scalars, TensorBoardScalars, require_tensorboard
from retrieval.training.set_up import set_up
from retrieval.training.teacher import TeacherEmbeddings, TeacherReport, open_teacher
from retrieval.training.unpaired import read_unpaired
from retrieval.training.validation import Epoch, Figures
from retrieval.training.warm_up import warm_up
from retrieval.zeroshot.labels import load_labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """`epochs` were trained, `kept` is the number of the one whose weights were written. `first` is False in all but
    the first of several processes: that one wrote."""

    folder: Path
    figures: Figures
    epochs: int
    kept: int
    images_per_second: float
    forgetting: Forgetting | None = None  # None unless it went on from a model, with rehearsal
    first: bool = True
    teacher_report: TeacherReport | None = None


def train(
    config: TrainingConfig,
    *,
    device: str = "cpu",
    restart: bool = False,
    tensorboard: Path | None = None,
    on_progress: Progress = silent,
    on_epoch: OnEpoch = silent,
    on_teacher: OnTeacher = silent,
    before_writing: Callable[[], None] = silent,
) -> TrainingResult:
    """Train, or go on training, and write `config.output`.

    `device` is "auto", "cpu", "cuda" or "cuda:N". Raises TrainingError for data or a configuration that can't be used,
    EncoderError for a device that is not there. KeyboardInterrupt leaves the last state, from
    which the same call goes on. `before_writing` is called before the model is written, and may raise: the state stays.
    `tensorboard` is a folder for logs: this run's are in one of its name there.

    Under torchrun its processes share each batch. The first writes, and calls `on_progress`, `on_epoch` and, once it
    knows what the teacher can do, `on_teacher`.
    """
    if tensorboard is not None:
        require_tensorboard()  # before minutes of work
    label_sets = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, label_sets)
    _check_judged(config, corpus)
    ablation_lines(config.ablations)  # the card needs them at the end, so a bad file is refused now
    require_same_model(config)
    rehearsal = rehearsed(config, corpus)
    with joined(torch.device(choose_device(device, "fp32").name)) as (processes, place):
        context = TrainingContext(
            config, corpus, label_sets, work_folder(config), place, processes, restart=restart, rehearsal=rehearsal
        )
        context = replace(context, before_writing=before_writing)
        if processes.first:  # one table and one bar are enough
            context = replace(
                context, tensorboard=tensorboard, on_progress=on_progress, on_epoch=on_epoch, on_teacher=on_teacher
            )
        return _train(context)


def _train(context: TrainingContext) -> TrainingResult:
    config, processes, work = context.config, context.processes, context.work
    unpaired = read_unpaired(config, context.corpus)
    work.mkdir(parents=True, exist_ok=True)
    teacher = open_teacher(config, str(context.device))
    fingerprint = _fingerprint(context, teacher)
    state = None if context.restart else load_state(work, fingerprint)
    processes.wait()  # until all have read the state that the first will write anew

    loop = set_up(context)
    teacher_report = _distil(loop, teacher) if teacher is not None else None
    del teacher  # its weights can go
    if teacher_report is not None:
        context.on_teacher(teacher_report)
    recalled = processes.first and context.rehearsal
    before = loop.validator.recall_by_source(loop.averaged(), context.rehearsal) if recalled else {}
    history = _History(config)
    if state is not None:
        loop.load(state)
        history.load(state)
        logger.info("the run continues after epoch %d", loop.epoch)
    else:
        warm_up(loop, unpaired, fingerprint)
    started = time.monotonic()
    seen = _epochs(loop, history, fingerprint)
    rate = seen / max(time.monotonic() - started, 1e-9)

    model = loop.averaged()
    if history.best is not None:
        model.load_state_dict(history.best["model"])
    figures = processes.broadcast(loop.validator.figures(model) if processes.first else None)
    forgetting = None
    if processes.first:
        if context.rehearsal:
            forgetting = compared(
                before, loop.validator.recall_by_source(model, context.rehearsal), config.gate.most_lost
            )
        about = continuing_lines(config, context.corpus, work / "text", forgetting)
        card, metrics = model_card(
            config, context.corpus, unpaired, teacher_report, figures, history.epochs, history.kept, about
        )
        if forgetting is not None:
            metrics["forgetting"] = asdict(forgetting)
        context.before_writing()
        folder = export(model, config, work / "text", card, metrics)
        write_terms(folder, terms_of_training(config))
        if config.continue_from is not None:
            keep_start_card(config.continue_from, folder)
    forgetting = processes.broadcast(forgetting)
    return TrainingResult(
        config.output, figures, loop.epoch, history.kept, rate, forgetting, processes.first, teacher_report
    )


def _epochs(loop: Loop, history: _History, fingerprint: str) -> int:
    """Train, judge and keep the state until the last epoch, or until patience ends. Returns the images seen."""
    context, schedule = loop.context, loop.config.schedule
    scalars: Scalars = NoScalars()
    if context.tensorboard is not None:
        scalars = TensorBoardScalars(context.tensorboard / context.config.name, loop.step)
    seen = 0
    while loop.epoch < schedule.epochs and not history.stopped:
        loss, images = loop.train_epoch(scalars)
        seen += images
        figures = None
        if loop.epoch == schedule.epochs or loop.epoch % schedule.evaluate_every == 0:
            model = loop.averaged()
            first = context.processes.first
            figures = context.processes.broadcast(loop.validator.figures(model, resamples=1) if first else None)
            history.note(Epoch.of(loop.epoch, loss, figures), figures, model)
            scalars.evaluation(loop.step, figures)
            if first:
                save_state(context.work, fingerprint, loop.state() | history.state())
        else:
            history.note(Epoch.of(loop.epoch, loss, None), None, None)
        context.on_epoch(loop.epoch, loss, figures)
    scalars.close()
    return seen


def _distil(loop: Loop, teacher: ClipEncoder) -> TeacherReport:
    """Add the distillation losses of a teacher to a loop."""
    context, spec = loop.context, teacher.spec
    embeddings = TeacherEmbeddings(
        teacher, loop.texts, context.corpus.rows, context.work, context.processes, context.on_progress
    )
    loop.distil_from(embeddings)
    figures = embeddings.figures(loop.validator, loop.texts)
    return TeacherReport(spec.name, spec.weights_sha256, spec.embed_dim, str(teacher.device), figures)


class _History:
    """The table of epochs and, under `schedule.keep_best`, the weights of the best one."""

    def __init__(self, config: TrainingConfig) -> None:
        self._schedule = config.schedule
        self.epochs: list[Epoch] = []
        self.best: dict[str, Any] | None = None  # epoch, recall, model

    @property
    def kept(self) -> int:
        """The number of the epoch whose weights count."""
        return int(self.best["epoch"]) if self.best is not None else self.epochs[-1].number

    @property
    def stopped(self) -> bool:
        """Whether `patience` evaluations have passed since the best."""
        if self._schedule.patience is None or self.best is None:
            return False
        since = sum(epoch.recall is not None and epoch.number > self.kept for epoch in self.epochs)
        return since >= self._schedule.patience

    def note(self, epoch: Epoch, figures: Figures | None, model: Any) -> None:
        """Add an epoch. `model` is the one that `figures` are of; equal recall keeps the earlier."""
        self.epochs.append(epoch)
        if figures is None or not self._schedule.keep_best:
            return
        recall = figures.recall(self._schedule.judged_by)
        if self.best is None or recall > self.best["recall"]:
            self.best = {"epoch": epoch.number, "recall": recall, "model": model.state_dict()}

    def state(self) -> dict[str, Any]:
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best": self.best}

    def load(self, state: dict[str, Any]) -> None:
        self.epochs = [Epoch(**values) for values in state["epochs"]]
        self.best = state["best"]


def _check_judged(config: TrainingConfig, corpus: Corpus) -> None:
    """Refuse a choice of the best epoch that no dev row can make."""
    if not config.schedule.keep_best:
        return
    names = source_names(config.data)
    judged = sorted({names[row.source] for row in corpus.rows if row.split == "dev"})
    wanted = config.schedule.judged_by
    if not judged or (wanted is not None and wanted not in judged):
        of = f" of {wanted!r}" if wanted is not None else ""
        raise TrainingError(
            f"schedule.keep_best needs dev rows{of}; the sources with dev rows are: {', '.join(judged) or 'none'}",
            hint="Set the split of some rows to 'dev', or set schedule.judged_by to a source that has dev rows.",
        )


def _fingerprint(context: TrainingContext, teacher: ClipEncoder | None) -> str:
    """What must agree for a state to go on: the configuration but for where the result goes, data, labels, teacher."""
    config = context.config
    values = config.model_dump(mode="json", exclude={"output", "description", "ablations"})
    labels = [label_set.model_dump(mode="json") for label_set in context.label_sets]
    known = [values, context.corpus.digests, labels]
    if config.continue_from is not None:
        known.append(sha256_of(config.continue_from / WEIGHTS_NAME))
    if teacher is not None:
        known.append(teacher.spec.weights_sha256)
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
