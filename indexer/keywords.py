"""The one table of DICOM attributes that medlens keeps: it drives the reader, the catalog's schema and the filters.

It is an allow-list. What is not in it never enters the catalog: no PatientName, PatientID, birth date, accession
number, referring physician or institution (PS3.15 Annex E lists some 600 attributes that can identify; nobody can
block-list the private ones). StudyDescription and SeriesDescription are typed by people: the reader scrubs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pydicom.datadict import tag_for_keyword


class Kind(Enum):
    """How a value is stored and compared."""

    TEXT = "text"  # multi-valued attributes are joined with a backslash, as in the file
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"  # datetime.date
    AGE = "age"  # PatientAge in years, as a float: 018M is 1.5
    FLAG = "flag"  # YES is True, NO is False, else None


class Level(Enum):
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True)
class Keyword:
    """One attribute: its DICOM keyword, how it is stored, and at which level of the hierarchy it is said."""

    name: str
    kind: Kind
    level: Level
    free_text: bool = False  # typed by people: scrubbed by the reader

    @property
    def column(self) -> str:
        """The keyword in snake_case: SOPInstanceUID is sop_instance_uid, KVP is kvp."""
        out = ""
        for i, c in enumerate(self.name):
            before, after = self.name[i - 1 : i], self.name[i + 1 : i + 2]
            if i and c.isupper() and (before.islower() or (after.islower() and after != "s")):
                out += "_"
            out += c.lower()
        return out

    @property
    def tag(self) -> int:
        tag = tag_for_keyword(self.name)
        if tag is None:
            raise ValueError(f"{self.name} is no keyword of the DICOM dictionary")
        return int(tag)


KEYWORDS: tuple[Keyword, ...] = (
    Keyword("StudyInstanceUID", Kind.TEXT, Level.STUDY),
    Keyword("StudyDate", Kind.DATE, Level.STUDY),
    Keyword("StudyDescription", Kind.TEXT, Level.STUDY, free_text=True),
    Keyword("PatientAge", Kind.AGE, Level.STUDY),
    Keyword("PatientSex", Kind.TEXT, Level.STUDY),
    Keyword("SeriesInstanceUID", Kind.TEXT, Level.SERIES),
    Keyword("Modality", Kind.TEXT, Level.SERIES),
    Keyword("SeriesNumber", Kind.INTEGER, Level.SERIES),
    Keyword("SeriesDescription", Kind.TEXT, Level.SERIES, free_text=True),
    Keyword("BodyPartExamined", Kind.TEXT, Level.SERIES),
    Keyword("Laterality", Kind.TEXT, Level.SERIES),
    Keyword("Manufacturer", Kind.TEXT, Level.SERIES),
    Keyword("ManufacturerModelName", Kind.TEXT, Level.SERIES),
    Keyword("SOPInstanceUID", Kind.TEXT, Level.INSTANCE),
    Keyword("SOPClassUID", Kind.TEXT, Level.INSTANCE),
    Keyword("InstanceNumber", Kind.INTEGER, Level.INSTANCE),
    Keyword("ImageType", Kind.TEXT, Level.INSTANCE),
    Keyword("ViewPosition", Kind.TEXT, Level.INSTANCE),
    Keyword("ImageLaterality", Kind.TEXT, Level.INSTANCE),
    Keyword("ContentDate", Kind.DATE, Level.INSTANCE),
    Keyword("SliceThickness", Kind.NUMBER, Level.INSTANCE),
    Keyword("ImageOrientationPatient", Kind.TEXT, Level.INSTANCE),
    Keyword("ImagePositionPatient", Kind.TEXT, Level.INSTANCE),
    Keyword("NumberOfFrames", Kind.INTEGER, Level.INSTANCE),
    Keyword("Rows", Kind.INTEGER, Level.INSTANCE),
    Keyword("Columns", Kind.INTEGER, Level.INSTANCE),
    Keyword("PhotometricInterpretation", Kind.TEXT, Level.INSTANCE),
    Keyword("BurnedInAnnotation", Kind.FLAG, Level.INSTANCE),
)

COLUMNS: dict[str, Keyword] = {keyword.column: keyword for keyword in KEYWORDS}
"""Keyword by column name."""
