"""models: which models there are, and where one's own lie."""

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

models = typer.Typer(help="The models at hand, and how to name others.", invoke_without_command=True)


@models.callback()
def list_models(context: typer.Context, style: FormatOption = None) -> None:
    """The models that ship with medlens and those that were added, and how to name others."""
    if context.invoked_subcommand is not None:
        return
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        _write(model_list.list_models(), chosen)
        if chosen is Format.TABLE:
            say("Others: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Their own cards say more.")


@models.command("add")
def add_model(
    place: Annotated[str, typer.Argument(help="A model folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT.")],
    style: FormatOption = None,
) -> None:
    """Remember where a model lies, so that stores made with it find it. `index --model` and `train` do so, too."""
    from retrieval.encoders import model_list

    with reporting_errors(style) as chosen:
        _write([model_list.add_model(place)], chosen)


def _write(models: Sequence[ListedModel], style: Format) -> None:
    """A table without the terms, which follow it in a line for each model; in other formats, rows with the terms."""
    if style is not Format.TABLE:
        write_rows([vars(model) for model in models], style)
        return
    write_rows([{name: value for name, value in vars(model).items() if name != "terms"} for model in models], style)
    for model in models:
        say(f"Terms of the weights of {model.name}: {model.terms}.")
