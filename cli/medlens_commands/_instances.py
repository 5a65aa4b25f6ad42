"""The options --cohort and --copy-to, which pass the results of a command on to other tools."""

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
    """Return the output file of a cohort, or None without a path.

    Raises QueryError if the file's ending is not .csv or .json.
    """
    require_suffix("cohort", path, ".csv", ".json")
    if path is None:
        return None
    from cli.medlens_output.cohort import cohort_format
    from indexer.outputs import Output

    return Output(path, cohort_format(path, head), force)


def pass_on(
    instances: Sequence[Mapping[str, Any]], cohort: Output | None, copy_to: Path | None, head: Mapping[str, Any]
) -> None:
    """Write the cohort and copy the files of the instances, where requested, and report both on stderr.

    Raises MedlensError if there were files to copy and none could be copied.
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
                f"none of the {len(outcome.problems)} files could be copied to {copy_to.name!r}",
                hint="Check that the archive is still where it was when you indexed it, and that you may read it.",
            )
        say(f"{outcome.copied} files copied to {copy_to.name}", err=True)
