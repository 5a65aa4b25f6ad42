"""Measure what the scrubber cuts, over invented identities, and write the tables of docs/privacy.md.

python tests/privacy_table.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from indexer.dicom.values import clean  # noqa: E402
from indexer.privacy.identity import Identity, forms_of  # noqa: E402
from indexer.privacy.scrub import MARK, scrub  # noqa: E402

PAGE = ROOT / "docs" / "privacy.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

# Four family and four given names make sixteen invented people a script.
PEOPLE = {
    "Latin": ("Hartwell Quennell Okafor Lindqvist", "Margaret Tobias Ngozi Astrid", "utf-8"),
    "accented": ("Müller Lefèvre Núñez Łukasiewicz", "Jörg Hélène Begoña Żaneta", "latin-1 iso8859_2"),
    "Cyrillic": ("Кузнецов Мельник Орлов Шевченко", "Пётр Оксана Дмитрий Людмила", "cp1251 koi8_r iso8859_5"),
    "Greek": ("Παπαδόπουλος Καραγιάννης Νικολάου Βασιλείου", "Γιώργος Ελένη Δημήτρης Σοφία", "iso8859_7"),
    "Hebrew": ("כהן לוי מזרחי פרידמן", "משה שרה יצחק רבקה", "iso8859_8"),
    "Arabic": ("الحسيني منصور قاسم درويش", "أحمد فاطمة سامي زينب", "iso8859_6 cp1256"),
    "Devanagari": ("शर्मा वर्मा पटेल चौधरी", "राजेश सुनीता विकास कमला", ""),
    "Thai": ("ใจดี แก้วมณี สุขสวัสดิ์ ทองคำ", "สมศักดิ์ มาลีรัตน์ วิชัย อรุณี", "cp874"),
    "Lao": ("ສີສະຫວາດ ພົມມະຈັນ ວົງສະຫວັນ ໄຊຍະ", "ສົມບັດ ແກ້ວມະນີ ບຸນມີ ຄຳພອນ", ""),
    "Khmer": ("សុខា ចន្ទ្រា វិបុល គឹមសាន", "ចាន់ថា សុភា ដារ៉ា មករារ៉ា", ""),
    "Burmese": ("အောင်မြင့် ခင်ဇော် ထွန်းလင်း စိုးမိုး", "မင်းသူ သီတာ ကျော်စွာ နန္ဒာ", ""),
    "Han": ("王 陈 欧阳 林", "小明 丽华 志强 晓雨", "gb18030 big5"),
    "Kana": ("ヤマダ スズキ タナカ サトウ", "タロウ ハナコ ケンイチ ユミコ", "cp932 euc_jp"),
    "Hangul": ("김 이 박 남궁", "철수 영희 민준 서연", "cp949"),
}
UNSPACED = {"Thai", "Lao", "Khmer", "Burmese", "Han", "Kana", "Hangul"}
CASELESS = UNSPACED | {"Hebrew", "Arabic", "Devanagari"}
TITLES = {
    "Latin": "Mrs {}", "accented": "Frau {}", "Cyrillic": "доктор {}", "Greek": "κ. {}", "Hebrew": "גברת {}",
    "Arabic": "الدكتور {}", "Devanagari": "श्री {}", "Thai": "นาย{}", "Lao": "ທ້າວ {}", "Khmer": "លោក {}",
    "Burmese": "ဒေါ် {}", "Han": "{}先生", "Kana": "{}様", "Hangul": "{} 님",
}  # fmt: skip
BEFORE, AFTER = "CT thorax: ", " 12 mm, no effusion on the left."


@dataclass(frozen=True)
class Person:
    script: str
    family: str
    given: str
    number: int

    @property
    def identity(self) -> Identity:
        return Identity(
            names=(f"{self.family}^{self.given}",), numbers=(self.patient_id,), dates=("".join(self.birth_date),)
        )

    @property
    def patient_id(self) -> str:
        return f"{4711000 + 137 * self.number}"[: 5 + self.number % 3]

    @property
    def birth_date(self) -> tuple[str, str, str]:
        return f"{1931 + self.number % 70}", f"{1 + self.number % 12:02d}", f"{13 + self.number % 16:02d}"


def people() -> Iterator[Person]:
    number = 0
    for script, (families, given_names, _) in PEOPLE.items():
        for family, given in product(families.split(), given_names.split()):
            yield Person(script, family, given, number)
            number += 1


Form = Callable[[Person], list[str]]

NAMES: dict[str, Form] = {
    "family^given": lambda p: [f"{p.family}^{p.given}"],
    "Family, Given": lambda p: [f"{p.family}, {p.given}"],
    "Given Family": lambda p: [f"{p.given} {p.family}"],
    "FAMILY GIVEN": lambda p: [] if p.script in CASELESS else [f"{p.family} {p.given}".upper()],
    "GivenFamily": lambda p: [p.given + p.family],
    "inside a word": lambda p: (
        [f"CT{p.given}{p.family}"] if p.script in ("Latin", "accented") else []
    ) + ([f"胸部{p.family}{p.given}胸部"] if p.script in ("Han", "Kana") else []),
    "G. Family": lambda p: [] if p.script in CASELESS else [f"{p.given[0]}. {p.family}"],
    "Family G": lambda p: [] if p.script in CASELESS else [f"{p.family} {p.given[0]}"],
    "G.F.": lambda p: [] if p.script in CASELESS else [f"{p.given[0]}.{p.family[0]}."],
    "family alone": lambda p: [p.family],
    "given alone": lambda p: [p.given],
    "after its title": lambda p: [TITLES[p.script].format(p.family)],
    "without accents": lambda p: [_without_accents(p)] if p.script == "accented" else [],
    "misread": lambda p: list(_misread(p)),
}  # fmt: skip

VALUES: dict[str, Form] = {
    "ID": lambda p: [p.patient_id],
    "prefixed ID: MRN…, P…, #…": lambda p: [f"{prefix}{p.patient_id}" for prefix in ("MRN", "P", "#", "ID: ")],
    "birth date in numbers": lambda p: _in_numbers(*p.birth_date),
    "birth date with a month's name": lambda p: _in_words(*p.birth_date),
    "birth date in Asian writing": lambda p: _in_asian_writing(*p.birth_date),
    "birth date in Arabic and Thai digits": lambda p: _in_other_digits(*p.birth_date),
    "birth date in other calendars": lambda p: _in_other_calendars(*p.birth_date),
    "year of birth alone": lambda p: [p.birth_date[0]],
}

_MONTHS = {
    "English": "January February March April May June July August September October November December",
    "French": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "German": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "Spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "Russian": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "Polish": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
    "Turkish": "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
    "Arabic": "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
}


def _in_numbers(year: str, month: str, day: str) -> list[str]:
    dotted = [sign.join(order) for sign in ".-/" for order in ((day, month, year), (year, month, day))]
    return [*dotted, f"{month}/{day}/{year}", f"{day}.{month}.{year[2:]}", year + month + day, day + month + year]


def _in_words(year: str, month: str, day: str) -> list[str]:
    words = [f"{day} {names.split()[int(month) - 1]} {year}" for names in _MONTHS.values()]
    english = _MONTHS["English"].split()[int(month) - 1]
    return [*words, f"{english} {int(day)}, {year}", f"{day}{english[:3].upper()}{year}", f"{day}-{english[:3]}-{year}"]


def _in_asian_writing(year: str, month: str, day: str) -> list[str]:
    era, first = ("昭和", 1925) if int(year) < 1989 else ("平成", 1988)
    return [
        f"{year}年{int(month)}月{int(day)}日",
        f"{era}{int(year) - first}年{int(month)}月{int(day)}日",
        f"{year}년 {int(month)}월 {int(day)}일",
        f"{year}. {int(month)}. {int(day)}.",
        f"ngày {int(day)} tháng {int(month)} năm {year}",
    ]


def _in_other_digits(year: str, month: str, day: str) -> list[str]:
    written = f"{day}/{month}/{year}"
    return [
        written.translate({ord(str(i)): chr(zero + i) for i in range(10)}) for zero in (0x660, 0x6F0, 0xE50, 0xFF10)
    ]


def _in_other_calendars(year: str, month: str, day: str) -> list[str]:
    return [f"{day}/{month}/{int(year) + 543}", f"民國{int(year) - 1911}年{int(month)}月{int(day)}日"]


def _without_accents(p: Person) -> str:
    plain = str.maketrans("üèéñŁöżŻ", "ueenLozZ")
    return f"{p.given} {p.family}".translate(plain)


def _misread(p: Person) -> Iterator[str]:
    """The name in UTF-8 and in its script's own character sets, read as another."""
    written = f"{p.family}{'' if p.script in UNSPACED else ' '}{p.given}"
    for written_as in ("utf-8", *PEOPLE[p.script][2].split()):
        for read_as in ("latin-1", "cp1252", "utf-8", "gb18030", "big5", "cp932", "cp949"):
            try:
                misread = clean(written.encode(written_as).decode(read_as, "replace"))
            except UnicodeEncodeError:
                continue
            if misread != written and any(c.isalpha() for c in misread.replace("\ufffd", "")):
                yield misread


