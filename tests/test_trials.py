"""A seeded share of every long trial, and the counting itself. The whole of them: `make trials`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trials.__main__ import main
from trials.registry import Tally, Trial, all_trials, run_trial


@pytest.mark.slow
@pytest.mark.parametrize("name", all_trials())
def test_a_share_of_the_trial_gets_nothing_through(name: str, tmp_path: Path) -> None:
    trial = all_trials()[name]
    if lacks := trial.missing():
        pytest.skip(lacks)
    report = run_trial(trial, share=trial.share, seed=0, folder=tmp_path)
    assert report.failures == []
    assert report.tried == report.attempts
    assert report.read + report.refused + report.contained + report.quarantined == report.tried


def test_the_trials_are_told_with_what_they_try() -> None:
    trials = all_trials()
    assert {"hostile", "kills", "mutants"} <= trials.keys()
    for trial in trials.values():
        assert trial.about.endswith(".")
        assert 0 < trial.share <= 0.1, f"{trial.name}: make test runs a few per cent"


def outcomes(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    for number in range(attempts):
        (tally.refused, tally.quarantined, tally.failed)[number % 3](f"{number % 3} of {seed}")
    tally.contained(2)
    tally.read(3, kind="made")
    tally.refused("other", kind="made")


def test_a_report_counts_each_outcome(tmp_path: Path) -> None:
    report = run_trial(Trial("made", "Made.", 40, 0.1, outcomes), share=0.1, seed=5, folder=tmp_path)
    assert (report.attempts, report.tried) == (4, 10)
    assert (report.read, report.refused, report.contained, report.quarantined, report.failed) == (3, 3, 2, 1, 1)
    assert report.reasons == {"0 of 5": 2, "1 of 5": 1, "other": 1}
    assert report.kinds == {"made": {"read": 3, "refused": 1, "contained": 0, "quarantined": 0, "failed": 0}}
    assert report.failures == ["2 of 5"]
    assert not report.passed
    assert report.peak_memory_mib > 10


def test_an_attempt_without_an_outcome_fails_the_trial(tmp_path: Path) -> None:
    def forgetful(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
        tally.contained(attempts - 1)

    report = run_trial(Trial("made", "Made.", 10, 0.1, forgetful), share=1, seed=0, folder=tmp_path)
    assert (report.tried, report.failures, report.passed) == (9, [], False)


def test_a_condition_on_the_whole_is_a_failure() -> None:
    tally = Tally()
    tally.require(True, "fine")
    tally.require(False, "nearly all mutants are dead")
    assert (tally.tried, tally.failures) == (0, ["nearly all mutants are dead"])


@pytest.mark.slow
def test_the_command_runs_a_trial_and_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kills", "--share", "0.005", "--seed", "3", "--report", str(tmp_path / "report.json")]) == 0
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert (report["trial"], report["seed"], report["tried"], report["contained"]) == ("kills", 3, 2, 2)
    assert "kills" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such"], "unknown trial no_such; expected some of"),
        (["--share", "0"], "--share is 0.0, expected more than 0"),
    ],
)
def test_a_trial_that_is_not_there_is_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err
