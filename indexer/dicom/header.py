"""A DICOM header becomes an InstanceRecord, by the one table of `indexer.keywords`.

Tolerant of values, strict about identity. A malformed value becomes None and a warning that names the attribute and
what was expected, never the value. What can't be told apart from other instances is refused: no SOP Instance UID, no
SOP class. Pixels are not needed: a dataset read with `stop_before_pixels` gives the same record.

What is embedded. `kind` goes by SOP class, then by whether the header describes pixels (Rows, Columns, BitsAllocated):
- "report": structured reports that describe findings (text, enhanced, comprehensive, extensible, CAD, echo), and
  encapsulated PDF.
- "other", though they hold a pixel array or a content tree: segmentations and everything else of the raw-data family,
  parametric maps and RT Dose (quantities: their grey values are a dose or a diffusion coefficient, not a picture that
  an encoder was trained to see), spectroscopy, presentation states, key objects, and the SRs that are logs of numbers
  (radiation dose, procedure, contrast administration: as a study's "report" they would answer text queries with noise).
- "image": any other class with pixels, unknown and private classes included. RT Image is a radiograph, so an image.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.uid import UID

from indexer.burned_in import BurnedIn, guessed
from indexer.dicom.attributes import read_attribute
from indexer.dicom.frame_attributes import with_shared
from indexer.dicom.identifying import UnknownIdentity, identity_of
from indexer.dicom.report_text import report_text
from indexer.dicom.values import (
    CONVERSION_ERRORS,
    MalformedValue,
    as_text,
    first_item,
    item_at,
    quiet,
    read_text,
    read_value,
)
from indexer.keywords import KEYWORDS, ValueKind
from indexer.privacy.codes import CLOSED, Code, closed_code
from indexer.privacy.identity import Identity
from indexer.privacy.scrubber import Scrubber, scrubber_of
from indexer.records import AttributeValue, InstanceRecord
from retrieval.errors import UnsupportedImageError

PSEUDONYM_LENGTH = 32  # hex digits: 128 bits

InstanceKind = Literal["image", "report", "other"]

# PS3.6 table A-1. Prefixes name families.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_DICOMDIR = "1.2.840.10008.1.3.10"
_REPORTS = {
    f"{_STORAGE}{suffix}" for suffix in ("88.11", "88.22", "88.33", "88.34", "88.35", "88.50", "88.65", "88.69")
}
_REPORTS |= {f"{_STORAGE}{suffix}" for suffix in ("88.1", "88.2", "88.3", "88.4", "88.72", "104.1")}
_OTHER = {
    f"{_STORAGE}30",  # Parametric Map
    f"{_STORAGE}4.2",  # MR Spectroscopy: Rows and Columns, but no pixels
    f"{_STORAGE}481.2",  # RT Dose
}
_OTHER_FAMILIES = (
    f"{_STORAGE}9.",  # waveforms
    f"{_STORAGE}11.",  # presentation states
    f"{_STORAGE}66",  # raw data, registrations, segmentations, surface and label maps, tractography
    f"{_STORAGE}88.",  # key objects, dose and procedure logs
    f"{_STORAGE}104.",  # encapsulated CDA and 3D models
)

_CLEAN_PIXEL_DATA = "113101"
_METHODS_AT_MOST = 32

_UID = re.compile(r"[0-9.]{1,64}")
_IDENTIFIER = re.compile(r"[0-9A-Za-z._:{}+~ -]{1,64}")  # what de-identifiers and other writers put in place of a UID
_TABLE = tuple((k.column, k.tag, k.kind, f"({k.tag >> 16:04x},{k.tag & 0xFFFF:04x}) {k.name}") for k in KEYWORDS)
_FREE_TEXT = tuple(k.column for k in KEYWORDS if k.free_text)
_CODES = tuple(
    (k.column, k.vr == "CS", f"({k.tag >> 16:04x},{k.tag & 0xFFFF:04x}) {k.name}")
    for k in KEYWORDS
    if k.kind is ValueKind.TEXT and k.vr in ("CS", "LO", "SH") and not k.free_text
)


def read_record(ds: Dataset, key: bytes, *, keep_descriptions: bool = True) -> InstanceRecord:
    """Return what the catalog stores of one instance.

    The module's docstring explains `kind` and the handling of broken values.

    `key` is the store's secret for pseudonyms (at least 16 bytes). Free-text attributes and report text are scrubbed
    with `privacy.scrub`; with `keep_descriptions=False` the attributes are None instead. Code strings are checked
    against their form (`privacy.codes`). If the file's identifying values can't be read, no free text is kept.
    Meanwhile Python's warnings and pydicom's log are silenced, because they quote values. Hostile PDFs and SRs can take
    long: call this under a deadline.

    Raises UnsupportedImageError for a missing SOP Instance UID or SOP class, for a value of a UID that can't be an
    identifier, and for a DICOMDIR.
    """
    with quiet("pydicom"):
        return _read_record(ds, key, keep_descriptions)


def _read_record(ds: Dataset, key: bytes, keep_descriptions: bool) -> InstanceRecord:
    notes: list[str] = []
    _check_character_set(ds, notes.append)
    attributes = {column: read_attribute(ds, tag, kind, label, notes.append) for column, tag, kind, label in _TABLE}
    with_shared(ds, attributes, notes.append)
    _settle_uids(ds, attributes, notes.append)
    kind = _kind(str(attributes["sop_class_uid"]), ds, notes.append)

    text = report_text(ds, warn=notes.append) if kind == "report" else ""
    text = _scrub(ds, attributes, text, keep_descriptions, notes.append)
    return InstanceRecord(
        attributes=attributes,
        patient_pseudonym=_patient_pseudonym(ds, key, notes.append),
        kind=kind,
        burned_in_text=_burned_in_text(ds, attributes) if kind == "image" else None,
        number_of_frames=_frames(attributes, notes.append) if kind == "image" else 0,
        report_text=text,
        warnings=tuple(dict.fromkeys(notes)),
    )


def _scrub(
    ds: Dataset,
    attributes: dict[str, AttributeValue],
    text: str,
    keep_descriptions: bool,
    warn: Callable[[str], None],
) -> str:
    """Remove identity from descriptions and codes, in place, and from the report's text, which is returned."""
    free = [column for column in _FREE_TEXT if attributes[column] is not None]
    if not keep_descriptions:
        attributes.update(dict.fromkeys(free))
        free = []
    try:
        scrubber = scrubber_of(identity_of(ds))
    except UnknownIdentity as exc:
        if free or text:
            warn(f"free text is left out: {exc}")
        attributes.update(dict.fromkeys(free))
        free, text = [], ""
        scrubber = scrubber_of(Identity())
    attributes.update({column: scrubber.text(str(attributes[column])) for column in free})
    for column, is_code, label in _CODES:
        value = attributes[column]
        if value is None:
            continue
        code = _scrubbed_code(scrubber, column, str(value), is_code)
        if code.was_cut:
            warn(f"{label} contains identifying text or is not a code; that part was removed")
            attributes[column] = code.value if keep_descriptions else None
    return scrubber.text(text) if text else ""


