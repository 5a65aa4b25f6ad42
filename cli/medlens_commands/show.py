"""The command `show`: everything that a store has about one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import Format, write_rows

if TYPE_CHECKING:
    from indexer.tasks.showing import FrameFacts

_HIDDEN = ("archive_root", "file_path", "kind", "sop_instance_uid")  # file paths can contain names of people


def show(
    ref: Annotated[
        str,
        typer.Argument(metavar="REF", help="The frame: the ref of a search result, or a SOP Instance UID (UID#FRAME)."),
    ],
    store: StoreOption = DEFAULT_STORE,
    style: FormatOption = None,
) -> None:
    """Show everything that the store has about one frame: its keys, attributes, report and saved labels."""
    from indexer.burned_in import warning
    from indexer.tasks.showing import show as facts_of

    with reporting_errors(style) as chosen, open_store(store) as opened:
        row = _row(facts_of(opened, ref))
        if burned := warning(row["burned_in_text"]):
            typer.echo(f"medlens: {burned}", err=True)
        if chosen is Format.TABLE:
            write_rows([{"": name.replace("_", " "), " ": _words(value)} for name, value in row.items()], chosen)
        else:
            write_rows([row], chosen)


def _row(facts: FrameFacts) -> dict[str, Any]:
    return {
        "ref": facts.key.short,
        "sop_instance_uid": facts.key.sop_instance_uid,
        "frame_number": facts.key.frame_number,
        "indexed_frames": list(facts.frame_numbers),
        **{name: value for name, value in facts.attributes.items() if name not in _HIDDEN},
        "labels": {name: dict(values) for name, values in facts.labels.items()},
        "labels_of_former_models": dict(facts.former_labels),
        "report": facts.report,
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
