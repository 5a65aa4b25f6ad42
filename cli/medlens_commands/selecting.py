"""select: what a filter lets through, without a query."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.medlens_commands.common import (
    DEFAULT_STORE,
    BodyPartOption,
    CohortOption,
    CopyOption,
    FormatOption,
    ModalityOption,
    StoreOption,
    WhereOption,
    answering,
    destination,
    open_store,
    pass_on,
    selection,
    usage,
)
from cli.medlens_output import Format, require_suffixes, write_rows

_PATHS = ("file_path", "archive_root")  # can hold names
_TABLE = ("study_instance_uid", "study_date", "study_description", "patient_age", "patient_sex")


class SelectLevel(StrEnum):
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


def register(app: typer.Typer) -> None:
    app.command()(select)


def select(
    where: WhereOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = None,
    level: Annotated[SelectLevel, typer.Option(help="What one row is.")] = SelectLevel.STUDY,
    store: StoreOption = DEFAULT_STORE,
    style: FormatOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to stdout.")] = None,
    cohort: CohortOption = None,
    copy_to: CopyOption = None,
) -> None:
    """List the studies (series, instances) that a filter lets through. No model is asked, nothing is ranked."""
    from indexer.catalog.selection import SELECTED

    with answering(style) as chosen, destination(output) as out:
        with usage(style):
            require_suffixes(cohort=cohort)
        only = selection(where, modality, body_part)
        with open_store(store) as opened:
            rows: list[dict[str, Any]] = list(opened.catalog.instances.select(only, level.value))
            if cohort is not None or copy_to is not None:
                found = (
                    rows if level is SelectLevel.INSTANCE else list(opened.catalog.instances.select(only, "instance"))
                )
                pass_on(found, cohort, copy_to, {"where": where})
        head = {"where": where, "level": level.value, "found": len(rows)}
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
