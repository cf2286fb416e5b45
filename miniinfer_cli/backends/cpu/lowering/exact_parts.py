"""Weights of 8-bit integers as f32, less their zero points; and how to cut sums by them so that each is exact in f32."""

import hashlib
from collections.abc import Callable

import numpy as np

from miniinfer_cli.backends.cpu.routine import Site
from miniinfer_cli.ir import Array

EXACT = 1 << 24
"""Whole numbers up to here are floats of 32 bits."""

_LARGEST = 255  # from the least to the largest of an operand of 8 bits


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
    offset = None if point is None else shaped(site.weights.array(point)).astype(np.float32)
    name = "" if offset is None else hashlib.sha256(offset.tobytes()).hexdigest()

    def make(stored: Array) -> Array:
        wide = np.ascontiguousarray(shaped(stored)).astype(np.float32)
        centred: Array = wide if offset is None else wide - offset
        if not narrow:
            return centred
        small = centred.min(initial=0) >= -128 and centred.max(initial=0) <= 127
        made: Array = centred.astype(np.int8 if small else np.int16)
        return made if kept(made) else made[:0].copy()

    return site.weights.derived(weights, f"{form} less zero point {name}{' in few bits' if narrow else ''}", make)


def exact_cuts(weights: Array, axis: int, features: int) -> list[slice]:
    """Parts of ``axis`` within which no sum of products, for any of the ``features`` (an axis), leaves what f32 holds exactly.

    The other operand, less its zero point, lies between -p and 255 - p: where it takes weights above 0 at their most, it takes
    those below 0 at their least. So no sum is farther from 0 than 255 times the weights of one sign.
    """
    size = weights.shape[axis]
    whole = tuple(a for a in range(weights.ndim) if a != features)
    if size and _furthest(weights, whole) < EXACT:
        return [slice(0, size)]
    turned = np.moveaxis(weights, (features, axis), (0, 1))
    for parts in range(2, size + 1):
        cuts = [slice(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
        if all(_furthest(turned[:, cut], tuple(range(1, turned.ndim))) < EXACT for cut in cuts):
            return cuts
    return [slice(n, n + 1) for n in range(size)]


def _furthest(weights: Array, axes: tuple[int, ...]) -> float:
    """How far from 0 a sum over ``axes`` may be."""
    exact = np.int64 if weights.dtype.kind == "i" else np.float64
    above = np.maximum(weights, 0).sum(axis=axes, dtype=exact).max(initial=0)
    below = np.minimum(weights, 0).sum(axis=axes, dtype=exact).min(initial=0)
    return float(max(above, -below)) * _LARGEST