def _scrubbed_code(scrubber: Scrubber, column: str, value: str, is_code: bool) -> Code:
    if column in CLOSED:
        return closed_code(value, CLOSED[column])
    return scrubber.code(value, is_code=is_code)


def pseudonym(patient_id: str, issuer: str, key: bytes) -> str | None:
    """Return a pseudonym that distinguishes patients without naming them: HMAC-SHA256 of PatientID and its issuer under
    the store's key.

    32 hex digits, stable for one key; None without a PatientID. The same number from two issuers is two patients.
    Surrounding spaces are ignored (PS3.5 6.2, LO). Raises ValueError for a key under 16 bytes.
    """
    if len(key) < 16:
        raise ValueError(f"the pseudonym key has {len(key)} bytes; expected at least 16")
    if not patient_id.strip():
        return None
    fields = [part.strip().encode("utf-8", "surrogatepass") for part in (issuer, patient_id)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in fields)
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:PSEUDONYM_LENGTH]


def _burned_in_text(ds: Dataset, attributes: Mapping[str, Any]) -> BurnedIn:
    signs = (
        read_text(ds, "RecognizableVisualFeatures").upper() == "YES"
        or bool(read_text(ds, "ConversionType"))  # of secondary captures, whatever their class (PS3.3 C.8.6.1)
        or first_item(ds, "SequenceOfUltrasoundRegions") is not None
    )
    return guessed(attributes, signs=signs, cleaned=_cleaned(ds))


def _cleaned(ds: Dataset) -> bool:
    """Whether the file names a de-identification by the Clean Pixel Data Option (PS3.16 CID 7050)."""
    method = "DeidentificationMethodCodeSequence"
    items = (item_at(ds, method, place) for place in range(_METHODS_AT_MOST))
    return any(item is not None and read_text(item, "CodeValue") == _CLEAN_PIXEL_DATA for item in items)


def _of_family(uid: str, families: tuple[str, ...]) -> bool:
    return any(uid == family or uid.startswith(family.rstrip(".") + ".") for family in families)


