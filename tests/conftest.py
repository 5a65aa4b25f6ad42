"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def _require(path: Path) -> Path:
    """Skip without the shared data, but fail where MEDLENS_REQUIRE_SHARED=1 promises it is there."""
    if not path.exists():
        if os.environ.get("MEDLENS_REQUIRE_SHARED") == "1":
            pytest.fail(f"MEDLENS_REQUIRE_SHARED=1, but {path.name} is not beside the project")
        pytest.skip("the shared data is not beside the project")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return _require(SHARED / "data")


@pytest.fixture(scope="session")
def shared_tools() -> Path:
    return _require(SHARED / "tools")
