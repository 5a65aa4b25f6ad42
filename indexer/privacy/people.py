"""Names after a title, before a degree, or after "dictated by" and "name:", in many languages.

The words after a title count as a name while they are written like one: capitals if the script has them, particles (de
la, van der), initials; the name ends at an ordinary word. In scripts without capitals, one or two words count. Chinese,
Japanese and Korean titles follow the name, and there the name must begin with a frequent family name. Each pattern is
linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from indexer.privacy.letters import RUN, fold
from indexer.privacy.surnames import CHINESE_SURNAMES, EPONYMS, JAPANESE_SURNAMES, KOREAN_SURNAMES, NAMES
from indexer.privacy.words import NO_NAMES, ORDINARY_WORDS, PICTURED, POLARITY_WORDS

# ---- scripts with capitals

_UP = "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮİĴĶĹĻĽĿŁŃŅŇŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽƏƠƯȘȚẠ-ỸА-ЯЁЂЄЅІЇЈЉЊЋЌЎЏҐΑ-ΩΆΈΉΊΌΎΏԱ-Ֆ"
_PARTICLE = (
    r"(?:(?:de|del|della|di|da|do|dos|das|du|des|van|von|der|den|ter|ten|zu|zur|zum|la|le|los|las|el|al|bin|binti|ibn|ben"
    r"|af|av|e|y)\s){0,3}"
)
_NAME = rf"(?:[dlDLO]['’])?[{_UP}][^\W\d_]+(?:['’-][^\W\d_]+){{0,3}}"
_INITIALS = rf"(?:[{_UP}]\.\s?){{0,3}}"
_NAMES = rf"{_INITIALS}{_PARTICLE}{_NAME}(?:\s{{1,2}}{_INITIALS}{_PARTICLE}{_NAME}){{0,3}}(?:\s(?:[{_UP}]\.){{1,2}})?"
_TITLES = (
    r"Mr|Mrs|Ms|Miss|Mx|Dr|Doctor|Prof|Professor|Sir|Dame|Rev|Mister|Missus|Frau|Herrn?|Hr|Fräulein|PD(?=\s(?:Dr|Prof))|Mme|Mlle|Madame"
    r"|Monsieur|Mademoiselle|Docteure?|Dre|Pr|Professeure?|Sra?|Srta|Señora?|Señorita|Doña|Dra|Dña|Doctora?|Senhora?|Profa"
    r"|Sig|Signora?|Signorina|Dott|Dottore|Dottoressa|Mevr|Mevrouw|Mw|Dhr|Meneer|Fru|Frk|Fröken|Hra|Rva|Pani"
    r"|Paní|Slečna|Sayın|Bayan|MUDr|Domnul|Doamna|Bapak|Ibu|Encik|Puan|Gospodin|Gospođa|Gospa|Ông|Bà|Bác sĩ|Anh|Chị"
)
# "Pan" is Polish and Czech for Mr, and panoramic pictures begin with it too.
_PAN = rf"Pan(?=\s[{_UP}]\w+(?:ski|ska|cki|wicz|czyk|ak|ek|ik|yk|uk|ec|ný|ák)\b)"
_DOTTED_TITLES = "Fr|Ny|Tn|Nn|Dl|Dna|ThS|Uzm|Doc"  # other words without their dot
_MORE_TITLES = (
    r"(?:[Dd]r|[Pp]rof|PD|Priv|Doz|Mag|Dipl|Ing|Op|Uzm|med|dent|phil|nat|rer|habil|univ|h\.\s?c|vet|hum|sc|jur|scient|pharm|biol"
    r"|mult|em|dott|ra|na|ssa|asst|assoc|n)"
)
_TITLE = re.compile(
    rf"(?<![^\W_])(?:(?:{_TITLES}|{_PAN})\b\.?|(?:{_DOTTED_TITLES})\.)[ªºra]{{0,2}}(?:[\s-]?{_MORE_TITLES}\b\.?){{0,6}}\s{{0,3}}"
    rf"(?=({_NAMES}))"
)
_TITLE_WORDS = frozenset(fold(_TITLES).split("|")) | {"dr", "prof", "sra", "sr", "med"}
_PLURAL_TITLE = re.compile(
    rf"\b(?:Drs|Messrs|Profs|Mmes|MM(?=\.))\b\.?\s({_NAMES})(?:,\s({_NAMES}))?(?:,\s({_NAMES}))?(?:,?\s(?:and|et|&)\s({_NAMES}))?"
)
# M. Dupont; not a muscle, a microbe or a disease (M. supraspinatus, M. Crohn), nor an initial among initials
_MONSIEUR = re.compile(rf"(?<![\w.])(?<![A-Z]\.\s)M\.\s?({_NAMES})")
_LATIN_ENDING = re.compile(r"(?:us|is|ps|ae|ii|or|um|ens)$")

_SHORT_TITLES = "mr|mrs|ms|miss|dr|prof|herr|frau|mme|mlle|sra|dra"
_CAPITAL_TITLE = re.compile(
    rf"(?<![^\W_])({_SHORT_TITLES.upper()})\b\.?\s([A-Z]{{2,}}(?:['’-][A-Z]+)*)(?=((?:\s[A-Z]{{2,}}){{0,2}}))"
    rf"|(?<![^\W_])({_SHORT_TITLES})\b\.?\s([a-z]{{2,}}(?:['’-][a-z]+)*)(?=((?:\s[a-z]{{2,}}){{0,2}}))"
)
# After a colour or a size that is a name as well: MR WHITE MATTER, MR BLACK BLOOD, DR LONG LEG
_PICTURED_AFTER_NAME = PICTURED | NO_NAMES | {"matter", "blood", "body", "bones", "vessel", "vessels", "view", "field"}
_MODALITY_TITLES = {"MR", "MRS", "DR", "MS"}  # MRS: spectroscopy

_SURE_DEGREE = (
    r"M\.?D|Ph\.?D|D\.O|FRCR|FRCPC?|FACR|FACC|MBBS|MBChB|MRCP|MRCS|FRCS|FRANZCR|D\.?D\.?S|DMD|R\.N|RT\(R\)|RDMS"
)
_DEGREE_AFTER_COMMA = r"RN|NP|DO|PA-C|MPH|M\.?Sc[A-Z]?|B\.?Sc[A-Z]?|DVM|PharmD|CNP|RT"
_DEGREE = re.compile(
    rf"(?:(,)\s(?:{_SURE_DEGREE}|{_DEGREE_AFTER_COMMA})|\s(?:{_SURE_DEGREE}))\b\.?"
    rf"(?:,?\s(?:{_SURE_DEGREE}|{_DEGREE_AFTER_COMMA})\b\.?){{0,4}}"
)
_BEFORE_DEGREE = re.compile(rf"(?:(?:[{_UP}]\.|{_NAME}|de|la|van|der|von)\s){{0,3}}{_NAME}$")
_LONGEST_BEFORE_DEGREE = 80  # characters

_BY = re.compile(
    r"(?i:(?<![^\W_])(?:dictated|signed|transcribed|reported|read|verified|approved|referred|reviewed|performed|interpreted"
    r"|authored|attested|requested|ordered) by\b\s?:?\s?"
    r"|\b(?:befundet|gezeichnet|diktiert|freigegeben|überwiesen|validé|signé|dicté|rédigé|firmado|informado|validado|solicitado"
    r"|assinado|laudado|firmato|refertato|beoordeeld) (?:von|durch|par|por|da|door)\b\s?:?\s?"
    r"|(?:^|[\n.;,|(])\s?(?:name|nom|nombre|nome|naam|namn|navn|patient|paciente|paziente|patientin|nazwisko|jméno"
    r"|ad soyad|фио|пациент|пациентка|όνομα|ονοματεπώνυμο)\s?:\s?"
    r"|\b(?:patient(?:'s)? name|name of (?:the )?patient|(?:referring|attending|requesting|ordering) "
    r"(?:doctor|physician)"
    r"|radiologist|physician|surgeon|referrer|patientenname|radiologe|überweiser|médecin|radiologue|prescripteur|médico"
    r"|radiólogo|medico|radiologo|arts|lekarz|врач|рентгенолог|ιατρός)\s?[:=]\s?)"
    rf"((?:(?:[{_UP}]\.|Dr\.?|{_NAME})[ ,]{{1,2}}){{0,3}}{_NAME})"
)
_BY_SIGN = re.compile(
    r"(?i)(?:[dt]|en|é) by\b|(?:tet|net|iert|ben|sen|é|[aiu]do|[ai]to|deeld) (?:von|durch|par|por|da|door)\b|[:=]"
)

_CYRILLIC_TITLE = re.compile(
    r"(?i:(?<![^\W_])(?:г-н[ау]?|г-ж[аеиу]|господин[ау]?|госпож[аеиу]|д-ра?|доктор[ау]?|проф\.|профессор[ау]?|врач[ау]?"
    r"|пациент(?:к[аиеу]|а|у)?|больн(?:ой|ая|ого)|гр\.|гр-н|гр-ка|пан[аіу]?|пані|лікар[яю]?|гражданин|гражданка"
    r"|κος|κα|κύριος|κυρία|κ\.|δρ\.?|καθ\.|դոկտոր|պարոն|տիկին))\s{1,2}"
    rf"({_NAMES}|{_NAME}\s(?:[{_UP}]\.\s?){{1,2}})"
)
_CYRILLIC_INITIALS = re.compile(r"(?<![^\W_])[А-ЯЁІЇЄҐ][а-яёіїєґ']{2,}\s[А-ЯЁІЇЄҐ]\.\s?[А-ЯЁІЇЄҐ]\.")

# ---- scripts without capitals: one or two words after a title

_WORDS_OF = r"({word}(?:\s{word})?)"
_ARABIC_WORD, _HEBREW_WORD, _INDIC_WORD = (
    r"[\u0621-\u06d3\u064b-\u0652]{2,20}",
    r"[א-ת'׳\"״-]{2,20}",
    r"[\u0900-\u0dff]{2,30}",
)
_ARABIC_TITLE = re.compile(
    r"(?<![^\W_])[وبلف]?(?:(?:السيدة?|الآنسة|الدكتورة?|دكتورة?|الأستاذة?|الحاجة?|الطبيبة?|آقای|خانم|دکتر|جناب|محترمہ?|ڈاکٹر)\s{1,2}|د\.\s?"
    rf"|(?:اسم المريضة?|الاسم|نام بیمار|نام)\s?[:：]\s?){_WORDS_OF.format(word=_ARABIC_WORD)}"
)
_HEBREW_TITLE = re.compile(
    r"(?<![^\W_])(?:(?:מר|גב['׳]|גברת|ד[\"״]ר|דר['׳]|פרופ['׳]?|פרופסור|הרב)\s{1,2}|(?:שם המטופלת?|שם)\s?:\s?)"
    + _WORDS_OF.format(word=_HEBREW_WORD)
)
_INDIC_TITLE = re.compile(
    r"(?<![^\W_])(?:(?:श्रीमती|श्री|सुश्री|कुमारी|डॉक्टर|डॉ\.?|डा\.|जनाब|জনাব|বেগম|ডাক্তার|ডাঃ|ডা\.|ড\.|শ্রী|শ্রীমতী|মিঃ|মিসেস|திரு\.?|திருமதி\.?"
    r"|செல்வி|டாக்டர்|శ్రీమతి|శ్రీ|డాక్టర్|డా\.|ಶ್ರೀ|ಡಾ\.|ശ്രീ|ഡോ\.|શ્રી|ડૉ\.|ਸ਼੍ਰੀ|ਡਾ\.)\s{0,2}|(?:रोगी का नाम|नाम|নাম|பெயர்)\s?:\s?)"
    + _WORDS_OF.format(word=_INDIC_WORD)
)
_THAI, _LAO, _KHMER, _BURMESE = (
    r"[\u0e01-\u0e4e]",
    r"[\u0e81-\u0ece]",
    r"[\u1780-\u17d3]",
    r"[\u1000-\u1049\u1050-\u109f]",
)
_UNSPACED_TITLES = tuple(
    re.compile(rf"(?:(?<!{letter})|(?<=ผู้ป่วย)|(?<=คนไข้))(?:{titles})\s?({letter}{{2,24}}(?:\s{letter}{{2,24}})?)")
    for letter, titles in (
        (
            _THAI,
            r"นางสาว|น\.ส\.|นายแพทย์|แพทย์หญิง|นาย(?!แพทย์)|นาง(?!สาว|พยาบาล)|คุณ(?!ภาพ|สมบัติ)|ด\.ช\.|ด\.ญ\.|เด็กชาย|เด็กหญิง|นพ\.|พญ\.|ดร\.|รศ\."
            r"|ผศ\.|ศ\.|อาจารย์|หมอ|ชื่อ(?:-สกุล|ผู้ป่วย)?\s?:",
        ),
        (_LAO, r"ທ້າວ|ນາງສາວ|ນາງ(?!ສາວ|ພະຍາບານ)|ທ່ານໝໍ|ທ່ານ(?!ໝໍ)|ດຣ\.?|ຊື່\s?:"),
        (_KHMER, r"លោកស្រី|លោកវេជ្ជបណ្ឌិត|លោក(?!ស្រី|វេជ្ជ)|អ្នកស្រី|កញ្ញា|វេជ្ជបណ្ឌិត|ឈ្មោះ\s?[:៖]"),
        (_BURMESE, r"ဦး(?!ခေါင်း|နှောက်)|ဒေါ်|ဒေါက်တာ|မောင်|အမည်\s?[:−-]"),
    )
)
# Words that are not part of a name: negations, sides, and words with which a sentence about a patient continues.
_NO_NAMES_AFTER_TITLE = POLARITY_WORDS | frozenset(
    [
        "في",
        "من",
        "على",
        "عن",
        "مع",
        "الى",
        "يعاني",
        "تعاني",
        "لديه",
        "لديها",
        "يشكو",
        "تشكو",
        "فحص",
        "صورة",
        "اشعة",
        "الصدر",
        "البطن",
        "الراس",
        "عمره",
        "عمرها",
        "مريض",
        "را",
        "در",
        "از",
        "با",
        "به",
        "است",
        "של",
        "את",
        "עם",
        "בן",
        "בת",
        "סובל",
        "סובלת",
        "הגיע",
        "צילום",
        "ריאות",
        "חזה",
        "בטן",
        "ראש",
        "ליד",
        "को",
        "का",
        "की",
        "के",
        "है",
        "में",
        "से",
        "ने",
        "और",
        "छाती",
        "सिर",
        "पेट",
        "জ্বর",
        "বুকের",
        "পেটের",
        "এর",
        "কে",
    ]
)
_SENTENCE_GOES_ON = (
    "ไม่", "มี", "ปวด", "ตรวจ", "พบ", "ปอด", "ซ้าย", "ขวา", "อายุ", "เข้า", "มา", "ถูก", "ได้",
    "ทรวง", "ศีรษะ", "ช่อง", "เพศ", "บน", "ล่าง", "ບໍ່", "ມີ", "ເຈັບ", "ຊ້າຍ", "ຂວາ", "ອາຍຸ", "ປອດ",
    "មិន", "គ្មាន", "មាន", "ឈឺ", "ឆ្វេង", "ស្តាំ", "អាយុ", "သွေး", "မရှိ", "ဘယ်", "ညာ",
)  # fmt: skip

# ---- titles that follow the name

_HAN = r"[\u4e00-\u9fff々]"
_AFTER_NAME = (
    re.compile(
        rf"(?<![主责任])((?!高年资|任何){CHINESE_SURNAMES}{_HAN}{{0,2}}?)(?=\s?(?:先生|女士|小姐|太太|老师|医生|醫生|医师|醫師|大夫|教授|主任|护士|護士))"
    ),
    re.compile(
        rf"((?:{JAPANESE_SURNAMES})[\s\u3000]?[\u4e00-\u9fff々\u3041-\u30ff]{{0,4}}?)"
        r"(?=[\s\u3000]?(?:様|さん|さま|氏|殿|先生|医師|教授|技師|ドクター))"
    ),
    re.compile(
        rf"(?<![가-힣])((?!주치의|고객|보호자)(?:{KOREAN_SURNAMES})[가-힣]{{1,2}})(?=\s?(?:씨|선생|교수|박사|님))"
        rf"|(?<![가-힣])((?:{KOREAN_SURNAMES}))(?=\s(?:선생|교수|박사|원장|과장|씨|님))"
    ),
)
_EAST_ASIAN_LABEL = re.compile(
    r"(?:患者姓名|病人姓名|姓名|患者名|病人名?|患者|氏名|医師名?|报告医师|报告医生|審核醫師|审核医师|检查医师|主治医师|申请医师|担当医|読影医|성명|환자명|이름|환자"
    r"|판독의|의뢰의)\s?[:：]\s?((?:[\u3400-\u9fff々]{1,2}[\s\u3000・](?!胸|腹|头|頭|脑|脳|颈|頸|骨|肺|肝|心|CT)[\u3400-\u9fff々]{1,3}(?![\u3400-\u9fff]))"
    r"|[\u3041-\u30ff\u3400-\u9fff々]{2,6}|[가-힣]{2,5}"
    rf"|{_NAME}(?:\s{_NAME})?)"
)

_BEYOND_LATIN = re.compile("[\u0370-\uffff]")


def people_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of every name beside a title, a degree or a label. Spans may overlap."""
    for match in _TITLE.finditer(text):
        if not (match[0].startswith(("Dr ", "Mr ")) and fold(match[1].split()[0]) in PICTURED):
            yield from _names(text, *match.span(1))
    for match in _MONSIEUR.finditer(text):
        if _is_a_person(match[1]):
            yield from _names(text, *match.span(1))
    for match in _PLURAL_TITLE.finditer(text):
        for group in range(1, 5):
            if match[group] and not _is_ordinary(match[group].split()[0]):
                yield from _names(text, *match.span(group))
    for match in _CAPITAL_TITLE.finditer(text):
        yield from _after_capital_title(match)
    yield from _before_degrees(text)
    if _BY_SIGN.search(text):
        for match in _BY.finditer(text):
            if not NO_NAMES.issuperset(RUN.findall(match[1].lower())):  # "read by CT"
                yield match.span(1)
    if not text.isascii() and _BEYOND_LATIN.search(text):
        yield from _beyond_latin(text)


