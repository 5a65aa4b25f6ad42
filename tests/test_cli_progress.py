"""How fast it goes, as people are told."""

from __future__ import annotations

import pytest

from cli.medlens_output.progress import Rate


def test_a_rate_over_the_last_minute() -> None:
    rate = Rate(0.0)
    for second in range(1, 101):
        rate.note(1000 if second <= 30 else 1000 + (second - 30) * 5, second)
    assert rate.per_second == pytest.approx(5, rel=0.02)
    assert rate.seconds_left(1350, 1400) == pytest.approx(10, rel=0.02)
    assert rate.seconds_left(1350, None) is None


def test_another_piece_of_work_is_counted_from_its_start() -> None:
    rate = Rate(0.0)
    for second in range(1, 11):
        rate.note(100 * second, second)
    assert rate.per_second == 100
    rate.note(1, 12.0)
    assert rate.per_second == 0.5
    rate.note(5, 14.0)
    assert rate.per_second == 1.25
    assert rate.seconds_left(5, 10) == 4
