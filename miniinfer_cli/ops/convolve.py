"""Convolution of channels-last arrays as matrix products: what the references and the CPU backend compute with.

Activations are ``[N, spatial..., C]`` and weights ``[K, spatial..., C/group]``, both f32 or both f64.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from miniinfer_cli.ir import Array

Ints = Sequence[int]
ForEach = Callable[[int, Callable[[int], None]], None]
"""``for_each(count, body)`` calls ``body(i)`` for each i below ``count``, on several threads if it likes."""

TILE_NBYTES = 2 << 20
"""Bytes of gathered input that one matrix product takes. On ResNet-50's layers 2 to 8 MiB are equally fast, less is slower."""

_RUN = 1024  # elements; a depthwise row is cut into runs of about this length, which amortises the loop and stays in cache
_PART = 1 << 16  # output elements; a part of a depthwise convolution for one thread is not smaller than this


def conv_channels_last(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    strides: Ints,
    begin: Ints,
    end: Ints,
    dilations: Ints,
    group: int = 1,
    out: Array | None = None,
    scratch: Array | None = None,
    for_each: ForEach | None = None,
) -> Array:
    """Convolves ``x`` ``[N, spatial..., C]`` with ``w`` ``[K, spatial..., C/group]``; gives ``[N, out spatial..., K]``.

    ``begin`` and ``end`` are the zero padding of each spatial axis; ``bias`` is ``[K]``. ``out``, C-contiguous, takes
    the result; ``scratch``, a uint8 array of ``conv_scratch_nbytes`` bytes, saves the allocations; ``for_each`` splits
    what the matrix library does not. Raises ValueError when ``out`` is not contiguous.
    """
    sizes = _output_sizes(x.shape[1:-1], w.shape[1:-1], strides, begin, end, dilations)
    if out is None:
        out = np.empty((x.shape[0], *sizes, w.shape[0]), x.dtype)
    if not out.flags.c_contiguous:
        raise ValueError("out is not contiguous")
    if out.size == 0:
        return out
    if x.shape[-1] == 0:
        out[...] = 0
    elif _is_pointwise(w.shape, begin, end):
        rows = x[(slice(None), *(slice(None, None, s) for s in strides))].reshape(-1, x.shape[-1])
        _product(rows[:, None], w, group, out)
    else:
        buffer = _Scratch(scratch, x.dtype)
        padded = pad_spatial(x, begin, end, buffer)
        if _is_depthwise(x.shape, w.shape, group):
            _depthwise(padded, w, strides, dilations, out, for_each)
        else:
            _gathered(padded, w, bias, strides, dilations, group, out, buffer)
            return out
    if bias is not None:
        out += bias
    return out


def conv_scratch_nbytes(
    x_shape: Ints, w_shape: Ints, itemsize: int, *, strides: Ints, begin: Ints, end: Ints, dilations: Ints, group: int = 1
) -> int:
    """Bytes of scratch that ``conv_channels_last`` wants for these shapes and elements of ``itemsize`` bytes."""
    if _is_pointwise(w_shape, begin, end):
        return 0
    padded = [size + b + e for size, b, e in zip(x_shape[1:-1], begin, end, strict=True)]
    count = x_shape[0] * math.prod(padded) * x_shape[-1] if any(begin) or any(end) else 0
    if not _is_depthwise(x_shape, w_shape, group):
        sizes = _output_sizes(x_shape[1:-1], w_shape[1:-1], strides, begin, end, dilations)
        images, rows = _tile(x_shape[0], sizes, math.prod(w_shape[1:-1]) * x_shape[-1], itemsize)
        count += images * rows * math.prod(sizes[1:]) * math.prod(w_shape[1:-1]) * x_shape[-1]
    return count * itemsize


