"""The command `models`: list the available models, add your own, and check one against its own library."""

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

models = typer.Typer(help="List the available models, add your own, and check one.", invoke_without_command=True)
_ONLY_IN_LINES = ("terms", "figures")


@models.callback()
def list_models(
    context: typer.Context,
    known: Annotated[
        bool,
        typer.Option("--known", help="List public models instead: subject, licence, size, speed, and how to use each."),
    ] = False,
    style: FormatOption = None,
) -> None:
    """List the models that ship with medlens and the models that you added, with sizes, figures and terms."""
    if context.invoked_subcommand is not None:
        return
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        if known:
            _write_known(chosen)
            return
        _write(model_list.list_models(), chosen)
        if chosen is Format.TABLE:
            say(
                "To use another model: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. "
                "`medlens models --known` lists public ones."
            )


@models.command("add")
def add_model(
    place: Annotated[str, typer.Argument(help="The model: a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT.")],
    style: FormatOption = None,
) -> None:
    """Add a model of your own, so that stores made with it find it.

    `medlens index --model` and `medlens train` add their model too.
    """
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        _write([model_list.add_model(place)], chosen)


@models.command("check")
def check_model(
    place: Annotated[str, typer.Argument(help="The model: a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT.")],
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Compare a model's pixels, tokens and embeddings with those that its own library computes.

    The command also measures speed and memory. It ends with exit code 1 if a judgement fails.
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
    """Write models: as a table followed by lines with the terms and figures of each, or in other formats as rows that
    include both.
    """
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
