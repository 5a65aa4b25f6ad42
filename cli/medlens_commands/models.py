"""models: which models there are."""

from __future__ import annotations

from cli.medlens_commands._errors import answering
from cli.medlens_commands._options import FormatOption
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say


def models(style: FormatOption = None) -> None:
    """The models that ship with medlens, and how to name others."""
    from retrieval.encoders.model_list import list_models

    with answering(style) as chosen:
        write_rows([vars(model) for model in list_models()], chosen)
        if chosen is Format.TABLE:
            say("Others: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Their own cards say more.")
