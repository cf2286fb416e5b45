"""Whether constants can be scaled and shifted ahead of time: nothing overflows, and nothing that counts loses digits.

The constants are read for this, block by block and only once, however often a pass asks.
"""

from collections.abc import Callable, Sequence

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Graph, numpy_dtype

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
    weight: Constant,
    factors: Array,
    function: Callable[..., Array],
    axes: Sequence[int],
    shift: Array | None = None,
    stored: DType | None = None,
) -> bool:
    """True when function(weight, factors), a product or a quotient, is as exact a weight as ``weight`` is.

    ``axes``: along them lie the weights that are summed up for one result, a channel. ``factors``, and the ``shift`` that is
    added to the results, broadcast to the weight with these axes at size 1. Results must be finite. In each channel nothing may
    become subnormal that was not, unless it is small beside the largest weight, or beside the shift.
    ``stored``: what weights of f32 are going to be stored in (``stored_type``); it decides what is finite and what subnormal.
    """
    dtype = stored if stored is not None and weight.dtype is DType.F32 else weight.dtype
    if dtype not in _DIGITS:
        return False
    found = weight.magnitudes(axes)
    factors = np.abs(factors)
    largest, smallest = (wide(function)(m, factors) for m in (found.largest, found.smallest))
    with np.errstate(all="ignore"):
        stays_finite = np.isfinite(largest.astype(numpy_dtype(dtype)))
        keeps_digits = (smallest >= _SMALLEST_NORMAL[dtype]) | (largest >= _MARGIN * _SMALLEST_NORMAL[dtype])
        keeps_digits |= (largest >= found.largest) | (factors == 0)
        if shift is not None:
            keeps_digits |= largest <= np.abs(shift.astype(np.float64)) * 2.0 ** -_DIGITS[dtype] / _LARGEST_INPUT
    return bool(np.all(stays_finite & keeps_digits))


def is_finite(handle: Constant, stored: DType | None = None) -> bool:
    """True for a constant of float without infinity and NaN, in the type that it is going to be ``stored`` in, too."""
    if handle.dtype not in _DIGITS:
        return False
    largest = handle.magnitudes(range(len(handle.shape))).largest
    with np.errstate(all="ignore"):
        return bool(np.isfinite(largest if stored is None else largest.astype(numpy_dtype(stored))).all())


def stored_type(graph: Graph, dtype: DType) -> DType:
    """What a tensor of type ``dtype`` is going to be stored in, where the graph is to be narrowed (``narrow_floats``)."""
    return graph.numerics.half if graph.numerics is not None and dtype is DType.F32 else dtype


def keeps_digits(numbers: Array, dtype: DType) -> bool:
    """True when ``numbers`` are finite and not subnormal in ``dtype``."""
    with np.errstate(all="ignore"):
        is_finite = np.isfinite(numbers.astype(numpy_dtype(dtype)))
    return bool(np.all(is_finite & ((np.abs(numbers) >= _SMALLEST_NORMAL[dtype]) | (numbers == 0))))
