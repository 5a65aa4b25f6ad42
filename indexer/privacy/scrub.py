"""Keep patients' identity out of free text.

`scrub` cuts two things out of a text and leaves `MARK` in their place (three underscores, the mark that de-identified
radiology reports are written with, so that text encoders have met it):

1. what the same file says about people and places (`identifiers`): every person's name (VR PN) at any depth, patient
   and order numbers, birth date, institution, address, telephone;
2. what looks like identity whoever it belongs to (`identity_patterns`): full dates, telephone numbers, e-mail
   addresses, UIDs, long numbers, numbers after MRN/accession/ID, names after Dr./Mr./Mrs./Prof. or "dictated by".

The rule that keeps text readable. Text is compared as runs of letters or digits, without case and accents.
- A whole name or identifier in any usual order (John Smith; SMITH, JOHN; SMITH^JOHN; JohnSmith) is always cut, if it
  has at least two parts and none is a word that nobody is called (the "name" CT^CHEST of a phantom).
- One part of a name alone is cut if it has three letters or more and is none of `ORDINARY_WORDS`: a patient named
  Chest Long does not cost "chest" or "long". In Chinese, Japanese and Korean script two characters are enough.
- Of a number or a place, one part alone is cut if it has four digits or letters or more and is no ordinary word.

What it can't do: names of people who are in no tag of the file and stand after no title; a name that is also an
ordinary word, or has two letters, standing alone ("Rose was seen", "Li was seen"); nicknames, misspellings, inflected
forms; month names in other languages than English; a bare year or age. What is left is much less likely to identify;
it is not proven anonymous. `read_record(..., keep_descriptions=False)` keeps descriptions out altogether.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from indexer.dicom.values import READ_ERRORS, as_text
from indexer.privacy.patterns import RUN, pattern_spans
from indexer.privacy.words import NO_NAMES, ORDINARY_WORDS
from retrieval.errors import DicomError
from retrieval.language.letters import normalized

MARK = "___"
MAX_ELEMENTS = 100_000  # looked at for identifiers; a radiology report has some hundred

_LONGEST_GAP = 3  # characters between two parts of one name or number: ", " or " - "

# Numbers and codes of the patient, the visit and the order (PS3.15 table E.1-1 lists them).
_NUMBERS = """
    PatientID OtherPatientIDs AccessionNumber StudyID AdmissionID ServiceEpisodeID MedicalRecordLocator
    FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest RequestedProcedureID
    ScheduledProcedureStepID PerformedProcedureStepID ClinicalTrialSubjectID ClinicalTrialSubjectReadingID
    DeviceSerialNumber PatientTelephoneNumbers ReferringPhysicianTelephoneNumbers PersonTelephoneNumbers
    OrderCallbackPhoneNumber IssuerOfAdmissionID MilitaryRank StationName ScheduledStationName
    PerformedStationName
"""
_PLACES = """
    InstitutionName InstitutionAddress InstitutionalDepartmentName PatientAddress PatientInstitutionResidence
    CurrentPatientLocation PersonAddress ReferringPhysicianAddress RequestingService IssuerOfPatientID
    IssuerOfServiceEpisodeID VerifyingOrganization ResponsibleOrganization
    PerformedLocation ClinicalTrialSponsorName ClinicalTrialSiteName RegionOfResidence BranchOfService
"""
_DATES = "PatientBirthDate"


def _tags(keywords: str) -> frozenset[int]:
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords.split()}
    unknown = [keyword for keyword, tag in tags.items() if tag is None]
    if unknown:
        raise ValueError(f"no keywords of the DICOM dictionary: {unknown}")
    return frozenset(int(tag) for tag in tags.values() if tag is not None)


_NUMBER_TAGS, _PLACE_TAGS, _DATE_TAGS = _tags(_NUMBERS), _tags(_PLACES), _tags(_DATES)
# Large, and about geometry alone.
_SKIPPED_SEQUENCES = _tags(
    "PerFrameFunctionalGroupsSequence SharedFunctionalGroupsSequence DimensionIndexSequence SegmentSequence"
)


class UnknownIdentity(DicomError):
    """The file's identifying values can't all be read, so no free text of it can be scrubbed: keep none."""

    code = "unknown-identity"


@dataclass(frozen=True)
class Identifiers:
    """What to cut from one file's texts, folded by `fold`. Its repr says nothing of the contents."""

    tokens: frozenset[str] = field(default=frozenset(), repr=False)  # single runs
    phrases: frozenset[tuple[str, ...]] = field(default=frozenset(), repr=False)  # two and more runs in a row
    unspaced: frozenset[str] = field(default=frozenset(), repr=False)  # scripts that put no space between words


