"""`medlens train`: wiring, progress and the table of epochs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import typer

from cli.medlens_progress import progress_bar
from indexer.store.store import Store, is_url
from indexer.tasks.training_pairs import Exported, ExportSettings, export_pairs
from retrieval.encoders.clip import choose_device
from retrieval.training.checkpoint import STATE_NAME, work_folder
from retrieval.training.config import TrainingConfig, load_config, with_teacher
from retrieval.training.judging import Figures
from retrieval.training.loop import CANVAS
from retrieval.training.run import train


def run_training(
    path: Path,
    data: Path | None,
    device: str,
    teacher: str | None,
    *,
    restart: bool,
    continue_from: str | None = None,
    tensorboard: Path | None = None,
) -> bool:
    """Train and print where the model lies and what it can do. False if it has forgotten more than it may."""
    config = load_config(path, data, continue_from)
    if teacher is not None:
        config = with_teacher(config, teacher)
    chosen = choose_device(device, "fp32")
    with progress_bar("training") as update:
        config = with_stores(config, restart=restart, progress=update)

        def show(epoch: int, loss: float, figures: Figures | None) -> None:
            line = f"epoch {epoch:4d}  loss {loss:.3f}"
            typer.echo(line + (f"  {_brief(figures)}" if figures else ""), err=True)

        result = train(
            config,
            device=chosen.name,
            restart=restart,
            tensorboard=tensorboard,
            on_progress=lambda what, done, total: update(done, total, what),
            on_epoch=show,
            on_teacher=lambda taught: typer.echo(f"teacher {taught.name}  {_brief(taught.figures)}", err=True),
        )
    forgetting = result.forgetting
    passed = forgetting is None or not forgetting.forgotten
    if not result.first:
        return passed
    kept = f", the weights of epoch {result.kept}" if result.kept < result.epochs else ""
    typer.echo(f"{result.folder.name}: {result.epochs} epochs{kept}, {result.images_per_second:.0f} images/s")
    typer.echo(_brief(result.figures))
    if forgetting is not None:
        for name in forgetting.sources:
            typer.echo(forgetting.line(name))
    folder = result.folder.resolve()
    typer.echo(f"The model and its card are in {folder}; use it with --model {folder}")
    if config.continue_from is not None and forgetting is None:
        typer.echo("medlens: no data is marked as rehearsal: nothing says what the model has forgotten", err=True)
    if forgetting is not None and not passed:
        lost = ", ".join(f"{name} {forgetting.lost(name):.1f}" for name in forgetting.forgotten)
        typer.echo(
            f"medlens: the model has forgotten more than the {forgetting.most_lost:g} points of R@10 that it may "
            f"(gate.most_lost): {lost}. It is written all the same, and its card says so.",
            err=True,
        )
    return passed


def with_stores(
    config: TrainingConfig, *, restart: bool, progress: Callable[[int, int | None, str], None]
) -> TrainingConfig:
    """The same, its stores written down as pairs files in the run's work folder.

    A run that has begun goes on with what it began with, also if the store has changed, unless it is started anew.
    """
    work, names = work_folder(config), Counter[str]()
    begun = (work / STATE_NAME).is_file() and not restart
    longest = 2 * round(config.image.image_size * CANVAS)  # twice what training keeps: it is fitted once more
    sources = []
    for source in config.data:
        if source.store is not None:
            with Store.open(source.store if is_url(source.store) else Path(source.store)) as store:
                name = store.label.strip("'") if not is_url(source.store) else "database"
                names[name] += 1
                folder = work / "stores" / (name if names[name] == 1 else f"{name}-{names[name]}")
                settings = ExportSettings(source.where, source.dev_share, longest)
                found = export_pairs(
                    store,
                    folder,
                    settings,
                    keep=begun,
                    workers=os.cpu_count() or 1,
                    progress=lambda done, total, name=name: progress(done, total, f"reading the store {name}"),  # type: ignore[misc]
                )
            if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, one says so
                typer.echo(_exported(name, found), err=True)
            source = source.model_copy(update={"pairs": found.pairs})
        sources.append(source)
    return config.model_copy(update={"data": tuple(sources)})


def _exported(name: str, found: Exported) -> str:
    bad = "".join(f", {number} can't be read ({code})" for code, number in found.unreadable.items())
    changed = "; the store has changed since, and --restart takes what it has now" if found.changed else ""
    without = f", {found.without_report} frames without a report left out" if found.without_report else ""
    return f"store {name}: {found.rows} pictures of {found.patients} patients{without}{bad}{changed}"


def _brief(figures: Figures) -> str:
    parts = []
    for name, found in figures.retrieval.items():
        forth, back = found.image_to_text[10], found.text_to_image[10]
        parts.append(f"{name}: R@10 {100 * forth.value:.1f} / {100 * back.value:.1f} (chance {100 * forth.chance:.1f})")
        parts += [f"{z.label_set} {100 * z.accuracy.value:.1f}" for z in figures.zero_shot.get(name, [])]
    return "  ".join(parts)
