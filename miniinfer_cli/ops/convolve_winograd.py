"""Convolution by 3 x 3 filters with 4/9 of the multiplications: Winograd's F(2x2, 3x3).

Two by two output pixels are the filters over four by four input pixels. Both, turned by matrices of 0, 1, -1 and a half, are
multiplied element by element: 16 multiplications in the place of 36, and sums over channels, which are 16 matrix products.
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.1. Its rounding errors are those of f32 by
a small factor, since nothing is multiplied by more than 1 on the way.

Columns of the input are taken apart into even and odd ones, so that whatever is added up lies in long runs of memory.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import Call, ForEach, Then, even_count, in_buffers, in_order

Ints = Sequence[int]

TAPS = 16
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
"""What turns three weights of a row or a column into four."""
_CHUNK_NBYTES = 2 << 20  # of what lies between the two transforms: half and twice as much took up to a third longer
_LEAST_ROWS = 24  # tiles of a product: fewer take the matrix library as long


def pays(w_shape: Ints, strides: Ints, dilations: Ints, group: int, batch: int, sizes: Ints) -> bool:
    """Whether a convolution by ``w_shape`` ``[K, 3, 3, C]`` into an output of these ``sizes`` takes less time this way.

    Measured on an EPYC with AVX2: twice as fast with 128 channels and features, as fast with 24. The transforms cost channels
    plus features, the multiplications saved their product; few tiles make poor products, and read many weights for little.
    """
    features, *kernel, channels = w_shape
    if group != 1 or kernel != [3, 3] or any(n != 1 for n in (*strides, *dilations)):
        return False
    tiles = math.prod(tiles_of(sizes))
    return (
        batch > 0 and tiles >= max(_LEAST_ROWS, channels * features >> 13) and channels * features >= 16 * (channels + features)
    )


def turned_weights(w: Array) -> Array:
    """Filters ``[K, 3, 3, C]`` as ``[16, C, K]``: G g G^T, of which the column of the four by four is the slower."""
    g = G.astype(w.dtype)
    turned = np.einsum("iy,jx,kyxc->jick", g, g, w)
    return np.ascontiguousarray(turned.reshape(TAPS, w.shape[3], w.shape[0]))


def tiles_of(sizes: Ints) -> tuple[int, int]:
    """How many tiles of two by two pixels an output of these ``sizes`` has along its height and its width."""
    height, width = sizes
    return -(-height // 2), -(-width // 2)


def scratch_elements(batch: int, sizes: Ints, channels: int, features: int, itemsize: int, threads: int) -> int:
    """Elements of scratch that ``prepare_winograd`` takes for an output of ``[batch, *sizes, features]``."""
    chunk = _Chunk(sizes, channels, features, itemsize)
    return min(chunk.count * batch, threads) * chunk.elements


def prepare_winograd(
    x: Array, turned: Array, begin: Ints, *, out: Array, scratch: Array, for_each: ForEach | None, follow: Then | None
) -> Call:
    """Convolving ``x`` ``[N, H, W, C]`` by ``turned_weights`` into ``out`` ``[N, H', W', K]`` with strides of 1, made ready.

    ``begin``: zeros in front of rows and columns; those behind are as many as ``out`` wants. ``scratch`` has
    ``scratch_elements``. ``follow`` follows on the pixels of ``out`` as they are done.
    """
    images, height, width, features = out.shape
    chunk = _Chunk((height, width), x.shape[-1], features, x.itemsize)
    threads = 1 if for_each is None else for_each.count
    parts = [(image, first) for image in range(images) for first in range(0, chunk.tall, chunk.rows)]
    buffers = [scratch[n * chunk.elements : (n + 1) * chunk.elements] for n in range(min(len(parts), threads))]

    def ready(number: int, at: int) -> Call:
        image, first = parts[number]
        rows = min(chunk.rows, chunk.tall - first)
        calls = _chunk_calls(x[image], turned, begin, out[image], chunk, first, rows, buffers[at])
        if follow is not None:
            start, stop = 2 * first, min(2 * (first + rows), height)
            calls.append(follow(slice((image * height + start) * width, (image * height + stop) * width)))
        return in_order(*calls)

    if for_each is None or threads == 1:
        return in_order(*(ready(number, 0) for number in range(len(parts))))
    return functools.partial(for_each, len(parts), in_buffers(len(parts), len(buffers), ready))


class _Chunk:
    """Rows of tiles that are taken at a time."""

    def __init__(self, sizes: Ints, channels: int, features: int, itemsize: int) -> None:
        self.tall, self.wide = tiles_of(sizes)
        each = (TAPS * (channels + features) + 12 * channels) * itemsize * self.wide
        rows = min(max(_CHUNK_NBYTES // each, -(-_LEAST_ROWS // self.wide), 1), self.tall)
        self.count = even_count(-(-self.tall // rows))
        self.rows = -(-self.tall // self.count)
        self.count = -(-self.tall // self.rows)
        high, half = 2 * self.rows + 2, self.wide + 1
        tiles = self.rows * self.wide
        uneven = any(size % 2 for size in sizes)
        self.sizes = (
            2 * high * half * channels,  # the input's even and odd columns
            4 * high * self.wide * channels,  # with columns turned
            TAPS * tiles * channels,  # and rows
            TAPS * tiles * features,  # the products
            4 * tiles * features if uneven else 0,  # an output with a row and a column more
        )
        self.elements = sum(self.sizes)


def _chunk_calls(
    x: Array, turned: Array, begin: Ints, out: Array, chunk: _Chunk, first: int, rows: int, buffer: Array
) -> list[Call]:
    """What computes ``rows`` rows of tiles, from the tile ``first`` on, of one image: ``x`` ``[H, W, C]``, ``out`` alike."""
    channels, features = x.shape[-1], out.shape[-1]
    wide, high = chunk.wide, 2 * rows + 2
    starts = [0]
    for size in chunk.sizes:
        starts.append(starts[-1] + size)

    def piece(number: int, *shape: int) -> Array:
        return buffer[starts[number] : starts[number] + math.prod(shape)].reshape(shape)

    split = piece(0, 2, high, wide + 1, channels)
    calls = _split_columns(x, begin, 2 * first, split)
    flat = split.reshape(2, high, -1)
    run = wide * channels
    (even, later_even), (odd, later_odd) = ((half[:, :run], half[:, channels:]) for half in flat)
    columns = piece(1, 4, high, run)
    calls += _turned(even, odd, later_even, later_odd, columns)
    down = [columns[:, i : i + 2 * rows : 2] for i in range(4)]
    both = piece(2, 4, 4, rows, run)
    calls += _turned(down[0], down[1], down[2], down[3], both.swapaxes(0, 1))
    products = piece(3, TAPS, rows * wide, features)
    calls.append(functools.partial(np.matmul, both.reshape(TAPS, rows * wide, channels), turned, products))
    m = products.reshape(4, 4, rows, wide, features)
    calls += _turned_back(m.swapaxes(0, 1), m[:, 0], m[:, 1])
    y = m[:, :2].swapaxes(1, 2)  # [column's turn, row of tiles, row within, tile, K]
    left = min(2 * rows, out.shape[0] - 2 * first)
    target = out[2 * first : 2 * first + left]
    uneven = left < 2 * rows or out.shape[1] < 2 * wide
    full = piece(4, 2 * rows, 2 * wide, features) if uneven else target
    pixels = full.reshape(rows, 2, wide, 2, features)
    calls += _turned_back(y, pixels[:, :, :, 0], pixels[:, :, :, 1])
    if uneven:
        calls.append(functools.partial(np.copyto, target, full[:left, : out.shape[1]]))
    return calls


def _turned(a: Array, b: Array, c: Array, d: Array, out: Array) -> list[Call]:
    """B^T times four neighbours."""
    return [
        functools.partial(np.subtract, a, c, out[0]),
        functools.partial(np.add, b, c, out[1]),
        functools.partial(np.subtract, c, b, out[2]),
        functools.partial(np.subtract, b, d, out[3]),
    ]


def _turned_back(m: Array, first: Array, second: Array) -> list[Call]:
    """A^T times four: into ``first`` and ``second``, which may be the first two of ``m``; these do not last."""
    return [
        functools.partial(np.add, m[0], m[1], m[0]),
        functools.partial(np.add, m[0], m[2], first),
        functools.partial(np.subtract, m[1], m[2], m[1]),
        functools.partial(np.subtract, m[1], m[3], second),
    ]


def _split_columns(x: Array, begin: Ints, top: int, split: Array) -> list[Call]:
    """Rows of ``x`` ``[H, W, C]`` with zeros around, from the padded row ``top`` on, its even and odd columns apart."""
    height, width, _ = x.shape
    _, high, half, _ = split.shape
    before, left = begin
    start, stop = (min(max(before - top, 0), high), min(max(before + height - top, 0), high))
    calls: list[Call] = []
    around: list[Any] = [split[:, :start], split[:, max(stop, start) :]]
    for parity in (0, 1):
        # Column i of this half is column 2 i + parity - left of x.
        first = max(-((parity - left) // 2), 0)
        last = min((width - 1 + left - parity) // 2 + 1, half)
        inner = split[parity, start:stop]
        around += [inner[:, :first], inner[:, max(last, first) :]]
        if last > first and stop > start:
            source = x[start + top - before : stop + top - before, 2 * first + parity - left :: 2][:, : last - first]
            calls.append(functools.partial(np.copyto, inner[:, first:last], source))
    return [*(functools.partial(zeros.fill, 0) for zeros in around if zeros.size), *calls]
