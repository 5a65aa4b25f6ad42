"""Numbers that identify a person: telephone, record, insurance and citizen numbers, UIDs, e-mail addresses.

The text is `letters.plain`: its digits are ASCII. Each pattern is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBERS = (
    r"(?<![\d.])\d+(?:\.\d+){4,}",  # UID
    # telephone: North American; with + or 00; with a leading 0 and nine digits or more; social security
    r"(?<![\d.])(?:\+?1[-. ])?(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}(?!\d)",
    r"(?<![\w.])(?:\+|00)[1-9]\d{0,2}(?:[ ./()-]{0,2}\d){7,13}(?!\d)",
    r"(?<![\d.,/-])(?=(?:[ ()-]{0,2}\d){9})\(?0\d{1,4}\)?(?:[ -]\d{2,4}){2,4}(?!\d|[.,]\d)",
    r"(?<![\d.,/-])0\d{2,4}[ /-]\d{5,8}(?!\d)",
    r"(?<![\d.])1[3-9]\d[ -]\d{4}[ -]\d{4}(?!\d)",  # Chinese mobile
    r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])",
    # citizens: Chinese (18, the last may be X), Korean, Brazilian, Danish and Swedish, Japanese, British health service
    r"(?<![\d.])\d{17}[\dXx](?!\d)",
    r"(?<![\d.-])\d{6}[-+]\d{4}(?:\d{3})?(?![\d-])",
    r"(?<![\d.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)",
    r"(?<![\d.-])\d{4}[ -]\d{4}[ -]\d{4}(?:[ -]\d{4})?(?![\d-]|\.\d)",
    r"(?<![\d.])\d{3} \d{3} \d{4}(?!\d|\.\d)",
    # a long number, with up to four letters before it: A1234567, MPX1009 has its own file's tags
    r"(?<![^\W_])(?<!\d[.,])[A-Za-z]{0,4}-?\d{6,}(?![^\W_])(?!\.\d)",
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+")
_FISCAL_CODE = re.compile(r"\b[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]\b")

# What can stand between a label and its number: "MRN: ", "Pat.-Nr.", "ID #".
_TO_NUMBER = r"\s?[:#=_-]?\s?#?"
_LABELS = (
    # unmistakable, so that nothing needs to be between: MRN12345
    r"(?i:(?<![^\W\d_])(?:mrn|pid|patid|upi|nhc|ipp|bsn|ssn|hkid|dni|cpf))\.?"
    + _TO_NUMBER
    + r"(\d[\d/.-]{2,}\d|\d{3,})",
    r"(?i:\b(?:mrn|pid|patient[ -]?(?:id|no|number|nr)|acc(?:ession)?(?:[ -]?(?:no|number|nr|id))?|record (?:no|number)"
    r"|nhs(?: (?:no|number))?|ssn|id|pat[.-]{1,2}\s?(?:nr|id)|patientennummer|fall[ .-]{0,2}(?:nr|nummer)|hosp(?:ital)?"
    r"[ .]?(?:no|number|id)|n[°ºo] (?:de )?(?:dossier|patient|historia)|historia(?: cl[ií]nica)?|prontu[aá]rio|cartella"
    r"|case (?:no|number)|chart (?:no|number)|visit (?:no|number))\b\.?"
    + _TO_NUMBER
    + r")([A-Za-z]{0,6}[-/]?\d[\w/-]{2,})",
    r"(?i:\b(?:tel|telephone|phone|fax|pager|mobile|mob|cell|telefon|handy|téléphone|portable|tél|teléfono|telefone|móvil"
    r"|telefono|cellulare|тел|τηλ)\b\.?\s?[:#]?\s?)(\(?\+?\d(?:[ ./()-]{0,2}\d){3,})",
    r"(?:电话|電話|手机|手機|联系方式|携帯|전화|연락처|โทร|هاتف|تلفن|טל)"
    r"\S{0,3}?\s?[:：]?\s?(\(?\+?\d(?:[ ./()-]{0,2}\d){3,})",
    r"(?:病历号|病歷號|住院号|住院號|门诊号|門診號|检查号|影像号|身份证号?|身分證|患者番号|患者ID|診察券番号|등록번호|환자번호|차트번호"
    r"|رقم الملف|رقم المريض|מספר זהות|ת\.ז\.?|история болезни|номер карты|№)"
    r"\s?[:：#]?\s?([A-Za-z]{0,6}-?\d[\w/-]{2,})",
    r"(?i:(?<![^\W\d_])(?:born(?: on| in)?|dob|d\.o\.b\.|date of birth|birth ?date|geb(?:oren)?\.?(?: am)?|geburtsdatum"
    r"|née? le|nacid[oa] el|fecha de nacimiento|nat[oa] il|data di nascita|nascid[oa] em|data de nascimento|geboren op"
    r"|född|født|д\.р\.|дата рождения|г\.р\.)\s?[:=]?\s?)(\d[\d./-]{1,9}\d|\d{1,2} [^\W\d_]{3,9} \d{2,4})",
)
_NUMBERS_RE = [re.compile(pattern) for pattern in _NUMBERS]
_LABELS_RE = [re.compile(pattern) for pattern in _LABELS]
_LETTERS = re.compile(r"[a-z]+")
# One of these is in every label that is written in ASCII.
_LABEL_WORDS = """
    mrn pid patid upi nhc ipp bsn ssn hkid dni cpf patient acc accession record nhs id pat patientennummer fall
    fallnummer fallnr hosp hospital n historia prontuario cartella case chart visit tel telephone phone fax pager mobile
    mob cell telefon handy portable telefono telefone cellulare born dob d date birth birthdate geb geboren geburtsdatum
    nee ne nacido nacida fecha nato nata data nascido nascida
"""
_IN_LABELS = frozenset(_LABEL_WORDS.split())
_SIX_DIGITS = re.compile(r"\d(?:[\s./()+-]{0,3}\d){5}")  # less than that no pattern without a label takes


def number_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of every identifying number in `text`, which contains a digit. Spans may overlap."""
    if _SIX_DIGITS.search(text):
        for pattern in _NUMBERS_RE:
            for match in pattern.finditer(text):
                yield match.span()
    if not (text.isascii() and _IN_LABELS.isdisjoint(_LETTERS.findall(text.lower()))):
        for pattern in _LABELS_RE:
            for match in pattern.finditer(text):
                yield match.span(1)
    for match in _FISCAL_CODE.finditer(text):
        yield match.span()


def email_spans(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield match.span()
