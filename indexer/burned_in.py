"""Whether text about a patient may be burned into the pixels of an instance.

- "yes": the header says so.
- "likely": the header says nothing, and pictures of this kind usually contain text.
- "no": the header says so, or names a de-identification that cleaned the pixels; or pictures of this kind rarely
  contain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

BurnedIn = Literal["yes", "likely", "no"]
VALUES: tuple[BurnedIn, ...] = ("yes", "likely", "no")

_WARNINGS = {
    "yes": "the header says that text is burned into this picture; it may name the patient",
    "likely": "this picture may show text about a patient, as its kind often does",
}
_STORAGE = "1.2.840.10008.5.1.4.1.1."  # PS3.6 table A-1
_CLASSES = (
    f"{_STORAGE}3",  # US multi-frame, and its retired class
    f"{_STORAGE}6",  # US, and its retired class
    f"{_STORAGE}7",  # secondary capture
    f"{_STORAGE}77.1.1",  # endoscopy and its video
)
_MODALITIES = {"US", "IVUS", "ES", "SC"}


def guessed(attributes: Mapping[str, Any], *, signs: bool = False, cleaned: bool = False) -> BurnedIn:
    """Return the value for an image, from its attributes in the catalog; the header has precedence over what is usual.

    `signs`: the header has other signs of text or of a recognizable person in the picture. `cleaned`: it names a
    de-identification that cleaned the pixels.
    """
    flag = attributes.get("burned_in_annotation")
    if flag is not None:
        return "yes" if flag else "no"
    if cleaned:
        return "no"
    image_type = str(attributes.get("image_type") or "").upper().split("\\")
    usual = (
        signs
        or str(attributes.get("modality") or "").upper() in _MODALITIES
        or _of_family(str(attributes.get("sop_class_uid")))
        or bool({"LABEL", "OVERVIEW"} & set(image_type[2:]))  # of slides, PS3.3 C.8.12.4.1.1
    )
    return "likely" if usual else "no"


def warning(value: object) -> str | None:
    """Return the warning for a picture with this value; None if there is nothing to warn of."""
    return _WARNINGS.get(str(value))


def _of_family(uid: str) -> bool:
    return any(uid == family or uid.startswith(f"{family}.") for family in _CLASSES)