NOTHING_KNOWN = Identifiers()


def identifiers(ds: Dataset) -> Identifiers:
    """Gather what identifies people and places in `ds`, at any depth, private names included.

    Raises UnknownIdentity if an identifying value can't be decoded or there are too many elements to look at.
    """
    collector = _Collector()
    try:
        for tag, vr, value in _identifying_elements(ds):
            values = list(value) if isinstance(value, (MultiValue, list)) else [value]
            for text in filter(None, map(as_text, values)):
                if vr == "PN":
                    collector.add_name(text)
                elif tag in _DATE_TAGS:
                    collector.add_date(text)
                else:
                    collector.add_value(text)
            if len(values) > 1 and vr != "PN":
                collector.add_value(as_text(values))
    except READ_ERRORS as exc:
        raise UnknownIdentity("an identifying value can't be decoded, so free text can't be scrubbed of it") from exc
    return Identifiers(frozenset(collector.tokens), frozenset(collector.phrases), frozenset(collector.unspaced))


def _identifying_elements(ds: Dataset) -> Iterator[tuple[int, str, Any]]:
    stack, seen = [ds], 0
    while stack:
        item = stack.pop()
        for tag, element in list(item.items()):  # raw elements: nothing is converted yet
            seen += 1
            if seen > MAX_ELEMENTS:
                raise UnknownIdentity(f"more than {MAX_ELEMENTS} elements to look at for identifying values")
            vr = _vr(element)
            if vr == "SQ" and not tag.is_private and tag not in _SKIPPED_SEQUENCES:
                stack.extend(child for child in item[tag].value or () if isinstance(child, Dataset))
            elif vr == "PN" or tag in _NUMBER_TAGS or tag in _PLACE_TAGS or tag in _DATE_TAGS:
                yield int(tag), vr, item[tag].value


def _vr(element: DataElement | RawDataElement) -> str:
    """The VR; in implicit VR, and where UN was written for a known attribute, from the dictionary."""
    if element.VR not in (None, "UN") or element.tag.is_private:
        return str(element.VR)
    try:
        return str(dictionary_VR(element.tag))
    except KeyError:
        return "UN"


def fold(text: str) -> str:
    """Lower case, no accents, ASCII digits, each character in its place: len(fold(text)) == len(text)."""
    return "".join(map(_fold_character, text))


def _fold_character(c: str) -> str:
    if c < "\x80":
        return c.lower()
    if c.isdecimal():
        return str(unicodedata.decimal(c))
    lower = unicodedata.normalize("NFKD", c)[0].lower()
    return lower if len(lower) == 1 and lower.isalnum() == c.isalnum() else c


def _is_unspaced(run: str) -> bool:
    """Han, kana and Hangul: no spaces between words, or particles that cling to them."""
    return any("\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af" for c in run)


def _number(run: str) -> str:
    return (run.lstrip("0") or "0") if run.isdecimal() else run


def _runs(text: str) -> tuple[str, ...]:
    return tuple(RUN.findall(fold(normalized("NFC", text))))


