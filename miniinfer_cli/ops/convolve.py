"""Convolution of channels-last arrays as matrix products: what the references and the CPU backend compute with.

Activations are ``[N, spatial..., C]`` and weights ``[K, spatial..., C/group]``, both f32 or both f64.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.convolve_narrow import is_narrow, prepare_narrow, turned_size
from miniinfer_cli.ops.products import (
    Call,
    ForEach,
    Stage,
    Then,
    even_count,
    in_buffers,
    in_order,
    multiply,
    prepare_product,
    product_stages,
)
from miniinfer_cli.ops.windows import Window, window_view

Ints = Sequence[int]

TILE_NBYTES = 1 << 20
"""Bytes of gathered input that one matrix product takes. 0.5 to 2 MiB are equally fast on ResNet-50's layers, others slower."""

LARGE_TILE_NBYTES = 8 << 20
"""The same where the weights take as much: every tile reads all of them."""
_COPY_NBYTES = 1 << 19  # what one thread gathers of a tile, at least
_SMALL_NBYTES = 1 << 14  # of a padded input: filled whole, which is one call
_RUN = 2048  # elements of a bias repeated over pixels


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the windows of a convolution lie, by spatial axis: ``begin`` and ``end`` are the zero padding of each."""

    strides: Ints
    begin: Ints
    end: Ints
    dilations: Ints
    group: int = 1

    @staticmethod
    def of(window: Window, sizes: Ints, group: int) -> "Geometry":
        """That of a node's window over an input of these spatial ``sizes``."""
        begin, end = window.padding(sizes)
        return Geometry(window.strides, begin, end, window.dilations, group)

    @property
    def is_padded(self) -> bool:
        """True where there are zeros around the input."""
        return any(self.begin) or any(self.end)

    def padded(self, sizes: Ints) -> list[int]:
        """The spatial ``sizes`` of an input with the zeros around it."""
        return [size + b + e for size, b, e in zip(sizes, self.begin, self.end, strict=True)]

    def output_sizes(self, sizes: Ints, kernel: Ints) -> list[int]:
        """The spatial sizes of the output."""
        return [
            (size - (k - 1) * d - 1) // s + 1
            for size, k, d, s in zip(self.padded(sizes), kernel, self.dilations, self.strides, strict=True)
        ]


def conv_channels_last(
    x: Array,
    w: Array,
    bias: Array | None,
    geometry: Geometry,
    *,
    out: Array | None = None,
    scratch: Array | None = None,
    for_each: ForEach | None = None,
) -> Array:
    """Convolves ``x`` ``[N, spatial..., C]`` with ``w`` ``[K, spatial..., C/group]``; gives ``[N, out spatial..., K]``.

    ``bias`` is ``[K]``. ``out``, C-contiguous, takes the result. ``scratch``, a uint8 array of ``conv_scratch_nbytes`` bytes for
    the threads of ``for_each``, which share the work, saves the allocations. Raises ValueError when ``out`` is not contiguous.
    """
    if out is None:
        sizes = geometry.output_sizes(x.shape[1:-1], w.shape[1:-1])
        out = np.empty((x.shape[0], *sizes, w.shape[0]), x.dtype)
    prepare_conv(x, w, bias, geometry, out=out, scratch=scratch, for_each=for_each)()
    return out


