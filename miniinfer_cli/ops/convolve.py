"""Convolution of channels-last arrays as matrix products: what the references and the CPU backend compute with.

Activations are ``[N, spatial..., C]`` and weights ``[K, spatial..., C/group]``, both f32 or both f64. Every function
writes into ``out`` when it is given and never changes its inputs.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.windows import tap_regions

TILE_NBYTES = 1 << 20
"""Bytes of gathered input that one matrix product takes: about what stays in the second-level caches of a few cores."""


def conv_channels_last(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    strides: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    dilations: Sequence[int],
    group: int = 1,
    out: Array | None = None,
) -> Array:
    """Convolves ``x`` ``[N, spatial..., C]`` with ``w`` ``[K, spatial..., C/group]``; gives ``[N, out spatial..., K]``.

    ``begin`` and ``end`` are the zero padding of each spatial axis; ``bias`` is ``[K]``.
    """
    kernel = w.shape[1:-1]
    sizes = [
        (size + b + e - (k - 1) * d - 1) // s + 1
        for size, b, e, k, d, s in zip(x.shape[1:-1], begin, end, kernel, dilations, strides, strict=True)
    ]
    if out is None:
        out = np.empty((x.shape[0], *sizes, w.shape[0]), x.dtype)
    if out.size == 0:
        return out
    if w.shape[-1] == 1 and group == x.shape[-1] and group > 1:
        _depthwise(x, w, strides, begin, dilations, out)
        if bias is not None:
            out += bias
    elif math.prod(kernel) == 1 and not any(begin) and not any(end):
        _pointwise(x[(slice(None), *(slice(None, None, s) for s in strides))], w, bias, group, out)
    else:
        _gathered(pad_spatial(x, begin, end), w, bias, strides, dilations, group, out)
    return out


def pad_spatial(x: Array, begin: Sequence[int], end: Sequence[int]) -> Array:
    """``x`` ``[N, spatial..., C]`` with zeros around its spatial axes; ``x`` itself when there is nothing to add."""
    if not any(begin) and not any(end):
        return x
    shape = (x.shape[0], *(size + b + e for size, b, e in zip(x.shape[1:-1], begin, end, strict=True)), x.shape[-1])
    padded = np.zeros(shape, x.dtype)
    padded[(slice(None), *(slice(b, b + size) for b, size in zip(begin, x.shape[1:-1], strict=True)))] = x
    return padded


def _pointwise(x: Array, w: Array, bias: Array | None, group: int, out: Array) -> None:
    """A 1x1 kernel: the pixels are the rows of one product. Copies only what a stride leaves scattered."""
    channels, features = x.shape[-1], w.shape[0]
    rows = np.ascontiguousarray(x).reshape(-1, channels)
    _product(rows.reshape(len(rows), 1, channels), w.reshape(features, 1, -1), bias, group, out.reshape(-1, features))


def _gathered(
    x: Array, w: Array, bias: Array | None, strides: Sequence[int], dilations: Sequence[int], group: int, out: Array
) -> None:
    """Gathers the window of each output pixel, a tile of rows at a time, and multiplies it by the weights."""
    n, *sizes, features = out.shape
    kernel, channels = w.shape[1:-1], x.shape[-1]
    taps = math.prod(kernel)
    step = x.strides
    view = as_strided(
        x,
        (n, *sizes, *kernel, channels),
        (step[0], *(a * s for a, s in zip(step[1:-1], strides, strict=True)),
         *(a * d for a, d in zip(step[1:-1], dilations, strict=True)), step[-1]),
        writeable=False,
    )  # fmt: skip
    weights = w.reshape(features, taps, -1)
    row = math.prod(sizes[1:])  # output pixels for one position of the first spatial axis
    rows_per_tile = max(TILE_NBYTES // max(row * taps * channels * x.itemsize, 1), 1)
    scratch = np.empty(min(rows_per_tile, sizes[0]) * row * taps * channels, x.dtype)
    for image, start in itertools.product(range(n), range(0, sizes[0], rows_per_tile)):
        tile = view[image, start : start + rows_per_tile]
        gathered = scratch[: tile.size].reshape(tile.shape)
        np.copyto(gathered, tile)
        rows = len(tile) * row
        target = out[image, start : start + rows_per_tile].reshape(rows, features)
        _product(gathered.reshape(rows, taps, channels), weights, bias, group, target)


def _product(rows: Array, weights: Array, bias: Array | None, group: int, out: Array) -> None:
    """``rows`` ``[P, taps, C]`` times ``weights`` ``[K, taps, C/group]``, group by group, into ``out`` ``[P, K]``."""
    pixels, taps, channels = rows.shape
    features = len(weights)
    if group == 1:
        np.matmul(rows.reshape(pixels, taps * channels), weights.reshape(features, taps * channels).T, out=out)
    else:
        size, wide = channels // group, features // group
        grouped = rows.reshape(pixels, taps, group, size).transpose(2, 0, 1, 3).reshape(group, pixels, taps * size)
        for g in range(group):
            weight = weights[g * wide : (g + 1) * wide].reshape(wide, taps * size)
            np.matmul(grouped[g], weight.T, out=out[:, g * wide : (g + 1) * wide])
    if bias is not None:
        out += bias


def _depthwise(x: Array, w: Array, strides: Sequence[int], begin: Sequence[int], dilations: Sequence[int], out: Array) -> None:
    """One filter, or several, for each channel alone: a sum over taps of shifted input times the tap's weights."""
    channels = x.shape[-1]
    kernel = w.shape[1:-1]
    per_channel = w.shape[0] // channels
    target = out.reshape(*out.shape[:-1], channels, per_channel)
    target[...] = 0
    for tap in itertools.product(*(range(k) for k in kernel)):
        to, read = tap_regions(
            tap, strides=strides, dilations=dilations, begin=begin, sizes=x.shape[1:-1], out_sizes=out.shape[1:-1]
        )
        weight = w.transpose(*range(1, w.ndim - 1), 0, -1)[tap].reshape(channels, per_channel)
        target[(slice(None), *to)] += x[(slice(None), *read)][..., None] * weight
