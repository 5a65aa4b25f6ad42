"""Every kind of hostile store, model, label set, rows and import, one by one: see `trials.hostile`."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials.hostile import CASES, KINDS, make_good, outcome


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_good(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("name", CASES)
def test_what_is_hostile_is_refused_in_words_or_does_no_harm(name: str, good: Path, tmp_path: Path) -> None:
    assert outcome(name, good, tmp_path / "case") == ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_cases_are_made_of_is_good(kind: str, good: Path, tmp_path: Path) -> None:
    """Else a refusal would say nothing."""
    use, _, _ = KINDS[kind]
    use(good)


def test_there_are_sixty_kinds() -> None:
    assert len(CASES) >= 60
    assert {kind for kind, _ in CASES.values()} == set(KINDS)
