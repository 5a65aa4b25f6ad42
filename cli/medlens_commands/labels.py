"""labels: the label sets of zero-shot classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DeviceOption, FormatOption, IndependentOption, ModelOption
from cli.medlens_output.formats import Row, write_rows

if TYPE_CHECKING:
    from retrieval.zeroshot.checking import LabelWording

LabelsArgument = Annotated[str, typer.Argument(help='A label set by name, a YAML file, or "label, label".')]

labels = typer.Typer(help="Label sets for zero-shot classification.", no_args_is_help=True)


@labels.command("list")
def list_sets(style: FormatOption = None) -> None:
    """The label sets that ship with medlens."""
    from retrieval.zeroshot.labels import load_labels, shipped_label_sets

    with reporting_errors(style) as chosen:
        sets = [load_labels(name) for name in shipped_label_sets()]
        rows = [{"name": s.name, "title": s.title, "kind": s.kind, "labels": list(s.names)} for s in sets]
        write_rows(rows, chosen)


@labels.command("show")
def show_set(labels: LabelsArgument, independent: IndependentOption = False, style: FormatOption = None) -> None:
    """One label set: its labels and how each is said."""
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
    """Read a label set and say what a model hears: how alike a label's phrasings are, which labels it confuses."""
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
