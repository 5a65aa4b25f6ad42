"""Run by several processes at once, of which one is killed: the store is that of one undisturbed run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crash_trial import Trial, contents, make_archive

from indexer.store.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_three_processes_share_an_archive_and_outlive_a_killed_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    archive = make_archive(tmp_path / "archive", 40, rivals=False)
    whole = Trial(archive, tmp_path / "whole", tmp_path)
    whole.undisturbed()
    with Store.open(tmp_path / "whole") as store:
        expected = contents(store)
    location = tmp_path / "store" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    local_dir = None if kind == "sqlite" else tmp_path / "local"
    with Store.create(location, store_spec(), local_dir=local_dir):
        pass
    trial = Trial(archive, location, tmp_path, local_dir, at_work=whole.at_work)
    trial.life(random.Random(1), processes=3, most_kills=1)
    with Store.open(location, local_dir=local_dir) as store:
        assert contents(store) == expected
        assert store.catalog.claims.expired_leases() == []
    encoded = (tmp_path / "log0").read_text().split()
    frames = len(expected["frames"])
    assert len(set(encoded)) == frames
    assert len(encoded) - frames <= 8, "more was encoded twice than the killed process had in hand"


def store_spec() -> dict[str, object]:
    from fake_encoder import FakeEncoder

    return FakeEncoder().spec.to_json()
