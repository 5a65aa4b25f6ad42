"""The tables of docs/privacy.md are what the scrubber does."""

from __future__ import annotations

from privacy_table import BEGIN, END, NAMES, PAGE, VALUES, people, tables


def test_the_page_shows_what_is_measured() -> None:
    page = PAGE.read_text("utf-8")
    shown = page.split(BEGIN)[1].split(END)[0].strip()
    assert shown == tables(), "run: python tests/privacy_table.py"


def test_two_hundred_people_in_twelve_scripts_and_every_form() -> None:
    everyone = list(people())
    assert len(everyone) >= 200 and len({person.script for person in everyone}) >= 12
    assert len({(person.family, person.given) for person in everyone}) == len(everyone)
    for form in (*NAMES.values(), *VALUES.values()):
        assert any(form(person) for person in everyone)
