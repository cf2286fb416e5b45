"""Weights of 8-bit integers as f32, less their zero points; and how to cut sums by them so that each is exact in f32."""

import hashlib
from collections.abc import Callable

import numpy as np

from miniinfer_cli.backends.cpu.routine import Site
from miniinfer_cli.ir import Array

_EXACT = 1 << 24  # whole numbers up to here are floats of 32 bits
_LARGEST = 255  # what an operand of 8 bits is away from its zero point at most


def centred_weights(site: Site, number: int, zero: int, form: str, shaped: Callable[[Array], Array]) -> Array | None:
    """Operand ``number`` less operand ``zero``, as f32, in the shape that ``shaped`` gives both; computed once.

    ``form`` names that shape. None where one of them is no constant.
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
        return wide if offset is None else wide - offset

    return site.weights.derived(weights, f"{form} less zero point {name}", make)


def exact_cuts(weights: Array, axis: int, features: int) -> list[slice]:
    """Parts of ``axis`` within which no sum of products, for any of the ``features`` (an axis), leaves what f32 holds exactly."""
    size = weights.shape[axis]
    turned = np.moveaxis(np.abs(weights), (features, axis), (0, 1))
    magnitudes = turned.sum(axis=tuple(range(2, turned.ndim)))
    for parts in range(1, size + 1):
        cuts = [slice(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
        if all(float(magnitudes[:, cut].sum(-1).max(initial=0)) * _LARGEST < _EXACT for cut in cuts):
            return cuts
    return [slice(n, n + 1) for n in range(size)]
