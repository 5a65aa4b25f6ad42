"""Options that several commands have, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_output.formats import Format
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from indexer.store.store import Store
    from retrieval.types import SearchFilter

DEFAULT_STORE = "medlens-store"

StoreOption = Annotated[
    str, typer.Option("--store", envvar="MEDLENS_STORE", help="The store: a folder, or a database URL.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="MEDLENS_MODEL",
        help="A shipped model, a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Default: the store's own, "
        "else the one that ships with medlens.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", envvar="MEDLENS_DEVICE", help="auto, cpu, cuda or cuda:N.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Default: a table on a terminal, jsonl when piped.")
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="A filter, such as 'Modality in (CT, MR) and PatientAge > 60'. See docs/filters.md."),
]
ModalityOption = Annotated[
    list[str] | None, typer.Option("--modality", help="Only this Modality (CT ...); repeatable.")
]
BodyPartOption = Annotated[
    list[str] | None, typer.Option("--body-part", help="Only this BodyPartExamined; repeatable.")
]
NoBurnedInOption = Annotated[
    bool,
    typer.Option("--no-burned-in", help="Only pictures that show no text about a patient: burned_in_text = no."),
]
CohortOption = Annotated[
    Path | None, typer.Option("--cohort", help="Also write the UIDs of what is found here: .csv or .json.")
]
CopyOption = Annotated[
    Path | None, typer.Option("--copy-to", help="Also copy the files of what is found to this folder, as they are.")
]
KOption = Annotated[int, typer.Option("-k", "--top", min=1, help="How many answers.")]
FrameOption = Annotated[int, typer.Option("--frame", min=1, help="Frame number, from 1.")]
OutputOption = Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to stdout.")]
LabelsOption = Annotated[str, typer.Option("--labels", help='A label set by name, a YAML file, or "label, label".')]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace files that medlens did not write; never a store, DICOM or a link.")
]
IndependentOption = Annotated[
    bool, typer.Option("--independent", help="Inline labels do not compete: any number of them may hold.")
]


def path_given(text: str) -> Path:
    """A path that was not forgotten: `medlens index "$ARCHIVE"` with nothing in it is not the current folder."""
    if not text:
        raise typer.BadParameter("the path is empty; the current folder is .")
    return Path(text)


def open_store(location: str) -> Store:
    """The store that --store names, for a `with`; imported when a command needs it."""
    from indexer.store.store import Store

    return Store.open(location)


def filter_of(
    where: str | None,
    modality: list[str] | None = None,
    body_part: list[str] | None = None,
    no_burned_in: bool = False,
) -> SearchFilter:
    """The filter that these options ask for. QueryError if it makes no sense, before anything heavy is opened."""
    from indexer.catalog.conditions import require_valid
    from retrieval.types import SearchFilter

    if where is not None and not where.strip():
        raise QueryError("the filter is empty", hint="For example: --where 'Modality = CT and PatientAge > 60'.")
    equals = {"modality": modality, "body_part_examined": body_part, "burned_in_text": ["no"] if no_burned_in else None}
    chosen = SearchFilter({column: tuple(values) for column, values in equals.items() if values}, where or "")
    require_valid(chosen)
    return chosen
