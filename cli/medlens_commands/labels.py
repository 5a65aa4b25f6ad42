"""The command `labels`: list, show and check label sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DeviceOption, FormatOption, IndependentOption, ModelOption
from cli.medlens_output.formats import Row, write_rows

if TYPE_CHECKING:
    from retrieval.zeroshot.checking import LabelWording

LabelsArgument = Annotated[
    str,
    typer.Argument(
        help='The label set: the name of a shipped set, a YAML file, or labels separated by commas, such as "CT, MR".'
    ),
]

labels = typer.Typer(help="List, show and check label sets for zero-shot classification.", no_args_is_help=True)


@labels.command("list")
def list_sets(style: FormatOption = None) -> None:
    """List the label sets that ship with medlens."""
    from retrieval.zeroshot.labels import load_labels, shipped_label_sets

    with reporting_errors(style) as chosen:
        sets = [load_labels(name) for name in shipped_label_sets()]
        rows = [
            {"name": s.name, "title": s.title, "kind": s.kind, "meant_for": list(s.modalities), "labels": list(s.names)}
            for s in sets
        ]
        write_rows(rows, chosen)


@labels.command("show")
def show_set(labels: LabelsArgument, independent: IndependentOption = False, style: FormatOption = None) -> None:
    """Show one label set: its labels and the prompts of each."""
    from retrieval.zeroshot.labels import load_labels

    with reporting_errors(style) as chosen:
        found = load_labels(labels, independent=independent)
        absent = {label.name: {"absent": list(label.absent_prompts)} for label in found.labels if found.independent}
        rows = [
            {"label": label.name, "prompts": list(label.prompts)} | absent.get(label.name, {}) for label in found.labels
        ]
        write_rows(rows, chosen, head={"name": found.name, "title": found.title, "kind": found.kind})


@labels.command("check")
def check_set(
    file: LabelsArgument,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Check a label set with the model: how similar the prompts of each label are, and which labels the model may
    confuse.
    """
    from retrieval.zeroshot.checking import check_labels
    from retrieval.zeroshot.labels import load_labels

    with reporting_errors(style) as chosen:
        found = check_labels(load_labels(file), model=model, device=device)
        head = {"name": found.labels.name, "kind": found.labels.kind, "model": found.model}
        head["sha256"] = found.labels.fingerprint[:12]
        write_rows([_row(wording) for wording in found.wordings], chosen, head=head)


def _row(wording: LabelWording) -> Row:
    row: dict[str, object] = {"label": wording.label, "phrasings": wording.phrasings}
    row |= {"odd_one": wording.odd_one, "its_similarity": round(wording.odd_one_similarity, 3)}
    if wording.nearest_similarity is not None:
        row |= {"nearest_label": wording.nearest_label, "similarity": round(wording.nearest_similarity, 3)}
    return row
