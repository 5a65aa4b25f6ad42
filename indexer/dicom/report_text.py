"""The text of a report: structured reports and encapsulated PDF.

A structured report is a tree of content items (PS3.3 C.17.3). The walk is iterative and in reading order; it takes
TEXT, the meaning of CODE and NUM with its unit, under the headings of the sections. Left out: names (PNAME), UIDs,
dates, times, references and coordinates, and whole branches that say who observed and how it was acquired
(HAS OBS CONTEXT, HAS ACQ CONTEXT, HAS CONCEPT MOD).

The text is not scrubbed here: `indexer.dicom.header` does that with the same file's identifying values.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from pydicom.dataset import Dataset

from indexer.dicom.values import MalformedValue, clean, quiet, read_items, read_text, read_value
from retrieval.language.sentences import SECTION
from retrieval.optional import missing

MAX_ITEMS = 50_000  # content items of one report
MAX_CHARACTERS = 200_000  # of one report
MAX_PDF_BYTES = 64 * 2**20
MAX_PDF_PAGES = 100

Warn = Callable[[str], None]

_CONTEXT = {"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"}
_SAYS_NOTHING = {"code", "comment", "description", "document title", "num code", "section heading", "text", "text code"}
_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"


def _ignore(_: str) -> None:
    pass


def report_text(ds: Dataset, *, warn: Warn = _ignore) -> str:
    """Return the report's text, not scrubbed: one line per item, a heading ("Findings:") on its own line; "" if none.

    Never raises for broken content: what can't be read is reported to `warn`, in a sentence without any of the content.
    """
    text = _pdf_text(ds, warn) if read_text(ds, "SOPClassUID") == _PDF_CLASS else _content_text(ds, warn)
    if len(text) > MAX_CHARACTERS:
        warn(f"the report has {len(text)} characters; the first {MAX_CHARACTERS} are kept")
        text = text[:MAX_CHARACTERS]
    return text


def _content_text(ds: Dataset, warn: Warn) -> str:
    lines: list[str] = []
    heading = pending = ""  # a container's heading waits for content, because most containers of measurements have none
    stack = _children(ds, warn)[::-1]
    seen = 0
    while stack:
        item = stack.pop()
        seen += 1
        if seen > MAX_ITEMS:
            warn(f"the report has more than {MAX_ITEMS} content items; the rest is left out")
            break
        if read_text(item, "RelationshipType").upper() in _CONTEXT:
            continue
        value_type = read_text(item, "ValueType").upper()
        concept = _meaning(item, "ConceptNameCodeSequence")
        concept = "" if concept.lower() in _SAYS_NOTHING else concept
        content = _content(item, value_type)
        is_section = value_type == "CONTAINER" or (value_type == "TEXT" and SECTION.fullmatch(concept))
        if is_section and concept and concept != heading:
            pending = heading = concept
        if content:
            if pending:
                lines.append(f"{pending}:")
                pending = ""
            lines.append(content if is_section or not concept else f"{concept}: {content}")
        stack += _children(item, warn)[::-1]
    return "\n".join(lines)


def _children(item: Dataset, warn: Warn) -> list[Dataset]:
    try:
        return read_items(item, "ContentSequence")
    except MalformedValue:
        warn("(0040,a730) ContentSequence could not be read; part of the report's text is missing")
        return []


def _content(item: Dataset, value_type: str) -> str:
    match value_type:
        case "TEXT":
            return "\n".join(filter(None, map(str.strip, read_text(item, "TextValue").split("\n"))))
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            measured = _first(item, "MeasuredValueSequence")
            value = read_text(measured, "NumericValue") if measured is not None else ""
            unit = _first(measured, "MeasurementUnitsCodeSequence") if measured is not None else None
            return f"{value} {_unit(unit)}".strip() if value else ""
        case _:
            return ""


def _unit(code: Dataset | None) -> str:
    """The UCUM code (mm, cm2), or the meaning where the code is a number or in brackets ([hnsf'U])."""
    if code is None:
        return ""
    value = read_text(code, "CodeValue")
    return read_text(code, "CodeMeaning") if not value or not value[0].isalpha() else value


def _meaning(item: Dataset, keyword: str) -> str:
    code = _first(item, keyword)
    return " ".join(read_text(code, "CodeMeaning").split()) if code is not None else ""


def _first(item: Dataset, keyword: str) -> Dataset | None:
    try:
        return next(iter(read_items(item, keyword)), None)
    except MalformedValue:
        return None


def _pdf_text(ds: Dataset, warn: Warn) -> str:
    absent = missing("pypdf", "the text of an encapsulated PDF")
    if absent is not None:
        warn(f"{absent}. {absent.hint}")
        return ""
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    try:
        document = read_value(ds, "EncapsulatedDocument")
    except MalformedValue:
        document = None
    if not isinstance(document, bytes) or not document:
        warn("(0042,0011) EncapsulatedDocument is missing or malformed; the report has no text")
        return ""
    if len(document) > MAX_PDF_BYTES:
        warn(f"the PDF has {len(document)} bytes, more than {MAX_PDF_BYTES}; its text is left out")
        return ""
    pages: list[str] = []
    try:
        with quiet("pypdf"):
            reader = pypdf.PdfReader(io.BytesIO(document))
            if len(reader.pages) > MAX_PDF_PAGES:
                warn(f"the PDF has {len(reader.pages)} pages; the first {MAX_PDF_PAGES} are read")
            for number in range(min(len(reader.pages), MAX_PDF_PAGES)):
                pages.append(reader.pages[number].extract_text())
    # pypdf raises what its parsing runs into, not only its own errors
    except (
        ArithmeticError, AssertionError, AttributeError, DependencyError, EOFError, LookupError, NotImplementedError,
        OSError, PyPdfError, RecursionError, TypeError, ValueError,
    ) as exc:  # fmt: skip
        warn(f"the PDF could not be read to its end ({type(exc).__name__}); {len(pages)} pages were read")
    text = clean("\n\n".join(pages)).translate(_LIGATURES)
    if pages and not text:
        warn("the PDF has no text that can be searched, only pictures of text")
    return re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)  # effu-\nsion


_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "\u00ad": "", "\u00a0": " "})
