"""`medlens train`: wiring, progress and the table of epochs."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.medlens_progress import progress_bar
from retrieval.encoders.clip import choose_device
from retrieval.training.config import load_config
from retrieval.training.judging import Figures
from retrieval.training.loop import train


def run_training(
    path: Path,
    data: Path | None,
    device: str,
    *,
    restart: bool,
    continue_from: str | None = None,
    tensorboard: Path | None = None,
) -> bool:
    """Train and print where the model lies and what it can do. False if it has forgotten more than it may."""
    config = load_config(path, data, continue_from)
    chosen = choose_device(device, "fp32")
    with progress_bar("training") as update:

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
    typer.echo(f"The model and its card are in {result.folder}; use it with --model {result.folder}")
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


def _brief(figures: Figures) -> str:
    parts = []
    for name, found in figures.retrieval.items():
        forth, back = found.image_to_text[10], found.text_to_image[10]
        parts.append(f"{name}: R@10 {100 * forth.value:.1f} / {100 * back.value:.1f} (chance {100 * forth.chance:.1f})")
        parts += [f"{z.label_set} {100 * z.accuracy.value:.1f}" for z in figures.zero_shot.get(name, [])]
    return "  ".join(parts)
