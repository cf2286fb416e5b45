"""Weights of 8-bit integers as f32, less their zero points; and how to cut sums by them so that each is exact in f32."""

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Site
from miniinfer_cli.ir import Array

EXACT = 1 << 24
"""Whole numbers up to here are floats of 32 bits."""

_LARGEST = 255  # from the least to the largest of an operand of 8 bits
_BLOCK = 1 << 16  # weights that are computed with at a time


def centred_weights(
    site: Site, number: int, zero: int, form: str, shaped: Callable[[Array], Array], *, narrow: bool = False,
    kept: Callable[[Array], bool] = lambda array: True,
) -> Array | None:  # fmt: skip
    """Operand ``number`` less operand ``zero``, as f32, in the shape that ``shaped`` gives both; computed once.

    ``form`` names that shape. ``narrow``: in the smallest integers that hold it instead. ``kept``: of which forms something is
    kept, the others are empty. None where one of them is no constant.
    """
    handles = (*site.handles, *(None,) * 4)
    weights, point = handles[number], handles[zero]
    has_point = len(site.inputs) > zero and site.inputs[zero] is not None
    if weights is None or (has_point and point is None):
        return None
    offset = None if point is None else shaped(site.weights.array(point)).astype(np.int16)
    name = "" if offset is None else hashlib.sha256(offset.tobytes()).hexdigest()

    def make(stored: Array) -> Array:
        laid = np.ascontiguousarray(shaped(stored))
        if not narrow:
            wide = laid.astype(np.float32)
            if offset is not None:
                wide -= offset
            return wide
        made = _less(laid, offset, np.dtype(np.int8))
        if made is None:
            made = _less(laid, offset, np.dtype(np.int16))  # of two numbers of 8 bits a difference has 9
            assert made is not None
        return made if kept(made) else made[:0].copy()

    return site.weights.derived(weights, f"{form} less zero point {name}{' in few bits' if narrow else ''}", make)


def exact_cuts(weights: Array, axis: int, features: int) -> list[slice]:
    """Parts of ``axis`` within which no sum of products, for any of the ``features`` (an axis), leaves what f32 holds exactly.

    The other operand, less its zero point, lies between -p and 255 - p: where it takes weights above 0 at their most, it takes
    those below 0 at their least. So no sum is farther from 0 than 255 times the weights of one sign.
    """
    size = weights.shape[axis]
    turned = np.moveaxis(weights, (axis, features), (0, -1))
    if size and _furthest(turned) < EXACT:
        return [slice(0, size)]
    for parts in range(2, size + 1):
        cuts = [slice(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
        if all(_furthest(turned[cut]) < EXACT for cut in cuts):
            return cuts
    return [slice(n, n + 1) for n in range(size)]


def _furthest(weights: Array) -> float:
    """How far from 0 a sum for one of the features, which are the last axis, may be."""
    rows = weights.reshape(math.prod(weights.shape[:-1]), weights.shape[-1])
    above, below = np.zeros((2, rows.shape[1]))
    for block in _in_blocks(rows):  # as products, which are exact for so many, and far faster than sums of columns
        wide = block.astype(np.float32)
        ones = np.ones(len(block), np.float32)
        above += ones @ np.maximum(wide, 0)
        below += ones @ np.minimum(wide, 0)
    return float(max(above.max(initial=0), -below.min(initial=0))) * _LARGEST


def _less(stored: Array, offset: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """``stored``, of 8 bits, less ``offset``; None where that is not of ``dtype``. Memory is touched once: a large matrix takes
    longer to come from the system than to compute."""
    made = np.empty(stored.shape, dtype)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    offsets = None if offset is None else np.broadcast_to(offset, stored.shape)
    for place in _places(stored):
        block = stored[place].astype(np.int16)
        if offsets is not None:
            block -= offsets[place]
        if block.min(initial=0) < least or block.max(initial=0) > most:
            return None
        made[place] = block
    return made


def _in_blocks(rows: Array) -> Iterator[Array]:
    return (rows[place] for place in _places(rows))


def _places(array: Array) -> Iterator[slice]:
    """Parts of the first axis that stay in the cache; a sum of so many numbers of 9 bits is exact in f32."""
    each = max(array.size // max(len(array), 1), 1)
    together = min(max(_BLOCK // each, 1), EXACT >> 9)
    return (slice(start, start + together) for start in range(0, len(array), together))