class _Scratch:
    """Hands out pieces of one buffer, or fresh arrays when there is none."""

    def __init__(self, buffer: Array | None, dtype: np.dtype[Any]) -> None:
        self._buffer = None if buffer is None else buffer[: buffer.size // dtype.itemsize * dtype.itemsize].view(dtype)
        self._dtype = dtype
        self._used = 0

    def take(self, shape: Ints) -> Array:
        size = math.prod(shape)
        if self._buffer is None:
            return np.empty(shape, self._dtype)
        start, self._used = self._used, self._used + size
        return self._buffer[start : self._used].reshape(shape)


def pad_spatial(x: Array, begin: Ints, end: Ints, scratch: _Scratch | None = None) -> Array:
    """``x`` ``[N, spatial..., C]`` with zeros around its spatial axes and its channels adjacent; ``x`` itself when it is so."""
    if not any(begin) and not any(end):
        return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)
    shape = (x.shape[0], *(size + b + e for size, b, e in zip(x.shape[1:-1], begin, end, strict=True)), x.shape[-1])
    padded = np.empty(shape, x.dtype) if scratch is None else scratch.take(shape)
    for axis, (b, e) in enumerate(zip(begin, end, strict=True), start=1):
        lead = (slice(None),) * axis
        padded[(*lead, slice(0, b))] = 0
        padded[(*lead, slice(shape[axis] - e, None))] = 0
    padded[(slice(None), *(slice(b, b + size) for b, size in zip(begin, x.shape[1:-1], strict=True)))] = x
    return padded


def _gathered(
    x: Array,
    w: Array,
    bias: Array | None,
    strides: Ints,
    dilations: Ints,
    group: int,
    out: Array,
    scratch: _Scratch,
) -> None:
    """Gathers the windows of a tile of output pixels and multiplies them by the weights, tile after tile."""
    kernel, channels, taps = w.shape[1:-1], x.shape[-1], math.prod(w.shape[1:-1])
    windows = _windows(x, kernel, strides, dilations, out.shape[1:-1])
    images_per_tile, rows_per_tile = _tile(len(out), out.shape[1:-1], taps * channels, x.itemsize)
    row = math.prod(out.shape[2:-1])
    buffer = scratch.take((images_per_tile * rows_per_tile * row * taps * channels,))
    for image in range(0, len(out), images_per_tile):
        for start in range(0, out.shape[1], rows_per_tile):
            part = (slice(image, image + images_per_tile), slice(start, start + rows_per_tile))
            tile = windows[part]
            gathered = buffer[: tile.size].reshape(tile.shape)
            np.copyto(gathered, tile)
            _product(gathered.reshape(-1, taps, channels), w, group, out[part])
            if bias is not None:
                out[part] += bias


def _product(rows: Array, w: Array, group: int, out: Array) -> None:
    """``rows`` ``[P, taps, C]`` times the weights, group by group, into ``out``, whose pixels are the rows."""
    pixels, taps, channels = rows.shape
    features = len(w)
    if group == 1:
        weights = w.reshape(features, taps * channels)
        np.matmul(rows.reshape(pixels, taps * channels), weights.T, out=out.reshape(pixels, features))
        return
    size, wide = channels // group, features // group
    grouped = rows.reshape(pixels, taps, group, size).transpose(2, 0, 1, 3).reshape(group, pixels, taps * size)
    weights = w.reshape(group, wide, taps * size).transpose(0, 2, 1)
    np.matmul(grouped, weights, out=out.reshape(pixels, group, wide).transpose(1, 0, 2))