def _check_character_set(ds: Dataset, warn: Callable[[str], None]) -> None:
    try:
        names = read_text(ds, "SpecificCharacterSet").split("\\")
        unknown = [name for name in names if name.strip() not in python_encoding]
    except CONVERSION_ERRORS:
        unknown = [""]
    if unknown:
        warn(
            "(0008,0005) SpecificCharacterSet does not name a character set of PS3.3 C.12.1.1.2; "
            "letters in texts may be wrong"
        )


def _settle_uids(ds: Dataset, attributes: dict[str, AttributeValue], warn: Callable[[str], None]) -> None:
    """Take instance and class from the file meta information if the dataset lacks them (PS3.10 7.1 makes them equal).

    Without a study or series, the instance becomes a study of its own: merging it with other such files would be an
    invention.
    """
    if not attributes["sop_class_uid"]:
        attributes["sop_class_uid"] = _meta_uid(ds, "MediaStorageSOPClassUID", "(0008,0016) SOPClassUID", warn)
    if attributes["sop_class_uid"] == _DICOMDIR:
        raise UnsupportedImageError(
            "the file is a DICOMDIR, a table of contents without an image",
            hint="Nothing needs to be done: the files that it lists are indexed where they are.",
        )
    if not attributes["sop_instance_uid"]:
        attributes["sop_instance_uid"] = _meta_uid(ds, "MediaStorageSOPInstanceUID", "(0008,0018) SOPInstanceUID", warn)
    for column, label in (
        ("sop_class_uid", "(0008,0016) SOPClassUID"),
        ("sop_instance_uid", "(0008,0018) SOPInstanceUID"),
        ("study_instance_uid", "(0020,000d) StudyInstanceUID"),
        ("series_instance_uid", "(0020,000e) SeriesInstanceUID"),
    ):
        uid = attributes[column]
        if uid is not None and not _UID.fullmatch(str(uid)):
            if not _IDENTIFIER.fullmatch(str(uid)):
                raise UnsupportedImageError(
                    f"{label} is not a UID; expected at most 64 digits and dots, or also letters, spaces and _:{{}}+~-",
                    hint="The file is damaged, or it was de-identified with invalid UIDs. Give it valid UIDs.",
                )
            warn(f"{label} is not a UID, expected at most 64 digits and dots; it is kept as it is")
    instance = attributes["sop_instance_uid"]
    series = attributes["series_instance_uid"]
    for column, label, substitute in (
        ("series_instance_uid", "(0020,000e) SeriesInstanceUID", instance),
        ("study_instance_uid", "(0020,000d) StudyInstanceUID", series or instance),
    ):
        if not attributes[column]:
            warn(f"{label} is missing; the file is catalogued on its own")
            attributes[column] = substitute


def _meta_uid(ds: Dataset, keyword: str, label: str, warn: Callable[[str], None]) -> str:
    uid = read_text(getattr(ds, "file_meta", None) or Dataset(), keyword)
    if not uid:
        raise UnsupportedImageError(
            f"{label} is missing, and so is {keyword} in the file meta information; every SOP instance needs one",
            hint="The file is incomplete or is not a composite object. Export it again from its source.",
        )
    warn(f"{label} is missing; {keyword} is used instead")
    return uid


def _kind(sop_class: str, ds: Dataset, warn: Callable[[str], None]) -> InstanceKind:
    if sop_class in _REPORTS:
        return "report"
    if sop_class in _OTHER or _of_family(sop_class, _OTHER_FAMILIES):
        return "other"
    missing = [keyword for keyword in ("Rows", "Columns", "BitsAllocated") if keyword not in ds]
    if not missing:
        return "image"
    if len(missing) < 3 or "Image" in UID(sop_class).name:
        # Still an image, but one that can't be shown. As "other", the header of a file that was cut short would be
        # catalogued, and the complete file would then be in conflict with it.
        warn(f"{', '.join(missing)} missing; an image needs them")
        return "image"
    return "other"


def _frames(attributes: dict[str, AttributeValue], warn: Callable[[str], None]) -> int:
    frames = attributes["number_of_frames"]
    if isinstance(frames, int) and frames < 1:
        warn("(0028,0008) NumberOfFrames is below 1; it is taken as 1")
        return 1
    return frames if isinstance(frames, int) else 1


def _patient_pseudonym(ds: Dataset, key: bytes, warn: Callable[[str], None]) -> str | None:
    try:
        patient_id = as_text(read_value(ds, "PatientID"))
    except MalformedValue:
        warn("(0010,0020) PatientID is malformed, so the file is not assigned to a patient")
        patient_id = ""
    return pseudonym(patient_id, read_text(ds, "IssuerOfPatientID"), key)