def prepare_conv(
    x: Array,
    w: Array,
    bias: Array | None,
    geometry: Geometry,
    *,
    out: Array,
    scratch: Array | None = None,
    for_each: ForEach | None = None,
    then: Then | None = None,
) -> Call:
    """``conv_channels_last`` of these arrays made ready, to be called as often as ``x`` holds something new.

    Weights and bias are laid out here, and must stay what they are. ``then`` follows on the pixels of ``out`` as they are done,
    with the bias. Raises ValueError when ``out`` is not contiguous.
    """
    g = geometry
    if not out.flags.c_contiguous:
        raise ValueError("out is not contiguous")
    if out.size == 0:
        return in_order()
    follow = with_bias(out, bias, then)
    buffer = _Scratch(scratch, x.dtype)
    if x.shape[-1] == 0:
        calls: list[Call] = [functools.partial(out.fill, 0)]
    elif is_narrow(w.shape, g.group):
        padded, calls = _padded(x, g, buffer)
        count = turned_size(padded.shape, w.shape, g.group, g.strides, g.dilations, out.shape[1:-1])
        turned = buffer.take((count,)) if count else None
        narrow = prepare_narrow(
            padded, w, strides=g.strides, dilations=g.dilations, group=g.group, out=out, turned=turned, for_each=for_each
        )
        calls.append(narrow)
    elif _is_pointwise(w.shape, g):
        chosen = x[(slice(None), *(slice(None, None, s) for s in g.strides))]
        calls = []
        if not chosen.flags.c_contiguous:
            copied = np.empty(chosen.shape, x.dtype) if chosen.shape == x.shape else buffer.take(chosen.shape)
            calls, chosen = [functools.partial(np.copyto, copied, chosen)], copied
        rows = chosen.reshape(-1, 1, x.shape[-1])
        if g.group == 1:
            return in_order(*calls, prepare_product(*_matrices(rows, w, out), for_each, follow))
        calls.append(functools.partial(_grouped_product, rows, w, g.group, out, for_each))
    else:
        return _gathered(x, w, g, out, buffer, for_each, follow)
    if follow is not None:
        calls.append(follow(slice(0, out.size // out.shape[-1])))
    return in_order(*calls)


def with_bias(out: Array, bias: Array | None, then: Then | None) -> Then | None:
    """What follows on pixels of ``out``: the bias is added, and then ``then``; None for nothing."""
    if bias is None:
        return then
    features = out.shape[-1]
    pixels = out.reshape(-1, features)
    together = max(min(_RUN // features, len(pixels)), 1)
    run = np.tile(bias, together)

    def follow(rows: slice) -> Call:
        part = pixels[rows]
        count = len(part) // together * together
        calls: list[Call] = []
        if count:  # many pixels as one long vector: numpy takes longer over short ones
            long = part[:count].reshape(-1, together * features)
            calls.append(functools.partial(np.add, long, run, long))
        if count < len(part):
            calls.append(functools.partial(np.add, part[count:], bias, part[count:]))
        return in_order(*calls, then(rows)) if then is not None else in_order(*calls)

    return follow


def conv_scratch_nbytes(x_shape: Ints, w_shape: Ints, itemsize: int, geometry: Geometry, *, threads: int = 1) -> int:
    """Bytes of scratch that ``conv_channels_last`` wants for these shapes and elements of ``itemsize`` bytes."""
    padded = [x_shape[0], *geometry.padded(x_shape[1:-1]), x_shape[-1]]
    count = math.prod(padded) if geometry.is_padded else 0
    sizes = geometry.output_sizes(x_shape[1:-1], w_shape[1:-1])
    if is_narrow(w_shape, geometry.group):
        g = geometry
        return (count + turned_size(padded, w_shape, g.group, g.strides, g.dilations, sizes)) * itemsize
    if _is_pointwise(w_shape, geometry):
        return 0 if list(sizes) == list(x_shape[1:-1]) else x_shape[0] * math.prod(sizes) * x_shape[-1] * itemsize
    depth = math.prod(w_shape[1:-1]) * x_shape[-1]
    tile = _Tile.of(x_shape[0], sizes, depth, w_shape[0], itemsize)
    return (count + tile.buffers([x_shape[0], *sizes], threads) * tile.pixels * depth) * itemsize


def _gathered(
    x: Array, w: Array, g: Geometry, out: Array, scratch: "_Scratch", for_each: ForEach | None, follow: Then | None
) -> Call:
    """Gathers the windows of a tile of output pixels and multiplies them by the weights, for each tile; ``follow`` follows."""
    channels, taps = x.shape[-1], math.prod(w.shape[1:-1])
    padded, before = _padded(x, g, scratch)
    windows = window_view(padded, 1, w.shape[1:-1], g.strides, g.dilations, out.shape[1:-1])
    tile = _Tile.of(len(out), out.shape[1:-1], taps * channels, len(w), x.itemsize)
    parts = list(tile.parts(out.shape))
    count = 1 if for_each is None else tile.buffers(out.shape, for_each.count)
    buffers = list(scratch.take((count, tile.pixels * taps * channels)))
    if for_each is not None and for_each.count > 1 and len(parts) == 1:
        gathered = buffers[0].reshape(windows.shape)
        copy = _copy_stage(windows, gathered, tile.axis)
        rows = gathered.reshape(-1, taps, channels)
        if g.group == 1:
            stages = product_stages(*_matrices(rows, w, out), for_each.count, follow)
            return in_order(*before, functools.partial(for_each.in_turn, copy, *stages))
        before.append(functools.partial(for_each.in_turn, copy))
        before.append(functools.partial(_grouped_product, rows, w, g.group, out, for_each))
        return in_order(*before, follow(slice(0, out.size // out.shape[-1]))) if follow is not None else in_order(*before)

    def ready(number: int, at: int) -> Call:
        read, target = windows[parts[number]], out[parts[number]]
        gathered = buffers[at][: read.size].reshape(read.shape)
        rows = gathered.reshape(-1, taps, channels)
        calls: list[Call] = [functools.partial(np.copyto, gathered, read)]
        if g.group == 1:
            calls.append(prepare_product(*_matrices(rows, w, target)))
        else:
            calls.append(functools.partial(_grouped_product, rows, w, g.group, target, None))
        if follow is not None:
            calls.append(follow(tile.pixels_of(parts[number], out.shape)))
        return in_order(*calls)

    if for_each is None or for_each.count == 1:
        return in_order(*before, *(ready(number, 0) for number in range(len(parts))))
    return in_order(*before, functools.partial(for_each, len(parts), in_buffers(len(parts), count, ready)))


def _copy_stage(read: Array, target: Array, axis: int) -> Stage:
    """Copies ``read`` to ``target``, in parts along ``axis`` when it is much."""
    size = read.shape[axis]
    parts = even_count(min(target.nbytes // _COPY_NBYTES, size))
    lead = (slice(None),) * axis

    def copy(number: int) -> None:
        part = (*lead, slice(size * number // parts, size * (number + 1) // parts))
        np.copyto(target[part], read[part])

    return parts, copy


def _grouped_product(rows: Array, w: Array, group: int, out: Array, for_each: ForEach | None) -> None:
    """``rows`` ``[P, taps, C]`` times the weights, group by group, into ``out``, whose pixels are the rows."""
    pixels, taps, channels = rows.shape
    features = len(w)
    size, wide = channels // group, features // group
    grouped = rows.reshape(pixels, taps, group, size).transpose(2, 0, 1, 3).reshape(group, pixels, taps * size)
    weights = w.reshape(group, wide, taps * size).transpose(0, 2, 1)
    multiply(grouped, weights, out.reshape(pixels, group, wide).transpose(1, 0, 2), for_each)


def _matrices(rows: Array, w: Array, out: Array) -> tuple[Array, Array, Array]:
    """``rows`` ``[P, taps, C]``, the weights and ``out`` as the matrices of one product."""
    depth, features = math.prod(rows.shape[1:]), len(w)
    return rows.reshape(len(rows), depth), w.reshape(features, depth).T, out.reshape(len(rows), features)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Output pixels gathered at a time: so many images, and positions of ``axis``, and all of the axes behind it.

    ``axis`` is the first spatial axis (of ``out``) that is longer than 1. Several images only when they are whole.
    """

    axis: int
    images: int
    rows: int
    pixels: int

    @staticmethod
    def of(images: int, sizes: Ints, depth: int, features: int, itemsize: int) -> "_Tile":
        """A tile for pixels that gather ``depth`` elements each; one row at least. Threads share tiles evenly.

        It is within TILE_NBYTES, or as large as the weights of ``features``, which each tile reads, up to LARGE_TILE_NBYTES.

        Of no images or no pixels there are no tiles, of one row each.
        """
        if not images or not math.prod(sizes):
            return _Tile(1, 1, 1, 0)
        axis = next((i for i, size in enumerate(sizes) if size > 1), 0)
        row = math.prod(sizes[axis + 1 :])
        nbytes = max(TILE_NBYTES, min(depth * features * itemsize, LARGE_TILE_NBYTES))
        limit = max(nbytes // max(depth * itemsize * row, 1), 1)  # rows
        rows = sizes[axis] if limit >= sizes[axis] else _shared_evenly(sizes[axis], limit)
        together = _shared_evenly(images, max(limit // rows, 1)) if rows == sizes[axis] else 1
        return _Tile(axis + 1, together, rows, together * rows * row)

    def buffers(self, shape: Ints, threads: int) -> int:
        """Tiles of an output of ``shape`` that are gathered at the same time by ``threads`` threads."""
        tiles = -(-shape[0] // self.images) * -(-shape[self.axis] // self.rows)
        return min(tiles, threads)

    def pixels_of(self, part: tuple[slice, ...], shape: Ints) -> slice:
        """The pixels of a part of an output of ``shape``, counted through: a tile is whole images, or rows of one."""
        each = math.prod(shape[self.axis + 1 : -1])
        size = shape[self.axis]
        first, last = part[0].start, min(part[0].stop, shape[0])
        start, stop = part[self.axis].start, min(part[self.axis].stop, size)
        return slice((first * size + start) * each, ((last - 1) * size + stop) * each)

    def parts(self, shape: Ints) -> Iterator[tuple[slice, ...]]:
        """The indices of the tiles in an output of ``shape``, in order."""
        whole = (slice(None),) * (self.axis - 1)
        for image in range(0, shape[0], self.images):
            for start in range(0, shape[self.axis], self.rows):
                yield (slice(image, image + self.images), *whole, slice(start, start + self.rows))


def _padded(x: Array, geometry: Geometry, scratch: "_Scratch") -> tuple[Array, list[Call]]:
    """``x`` ``[N, spatial..., C]`` with zeros around its spatial axes and its channels adjacent, and what makes it so.

    It is ``x`` itself when that is so.
    """
    if not geometry.is_padded:
        if x.strides[-1] == x.itemsize:
            return x, []
        dense = np.empty(x.shape, x.dtype)
        return dense, [functools.partial(np.copyto, dense, x)]
    begin, end = geometry.begin, geometry.end
    shape = (x.shape[0], *geometry.padded(x.shape[1:-1]), x.shape[-1])
    padded = scratch.take(shape)
    calls: list[Call] = []
    if padded.nbytes <= _SMALL_NBYTES:
        calls.append(functools.partial(padded.fill, 0))
    else:
        for axis, (b, e) in enumerate(zip(begin, end, strict=True), start=1):
            lead = (slice(None),) * axis
            sides = (padded[(*lead, slice(0, b))], padded[(*lead, slice(shape[axis] - e, None))])
            calls += [functools.partial(side.fill, 0) for side in sides if side.size]
    inner = padded[(slice(None), *(slice(b, b + size) for b, size in zip(begin, x.shape[1:-1], strict=True)))]
    return padded, [*calls, functools.partial(np.copyto, inner, x)]


def _shared_evenly(size: int, most: int) -> int:
    """At most ``most`` of ``size`` at a time, so that few threads share the times that it takes evenly."""
    times = -(-size // most)
    return -(-size // even_count(times + 7 if times > 4 else times + times // 3))


class _Scratch:
    """Hands out pieces of one buffer, or fresh arrays when there is none."""

    def __init__(self, buffer: Array | None, dtype: np.dtype[Any]) -> None:
        self._buffer = None if buffer is None else buffer[: buffer.size // dtype.itemsize * dtype.itemsize].view(dtype)
        self._dtype = dtype
        self._used = 0

    def take(self, shape: Ints) -> Array:
        """The next piece, of this shape."""
        size = math.prod(shape)
        if self._buffer is None:
            return np.empty(shape, self._dtype)
        start, self._used = self._used, self._used + size
        return self._buffer[start : self._used].reshape(shape)


def _is_pointwise(w_shape: Ints, geometry: Geometry) -> bool:
    return math.prod(w_shape[1:-1]) == 1 and not geometry.is_padded
