"""Transposed convolution of channels-last arrays as matrix products: what the references and the CPU backend compute with.

Activations are ``[N, spatial..., C]`` and weights ``[C, kernel..., K/group]``, both f32 or both f64.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import Call, ForEach, Then, in_buffers, in_order, prepare_product
from miniinfer_cli.ops.windows import tap_regions

Ints = Sequence[int]

_BAND_NBYTES = 1 << 20
"""Of a product of all taps: they are copied to their pixels while it is in the cache. Half and twice as much are as fast."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the taps of an input pixel lie in the output, by spatial axis; ``begin`` of it is cut off."""

    strides: Ints
    begin: Ints
    dilations: Ints
    group: int = 1

    def is_apart(self, x: Ints, w: Ints, out: Ints) -> bool:
        """True for these shapes where each output pixel is one tap's: a kernel as large as its strides, nothing cut off."""
        whole = [n * s for n, s in zip(x[1:-1], self.strides, strict=True)]
        fits = list(w[1:-1]) == list(self.strides) and list(out[1:-1]) == whole
        return fits and self.group == 1 and not any(self.begin) and set(self.dilations) <= {1}


def conv_transpose_scratch_nbytes(x: Ints, w: Ints, out: Ints, itemsize: int, spread: Spread, *, threads: int = 1) -> int:
    """Bytes of scratch that ``prepare_conv_transpose`` wants for these shapes and elements of ``itemsize`` bytes."""
    if not math.prod(x) or not math.prod(out):
        return 0
    if not spread.is_apart(x, w, out):
        return math.prod(x[:-1]) * out[-1] * itemsize
    bands = _bands(x, w, itemsize)
    rows: int = max(b.stop - b.start for _, b in bands)
    return min(len(bands), threads) * rows * _row(x, w) * itemsize


def prepare_conv_transpose(
    x: Array,
    w: Array,
    bias: Array | None,
    spread: Spread,
    *,
    out: Array,
    scratch: Array | None = None,
    for_each: ForEach | None = None,
    then: Then | None = None,
) -> Call:
    """What computes ``out`` ``[N, out spatial..., K]``, C-contiguous, as often as ``x``, which is so too, holds something new.

    ``scratch``, a uint8 array of ``conv_transpose_scratch_nbytes`` bytes, saves the allocations. ``then`` follows on the pixels
    as they are done. One matrix product for each tap of the kernel, added into the output positions that the tap reaches. Where
    no two taps reach the same, nor none, it is one product of all taps, copied there.
    """
    threads = 1 if for_each is None else for_each.count
    whole: list[Call] = [] if then is None or not out.size else [then(slice(0, out.size // out.shape[-1]))]
    if not x.size or not out.size:
        return in_order(functools.partial(np.copyto, out, 0 if bias is None else bias), *whole)
    if scratch is None:
        nbytes = conv_transpose_scratch_nbytes(x.shape, w.shape, out.shape, x.itemsize, spread, threads=threads)
        scratch = np.empty(nbytes, np.uint8)
    room = scratch[: scratch.size // x.itemsize * x.itemsize].view(x.dtype)
    if spread.is_apart(x.shape, w.shape, out.shape):
        return _apart(x, w, bias, out, room, for_each, then)
    return in_order(_tap_by_tap(x, w, bias, spread, out, room, for_each), *whole)


def _tap_by_tap(
    x: Array, w: Array, bias: Array | None, spread: Spread, out: Array, room: Array, for_each: ForEach | None
) -> Call:
    channels, wide = x.shape[-1] // spread.group, w.shape[-1]
    rows = x.reshape(-1, x.shape[-1])
    product = room[: len(rows) * out.shape[-1]].reshape(len(rows), out.shape[-1])
    pixels = product.reshape(*x.shape[:-1], out.shape[-1])
    calls: list[Call] = [functools.partial(np.copyto, out, 0 if bias is None else bias)]
    for tap in itertools.product(*map(range, w.shape[1:-1])):
        read, to = tap_regions(
            tap,
            strides=spread.strides,
            dilations=spread.dilations,
            begin=spread.begin,
            sizes=out.shape[1:-1],
            out_sizes=x.shape[1:-1],
        )
        weights = np.moveaxis(w, 0, -2)[tap]
        for g in range(spread.group):
            inside, outside = slice(g * channels, (g + 1) * channels), slice(g * wide, (g + 1) * wide)
            calls.append(prepare_product(rows[:, inside], weights[inside], product[:, outside], for_each))
        reached = out[(slice(None), *to)]
        calls.append(functools.partial(np.add, reached, pixels[(slice(None), *read)], reached))
    return in_order(*calls)


def _apart(x: Array, w: Array, bias: Array | None, out: Array, room: Array, for_each: ForEach | None, then: Then | None) -> Call:
    """Every output pixel is one tap's: bands of rows are multiplied by all taps, and these are copied to their pixels."""
    *kernel, last = w.shape[1:-1]
    run = last * w.shape[-1]  # the taps of the last axis lie behind each other in the output as in the weights
    weights = w.reshape(len(w), -1)
    biases = None if bias is None else np.tile(bias, last)
    bands = _bands(x.shape, w.shape, x.itemsize)
    count = 1 if for_each is None else min(len(bands), for_each.count)
    buffers = room[: count * (len(room) // count)].reshape(count, -1)
    first, each = out.shape[1] // x.shape[1], math.prod(out.shape[2:-1])

    def ready(number: int, at: int) -> Call:
        image, band = bands[number]
        part = x[image, band]
        sizes = part.shape[:-1]
        product = buffers[at][: part.size // x.shape[-1] * weights.shape[1]]
        taps = product.reshape(*sizes, *kernel, run)
        order = [axis for pair in itertools.zip_longest(range(len(sizes)), range(len(sizes), taps.ndim - 1)) for axis in pair]
        source = taps.transpose([axis for axis in order if axis is not None] + [taps.ndim - 1])
        reached = out[image, band.start * first : band.stop * first].reshape(source.shape)
        move = (
            functools.partial(np.copyto, reached, source)
            if biases is None
            else functools.partial(np.add, source, biases, reached)
        )
        rows = part.reshape(-1, x.shape[-1])
        calls: list[Call] = [prepare_product(rows, weights, product.reshape(len(rows), -1)), move]
        if then is not None:
            begin = (image * x.shape[1] + band.start) * first * each
            calls.append(then(slice(begin, begin + (band.stop - band.start) * first * each)))
        return in_order(*calls)

    if for_each is None or for_each.count == 1:
        return in_order(*(ready(number, 0) for number in range(len(bands))))
    return functools.partial(for_each, len(bands), in_buffers(len(bands), count, ready))


def _bands(x: Ints, w: Ints, itemsize: int) -> list[tuple[int, slice]]:
    """Parts of an input of shape ``x``: the number of an image, and rows of its first spatial axis."""
    most = max(_BAND_NBYTES // (_row(x, w) * itemsize), 1)
    return [(n, slice(start, min(start + most, x[1]))) for n in range(x[0]) for start in range(0, x[1], most)]


def _row(x: Ints, w: Ints) -> int:
    """Elements of the product of all taps with one row of the first spatial axis."""
    return math.prod(x[2:-1]) * math.prod(w[1:])
