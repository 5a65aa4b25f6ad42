"""`medlens train`: train on pairs files and on stores, whose pairs are exported first.

torch is imported when a run begins.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.output_formats import json_document
from indexer.outputs import require_folder
from indexer.store.store import Store, is_url
from indexer.tasks.training_pairs import ExportedPairs, ExportSettings, export_pairs
from retrieval.encoders.clip import choose_device
from retrieval.encoders.known_models import try_to_remember
from retrieval.encoders.model_config import CONFIG_NAME
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import resolve_model
from retrieval.errors import OutputError
from retrieval.training.config import TrainingConfig

if TYPE_CHECKING:
    from retrieval.training.context import OnEpoch
    from retrieval.training.data import Progress
    from retrieval.training.run import TrainingResult
    from retrieval.training.teacher import TeacherReport

OnExport = Callable[[str, ExportedPairs], None]


def train(
    config: TrainingConfig,
    *,
    device: str = "auto",
    restart: bool = False,
    force: bool = False,
    tensorboard: Path | None = None,
    no_burned_in: bool = False,
    on_progress: Progress = lambda what, done, total: None,
    on_export: OnExport = lambda store, exported: None,
    on_epoch: OnEpoch = lambda epoch, loss, figures: None,
    on_teacher: Callable[[TeacherReport], None] = lambda report: None,
) -> TrainingResult:
    """Train, or go on training, and write `config.output`. `load_config` reads a configuration.

    Stores among the data are written down as pairs files in the run's work folder, each told to `on_export` by its
    name. A run that has begun goes on with what it began with, also if a store has changed, unless it is started anew.
    `no_burned_in` takes from stores only pictures that show no text about a patient.
    Where the model then lies is written down for this user. A folder that no training wrote is written into with
    `force` only. The other arguments and what is raised are those of `retrieval.training.run.train`; OutputError for
    such a folder, StoreError for a store that can't be opened.
    """
    from retrieval.training.checkpoint import work_folder
    from retrieval.training.run import train as train_on_pairs

    _require_output(config.output, force)
    for folder in (work_folder(config), tensorboard):
        if folder is not None:
            require_folder(folder)
    chosen = choose_device(device, "fp32")
    result = train_on_pairs(
        _with_stores(config, restart=restart, no_burned_in=no_burned_in, on_progress=on_progress, on_export=on_export),
        device=chosen.name,
        restart=restart,
        tensorboard=tensorboard,
        on_progress=on_progress,
        on_epoch=on_epoch,
        on_teacher=on_teacher,
        before_writing=lambda: _require_output(config.output, force),
    )
    if result.first:
        trained = resolve_model(str(result.folder.resolve()))
        try_to_remember(spec_of(trained), trained)
    return result


def _require_output(folder: Path, force: bool) -> None:
    """Raise OutputError unless the model's folder is new, empty, or was written by a training run."""
    require_folder(folder)
    try:
        content = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as exc:
        raise OutputError(
            f"the folder {folder.name!r} can't be read: {exc.strerror}", hint="Name another output folder."
        ) from exc
    written = json_document("a model", ("model_cfg", "preprocess_cfg", "medlens"))
    if content and not force and not written.recognises(folder / CONFIG_NAME):
        raise OutputError(
            f"the folder {folder.name!r} exists already, and it does not contain a model that `medlens train` wrote",
            hint="Name another output folder, or add --force to write the model into this one.",
        )
    links = [name for name in content if (folder / name).is_symlink()]
    if links:
        raise OutputError(
            f"{links[0]!r} in {folder.name!r} is a link", hint="Name another output folder, or remove the link."
        )


def _with_stores(
    config: TrainingConfig, *, restart: bool, no_burned_in: bool, on_progress: Progress, on_export: OnExport
) -> TrainingConfig:
    """Return the configuration with pairs files instead of stores."""
    from retrieval.training.checkpoint import STATE_NAME, work_folder
    from retrieval.training.loop import CANVAS

    work, names = work_folder(config), Counter[str]()
    begun = (work / STATE_NAME).is_file() and not restart
    longest = 2 * round(config.image.image_size * CANVAS)  # twice what training keeps: it is fitted once more
    sources = []
    for source in config.data:
        if source.store is not None:
            with Store.open(source.store) as store:
                name = store.label.strip("'") if not is_url(source.store) else "database"
                names[name] += 1
                exported = export_pairs(
                    store,
                    work / "stores" / (name if names[name] == 1 else f"{name}-{names[name]}"),
                    ExportSettings(_filter(source.where, no_burned_in), source.dev_share, longest),
                    keep=begun,
                    workers=os.cpu_count() or 1,
                    progress=lambda done, total, name=name: on_progress(f"reading the store {name}", done, total),  # type: ignore[misc]
                )
            if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, only one prints
                on_export(name, exported)
            source = source.model_copy(update={"pairs": exported.pairs})
        sources.append(source)
    return config.model_copy(update={"data": tuple(sources)})


def _filter(where: str, no_burned_in: bool) -> str:
    if not no_burned_in:
        return where
    return f"({where}) and burned_in_text = no" if where else "burned_in_text = no"
