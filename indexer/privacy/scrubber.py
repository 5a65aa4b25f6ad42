"""The scrubber of one identity, with a cache: the files of a study have the same values and words."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from indexer.privacy.codes import Code, scrub_code
from indexer.privacy.identity import Identity, forms_of
from indexer.privacy.scrub import scrub

_LONGEST_REMEMBERED = 1024  # characters of a text
_MOST_REMEMBERED = 512  # texts of one identity


class Scrubber:
    """Removes the values of an identity, and everything with an identifying pattern, from texts and codes."""

    def __init__(self, identity: Identity) -> None:
        self._known = forms_of(identity)
        # A code is not removed for a place name: a station may have the name of its model.
        self._of_people = forms_of(replace(identity, places=()))
        self._texts: dict[str, str] = {}
        self._codes: dict[tuple[str, bool], Code] = {}

    def text(self, text: str) -> str:
        if len(text) > _LONGEST_REMEMBERED:
            return scrub(text, self._known)
        if text not in self._texts:
            if len(self._texts) >= _MOST_REMEMBERED:
                self._texts.clear()
            self._texts[text] = scrub(text, self._known)
        return self._texts[text]

    def code(self, value: str, *, is_code: bool = True) -> Code:
        """Scrub a code string (VR CS); with `is_code=False` a short text that is not a code, such as a model's name."""
        at = (value, is_code)
        if at not in self._codes:
            if len(self._codes) >= _MOST_REMEMBERED:
                self._codes.clear()
            self._codes[at] = scrub_code(value, self._of_people, is_code=is_code)
        return self._codes[at]


@lru_cache(maxsize=64)
def scrubber_of(identity: Identity) -> Scrubber:
    return Scrubber(identity)
