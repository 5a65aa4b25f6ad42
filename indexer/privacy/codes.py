"""Code strings (VR CS) are written by machines, until somebody types a name into one.

Of a value that has a code's form (PS3.5 6.2: capitals, digits, blanks, 16 characters) what identifies is cut as from
any text. In one that has not, only words that are codes or ordinary words of radiology stay. An attribute with a closed
set of values (PatientSex, Laterality) has one of them or nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from indexer.privacy.identity import Forms, is_ordinary
from indexer.privacy.letters import RUN, fold, normalized
from indexer.privacy.scrub import MARK, scrub

_FORM = re.compile(r"[A-Z0-9 _./+()%-]{0,16}")
_VALUES_AT_MOST = 64
# PS3.3 C.7.3.1.1.1, with retired ones
_DEFINED_MODALITIES = """
AR ASMT AS AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC ECG EEG EMG EOG EPS ES FA FID FS
GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN
POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF ST
STAIN TEXTUREMAP TG US VA VF XA XAPROTOCOL XC
"""
_MODALITIES = frozenset(_DEFINED_MODALITIES.split())

_SEXES = frozenset({"M", "F", "O", "U", "X", "N", "A", "MALE", "FEMALE", "OTHER", "UNKNOWN"})
_SIDES = frozenset({"L", "R", "B", "U", "LEFT", "RIGHT", "BOTH", "BILATERAL", "UNPAIRED", "UNKNOWN", "NONE"})
CLOSED = {"patient_sex": _SEXES, "laterality": _SIDES, "image_laterality": _SIDES}
"""By column, the values of attributes that are enumerated (PS3.3 C.7.1.1, C.7.3.5, C.7.6.1), and their words."""

# Of body parts and views (PS3.16 annex L) and image types; ordinary words come from `words`.
_WORDS = """
abdomenpelvis acj adc anca angio ankles antrum aplat bacino bassin bilateral branchial bronchus brustwirbelsaule
buttock bws calcaneus caldwell capsule carpal caviglia cavity cc cerebellum cervico cervix cheek chestabdomen
chestabdpelvis cheville chole choroid circle clavicle coccyx codo colon columna costo cotovelo coude crane craneo
cranial cranio craniocaudal cspine curved cystourethrogram decubitus diaphragm diffusion digit duodenum elbows
ellenbogen endometrium enkel erect esophageal extremity eyelid facialbones feet femoro fetus filtered fingers flank
forefoot frogleg fuess fusse gallbladders ginocchio gluteal gomito halswirbelsaule handgelenk hands headneck heel
hemithorax heup hindfoot hips hombro huefte hufte hws hypopharynx iac ileum interpolated intestines intracranial jaw
jejunum joelho knees larynx lateromedial legs lendenwirbelsaule lmo lordotic lowerlimb lspine lumbo lumbosacral
lumen lws main maxillofacial mediolateral merchant metacarpal metatarsal midfoot minip mip mlo multiplanar muneca
nasopharynx navel nostril obl ombro orbits palm parathyroid parotid patellae penis perfusion perineum phalanx
pharynx pie piede poignet pols polso presentation processing projection prostates punho quadril rachide rachis
reformatted rendered resampled retina ribcage rodilla sacroiliac sacrum scalp schouder sclera scrotum seminal
sesamoid sideros sij sinuses spalla sprunggelenk standing sternoclavicular styloid subtraction sunrise suprapubic
swimmers tangential temporomandibular testicle thigh thighs thin thoraco throat thumb thymus tmj tobillo toes tonsil
torace torax tornozelo towne tracew tspine umbilicus upperlimb ureter ureters urethra uvula vagina volume vulva
waters weightbearing wholebody wrists zygoma zygomatic
"""
_CODE_WORDS = frozenset(_WORDS.split())


@dataclass(frozen=True)
class Code:
    """A value that may be kept, or None if nothing of it may, and whether something was removed."""

    value: str | None
    was_cut: bool = False


def scrub_code(text: str, known: Forms, *, is_code: bool = True) -> Code:
    """Scrub a value, or several joined with backslashes. `is_code=False` is for short free texts (a model's name)."""
    values = text.split("\\")[:_VALUES_AT_MOST]
    kept = [_scrubbed(value, known, is_code) for value in values]
    if kept == values:
        return Code(text)
    if not any(value.replace(MARK, "").strip(" ,.^-_/") for value in kept):
        return Code(None, was_cut=True)
    return Code("\\".join(kept), was_cut=True)


def closed_code(text: str, allowed: frozenset[str]) -> Code:
    """Return a value of an attribute with a closed set of values, or None if it is not in the set."""
    return Code(text) if text.strip().upper() in allowed else Code(None, was_cut=True)


def _scrubbed(value: str, known: Forms, is_code: bool) -> str:
    if is_code and value in _MODALITIES:
        return value  # KO is a modality, whoever Mr. Ko is
    cut = scrub(value, known) if known or not _is_harmless(value) else value
    return _only_codes(cut) if is_code and not _FORM.fullmatch(value) else cut


@lru_cache(maxsize=2048)
def _is_harmless(value: str) -> bool:
    return scrub(value) == value


@lru_cache(maxsize=2048)
def _only_codes(value: str) -> str:
    text, out, position = normalized(value), [], 0
    for match in RUN.finditer(text):
        word = fold(match[0])
        if len(word) > 2 and not (word.isdecimal() or is_ordinary(word) or word in _CODE_WORDS):
            out += [text[position : match.start()], MARK]
            position = match.end()
    return re.sub(rf"{re.escape(MARK)}(?:[ ,^-]{{0,3}}{re.escape(MARK)})+", MARK, "".join(out) + text[position:])
