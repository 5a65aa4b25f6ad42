"""Widening float16, judged against NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval import half

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


def same_bits(got: np.ndarray, expected: np.ndarray) -> bool:
    return got.dtype == np.float32 and np.array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_every_number_there_is() -> None:
    assert same_bits(half.widened(EVERY), EVERY.astype(np.float32))


@pytest.mark.parametrize("finite", [EVERY[np.isfinite(EVERY)], EVERY[:1], EVERY[:0]])
def test_finite_numbers_without_numpys_help(finite: np.ndarray) -> None:
    assert same_bits(half.widened(finite), finite.astype(np.float32))


def test_shapes_steps_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "_BLOCK", 7)
    numbers = EVERY[: 24 * 10].reshape(24, 10)
    for view in (numbers, numbers[::2], numbers.T, numbers[3], np.float16(0.1).reshape(())):
        assert same_bits(half.widened(view), np.asarray(view).astype(np.float32))
    out = np.empty((24, 10), np.float32)
    assert half.widened(numbers, out=out) is out
    assert same_bits(out, numbers.astype(np.float32))


def test_unaligned_bytes() -> None:
    shifted = np.frombuffer(b"\0" + EVERY[:100].tobytes(), np.uint8)[1:].view("<f2")
    assert same_bits(half.widened(shifted), EVERY[:100].astype(np.float32))
