"""--cohort and --copy-to: what a command found, for the next tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.medlens_output.files import require_suffix
from cli.medlens_output.lines import say
from retrieval.errors import MedlensError

if TYPE_CHECKING:
    from indexer.outputs import Output


def cohort_output(path: Path | None, head: Sequence[str], force: bool) -> Output | None:
    """The file of a cohort. QueryError for one of no format that there is."""
    require_suffix("cohort", path, ".csv", ".json")
    if path is None:
        return None
    from cli.medlens_output.cohort import cohort_format
    from indexer.outputs import Output

    return Output(path, cohort_format(path, head), force)


def pass_on(
    instances: Sequence[Mapping[str, Any]], cohort: Output | None, copy_to: Path | None, head: Mapping[str, Any]
) -> None:
    """Write the cohort and copy the files of instances, if asked to; what was done goes to stderr.

    MedlensError if there were files to copy and none could be.
    """
    if cohort is not None:
        from cli.medlens_output.cohort import write_cohort

        say(f"{write_cohort(instances, cohort, head)} instances in {cohort.path.name}", err=True)
    if copy_to is not None:
        from indexer.tasks.copying import copy_files

        outcome = copy_files(instances, copy_to)
        for uid, problem in outcome.problems:
            say(f"not copied: {uid}: {problem}", err=True)
        if outcome.problems and not outcome.copied:
            raise MedlensError(
                f"none of {len(outcome.problems)} files could be copied to {copy_to.name!r}",
                hint="Is the archive where it was when it was indexed, and readable?",
            )
        say(f"{outcome.copied} files copied to {copy_to.name}", err=True)
