"""Options that several commands share, and the functions that read them."""

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
    str, typer.Option("--store", envvar="MEDLENS_STORE", help="The store to use: a folder or a database URL.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="MEDLENS_MODEL",
        help="The model: the name of a shipped model, a model folder, hf-hub:ORG/REPO, or "
        "ARCHITECTURE@CHECKPOINT. Default: the store's own model, or medlens-base for a new "
        "store.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="MEDLENS_DEVICE",
        help="Where the model runs: auto, cpu, cuda or cuda:N. auto uses a GPU if there is one.",
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Output format. Default: a table on a terminal, jsonl when the output is piped."),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        help="Only frames that match this filter, such as 'Modality in (CT, MR) and PatientAge > 60', "
        "'Modality = x-ray' or 'StudyDate >= May 2023'. See docs/filters.md.",
    ),
]
ModalityOption = Annotated[
    list[str] | None,
    typer.Option("--modality", help="Only frames with this Modality, such as CT. Repeat the option to allow several."),
]
BodyPartOption = Annotated[
    list[str] | None,
    typer.Option(
        "--body-part", help="Only frames with this BodyPartExamined, such as CHEST. Repeat the option to allow several."
    ),
]
NoBurnedInOption = Annotated[
    bool,
    typer.Option(
        "--no-burned-in",
        help="Leave out pictures that may show text about a patient. Same as --where 'burned_in_text = no'.",
    ),
]
CohortOption = Annotated[
    Path | None,
    typer.Option("--cohort", help="Also write the pseudonyms and UIDs of the results to this file: .csv or .json."),
]
CopyOption = Annotated[
    Path | None, typer.Option("--copy-to", help="Also copy the DICOM files of the results, unchanged, to this folder.")
]
KOption = Annotated[int, typer.Option("-k", "--top", min=1, help="The number of results.")]
FrameOption = Annotated[
    int, typer.Option("--frame", min=1, help="The frame of a multi-frame file to use, counted from 1.")
]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the results to this file instead of stdout.")
]
LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels",
        help='The label set: the name of a shipped set, a YAML file, or labels separated by commas, such as "CT, MR".',
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also replace an existing output file that medlens did not write. Stores, DICOM files "
        "and links are never replaced.",
    ),
]
IndependentOption = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Treat labels given on the command line as independent findings: any number of them can be present.",
    ),
]


def path_given(text: str) -> Path:
    """Return the path.

    An empty one is refused, because `medlens index "$ARCHIVE"` with an unset variable must not index the current
    folder.
    """
    if not text:
        raise typer.BadParameter("the path is empty; to name the current folder, write .")
    return Path(text)


def open_store(location: str) -> Store:
    """Open the store that --store names, for use in a `with`. The store's modules are imported here, not at the top."""
    from indexer.store.store import Store

    return Store.open(location)


def filter_of(
    where: str | None,
    modality: list[str] | None = None,
    body_part: list[str] | None = None,
    no_burned_in: bool = False,
) -> SearchFilter:
    """Return the filter that these options describe. Raises QueryError if it is invalid, before a store is opened."""
    from indexer.catalog.conditions import require_valid
    from retrieval.types import SearchFilter

    if where is not None and not where.strip():
        raise QueryError("the filter is empty", hint="Write, for example: --where 'Modality = CT and PatientAge > 60'.")
    equals = {"modality": modality, "body_part_examined": body_part, "burned_in_text": ["no"] if no_burned_in else None}
    chosen = SearchFilter({column: tuple(values) for column, values in equals.items() if values}, where or "")
    require_valid(chosen)
    return chosen