class _Collector:
    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.phrases: set[tuple[str, ...]] = set()
        self.unspaced: set[str] = set()

    def add_name(self, name: str) -> None:
        """A PN: groups divided by '=' (scripts), components by '^': family, given, middle, prefix, suffix."""
        for group in name.split("="):
            self._add_group(group)
            german = group.translate(_TRANSLITERATION)
            if german != group:
                self._add_group(german)

    def _add_group(self, group: str) -> None:
        parts = [runs for part in group.split("^") if (runs := _runs(part))]
        if len(parts) == 1:  # no carets: "John Smith"
            parts = [(run,) for run in parts[0]]
        for run in (run for part in parts for run in part):
            if _is_unspaced(run):
                self.unspaced.update({run} if len(run) > 1 else ())
            elif not run.isdecimal():
                self._add_token(run, 3)
        for part in parts:
            self._add_phrase(part)
        for size in (2, 3):
            for order in permutations(parts[:4], size):
                self._add_phrase(tuple(run for part in order for run in part))
        for family, given in permutations(parts[:3], 2):  # J. Smith, Smith J
            if family[-1] in self.tokens and not _is_unspaced(given[0]):
                self.phrases |= {(given[0][0], *family), (*family, given[0][0])}
                self._add_token(given[0][0] + "".join(family), 5)  # a login name: jsmith

    def add_value(self, value: str) -> None:
        runs = _runs(value)
        for run in runs:
            if _is_unspaced(run):
                self.unspaced.update({run} if len(run) > 1 else ())
            else:
                self._add_token(run, 4)
        if sum(map(len, runs)) >= 4:
            self._add_phrase(runs)

    def add_date(self, value: str) -> None:
        """A DA in the orders that people write; month names are cut by the date patterns."""
        digits = "".join(_runs(value))
        if len(digits) != 8 or not digits.isdecimal():
            self.add_value(value)
            return
        year, month, day = digits[:4], digits[4:6], digits[6:]
        self.tokens |= {year + month + day, day + month + year, month + day + year}
        for written in (year, year[2:]):
            for order in ((written, month, day), (day, month, written), (month, day, written)):
                self.phrases.add(tuple(map(_number, order)))

    def _add_token(self, run: str, least: int) -> None:
        if len(run) < least or run in ORDINARY_WORDS or run in NO_NAMES:
            return
        self.tokens.add(run)
        if len(_number(run)) >= least:
            self.tokens.add(_number(run))

    def _add_phrase(self, runs: tuple[str, ...]) -> None:
        if len(runs) < 2 or NO_NAMES & set(runs):
            return
        self.phrases.add(tuple(map(_number, runs)))
        joined = "".join(runs)  # JOHNSMITH, 12-34-56 as 123456
        if any(map(_is_unspaced, runs)):
            self.unspaced.add(joined)
        elif joined.isdecimal() or not any(run.isdecimal() for run in runs):
            self._add_token(joined, 5)


_TRANSLITERATION = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "oe"}
)


def scrub(text: str, known: Identifiers = NOTHING_KNOWN) -> str:
    """`text` with every identifying value of `known` and everything of an identifying shape replaced by MARK."""
    text = normalized("NFC", text)
    spans: list[list[int]] = []  # merged where they touch, or where only a comma or the like is between
    for start, end in sorted([*pattern_spans(text), *_identifier_spans(text, known)]):
        if spans and (start <= spans[-1][1] or not text[spans[-1][1] : start].strip(" ,^-")):
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([start, end])
    out, position = [], 0
    for start, end in spans:
        out += [text[position:start], MARK]
        position = end
    return "".join(out) + text[position:]


def _identifier_spans(text: str, known: Identifiers) -> Iterator[tuple[int, int]]:
    if not (known.tokens or known.phrases or known.unspaced):
        return
    folded = fold(text)
    by_first: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for phrase in known.phrases:
        by_first[phrase[0]].append(phrase)
    matches = list(RUN.finditer(folded))
    runs = [_number(match[0]) for match in matches]
    for i, match in enumerate(matches):
        if match[0] in known.tokens or runs[i] in known.tokens:
            yield match.span()
        for phrase in by_first.get(runs[i], ()):
            last = i + len(phrase) - 1
            if tuple(runs[i : last + 1]) == phrase and all(
                matches[j + 1].start() - matches[j].end() <= _LONGEST_GAP for j in range(i, last)
            ):
                yield match.start(), matches[last].end()
    for word in known.unspaced:
        start = folded.find(word)
        while start >= 0:
            yield start, start + len(word)
            start = folded.find(word, start + 1)