def _is_ordinary(word: str) -> bool:
    folded = fold(word)
    return folded in ORDINARY_WORDS or folded in NO_NAMES


def _names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the first name and the words that continue it: "Dr. Smith Chest CT" has one."""
    first: str | None = None
    stop = start
    for match in RUN.finditer(text, start, end):
        word = match[0]
        if first is not None and len(word) > 1 and text[match.start() - 1] not in "'’-":
            acronym = word.isupper() and len(word) < 4 and not first.isupper()
            if acronym or (word[0].isupper() and (_is_ordinary(word) or fold(word) in _TITLE_WORDS)):
                break
        if word[0].isupper() or text[match.start() - 1] in "'’-":  # not after a particle without a name
            stop = match.end()
            first = first or (word if len(word) > 1 else None)
        if len(word) == 1 and text[stop : stop + 1] == "." and stop < end:
            stop += 1
    if stop > start:
        yield start, stop


def _is_a_person(names: str) -> bool:
    first = fold(names.split()[0])
    return not (_LATIN_ENDING.search(first) or first in EPONYMS or _is_ordinary(first) or names.isupper())


def _after_capital_title(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Match MR BROWN, but not MR BRAIN, MR WHITE MATTER or DR CHEST: capitals alone don't tell a title from a
    modality.
    """
    first = 1 if match[1] else 4
    title, name, more = match[first], match[first + 1].lower(), match[first + 2].lower().split()
    known = name in NAMES or RUN.findall(name)[-1] in NAMES
    if not known and (title in _MODALITY_TITLES or title.islower() or _is_ordinary(name)):
        return
    if known and _is_ordinary(name) and more and more[0] in _PICTURED_AFTER_NAME:
        return
    end = match.end(first + 1)
    for word in more:
        if word not in NAMES or word in PICTURED:
            break
        end += 1 + len(word)
    yield match.start(first + 1), end


