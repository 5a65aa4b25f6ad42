"""Truth files: the right label of each image, as CSV or JSON lines.

A row names its image by `sop_instance_uid` (and `frame_number`), or by `file`, an image file relative to the truth
file. `label` is the right one of exclusive labels. Findings are given in one of two ways: `labels` lists all findings
that are present (in CSV separated by ";"), and the others are absent; or each finding has a column with 1 for present,
0 for absent, and nothing or -1 for unknown (as in CheXpert). `patient` identifies the patient. Without it, medlens uses
the pseudonyms of the store, or counts each file as a patient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import CalibrationError
from retrieval.neutral import shortened
from retrieval.row_files import read_row_file
from retrieval.zeroshot.labels import LabelSet

_OWN = ("sop_instance_uid", "frame_number", "file", "image", "patient", "group", "label", "labels")
_PRESENT, _ABSENT, _UNSAID = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no"), ("", "-1", "-1.0", "nan")
_SHOWN = 5  # names in a message
_LONGEST = 60  # characters of a name in a message


@dataclass(frozen=True)
class GroundTruthRow:
    """One labelled image. Either `uid` or `file` is set. `frame` is None if the row names no frame.

    `values` is the index of an exclusive label, or 1, 0 or NaN for each finding.
    """

    line: int
    uid: str | None
    frame: int | None
    file: str | None
    patient: str | None
    values: int | tuple[float, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A truth file: its rows, its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str
    rows: tuple[GroundTruthRow, ...]

    @property
    def by_file(self) -> bool:
        return self.rows[0].file is not None


def read_truth(path: Path, labels: LabelSet) -> GroundTruth:
    """Read a truth file. Raises CalibrationError for an unreadable file, an unknown label, or an image that occurs
    twice."""
    file = read_row_file(path, what="truth file", error=CalibrationError, takes_csv=True)
    if not file.lines:
        raise CalibrationError(
            f"the truth file {path.name!r} has no rows",
            hint="Expected a CSV header and one row per image, or JSON lines.",
        )
    reader = _Reader(labels, path.name, file.lines[0].values)
    rows = tuple(row for line in file.lines if (row := reader.row(line.number, line.values)) is not None)
    reader.complain()
    if not rows:
        raise CalibrationError(f"no row of the truth file {path.name!r} has a label")
    _refuse_twice(rows, path.name)
    return GroundTruth(path.name, file.sha256, rows)


class _Reader:
    def __init__(self, labels: LabelSet, where: str, first: Mapping[str, Any]) -> None:
        self.labels = labels
        self.where = where
        self.wrong: dict[str, int] = {}
        self.key = next((k for k in ("sop_instance_uid", "file", "image") if k in first), None)
        if self.key is None:
            raise CalibrationError(
                f"the truth file {where!r} has no column sop_instance_uid or file; its columns are: {shortened(first)}",
                hint="Add one of these columns, to name the image of each row.",
            )
        self.columns = {str(name): i for name in first if (i := labels.label_of(name)) is not None}
        listed = next((k for k in ("label", "labels") if k in first), None)
        if listed is None and not (labels.independent and self.columns):
            raise CalibrationError(
                f"the truth file {where!r} has no column label or labels, and none for a label of {labels.name!r}; "
                f"its columns are: {shortened(first)}",
                hint=f"The labels are {shortened(labels.names)}.",
            )
        self.listed = listed

    def row(self, line: int, values: Mapping[str, Any]) -> GroundTruthRow | None:
        key = str(values.get(str(self.key)) or "").strip()
        if not key:
            raise CalibrationError(f"line {line} of the truth file {self.where!r} names no image ({self.key} is empty)")
        truth = self._truth(line, values)
        if truth is None:
            return None
        patient = next((str(values[k]) for k in ("patient", "group") if values.get(k) not in (None, "")), None)
        is_uid = self.key == "sop_instance_uid"
        return GroundTruthRow(
            line, key if is_uid else None, self._frame(line, values), None if is_uid else key, patient, truth
        )

    def complain(self) -> None:
        if self.wrong:
            shown = ", ".join(f"{name[:_LONGEST]!r} ({n} rows)" for name, n in list(self.wrong.items())[:_SHOWN])
            more = f" and {len(self.wrong) - _SHOWN} more" if len(self.wrong) > _SHOWN else ""
            raise CalibrationError(
                f"the label set {self.labels.name!r} does not define these labels of the truth file {self.where!r}: "
                f"{shown}{more}",
                hint=f"Its labels are {shortened(self.labels.names)}. Add other spellings as `values` of a label file.",
            )

    def _truth(self, line: int, values: Mapping[str, Any]) -> int | tuple[float, ...] | None:
        if self.listed is None:
            out = [math.nan] * len(self.labels.labels)
            for name, i in self.columns.items():
                out[i] = self._cell(line, name, values.get(name))
            return None if all(map(math.isnan, out)) else tuple(out)
        given = values.get(self.listed)
        if given is None or given == "":
            if self.listed == "labels" and self.labels.independent and given is not None:
                return (0.0,) * len(self.labels.labels)  # an empty list: no finding is present
            return None
        names = [str(n) for n in given] if isinstance(given, list) else str(given).split(";")
        found = [self._index(name.strip()) for name in names if name.strip()]
        if self.labels.independent:
            return tuple(float(i in found) for i in range(len(self.labels.labels)))
        if len(found) != 1:
            raise CalibrationError(
                f"line {line} of the truth file {self.where!r} has {len(found)} labels, expected one: the labels of "
                f"{self.labels.name!r} are exclusive"
            )
        return found[0]

    def _index(self, name: str) -> int:
        found = self.labels.label_of(name)
        if found is None:
            self.wrong[name] = self.wrong.get(name, 0) + 1
            return 0  # `complain` raises later
        return found

    def _cell(self, line: int, name: str, value: Any) -> float:
        text = "" if value is None else str(value).strip().casefold()
        if text in _PRESENT:
            return 1.0
        if text in _ABSENT:
            return 0.0
        if text in _UNSAID:
            return math.nan
        raise CalibrationError(
            f"line {line} of the truth file {self.where!r} has {str(value)[:40]!r} in column {name[:_LONGEST]!r}, "
            "expected 1, 0, -1 or nothing"
        )

    def _frame(self, line: int, values: Mapping[str, Any]) -> int | None:
        given = values.get("frame_number")
        if given in (None, ""):
            return None
        try:
            number = int(str(given))
        except ValueError:
            number = 0
        if number < 1:
            raise CalibrationError(
                f"line {line} of the truth file {self.where!r} has the frame_number {str(given)[:40]!r}, "
                "expected 1 or more"
            )
        return number


def _refuse_twice(rows: Sequence[GroundTruthRow], where: str) -> None:
    seen: dict[tuple[str | None, int | None, str | None], int] = {}
    for row in rows:
        first = seen.setdefault((row.uid, row.frame, row.file), row.line)
        if first != row.line:
            raise CalibrationError(f"lines {first} and {row.line} of the truth file {where!r} name the same image")
