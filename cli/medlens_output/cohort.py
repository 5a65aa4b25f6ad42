"""A cohort as a file: the UIDs of instances, for the next tool."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cli.medlens_output.files import write_text
from cli.medlens_output.formats import Format, write_rows
from indexer.tasks.copying import CohortMember, cohort

COHORT_FORMATS = {".csv": Format.CSV, ".json": Format.JSON}


def write_cohort(instances: Iterable[Mapping[str, Any]], target: Path, head: Mapping[str, Any]) -> int:
    """Write the UIDs of these instances, each once, as .csv or .json; `head` says in JSON what was asked. How many."""
    rows = [vars(member) for member in cohort(instances)]
    text = io.StringIO()
    columns = tuple(CohortMember.__dataclass_fields__)
    write_rows(rows, COHORT_FORMATS[target.suffix.lower()], head=head, out=text, columns=columns)
    write_text(target, text.getvalue())
    return len(rows)
