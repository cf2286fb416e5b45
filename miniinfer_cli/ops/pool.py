"""Pooling over sliding windows, whatever the layout: what the references and the CPU backend compute with.

The spatial axes of ``x`` are ``first_axis`` and those after it, as many as the window has; all others are carried along.
Maximum, sum and count are taken one spatial axis after the other, so a k x k window costs 2k passes and no padded copy.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.windows import Window, tap_regions, tap_slices


def max_pool(x: Array, window: Window, first_axis: int, out: Array | None = None) -> Array:
    """The maximum of each window, padding left out. A window wholly in padding gives the type's lowest value."""
    return _fold(np.maximum, x, window, first_axis, lowest(x.dtype), out)


def sum_pool(x: Array, window: Window, first_axis: int, out: Array | None = None) -> Array:
    """The sum of each window, padding counting as zero."""
    return _fold(np.add, x, window, first_axis, 0, out)


def average_pool(x: Array, window: Window, first_axis: int, count_include_pad: bool, out: Array | None = None) -> Array:
    """The mean of each window over its elements inside the input, or inside the padded input."""
    total = sum_pool(x, window, first_axis, out)
    sizes = x.shape[first_axis : first_axis + len(window.strides)]
    begin, end = window.padding(sizes)
    for axis, size in enumerate(sizes):
        before, inside = (0, begin[axis] + size + end[axis]) if count_include_pad else (begin[axis], size)
        counts = _counts(window, axis, inside, before, total.shape[first_axis + axis])
        total /= counts.astype(total.dtype).reshape(-1, *(1,) * (total.ndim - first_axis - axis - 1))
    return total


def max_pool_indices(x: Array, window: Window, column_major: bool) -> tuple[Array, Array]:
    """Maximum and where it was, for ``x`` [N,C,spatial...]; of equal values, the first in the window.

    An index counts elements of the whole of ``x``; with ``column_major`` the spatial axes run in the opposite order.
    """
    sizes = x.shape[2:]
    begin, _ = window.padding(sizes)
    out_sizes = _out_sizes(window, sizes)
    best = np.full((*x.shape[:2], *out_sizes), lowest(x.dtype), x.dtype)
    where = np.full(best.shape, -1, np.int64)
    positions = np.arange(int(np.prod(sizes))).reshape(sizes, order="F" if column_major else "C")
    every = slice(None)
    for tap in itertools.product(*(range(k) for k in _kernel(window))):
        to, read = tap_regions(
            tap, strides=window.strides, dilations=window.dilations, begin=begin, sizes=sizes, out_sizes=out_sizes
        )
        value, held = x[(every, every, *read)], best[(every, every, *to)]
        better = (value > held) | (where[(every, every, *to)] < 0)
        if value.dtype.kind not in "iub":
            better |= np.isnan(value) & ~np.isnan(held)
        best[(every, every, *to)] = np.where(better, value, held)
        where[(every, every, *to)] = np.where(better, positions[read], where[(every, every, *to)])
    plane = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *(1,) * len(sizes))
    where += plane * int(np.prod(sizes))
    return best, where


def lowest(dtype: np.dtype[Any]) -> Any:
    """The value that a maximum starts from: minus infinity, or the least integer."""
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _fold(combine: Callable[..., Any], x: Array, window: Window, first_axis: int, start: Any, out: Array | None) -> Array:
    """Combines the taps of each window, axis by axis."""
    sizes = x.shape[first_axis : first_axis + len(window.strides)]
    begin, _ = window.padding(sizes)
    out_sizes = _out_sizes(window, sizes)
    for axis, (size, out_size, kernel) in enumerate(zip(sizes, out_sizes, _kernel(window), strict=True)):
        at = first_axis + axis
        last = axis == len(sizes) - 1
        shape = (*x.shape[:at], out_size, *x.shape[at + 1 :])
        folded = out if last and out is not None else np.empty(shape, x.dtype)
        lead = (slice(None),) * at
        folded[...] = start
        for tap in range(kernel):
            to, read = tap_slices(tap * window.dilations[axis] - begin[axis], window.strides[axis], size, out_size)
            combine(folded[(*lead, to)], x[(*lead, read)], out=folded[(*lead, to)])
        x = folded
    return x


def _counts(window: Window, axis: int, size: int, begin: int, out_size: int) -> Array:
    """How many taps of each output position along one axis fall inside an input of ``size``."""
    counts = np.zeros(out_size, np.int64)
    for tap in range(_kernel(window)[axis]):
        counts[tap_slices(tap * window.dilations[axis] - begin, window.strides[axis], size, out_size)[0]] += 1
    return np.maximum(counts, 1)


def _out_sizes(window: Window, sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(size) for size in window.output_sizes(sizes))


def _kernel(window: Window) -> tuple[int, ...]:
    return tuple(int(k) for k in window.kernel)
