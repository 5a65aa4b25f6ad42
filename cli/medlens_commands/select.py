"""The command `select`: list what a filter matches, without a query."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._instances import cohort_output, pass_on
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    BodyPartOption,
    CohortOption,
    CopyOption,
    ForceOption,
    FormatOption,
    ModalityOption,
    NoBurnedInOption,
    OutputOption,
    StoreOption,
    WhereOption,
    filter_of,
    open_store,
)
from cli.medlens_output.files import destination, rows_format
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say

_PATHS = ("file_path", "archive_root")  # file paths can contain names of people
_TABLE = ("study_instance_uid", "study_date", "study_description", "patient_age", "patient_sex")


class SelectLevel(StrEnum):
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


def select(
    where: WhereOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = None,
    no_burned_in: NoBurnedInOption = False,
    level: Annotated[
        SelectLevel, typer.Option(help="What one row describes: a study, a series or an instance.")
    ] = SelectLevel.STUDY,
    store: StoreOption = DEFAULT_STORE,
    style: FormatOption = None,
    output: OutputOption = None,
    cohort: CohortOption = None,
    copy_to: CopyOption = None,
    force: ForceOption = False,
) -> None:
    """List the studies, series or instances that match a filter. No model is used and nothing is ranked."""
    from indexer.catalog.selection import SELECTED
    from indexer.outputs import Output, require_folder, require_not_of_archive, require_outputs
    from indexer.tasks import selecting

    with reporting_errors(style) as chosen:
        with usage(style):
            members = cohort_output(cohort, ("where", "results"), force)
        only = filter_of(where, modality, body_part, no_burned_in)
        listing = None
        if output is not None:
            listing = Output(
                output, rows_format("a listing", chosen, SELECTED[level.value], ("where", "level", "found")), force
            )
        require_outputs(listing, members)
        if copy_to is not None:
            require_folder(copy_to)
        with open_store(store) as opened, destination(listing) as out:
            require_not_of_archive(opened, listing, members)
            for note in opened.notes_on(only):
                say(note, err=True)
            rows: list[dict[str, Any]] = list(selecting.select(opened, only, level=level.value))
            if cohort is not None or copy_to is not None:
                whole = level is SelectLevel.INSTANCE
                instances = rows if whole else list(selecting.select(opened, only, level="instance"))
                pass_on(instances, members, copy_to, {"where": where})
            head: dict[str, Any] = {"where": where, "level": level.value, "found": len(rows)}
            notes = selecting.selection_notes(opened, only, empty=not rows)
            for note in notes:
                say(note, err=True)
            if chosen is not Format.TABLE:  # the head of a table is one line
                head["notes"] = notes
            listed = [_row(row, level, chosen) for row in rows]
            write_rows(listed, chosen, head=head, out=out, columns=SELECTED[level.value])


def _row(row: dict[str, Any], level: SelectLevel, style: Format) -> dict[str, Any]:
    if style is not Format.TABLE:
        return {name: value for name, value in row.items() if name not in _PATHS}
    if level is SelectLevel.STUDY:
        names: tuple[str, ...] = (*_TABLE, "modalities", "series", "instances", "frames")
    elif level is SelectLevel.SERIES:
        names = ("series_instance_uid", "modality", "body_part_examined", "series_description", "instances", "frames")
    else:
        names = ("sop_instance_uid", "kind", "modality", "instance_number", "series_description")
    return {name: row[name] for name in names}
