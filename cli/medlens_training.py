"""`medlens train`: wiring, progress and the table of epochs."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.medlens_progress import progress_bar
from retrieval.encoders.clip import choose_device
from retrieval.training.config import load_config, with_teacher
from retrieval.training.judging import Figures
from retrieval.training.loop import train


def run_training(path: Path, data: Path | None, device: str, teacher: str | None, *, restart: bool) -> None:
    """Train and print where the model lies and what it can do."""
    config = load_config(path, data)
    if teacher is not None:
        config = with_teacher(config, teacher)
    chosen = choose_device(device, "fp32")
    with progress_bar("training") as update:

        def show(epoch: int, loss: float, figures: Figures | None) -> None:
            line = f"epoch {epoch:4d}  loss {loss:.3f}"
            typer.echo(line + (f"  {_brief(figures)}" if figures else ""), err=True)

        result = train(
            config,
            device=chosen.name,
            restart=restart,
            on_progress=lambda what, done, total: update(done, total, what),
            on_epoch=show,
            on_teacher=lambda taught: typer.echo(f"teacher {taught.name}  {_brief(taught.figures)}", err=True),
        )
    if not result.first:
        return
    kept = f", the weights of epoch {result.kept}" if result.kept < result.epochs else ""
    typer.echo(f"{result.folder.name}: {result.epochs} epochs{kept}, {result.images_per_second:.0f} images/s")
    typer.echo(_brief(result.figures))
    typer.echo(f"The model and its card are in {result.folder}; use it with --model {result.folder}")


def _brief(figures: Figures) -> str:
    parts = []
    for name, found in figures.retrieval.items():
        forth, back = found.image_to_text[10], found.text_to_image[10]
        parts.append(f"{name}: R@10 {100 * forth.value:.1f} / {100 * back.value:.1f} (chance {100 * forth.chance:.1f})")
        parts += [f"{z.label_set} {100 * z.accuracy.value:.1f}" for z in figures.zero_shot.get(name, [])]
    return "  ".join(parts)