def is_cut(written: str, identity: Identity) -> bool:
    """Nothing is left of what was written but a title or a label, and everything around it stays."""
    out = scrub(f"{BEFORE}{written}{AFTER}", forms_of(identity))
    if not (out.startswith(BEFORE) and out.endswith(AFTER)):
        return False
    rest = out[len(BEFORE) : len(out) - len(AFTER)]
    return MARK in rest and not _left_of(written, rest.replace("\ufffd", " "))


def _left_of(written: str, rest: str) -> bool:
    """Whether two or more letters or digits of what identifies are left."""
    for title in TITLES.values():
        rest = rest.replace(title.format("").strip(), "")
    for label in ("MRN", "ID", "CT", "胸部", "생", MARK):
        rest = rest.replace(label, "")
    return sum(c.isalnum() for c in rest) > 1


def measure(forms: dict[str, Form], group: Callable[[Person], str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Cut and tried, by form and group."""
    table: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in forms}
    for person in people():
        for name, form in forms.items():
            for written in form(person):
                cut, tried = table[name].get(group(person), (0, 0))
                table[name][group(person)] = cut + is_cut(written, person.identity), tried + 1
    return table


def _cell(counted: tuple[int, int] | None) -> str:
    if counted is None:
        return ""
    cut, tried = counted
    return "cut" if cut == tried else "kept" if not cut else f"{100 * cut // tried} %"


def tables() -> str:
    """Both tables as Markdown."""
    scripts = list(PEOPLE)
    everyone = list(people())
    lines = [
        f"{len(everyone)} invented people in {len(scripts)} scripts; `cut` and `kept` mean all of them.",
        "",
        f"| the file's own name | {' | '.join(scripts)} |",
        f"|---|{'---|' * len(scripts)}",
    ]
    for form, row in measure(NAMES, lambda p: p.script).items():
        lines.append(f"| {form} | {' | '.join(_cell(row.get(script)) for script in scripts)} |")
    lines += ["", "| the file's own value | |", "|---|---|"]
    for form, row in measure(VALUES, lambda p: "all").items():
        lines.append(f"| {form} | {_cell(row.get('all'))} |")
    return "\n".join(lines)


def page_with(measured: str, page: str) -> str:
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{measured}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(tables(), PAGE.read_text("utf-8")), "utf-8")
