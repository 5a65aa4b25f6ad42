"""Converts float16 to float32, several times faster than NumPy, which converts one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 2**16  # numbers at a time, so that they stay in the processor's cache
_RAISE = np.float32(2.0**112)  # float32's exponents begin 112 below float16's


def widened(half: npt.NDArray[np.float16], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
    """What `half.astype(np.float32)` gives, to the bit of every number; into `out`, of the same shape, if it is given.

    The bits of a float16, moved to where a float32 has them, are the number times 2**-112. Infinity and NaN, which are
    not, are left to NumPy.
    """
    out = np.empty(half.shape, dtype=np.float32) if out is None else out
    numbers: npt.NDArray[Any] = np.ascontiguousarray(half, dtype="<f2").reshape(-1)
    flat = out.reshape(-1)
    for start in range(0, len(numbers), _BLOCK):
        some, wide = numbers[start : start + _BLOCK], flat[start : start + _BLOCK]
        bits = wide.view(np.int32)
        bits[...] = some.view("<i2")
        bits <<= 13
        bits &= -0x70000001  # less the copies of the sign between it and the exponent
        wide *= _RAISE
        if wide.max() >= 2.0**16 or wide.min() <= -(2.0**16):
            wide[...] = some
    return out
