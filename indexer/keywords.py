"""The table of all DICOM attributes that medlens stores.

The reader, the catalog's schema and the filters follow from it.

It is an allow-list. What is not in it never enters the catalog: no PatientName, PatientID, birth date, accession
number, referring physician or institution (PS3.15 Annex E lists some 600 attributes that can identify; nobody can
block-list the private ones). StudyDescription and SeriesDescription are typed by people, so the reader scrubs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ValueKind(Enum):
    """How a value is stored and compared."""

    TEXT = "text"  # multi-valued attributes are joined with a backslash, as in the file
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"  # datetime.date
    AGE = "age"  # PatientAge in years, as a float: 018M is 1.5
    FLAG = "flag"  # YES is True, NO is False, else None


class AttributeLevel(Enum):
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True)
class Keyword:
    """One attribute: its DICOM keyword, tag, value representation and multiplicity (PS3.6 6), how it is stored, and its
    level in the hierarchy. Written out, so that a search need not import pydicom's dictionary.
    """

    name: str
    tag: int
    vr: str
    vm: str
    kind: ValueKind
    level: AttributeLevel
    free_text: bool = False  # typed by people: scrubbed by the reader
    by_frame: bool = False  # can differ from frame to frame of an enhanced object

    @property
    def column(self) -> str:
        """Return the keyword in snake_case: SOPInstanceUID is sop_instance_uid, KVP is kvp."""
        out = ""
        for i, c in enumerate(self.name):
            before, after = self.name[i - 1 : i], self.name[i + 1 : i + 2]
            if i and c.isupper() and (before.islower() or (after.islower() and after != "s")):
                out += "_"
            out += c.lower()
        return out


KEYWORDS: tuple[Keyword, ...] = (
    Keyword("StudyInstanceUID", 0x0020000D, "UI", "1", ValueKind.TEXT, AttributeLevel.STUDY),
    Keyword("StudyDate", 0x00080020, "DA", "1", ValueKind.DATE, AttributeLevel.STUDY),
    Keyword("StudyDescription", 0x00081030, "LO", "1", ValueKind.TEXT, AttributeLevel.STUDY, free_text=True),
    Keyword("PatientAge", 0x00101010, "AS", "1", ValueKind.AGE, AttributeLevel.STUDY),
    Keyword("PatientSex", 0x00100040, "CS", "1", ValueKind.TEXT, AttributeLevel.STUDY),
    Keyword("SeriesInstanceUID", 0x0020000E, "UI", "1", ValueKind.TEXT, AttributeLevel.SERIES),
    Keyword("Modality", 0x00080060, "CS", "1", ValueKind.TEXT, AttributeLevel.SERIES),
    Keyword("SeriesNumber", 0x00200011, "IS", "1", ValueKind.INTEGER, AttributeLevel.SERIES),
    Keyword("SeriesDescription", 0x0008103E, "LO", "1", ValueKind.TEXT, AttributeLevel.SERIES, free_text=True),
    Keyword("BodyPartExamined", 0x00180015, "CS", "1", ValueKind.TEXT, AttributeLevel.SERIES, by_frame=True),
    Keyword("Laterality", 0x00200060, "CS", "1", ValueKind.TEXT, AttributeLevel.SERIES),
    Keyword("Manufacturer", 0x00080070, "LO", "1", ValueKind.TEXT, AttributeLevel.SERIES),
    Keyword("ManufacturerModelName", 0x00081090, "LO", "1", ValueKind.TEXT, AttributeLevel.SERIES),
    Keyword("SOPInstanceUID", 0x00080018, "UI", "1", ValueKind.TEXT, AttributeLevel.INSTANCE),
    Keyword("SOPClassUID", 0x00080016, "UI", "1", ValueKind.TEXT, AttributeLevel.INSTANCE),
    Keyword("InstanceNumber", 0x00200013, "IS", "1", ValueKind.INTEGER, AttributeLevel.INSTANCE),
    Keyword("ImageType", 0x00080008, "CS", "2-n", ValueKind.TEXT, AttributeLevel.INSTANCE),
    Keyword("ViewPosition", 0x00185101, "CS", "1", ValueKind.TEXT, AttributeLevel.INSTANCE),
    Keyword("ImageLaterality", 0x00200062, "CS", "1", ValueKind.TEXT, AttributeLevel.INSTANCE, by_frame=True),
    Keyword("ContentDate", 0x00080023, "DA", "1", ValueKind.DATE, AttributeLevel.INSTANCE),
    Keyword("SliceThickness", 0x00180050, "DS", "1", ValueKind.NUMBER, AttributeLevel.INSTANCE, by_frame=True),
    Keyword("ImageOrientationPatient", 0x00200037, "DS", "6", ValueKind.TEXT, AttributeLevel.INSTANCE, by_frame=True),
    Keyword("ImagePositionPatient", 0x00200032, "DS", "3", ValueKind.TEXT, AttributeLevel.INSTANCE, by_frame=True),
    Keyword("NumberOfFrames", 0x00280008, "IS", "1", ValueKind.INTEGER, AttributeLevel.INSTANCE),
    Keyword("Rows", 0x00280010, "US", "1", ValueKind.INTEGER, AttributeLevel.INSTANCE),
    Keyword("Columns", 0x00280011, "US", "1", ValueKind.INTEGER, AttributeLevel.INSTANCE),
    Keyword("PhotometricInterpretation", 0x00280004, "CS", "1", ValueKind.TEXT, AttributeLevel.INSTANCE),
    Keyword("BurnedInAnnotation", 0x00280301, "CS", "1", ValueKind.FLAG, AttributeLevel.INSTANCE),
)

COLUMNS: dict[str, Keyword] = {keyword.column: keyword for keyword in KEYWORDS}
"""Keyword by column name."""

BY_FRAME: tuple[str, ...] = tuple(keyword.column for keyword in KEYWORDS if keyword.by_frame)
"""The columns whose values can differ from frame to frame."""
