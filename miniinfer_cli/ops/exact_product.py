"""Sums of products of small integers, taken exactly by floating-point matrix products.

numpy multiplies integer matrices in plain loops; the libraries behind its float products are far faster. A sum of n
products is exact in a float type while n times the largest product stays within the type's integers.
"""

from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, dtype_of
from miniinfer_cli.ir.quantization import FP8_LARGEST


def exact_float(terms: int, *operands: Array) -> type[np.floating[Any]]:
    """The narrower of f32 and f64 in which every sum of ``terms`` products of the operands' elements is exact."""
    bound = terms
    for x in operands:
        bound *= int(np.abs(x).max(initial=0))
    return np.float32 if bound < 1 << 24 else np.float64


def without_zero_point(x: Array, zero_point: Array | None) -> Array:
    """``x`` minus its zero point as int32; ``zero_point`` must broadcast onto ``x``."""
    wide = x.astype(np.int32)
    return wide if zero_point is None else wide - zero_point.astype(np.int32)


def wrap_to_int32(x: Array) -> Array:
    """Whole floats as int32, wrapping around as a 32-bit accumulator does."""
    return x.astype(np.int64).astype(np.int32)


def requantize(total: Array, scale: Array, zero_point: Array) -> Array:
    """``total`` times ``scale`` plus the zero point, saturated to the zero point's type.

    For an integer type the scaled value is rounded to the nearest, ties to even, before the zero point is added.
    """
    scaled = total.astype(np.float32) * scale
    if zero_point.dtype.kind in "iu":
        limits = np.iinfo(zero_point.dtype)
        result: Array = np.clip(np.rint(scaled) + zero_point.astype(np.float32), limits.min, limits.max).astype(zero_point.dtype)
        return result
    largest = FP8_LARGEST[dtype_of(zero_point)]
    return np.clip(scaled + zero_point.astype(np.float32), -largest, largest).astype(zero_point.dtype)
