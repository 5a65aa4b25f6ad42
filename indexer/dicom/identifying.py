"""The identifying values of one file, collected from its header for the scrubber.

Every person's name (VR PN) at any depth, private sequences included; the numbers of patient, visit, order and specimen;
birth date; institutions, addresses and telephones; remarks about the patient.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName
from pydicom.values import convert_SQ

from indexer.dicom.values import CONVERSION_ERRORS, READ_ERRORS, as_text
from indexer.privacy.identity import Identity
from retrieval.errors import DicomError

Element: TypeAlias = DataElement | RawDataElement
ValueKind = Literal["names", "numbers", "places", "dates", "remarks"]
Found = tuple[ValueKind, Dataset, BaseTag, Element]

MAX_ELEMENTS = 100_000  # elements examined for identifiers; a radiology report has some hundred
MAX_VALUES = 2_000  # different ones in one file
MAX_FOREIGN_NAMES = 200  # beyond ASCII: each has some hundred readings in wrong character sets

# Numbers and codes of the patient, the visit and the order (PS3.15 table E.1-1 lists them).
_NUMBERS = """
    PatientID OtherPatientIDs AccessionNumber StudyID AdmissionID ServiceEpisodeID MedicalRecordLocator
    FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest RequestedProcedureID
    FillerOrderNumberProcedure PlacerOrderNumberProcedure InsurancePlanIdentification ContainerIdentifier
    SpecimenIdentifier SpecimenLabelInImage BarcodeValue ScheduledProcedureStepID PerformedProcedureStepID
    ClinicalTrialSubjectID ClinicalTrialSubjectReadingID PatientTelephoneNumbers PatientTelecomInformation
    ReferringPhysicianTelephoneNumbers PersonTelephoneNumbers PersonTelecomInformation OrderCallbackPhoneNumber
    OrderCallbackTelecomInformation PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar
"""
_PLACES = """
    InstitutionName InstitutionAddress InstitutionalDepartmentName PatientAddress PatientInstitutionResidence
    CurrentPatientLocation PersonAddress ReferringPhysicianAddress RequestingService IssuerOfPatientID
    IssuerOfServiceEpisodeID IssuerOfAdmissionID VerifyingOrganization ResponsibleOrganization
    PerformedLocation ClinicalTrialSponsorName ClinicalTrialSiteName RegionOfResidence BranchOfService
    DeviceSerialNumber MilitaryRank StationName ScheduledStationName PerformedStationName