def _before_degrees(text: str) -> Iterator[tuple[int, int]]:
    """Match Peter Parker, MD; not MD Anderson, nor a table of FA, MD."""
    for match in _DEGREE.finditer(text):
        start = max(0, match.start() - _LONGEST_BEFORE_DEGREE)
        found = _BEFORE_DEGREE.search(text[start : match.start()])
        if not found:
            continue
        words = list(RUN.finditer(found[0]))
        while words and _is_ordinary(words[0][0]) and len(words[0][0]) > 1:
            del words[0]
        telling = [word[0] for word in words if len(word[0]) > 2 and not _is_ordinary(word[0])]
        known = any(word.lower() in NAMES for word in telling)  # John Public
        if (
            not telling
            or (_is_ordinary(words[-1][0]) and not known)
            or all(len(word) < 5 and word.isupper() for word in telling)
        ):
            continue
        if len(words) > 1 or match[1]:
            yield start + found.start() + words[0].start(), match.start()


def _beyond_latin(text: str) -> Iterator[tuple[int, int]]:
    for match in _CYRILLIC_TITLE.finditer(text):
        yield from _names(text, *match.span(1))
    for match in _CYRILLIC_INITIALS.finditer(text):
        yield match.span()
    for pattern in (_ARABIC_TITLE, _HEBREW_TITLE, _INDIC_TITLE):
        for match in pattern.finditer(text):
            yield from _up_to(match, lambda word: fold(word) in _NO_NAMES_AFTER_TITLE)
    for pattern in _UNSPACED_TITLES:
        for match in pattern.finditer(text):
            yield from _up_to(match, lambda word: word.startswith(_SENTENCE_GOES_ON))
    for pattern in _AFTER_NAME:
        for match in pattern.finditer(text):
            yield match.span(match.lastindex or 0)
    for match in _EAST_ASIAN_LABEL.finditer(text):
        yield match.span(1)


def _up_to(match: re.Match[str], goes_on: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Return the words of a name, up to the first word that continues the sentence."""
    start = end = match.start(1)
    for word in re.finditer(r"\S+", match[1]):
        if goes_on(word[0]) if end > start else fold(word[0]) in _NO_NAMES_AFTER_TITLE:
            break
        end = match.start(1) + word.end()
    if end > start:
        yield start, end
