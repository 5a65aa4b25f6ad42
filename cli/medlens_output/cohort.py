"""Write a cohort to a file: the UIDs of instances, for other tools."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.medlens_output.files import rows_format
from cli.medlens_output.formats import Format, write_rows
from indexer.output_formats import OutputFormat
from indexer.outputs import Output
from indexer.tasks.copying import CohortMember, cohort

COHORT_FORMATS = {".csv": Format.CSV, ".json": Format.JSON}


_COLUMNS = tuple(CohortMember.__dataclass_fields__)


def cohort_format(path: Path, head: Sequence[str]) -> OutputFormat:
    """Return how a cohort file of that name is recognised. `head` lists the first keys of its JSON form."""
    return rows_format("a cohort", COHORT_FORMATS[path.suffix.lower()], _COLUMNS, head)


def write_cohort(instances: Iterable[Mapping[str, Any]], target: Output, head: Mapping[str, Any]) -> int:
    """Write the UIDs of these instances, each once, as .csv or .json.

    `head` describes the query in JSON. Returns their number.
    """
    rows = [vars(member) for member in cohort(instances)]
    text = io.StringIO()
    write_rows(rows, COHORT_FORMATS[target.path.suffix.lower()], head=head, out=text, columns=_COLUMNS)
    target.write_text(text.getvalue())
    return len(rows)