def _depthwise(x: Array, w: Array, strides: Ints, dilations: Ints, out: Array, for_each: ForEach | None) -> None:
    """Filters of one channel each: a sum over taps of shifted input times weight, which einsum does in one pass per tap.

    With stride 1 the pixels of a row and their channels are one run of memory, so several pixels are taken as one long
    vector against the weights repeated as often: einsum's inner loop is then long enough to pay.
    """
    features = len(w)
    if features != x.shape[-1]:
        x = np.repeat(x, features // x.shape[-1], axis=-1)
    windows = _windows(x, w.shape[1:-1], strides, dilations, out.shape[1:-1])
    filters = np.ascontiguousarray(np.moveaxis(w[..., 0], 0, -1))
    width = out.shape[-2]
    length = min(width, -(-_RUN // features)) if strides[-1] == 1 and x.flags.c_contiguous else 1
    blocks, rest = divmod(width, length)
    spans = [(0, blocks, length)] if not rest else [(0, blocks, length), (blocks * length, 1, rest)]
    repeated = [np.tile(filters, (*(1,) * (filters.ndim - 1), pixels)) for _, _, pixels in spans]
    rows = out.shape[1]
    parts = 1 if for_each is None or out.ndim < 4 else max(min(out.size // _PART, rows, 8) // 2 * 2, 1)

    def run(part: int) -> None:
        cut = (slice(None), slice(rows * part // parts, rows * (part + 1) // parts))
        for (start, count, pixels), weights in zip(spans, repeated, strict=True):
            _multiply_blocks(windows[cut], weights, start, count, pixels, out[cut])

    if for_each is None or parts == 1:
        run(0)
    else:
        for_each(parts, run)


def _multiply_blocks(windows: Array, weights: Array, start: int, count: int, pixels: int, out: Array) -> None:
    """Output columns ``start`` to ``start + count * pixels``, as ``count`` blocks of ``pixels`` that are one vector each."""
    n = out.ndim - 2
    kernel, length = weights.shape[:-1], weights.shape[-1]
    step = windows.strides
    blocks = as_strided(
        windows[(..., start, *(slice(None),) * (n + 1))],
        (*out.shape[:n], count, *kernel, length),
        (*step[:n], step[n] * pixels, *step[n + 1 : 2 * n + 1], step[-1]),
        writeable=False,
    )
    target = out[..., start : start + count * pixels, :].reshape(*out.shape[:n], count, length)
    outer, taps, element = list(range(n + 1)), list(range(n + 1, 2 * n + 1)), 2 * n + 1
    np.einsum(blocks, [*outer, *taps, element], weights, [*taps, element], [*outer, element], out=target)


def _windows(x: Array, kernel: Ints, strides: Ints, dilations: Ints, sizes: Ints) -> Array:
    """A view ``[N, sizes..., kernel..., C]`` of what each output pixel reads of the padded input."""
    step = x.strides
    return as_strided(
        x,
        (x.shape[0], *sizes, *kernel, x.shape[-1]),
        (
            step[0],
            *(a * s for a, s in zip(step[1:-1], strides, strict=True)),
            *(a * d for a, d in zip(step[1:-1], dilations, strict=True)),
            step[-1],
        ),
        writeable=False,
    )


def _tile(images: int, sizes: Ints, depth: int, itemsize: int) -> tuple[int, int]:
    """How many images, and positions of the first spatial axis, one tile takes; several images only when whole."""
    row_nbytes = math.prod(sizes[1:]) * depth * itemsize
    rows = min(max(TILE_NBYTES // max(row_nbytes, 1), 1), sizes[0])
    if rows < sizes[0]:
        return 1, rows
    return min(max(TILE_NBYTES // max(row_nbytes * rows, 1), 1), images), rows


def _output_sizes(sizes: Ints, kernel: Ints, strides: Ints, begin: Ints, end: Ints, dilations: Ints) -> list[int]:
    return [
        (size + b + e - (k - 1) * d - 1) // s + 1
        for size, b, e, k, d, s in zip(sizes, begin, end, kernel, dilations, strides, strict=True)
    ]


def _is_pointwise(w_shape: Ints, begin: Ints, end: Ints) -> bool:
    return math.prod(w_shape[1:-1]) == 1 and not any(begin) and not any(end)


def _is_depthwise(x_shape: Ints, w_shape: Ints, group: int) -> bool:
    return w_shape[-1] == 1 and group == x_shape[-1] and group > 1
