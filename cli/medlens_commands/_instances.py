"""--cohort and --copy-to: what a command found, for the next tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from cli.medlens_output.files import require_place, require_suffix
from retrieval.errors import MedlensError


def require_cohort_file(path: Path | None) -> None:
    """QueryError or MedlensError if no cohort can be written there, before any work is done."""
    require_suffix("cohort", path, ".csv", ".json")
    require_place(path)


def pass_on(
    instances: Sequence[Mapping[str, Any]], cohort: Path | None, copy_to: Path | None, head: Mapping[str, Any]
) -> None:
    """Write the cohort and copy the files of instances, if asked to; what was done goes to stderr.

    MedlensError if there were files to copy and none could be.
    """
    if cohort is not None:
        from cli.medlens_output.cohort import write_cohort

        typer.echo(f"{write_cohort(instances, cohort, head)} instances in {cohort.name}", err=True)
    if copy_to is not None:
        from indexer.tasks.copying import copy_files

        outcome = copy_files(instances, copy_to)
        for uid, problem in outcome.problems:
            typer.echo(f"not copied: {uid}: {problem}", err=True)
        if outcome.problems and not outcome.copied:
            raise MedlensError(
                f"none of {len(outcome.problems)} files could be copied to {copy_to.name!r}",
                hint="Is the archive where it was when it was indexed, and readable?",
            )
        typer.echo(f"{outcome.copied} files copied to {copy_to.name}", err=True)
