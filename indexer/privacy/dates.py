"""Full dates in numbers, with names of months, and in Asian and Arabic writing.

A year alone, an age, a time of day and a duration are kept. Years are those of the common, Buddhist (24xx, 25xx),
Islamic and Persian (13xx, 14xx) calendars and of the Japanese eras. The text is `letters.plain`: its digits are ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_ANY_YEAR = r"(?:19|20|24|25|13|14)\d\d"

# By language, English first. A name that several languages share may be listed more than once.
_MONTHS = """
January February March April May June July August September October November December
Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec
Januar Jänner Jaenner Februar Feber März Maerz Mai Juni Juli Oktober Dezember Mrz Okt Dez
janvier février fevrier mars avril mai juin juillet août aout septembre octobre novembre décembre decembre
janv févr fevr fév avr juil déc
enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre ene abr ago dic
janeiro fevereiro março marco maio junho julho setembro outubro novembro dezembro fev mai set out dez
gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre gen mag giu lug ott
januari februari maart april augustus mrt mei
januar marts maj augusti augustus oktober desember des
tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta lokakuuta
marraskuuta
joulukuuta tammikuu helmikuu maaliskuu huhtikuu toukokuu kesäkuu heinäkuu elokuu syyskuu lokakuu marraskuu joulukuu
stycznia lutego marca kwietnia maja czerwca lipca sierpnia września wrzesnia października pazdziernika listopada
grudnia
styczeń luty marzec kwiecień czerwiec lipiec sierpień wrzesień październik listopad grudzień
ledna února brezna března dubna května června července srpna září října listopadu prosince
leden únor březen duben květen červen červenec srpen říjen listopad prosinec
januára februára marca apríla mája júna júla augusta septembra októbra novembra decembra
január február március április május június július augusztus szeptember október
ocak şubat subat mart nisan mayıs mayis haziran temmuz ağustos agustos eylül eylul ekim kasım kasim aralık aralik
ianuarie februarie martie aprilie iunie iulie septembrie octombrie noiembrie decembrie
siječnja veljače ožujka travnja svibnja lipnja srpnja kolovoza rujna listopada studenoga prosinca
januarja februarja aprila junija julija avgusta septembra oktobra januara februara aprila juna jula avgust
sausio vasario kovo balandžio gegužės birželio liepos rugpjūčio rugsėjo spalio lapkričio gruodžio
janvāris februāris marts aprīlis maijs jūnijs jūlijs augusts septembris oktobris novembris decembris
jaanuar veebruar märts aprill juuni juuli detsember
gener febrer març maig juny juliol agost setembre desembre
januari februari mac jun julai ogos september oktober disember pebruari maret agustus
января февраля марта апреля мая июня июля августа сентября октября ноября декабря
январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь янв фев мар апр авг сен сент окт ноя
дек
січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня
студзеня лютага сакавіка красавіка мая чэрвеня ліпеня жніўня верасня кастрычніка лістапада снежня
януари февруари април юни юли септември октомври ноември декември јануара фебруара марта априла јуна јула
Ιανουαρίου Φεβρουαρίου Μαρτίου Απριλίου Μαΐου Ιουνίου Ιουλίου Αυγούστου Σεπτεμβρίου Οκτωβρίου Νοεμβρίου Δεκεμβρίου
Ιανουάριος Φεβρουάριος Μάρτιος Απρίλιος Μάιος Ιούνιος Ιούλιος Αύγουστος Σεπτέμβριος Οκτώβριος Νοέμβριος Δεκέμβριος
Ιαν Φεβ Μαρ Απρ Μαΐ Ιουν Ιουλ Αυγ Σεπ Οκτ Νοε Δεκ
ינואר פברואר מרץ מרס אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר
يناير فبراير مارس أبريل ابريل إبريل مايو يونيو يوليو أغسطس اغسطس سبتمبر أكتوبر اكتوبر نوفمبر ديسمبر
شباط آذار اذار نيسان أيار ايار حزيران تموز آب أيلول ايلول جانفي فيفري أفريل ماي جوان جويلية أوت
محرم صفر رجب شعبان رمضان شوال
فروردین اردیبهشت خرداد تیر مرداد شهریور مهر آبان آذر دی بهمن اسفند
ژانویه فوریه آوریل مه ژوئن ژوئیه اوت سپتامبر اکتبر نوامبر دسامبر جنوری فروری اپریل جولائی اگست ستمبر
जनवरी फरवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर सितम्बर अक्टूबर अक्तूबर नवंबर नवम्बर दिसंबर दिसम्बर
জানুয়ারি জানুয়ারী ফেব্রুয়ারি ফেব্রুয়ারী মার্চ এপ্রিল মে জুন জুলাই আগস্ট সেপ্টেম্বর অক্টোবর নভেম্বর ডিসেম্বর
ஜனவரி பிப்ரவரி மார்ச் ஏப்ரல் மே ஜூன் ஜூலை ஆகஸ்ட் செப்டம்பர் அக்டோபர் நவம்பர் டிசம்பர்
జనవరి ఫిబ్రవరి మార్చి ఏప్రిల్ మే జూన్ జూలై ఆగస్టు సెప్టెంబర్ అక్టోబర్ నవంబర్ డిసెంబర్
มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน ตุลาคม พฤศจิกายน ธันวาคม
ม.ค. ก.พ. มี.ค. เม.ย. พ.ค. มิ.ย. ก.ค. ส.ค. ก.ย. ต.ค. พ.ย. ธ.ค.
ມັງກອນ ກຸມພາ ມີນາ ເມສາ ພຶດສະພາ ມິຖຸນາ ກໍລະກົດ ສິງຫາ ກັນຍາ ຕຸລາ ພະຈິກ ທັນວາ
មករា កុម្ភៈ មីនា មេសា ឧសភា មិថុនា កក្កដា សីហា កញ្ញា តុលា វិច្ឆិកា ធ្នូ
ဇန်နဝါရီ ဖေဖော်ဝါရီ မတ် ဧပြီ မေ ဇွန် ဇူလိုင် ဩဂုတ် သြဂုတ် စက်တင်ဘာ အောက်တိုဘာ နိုဝင်ဘာ ဒီဇင်ဘာ
հունվարի փետրվարի մարտի ապրիլի մայիսի հունիսի հուլիսի օգոստոսի սեպտեմբերի հոկտեմբերի նոյեմբերի դեկտեմբերի
იანვარი თებერვალი მარტი აპრილი მაისი ივნისი ივლისი აგვისტო სექტემბერი ოქტომბერი ნოემბერი დეკემბერი
كانون تشرين ربيع جمادى
"""
_NAMES = _MONTHS.split()
_ENGLISH = frozenset(form for name in _NAMES[:24] for form in (name, name.upper()))
_MONTH_NAMES = frozenset(name.lower() for name in _NAMES) | {f"ב{name}" for name in _NAMES if "א" <= name[0] <= "ת"}
# "12 mars", "3 set": without a year, a foreign name must be long enough not to be another word.
_LONG_NAMES = frozenset(name.lower() for name in _NAMES[24:] if len(name) > 4)
_PIECES = frozenset(piece for name in _MONTH_NAMES for piece in name.split(".") if piece)
_PIECE = re.compile(r"[^\s\d/_,:;().-]{1,16}")

_WORD = r"([^\s\d/_,:;()-]{2,16}(?:\s(?:الثاني|الأول|الآخر|الأولى|الآخرة))?)"
_BETWEEN = r"(?:[\s./_-]{1,3}|\s?(?:de|del|di|of|du|г\.)\s|)"
_ORDINAL = r"(?:st|nd|rd|th|er|\.?º|°|ª|-?е|η|ης)?"
_NO_UNIT = r"(?!\d|[.,]\d|\s?[x×%]|\s?(?:mm|cm|ml|HU)\b)"


def _at_digit(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\d.])(?<!\d,)(?={pattern})")


def _at_word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W\d_])(?=[^\W\d_])(?={pattern})")


# With a day and a year, a month's name counts in any case.
_WITH_YEAR = (
    # 31 January 2020, 07MAR1952, 7 mars 1952, 31. ledna 2020, 31 de enero de 2020, 31 يناير 2020, 31 בינואר 2020
    _at_digit(rf"({_DAY}{_ORDINAL}{_BETWEEN}{_WORD}(?:,\s?|{_BETWEEN})(?:{_ANY_YEAR}|['’]?\d\d){_NO_UNIT})"),
    # 2020. január 31., 2020 m. sausio 31, 1952-MAR-07
    _at_digit(rf"({_ANY_YEAR}(?:\sm\.|,\s)?{_BETWEEN}{_WORD}{_BETWEEN}{_DAY}{_NO_UNIT})"),
    # March 7, 1952; MAR071952
    _at_word(rf"({_WORD}{_BETWEEN}{_DAY}(?:st|nd|rd|th)?[\s,./_-]{{0,2}}{_ANY_YEAR}(?!\d))"),
)
# 31 Jan, 31st of January, January 31, Jan 2020: in English with a capital, "may 12 mm" is not a date.
_WITHOUT_YEAR = (
    _at_digit(rf"({_DAY}(?:st|nd|rd|th|\.|er)?(?:\s(?:of|de))?[\s-]?{_WORD})(?!\d)"),
    _at_word(rf"({_WORD},?[\s-]?{_DAY}(?:st|nd|rd|th)?\b(?!\s?[.x×]?\d*\s?(?:mm|cm|ml|%)))(?!\d)"),
    _at_word(rf"({_WORD},?(?:\s(?:de|del|di)\s|[\s-]?){_YEAR})(?!\d)"),
)
_HAN_NUMBER = "[〇零一二三四五六七八九十廿卅元两]"
_ERA = r"(?:西暦|公元|公历|紀元|明治|大正|昭和|平成|令和|民國|民国|단기|서기|[MTSHR](?=\d))"
_ASIAN = (
    rf"(?:{_ERA}\s?)?(?:\d{{1,4}}|{_HAN_NUMBER}{{1,6}})\s?年\s?(?:\d{{1,2}}|{_HAN_NUMBER}{{1,3}})\s?月"
    rf"(?:\s?(?:\d{{1,2}}|{_HAN_NUMBER}{{1,3}})\s?[日号號])?",
    rf"(?:\d{{1,2}}|{_HAN_NUMBER}{{1,3}})\s?月\s?(?:\d{{1,2}}|{_HAN_NUMBER}{{1,3}})\s?[日号號]",
    rf"(?:{_ERA}\s?)?\d{{1,4}}\s?년\s?\d{{1,2}}\s?월(?:\s?\d{{1,2}}\s?일)?",
    r"\d{1,2}\s?월\s?\d{1,2}\s?일",
    rf"{_ERA}\s?\d{{1,2}}\s?[./-]\s?\d{{1,2}}\s?[./-]\s?\d{{1,2}}(?![\d.])",
    r"(?i:ngày\s)\d{1,2}(?i:\stháng\s)\d{1,2}(?:(?i:\snăm\s)\d{2,4})?|(?i:tháng\s)\d{1,2}(?i:\snăm\s)\d{4}",
)
_IN_NUMBERS = (
    # 2020-01-31, 2020/1/31, 2020. 1. 31, 2563-01-31, 20200131, 20200131103000
    rf"(?<![\d.]){_ANY_YEAR}\s?([-/.])\s?{_MONTH}\s?\1\s?{_DAY}(?!\d|\.\d)",
    rf"(?<![\d.]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{6}}(?:\.\d+)?)?(?!\d)",
    # 31.1.2020, 1/31/2020, 31-01-2020; with two digits of the year only where no measurement looks like it
    rf"(?<![\d.])\d{{1,2}}\s?([-/.])\s?\d{{1,2}}\s?\1\s?{_YEAR}(?!\d)",
    rf"(?<![\d.]){_DAY}([-/.]){_MONTH}\1(?:24|25|13|14)\d\d(?!\d)",
    rf"(?<![\d./])(?:{_DAY}/{_MONTH}|{_MONTH}/{_DAY})/\d\d(?![\d/]|\.\d)",
    rf"(?<![\d.]){_DAY}\.{_MONTH}\.\d\d(?![\d.])",
    # 31 I 2020, 31.XII.2020
    rf"(?<![\d.]){_DAY}\s?[\s./-]\s?(?:I{{1,3}}|I?V|VI{{1,3}}|I?X|XI{{1,2}})\s?[\s./-]\s?{_YEAR}(?!\d)",
    # R2.1.31, S35.5.1: an era by its letter
    rf"(?<![^\W_])[SHR]\d{{1,2}}([./]){_MONTH}\1{_DAY}(?![\d./])",
)
_NUMBERS_RE = [re.compile(pattern) for pattern in _IN_NUMBERS]
_ASIAN_RE = [re.compile(pattern) for pattern in _ASIAN]
_THREE_NUMBERS = re.compile(r"\d\s?[-/.]\s?\d{1,2}\s?[-/.]\s?\d|\d{8}|\d\s?[\s./-]\s?[IVX]{1,4}\s?[\s./-]\s?\d")
_SHORT_YEAR = re.compile(r"(?<!\d)\d\d$")
_ASIAN_MARK = re.compile("[年月월]|tháng|明治|大正|昭和|平成|令和|民國|民国")


def date_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of every full date in `text`, which contains a digit. Spans may overlap."""
    if _THREE_NUMBERS.search(text):
        for pattern in _NUMBERS_RE:
            for match in pattern.finditer(text):
                yield match.span()
    if not _PIECES.isdisjoint(_PIECE.findall(text.lower())):
        yield from _named_date_spans(text)
    yield from asian_date_spans(text)


def _named_date_spans(text: str) -> Iterator[tuple[int, int]]:
    for pattern in _WITH_YEAR:
        for match in pattern.finditer(text):
            month = _month(match[2])
            if month.lower() in _MONTH_NAMES and not (_SHORT_YEAR.search(match[1]) and _may_be_a_word(month, match[1])):
                yield match.span(1)
    for pattern in _WITHOUT_YEAR:
        for match in pattern.finditer(text):
            month = _month(match[2])
            if month in _ENGLISH or month.lower() in _LONG_NAMES:
                yield match.span(1)


def _may_be_a_word(month: str, date: str) -> bool:
    """Whether a month's name may be another word: "12 set 15", "1 out 20".

    Not with a capital, nor long, nor joined to its numbers.
    """
    return month.islower() and month.isascii() and len(month) < 5 and f" {month} " in date


def _month(word: str) -> str:
    word = word.split(" ")[0]
    return word if word.lower() in _MONTH_NAMES else word.rstrip(".;:]")


def asian_date_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return dates whose parts are named (年, 월, tháng); their numbers need not be digits."""
    if not text.isascii() and _ASIAN_MARK.search(text):
        for pattern in _ASIAN_RE:
            for match in pattern.finditer(text):
                yield match.span()
