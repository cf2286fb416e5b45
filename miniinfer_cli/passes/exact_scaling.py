"""Whether constants can be scaled and shifted ahead of time: nothing overflows, and nothing that counts loses digits.

The constants are read for this, block by block and only once, however often a pass asks.
"""

from collections.abc import Callable, Sequence

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, numpy_dtype

_SMALLEST_NORMAL = {DType.F64: 2.0**-1022, DType.F32: 2.0**-126, DType.BF16: 2.0**-126, DType.F16: 2.0**-14}
_DIGITS = {DType.F64: 53, DType.F32: 24, DType.BF16: 8, DType.F16: 11}
# Where the largest weight of a channel is this many times the smallest normal number, what becomes subnormal beside it is
# rounded by less than the rounding of the largest, divided by this.
_MARGIN = 16
# More than the sum of inputs that meet one weight: what is this much smaller than a rounding of the shift never shows.
_LARGEST_INPUT = 2.0**20


def wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """``function`` computed in f32 for narrower floats; the recipe rounds its result once."""

    def apply(*blocks: Array) -> Array:
        with np.errstate(all="ignore"):
            return function(*(b.astype(np.float32) if b.dtype.itemsize < 4 else b for b in blocks))

    return apply


def can_scale(
    weight: Constant, factors: Array, function: Callable[..., Array], axes: Sequence[int], shift: Array | None = None
) -> bool:
    """True when function(weight, factors), a product or a quotient, is as exact a weight as ``weight`` is.

    ``axes``: along them lie the weights that are summed up for one result, a channel. ``factors``, and the ``shift`` that is
    added to the results, broadcast to the weight with these axes at size 1. Results must be finite. In each channel nothing may
    become subnormal that was not, unless it is small beside the largest weight, or beside the shift.
    """
    if weight.dtype not in _DIGITS:
        return False
    found = weight.magnitudes(axes)
    factors = np.abs(factors)
    largest, smallest = (wide(function)(m, factors) for m in (found.largest, found.smallest))
    with np.errstate(all="ignore"):
        stays_finite = np.isfinite(largest.astype(numpy_dtype(weight.dtype)))
        keeps_digits = (smallest >= _SMALLEST_NORMAL[weight.dtype]) | (largest >= _MARGIN * _SMALLEST_NORMAL[weight.dtype])
        keeps_digits |= (largest >= found.largest) | (factors == 0)
        if shift is not None:
            keeps_digits |= largest <= np.abs(shift.astype(np.float64)) * 2.0 ** -_DIGITS[weight.dtype] / _LARGEST_INPUT
    return bool(np.all(stays_finite & keeps_digits))


def is_finite(handle: Constant) -> bool:
    """True for a constant of float without infinity and NaN."""
    return handle.dtype in _DIGITS and bool(np.isfinite(handle.magnitudes(range(len(handle.shape))).largest).all())


def keeps_digits(numbers: Array, dtype: DType) -> bool:
    """True when ``numbers`` are finite and not subnormal in ``dtype``."""
    with np.errstate(all="ignore"):
        is_finite = np.isfinite(numbers.astype(numpy_dtype(dtype)))
    return bool(np.all(is_finite & ((np.abs(numbers) >= _SMALLEST_NORMAL[dtype]) | (numbers == 0))))
