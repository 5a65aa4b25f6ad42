"""The command `train`: train a model on images with texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._options import DeviceOption, ForceOption, NoBurnedInOption
from cli.medlens_output.lines import say
from cli.medlens_output.progress import progress_bar

if TYPE_CHECKING:
    from indexer.tasks.training_pairs import ExportedPairs
    from retrieval.training.forgetting import Forgetting
    from retrieval.training.run import TrainingResult
    from retrieval.training.validation import Figures


def train(
    config: Annotated[Path, typer.Argument(help="The YAML file that configures the training run. See docs/train.md.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The folder that relative paths of pairs files and stores start from. Default: the "
            "folder of the YAML file."
        ),
    ] = None,
    device: DeviceOption = "auto",
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model to learn from, as a name, a folder, or hf-hub:ORG/REPO. Overrides the teacher "
            "of the YAML file.",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start from the beginning instead of continuing a stopped run.")
    ] = False,
    continue_from: Annotated[
        str | None,
        typer.Option(
            "--continue",
            help="Start from the weights of this model: a shipped model, or a folder that `medlens train` wrote.",
        ),
    ] = None,
    no_burned_in: NoBurnedInOption = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="Also write TensorBoard logs, to a folder below this one that is named after the run."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Train a model on images with texts. If the command is stopped, run it again to continue.

    The exit code is 3 if training started from another model and forgot more of it than the configuration allows.
    """
    from indexer.tasks import training
    from retrieval.training.config import load_config, with_teacher

    settings = load_config(config, data, continue_from)
    if teacher is not None:
        settings = with_teacher(settings, teacher)
    with progress_bar("training") as update:
        result = training.train(
            settings,
            device=device,
            restart=restart,
            force=force,
            tensorboard=tensorboard,
            no_burned_in=no_burned_in,
            on_progress=lambda what, done, total: update(done, total, what),
            on_export=lambda store, found: say(_export_line(store, found), err=True),
            on_epoch=lambda epoch, loss, figures: say(_epoch_line(epoch, loss, figures), err=True),
            on_teacher=lambda report: say(f"teacher {report.name}  {_brief(report.figures)}", err=True),
        )
    if result.first:
        _print_result(result)
        if settings.continue_from is not None and result.forgetting is None:
            say(
                "medlens: no data set is marked as rehearsal, so nothing measures what the model has forgotten",
                err=True,
            )
    if result.forgetting is not None and result.forgetting.forgotten:
        if result.first:
            say(_forgotten_line(result.forgetting), err=True)
        raise typer.Exit(3)


def _print_result(result: TrainingResult) -> None:
    """Print where the model is and its figures."""
    kept = f", the weights of epoch {result.kept}" if result.kept < result.epochs else ""
    rate = f"{result.images_per_second:.3g} images/s" if result.images_per_second else "all trained by an earlier run"
    say(f"{result.folder.name}: {result.epochs} epochs{kept}, {rate}")
    say(_brief(result.figures))
    if result.forgetting is not None:
        for name in result.forgetting.sources:
            say(result.forgetting.line(name))
    folder = result.folder.resolve()
    say(f"The model and its card are in {folder}. To use it, add --model {folder}")


def _forgotten_line(forgetting: Forgetting) -> str:
    lost = ", ".join(f"{name} {forgetting.lost(name):.1f}" for name in forgetting.forgotten)
    return (
        f"medlens: the model has forgotten more than the {forgetting.most_lost:g} points of R@10 that it may "
        f"(gate.most_lost): {lost}. It is written all the same, and its card says so."
    )


def _epoch_line(epoch: int, loss: float, figures: Figures | None) -> str:
    return f"epoch {epoch:4d}  loss {loss:.3f}" + (f"  {_brief(figures)}" if figures else "")


def _export_line(store: str, found: ExportedPairs) -> str:
    bad = "".join(f", {number} can't be read ({code})" for code, number in found.unreadable.items())
    changed = "; the store has changed since, and --restart takes what it has now" if found.changed else ""
    without = f", {found.without_report} frames without a report left out" if found.without_report else ""
    return f"store {store}: {found.rows} pictures of {found.patients} patients{without}{bad}{changed}"


def _brief(figures: Figures) -> str:
    parts = []
    for name, found in figures.retrieval.items():
        forth, back = found.image_to_text[10], found.text_to_image[10]
        parts.append(f"{name}: R@10 {100 * forth.value:.1f} / {100 * back.value:.1f} (chance {100 * forth.chance:.1f})")
        parts += [f"{z.label_set} {100 * z.accuracy.value:.1f}" for z in figures.zero_shot.get(name, [])]
    return "  ".join(parts)
