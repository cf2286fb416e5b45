"""Convolution of narrow groups, depthwise above all, by einsum: too little per group to make a matrix product of.

A group of ``size`` input channels contributes to each output channel ``size`` products per tap. Turning the channels of
every group around by 0, 1 ... size - 1 places and lining them up with the output channels makes each of these a product
of whole channel vectors, which einsum sums in one pass, tap by tap, while the output is in the cache. A depthwise
convolution needs no turning. With a stride it takes the columns apart, as many images as the stride is long, so that pixels that
follow each other in the output do so in memory.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import Call, ForEach, even_count, in_order
from miniinfer_cli.ops.windows import window_view

Ints = Sequence[int]

WIDEST = 4
"""Channels of the widest group that is faster this way than as matrix products (ResNeXt's first stage)."""

_RUN = 1024  # elements; a row is cut into runs of about this length, which amortises einsum's loop and stays in cache
_PART = 1 << 16  # output elements; what one thread is given is not smaller than this


def is_narrow(w_shape: Ints, group: int) -> bool:
    """Whether weights ``[K, kernel..., C/group]`` are better off here."""
    return group > 1 and w_shape[-1] <= WIDEST


def turned_size(x_shape: Ints, w_shape: Ints, group: int, strides: Ints, dilations: Ints, sizes: Ints) -> int:
    """Elements of scratch for what the padded input is turned into; 0 where the input itself will do.

    ``sizes``: those of the output.
    """
    if not _is_plain(w_shape, group):
        return w_shape[-1] * math.prod(x_shape[:-1]) * w_shape[0]
    if not _is_split(w_shape, strides, dilations, sizes):
        return 0
    step = strides[-1]
    return math.prod(x_shape[:-2]) * step * -(-x_shape[-2] // step) * x_shape[-1] + x_shape[0] * math.prod(sizes) * w_shape[0]


def prepare_narrow(
    x: Array, w: Array, *, strides: Ints, dilations: Ints, group: int, out: Array, turned: Array | None, for_each: ForEach | None
) -> Call:
    """Convolving the padded ``x`` ``[N, spatial..., C]`` with ``w`` ``[K, kernel..., C/group]`` into ``out``, made ready.

    ``turned`` holds ``turned_size`` elements, or is None where that is 0.
    """
    features, size = w.shape[0], w.shape[-1]
    calls: list[Call] = []
    rows = out.shape[1]
    parts = 1 if for_each is None or out.ndim < 4 else even_count(min(out.size // _PART, rows))
    if _is_plain(w.shape, group):
        filters = np.ascontiguousarray(np.moveaxis(w, 0, -1)[..., 0, :][None])
        if turned is None:
            ready = _sums(x[None], filters, strides, dilations, out, parts)
        else:
            calls, ready = _split_sums(x, filters, strides, dilations, out, turned, parts)
    else:
        assert turned is not None
        channel = np.arange(features)
        within = (channel + np.arange(size)[:, None]) % size  # [turn, K]: which channel of its group each output meets
        sources = turned.reshape(size, *x.shape[:-1], features)
        for turn in range(size):
            index = channel // (features // group) * size + within[turn]
            calls.append(functools.partial(np.take, x, index, axis=-1, out=sources[turn], mode="clip"))
        filters = np.ascontiguousarray(np.moveaxis(w[channel, ..., within], 1, -1))
        ready = _sums(sources, filters, strides, dilations, out, parts)
    if for_each is None or for_each.count == 1 or parts == 1:
        return in_order(*calls, *ready)
    return in_order(*calls, functools.partial(for_each, parts, lambda part: ready[part]()))


def _split_sums(
    x: Array, filters: Array, strides: Ints, dilations: Ints, out: Array, turned: Array, parts: int
) -> tuple[list[Call], list[Call]]:
    """With a stride along the rows: every so many columns of ``x`` as an image of their own, whose rows are runs of memory.

    What takes them apart, and what sums up each part of ``out``.
    """
    step = strides[-1]
    wide = -(-x.shape[-2] // step)
    count = math.prod(x.shape[:-2]) * wide * x.shape[-1]
    taken: list[Call] = []
    ready: list[list[Call]] = [[] for _ in range(parts)]
    more = turned[count * step :].reshape(out.shape)
    for first in range(min(step, filters.shape[-2])):
        columns = x[..., first::step, :]
        image = turned[count * first : count * (first + 1)].reshape(*x.shape[:-2], wide, x.shape[-1])
        taken.append(functools.partial(np.copyto, image[..., : columns.shape[-2], :], columns))
        taps = np.ascontiguousarray(filters[..., first::step, :])
        target = out if first == 0 else more
        sums = _sums(image[None], taps, (*strides[:-1], 1), dilations, target, parts)
        for part, each in enumerate(sums):
            ready[part].append(each)
            if first:
                cut = _cut(part, parts, out.shape[1])
                ready[part].append(functools.partial(np.add, out[:, cut], more[:, cut], out[:, cut]))
    return taken, [in_order(*each) for each in ready]


def _cut(part: int, parts: int, rows: int) -> slice:
    return slice(rows * part // parts, rows * (part + 1) // parts)


def _sums(sources: Array, filters: Array, strides: Ints, dilations: Ints, out: Array, parts: int) -> list[Call]:
    """For each part of the rows of ``out``: ``sources`` ``[turns,N,spatial...,K]`` by ``filters`` ``[turns,kernel...,K]``."""
    features = filters.shape[-1]
    windows = window_view(sources, 2, filters.shape[1:-1], strides, dilations, out.shape[1:-1])

    # With stride 1 the pixels of a row and their channels are one run of memory: several pixels are taken as one long
    # vector, against the filters repeated as often.
    width = out.shape[-2]
    length = min(width, -(-_RUN // features)) if strides[-1] == 1 and sources.flags.c_contiguous else 1
    blocks, rest = divmod(width, length)
    spans = [(0, blocks, length), *([(blocks * length, 1, rest)] if rest else [])]
    repeated = [np.tile(filters, (*(1,) * (filters.ndim - 1), pixels)) for _, _, pixels in spans]
    ready = []
    for part in range(parts):
        cut = _cut(part, parts, out.shape[1])
        each = [
            _block_sums(windows[:, :, cut], weights, start, count, pixels, out[:, cut])
            for (start, count, pixels), weights in zip(spans, repeated, strict=True)
        ]
        ready.append(in_order(*each))
    return ready


def _block_sums(windows: Array, weights: Array, start: int, count: int, pixels: int, out: Array) -> Call:
    """Output columns ``start`` to ``start + count * pixels``, as ``count`` blocks of ``pixels`` that are one vector each.

    ``windows`` is ``[turns, N, sizes..., kernel..., K]`` and ``weights`` ``[turns, kernel..., pixels * K]``.
    """
    n = out.ndim - 2
    turns, *kernel, length = weights.shape
    step = windows.strides
    first: tuple[Any, ...] = (..., start, *(slice(None),) * (n + 1))
    blocks = as_strided(
        windows[first],
        (*out.shape[:n], count, turns, *kernel, length),
        (*step[1 : n + 1], step[n + 1] * pixels, step[0], *step[n + 2 : 2 * n + 2], step[-1]),
        writeable=False,
    )
    target = out[..., start : start + count * pixels, :].reshape(*out.shape[:n], count, length)
    outer, taps, element = list(range(n + 1)), list(range(n + 1, 2 * n + 2)), 2 * n + 2
    return functools.partial(
        np.einsum, blocks, [*outer, *taps, element], weights, [*taps, element], [*outer, element], out=target
    )


def _is_split(w_shape: Ints, strides: Ints, dilations: Ints, sizes: Ints) -> bool:
    """Whether a plain depthwise convolution takes columns apart: vectors of one pixel are short, and there are many of them."""
    return strides[-1] > 1 and dilations[-1] == 1 and w_shape[-2] > 1 and sizes[-1] > 1 and 2 * w_shape[0] <= _RUN


def _is_plain(w_shape: Ints, group: int) -> bool:
    return w_shape[-1] == 1 and w_shape[0] == group
