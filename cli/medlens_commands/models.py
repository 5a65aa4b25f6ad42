"""The command `models`: list the available models, and add your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import FormatOption
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say

if TYPE_CHECKING:
    from retrieval.encoders.model_list import ListedModel

models = typer.Typer(help="List the available models, and add your own.", invoke_without_command=True)


@models.callback()
def list_models(context: typer.Context, style: FormatOption = None) -> None:
    """List the models that ship with medlens and the models that you added, with the terms of their weights."""
    if context.invoked_subcommand is not None:
        return
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        _write(model_list.list_models(), chosen)
        if chosen is Format.TABLE:
            say(
                "To use another model: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. See "
                "its own model card."
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


def _write(models: Sequence[ListedModel], style: Format) -> None:
    """Write models: as a table followed by one line of terms per model, or in other formats as rows that include the
    terms.
    """
    if style is not Format.TABLE:
        write_rows([vars(model) for model in models], style)
        return
    write_rows([{name: value for name, value in vars(model).items() if name != "terms"} for model in models], style)
    for model in models:
        say(f"Terms of the weights of {model.name}: {model.terms}.")