"""
_DATES = "PatientBirthDate"
_REMARKS = "PatientComments VisitComments LabelText"


def _tags(keywords: str) -> frozenset[int]:
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords.split()}
    unknown = [keyword for keyword, tag in tags.items() if tag is None]
    if unknown:
        raise ValueError(f"these are not keywords of the DICOM dictionary: {unknown}")
    return frozenset(int(tag) for tag in tags.values() if tag is not None)


_KINDS: dict[int, ValueKind] = {
    **{tag: "names" for tag, entry in DicomDictionary.items() if entry[0] == "PN"},
    **dict.fromkeys(_tags(_NUMBERS), "numbers"),
    **dict.fromkeys(_tags(_PLACES), "places"),
    **dict.fromkeys(_tags(_DATES), "dates"),
    **dict.fromkeys(_tags(_REMARKS), "remarks"),
}
# Sequences whose items are codes of a person or an institution.
_CODED: dict[int, ValueKind] = {
    **dict.fromkeys(_tags("PersonIdentificationCodeSequence"), "names"),
    **dict.fromkeys(_tags("InstitutionCodeSequence"), "places"),
}
_CODE_TAGS = _tags("CodeValue CodeMeaning LongCodeValue")
_SEQUENCE_TAGS = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
# Large, and about geometry alone.
_SKIPPED_SEQUENCES = _tags(
    "PerFrameFunctionalGroupsSequence SharedFunctionalGroupsSequence DimensionIndexSequence SegmentSequence"
)
_CHARACTER_SET = 0x00080005

_ITEM = b"\xfe\xff\x00\xe0"
_LONGEST_NAME = 330  # bytes: three groups of 64 characters
_NAME_IN_BYTES = re.compile(rb"[A-Za-z\x80-\xff][A-Za-z\x80-\xff .'-]*(?:\^[A-Za-z\x80-\xff .'-]*){1,4}\0?")

_MOST_FILES_REMEMBERED = 64
_remembered: dict[bytes, Identity] = {}


class UnknownIdentity(DicomError):
    """The identifying values of the file can't all be read, so its free text can't be scrubbed and must not be kept."""

    code = "unknown-identity"


def identity_of(ds: Dataset) -> Identity:
    """Collect the values in `ds` that identify people and places, at any depth, private names included.

    Files of one series have the same values, byte for byte: the last results are cached and not decoded again. Raises
    UnknownIdentity if an identifying value can't be decoded or there is too much to examine.
    """
    try:
        found = list(_identifying(ds))
        known_as = _key(ds, found)
        identity = _remembered.get(known_as)
        if identity is None:
            identity = _decoded(found)
    except READ_ERRORS as exc:
        raise UnknownIdentity(
            "an identifying value could not be decoded, so it cannot be removed from free text"
        ) from exc
    if sum(map(len, (identity.names, identity.numbers, identity.places, identity.remarks))) > MAX_VALUES:
        raise UnknownIdentity(f"the file has more than {MAX_VALUES} identifying values")
    if sum(not name.isascii() for name in identity.names) > MAX_FOREIGN_NAMES:
        raise UnknownIdentity(f"the file has more than {MAX_FOREIGN_NAMES} names with characters beyond ASCII")
    if len(_remembered) >= _MOST_FILES_REMEMBERED:
        _remembered.clear()
    _remembered[known_as] = identity
    return identity


def _identifying(ds: Dataset) -> Iterator[Found]:
    """Yield the identifying elements, each with its item, as they are in the file; nothing is converted yet."""
    stack: list[tuple[Dataset, ValueKind | None]] = [(ds, None)]  # the values that the codes of an item stand for
    seen = 0
    while stack:
        item, coded = stack.pop()
        seen += len(item)
        if seen > MAX_ELEMENTS:
            raise UnknownIdentity(f"the file has more than {MAX_ELEMENTS} elements that may contain identifying values")
        for key, element in list(item.items()):
            tag = int(key)  # pydicom's tags are slow to compare
            kind = _KINDS.get(tag)
            if kind is None and element.VR == "PN":
                kind = "names"
            elif kind is None and coded and tag in _CODE_TAGS:
                kind = coded
            if kind:
                yield kind, item, key, element
            elif tag in _SEQUENCE_TAGS or element.VR == "SQ" or (tag & 0x10000 and element.VR in (None, "UN")):
                if tag in _SKIPPED_SEQUENCES:
                    continue
                children = _items(item, key, element)
                if children:
                    stack += [(child, _CODED.get(tag)) for child in children]
                elif tag & 0x10000 and _is_private_name(element):
                    yield "names", item, key, element


def _items(ds: Dataset, tag: BaseTag, element: Element) -> list[Dataset]:
    """Return the items of a sequence, and nothing for an element that is not a sequence."""
    if tag in _SEQUENCE_TAGS or element.VR == "SQ":
        value = ds[tag].value
        return [child for child in value or () if isinstance(child, Dataset)] if not isinstance(value, bytes) else []
    if isinstance(element, RawDataElement) and element.value and element.value[:4] == _ITEM:
        try:  # a private sequence in implicit VR
            return list(convert_SQ(element.value, True, element.is_little_endian, ds.original_character_set))
        except CONVERSION_ERRORS:
            pass
    return []


def _is_private_name(element: Element) -> bool:
    """Whether a private value without a VR is written like a name: Doe^Jane."""
    value = element.value
    return isinstance(value, bytes) and len(value) <= _LONGEST_NAME and bool(_NAME_IN_BYTES.fullmatch(value))


def _key(ds: Dataset, found: list[Found]) -> bytes:
    """Return a digest of the bytes that the values are made from."""
    charset = ds.get_item(_CHARACTER_SET).value if _CHARACTER_SET in ds else None
    content = repr((charset, [(kind, tag, element.value) for kind, _, tag, element in found]))
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _decoded(found: list[Found]) -> Identity:
    values: dict[ValueKind, dict[str, None]] = {kind: {} for kind in ("names", "numbers", "places", "dates", "remarks")}
    for kind, item, tag, _ in found:
        values[kind].update(dict.fromkeys(_texts(item[tag].value, is_name=kind == "names")))
    return Identity(*(tuple(values[kind]) for kind in ("names", "numbers", "places", "dates", "remarks")))


def _texts(value: Any, *, is_name: bool) -> Iterator[str]:
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    yield from filter(None, map(as_text, values))
    if is_name:
        yield from filter(None, map(_as_written, values))
    elif len(values) > 1:
        yield as_text(values)


def _as_written(name: Any) -> str:
    """Return a name before its control characters and undecodable bytes were removed; `misread` needs them."""
    original = name.original_string if isinstance(name, PersonName) else None
    if isinstance(original, bytes) and "\ufffd" in str(name):
        return original.decode("latin-1").strip()
    return "" if str(name).isprintable() else str(name).strip()
