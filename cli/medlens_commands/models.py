"""models: which models there are, where one's own lie, and whether one runs here as in its own library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DeviceOption, FormatOption
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say

if TYPE_CHECKING:
    from retrieval.encoders.model_list import ListedModel

models = typer.Typer(help="The models at hand, and how to name others.", invoke_without_command=True)
_ONLY_IN_LINES = ("terms", "figures")


@models.callback()
def list_models(
    context: typer.Context,
    known: Annotated[
        bool, typer.Option("--known", help="Public models of medical images: what each has seen, terms, size, command.")
    ] = False,
    style: FormatOption = None,
) -> None:
    """The models that ship with medlens and those that were added, and how to name others."""
    if context.invoked_subcommand is not None:
        return
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        if known:
            _write_known(chosen)
            return
        _write(model_list.list_models(), chosen)
        if chosen is Format.TABLE:
            say("Others: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. `--known` lists public ones.")


@models.command("add")
def add_model(
    place: Annotated[str, typer.Argument(help="A model folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT.")],
    style: FormatOption = None,
) -> None:
    """Remember where a model lies, so that stores made with it find it. `index --model` and `train` do so, too."""
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        _write([model_list.add_model(place)], chosen)


@models.command("check")
def check_model(
    place: Annotated[str, typer.Argument(help="A model folder, or any other name that --model takes.")],
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Compare a model's pixels, tokens and embeddings here with those of its own library; measure speed and memory.

    Exit code 1 if a judgement fails.
    """
    from retrieval.encoders import model_check

    with reporting_errors(style) as chosen:
        checked = model_check.check_model(place, device, on_progress=lambda what: say(f"{what} ...", err=True))
        rows = [vars(one) for one in checked.judgements]
        if chosen is Format.TABLE:  # a cosine has six places
            rows = [row | {"value": "" if row["value"] is None else str(row["value"])} for row in rows]
        head = {name: value for name, value in vars(checked).items() if name != "judgements"}
        write_rows(rows, chosen, head=head | {"passed": checked.passed}, spare=("detail",))
    if not checked.passed:
        raise typer.Exit(1)


def _write(models: Sequence[ListedModel], style: Format) -> None:
    """A table without terms and figures, which follow it in lines for each model; in other formats, rows with them."""
    if style is not Format.TABLE:
        write_rows([vars(model) for model in models], style)
        return
    rows = [{name: value for name, value in vars(model).items() if name not in _ONLY_IN_LINES} for model in models]
    write_rows(rows, style, spare=("fingerprint", "place"))
    for model in models:
        say(f"Terms of the weights of {model.name}: {model.terms}.")
        if model.figures is not None:
            say(f"Figures of {model.name}: {model.figures}. Its README.md has them with intervals.")


def _write_known(style: Format) -> None:
    from retrieval.encoders.public_models import checked_on, public_models

    found = public_models()
    if style is not Format.TABLE:
        write_rows(
            [
                vars(one) | {"speed": one.speed, "cached_megabytes": one.cached_megabytes, "command": one.command}
                for one in found
            ],
            style,
        )
        return
    rows = [
        {
            "name": one.name,
            "subject": one.subject,
            "gated": "yes" if one.gated else "no",
            "MB": one.megabytes or one.float32_megabytes,
            "speed": one.speed,
            "cached": "no" if one.cached_megabytes is None else "yes",
            "loads": "no" if one.place is None else "yes",
        }
        for one in found
    ]
    write_rows(rows, style)
    for one in found:
        say(f"{one.name}: {one.command or f'not loaded, since {one.why}'}. Licence: {one.licence}.")
    say(
        f"Checked on {checked_on()}; an empty cell could not be checked. These layouts are tested with random weights: "
        "nobody has run the published weights with medlens yet."
    )
    say("Compare two on your own pairs: medlens evaluate PAIRS --model A --compare B.")
