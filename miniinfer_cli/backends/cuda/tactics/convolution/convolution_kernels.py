"""Convolutions by our own kernels: tiles of an implicit matrix product, and one element a thread."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Argument, Derived, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, Ints
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Constant, Graph, TensorType

_TILE = 64  # CONV_TILE of convolution.cuh
_THREADS = 256  # CONV_THREADS
_MOST_BLOCKS = (1 << 31) - 1

Defines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OwnKernels:
    """``file``_tiled and ``file``_direct of ``file``.cu: their ``defines`` but those of the geometry, and their first arguments.

    ``vector``: channels that tiles load at once.
    """

    file: str
    defines: Defines
    operands: tuple[Argument, ...]
    vector: int = 1


def own_tactics(
    conv: Convolution, kernels: OwnKernels, estimate: Estimate, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS
) -> tuple[Tactic, ...]:
    """A convolution that writes something, by one launch. ``estimate``: what it takes where no tile is partly empty."""

    def emitting(launch: Callable[[], Launch[Operand]]) -> Callable[[Work], None]:
        return lambda work: work.add(launch())

    pixels, features = _tile_counts(conv)
    phases = math.prod(conv.strides) if conv.transposed else 1
    blocks = pixels * features * phases * conv.group
    direct = Tactic("direct", emitting(lambda: _direct(conv, kernels, target)), estimate)
    if blocks > _MOST_BLOCKS:
        return (direct,)
    padded = 2 * conv.group * pixels * features * _TILE**2 * conv.channels * conv.taps
    tiles = Tactic(
        f"tiles {_TILE}x{_TILE}",
        emitting(lambda: _tiled(conv, kernels, (pixels, features), blocks)),
        replace(estimate, flops=max(padded, estimate.flops)),
    )
    return (tiles, direct) if conv.features >= table.narrow else (direct, tiles)


def _tile_counts(conv: Convolution) -> tuple[int, int]:
    """Tiles over the pixels of a phase (see convolution.cuh) and over the features of a group."""
    steps = conv.strides if conv.transposed else (1,) * len(conv.strides)
    pixels = math.prod(-(-n // s) for n, s in zip(conv.spatial(conv.y_shape), steps, strict=True))
    return -(-conv.y_shape[0] * pixels // _TILE), -(-conv.features // _TILE)


def _tiled(conv: Convolution, kernels: OwnKernels, tiles: tuple[int, int], blocks: int) -> Launch[Operand]:
    index = index_dtype(_largest(conv))
    kernel = Kernel(f"{kernels.file}_tiled", f"{kernels.file}.cu", _defines(conv, kernels, kernels.vector))
    geometry = (conv_sizes(conv), _strides(conv).astype(index))
    return Launch(kernel, (blocks,), (_THREADS,), (*kernels.operands, *geometry, *map(np.int32, tiles)))


def _direct(conv: Convolution, kernels: OwnKernels, target: Target) -> Launch[Operand]:
    index, count = index_dtype(_largest(conv)), math.prod(conv.y_shape)
    kernel = Kernel(f"{kernels.file}_direct", f"{kernels.file}.cu", _defines(conv, kernels, 0))
    geometry = (conv_sizes(conv), _strides(conv).astype(index))
    grid = (blocks_for(count, target.multiprocessors),)
    return Launch(kernel, grid, (_THREADS,), (*kernels.operands, *geometry, index.type(count)))


def _defines(conv: Convolution, kernels: OwnKernels, vector: int) -> Defines:
    return (
        *kernels.defines,
        ("MI_INDEX", index_name(_largest(conv))),
        ("MI_PIXELS_FIRST", str(int(not conv.channels_last))),
        ("MI_TRANSPOSED", str(int(conv.transposed))),
        ("MI_VEC", str(vector)),
    )


def _largest(conv: Convolution) -> int:
    return max(math.prod(s) for s in (conv.x_shape, conv.w_shape, conv.y_shape))


def transposed_weights(weights: Constant, perm: list[int]) -> Derived:
    """The constant with its axes permuted."""
    graph = Graph("weights")
    source = graph.add_input("w", TensorType(weights.dtype, weights.shape))
    graph.set_outputs([graph.add("Transpose", source, perm=perm)])
    return Derived((weights,), f"transpose {perm}", graph)


def spatial_axes(values: Ints, filler: int) -> list[int]:
    """One entry for each of the three axes of kernels; the axes in front have ``filler``."""
    return [filler] * (3 - len(values)) + list(values)


def conv_sizes(conv: Convolution) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    """The argument ``ConvSizes``. Raises ModelError for an axis that 32 bits cannot count."""
    x, y, kernel = (spatial_axes(conv.spatial(s), 1) for s in (conv.x_shape, conv.y_shape, conv.w_shape))
    steps = (*spatial_axes(conv.strides, 1), *spatial_axes(conv.dilations, 1), *spatial_axes(conv.begin, 0))
    sizes = [conv.x_shape[0], conv.group, conv.channels, conv.features, *x, *y, *kernel, *steps]
    if max(sizes) >= 1 << 31:
        raise ModelError(f"a convolution along an axis of {max(sizes)}: {(1 << 31) - 1} is the most", hint="split the batch")
    return np.array(sizes, np.int32)


def _strides(conv: Convolution) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """The argument ``ConvStrides``, in 64 bits."""
    channels, features, taps = conv.channels, conv.features, conv.taps
    rows, columns = (channels, features) if conv.transposed else (features, channels)  # of a group's weights, as stored
    row, tap, column = (taps * columns, columns, 1) if conv.channels_last else (columns * taps, 1, taps)
    feature, channel = (column, row) if conv.transposed else (row, column)
    images = [*_image_strides(conv, conv.x_shape), *_image_strides(conv, conv.y_shape)]
    return np.array([*images, rows * row, feature, tap, channel], np.int64)


def _image_strides(conv: Convolution, shape: Ints) -> list[int]:
    """Of an image, of the three spatial axes, of a channel."""
    depth, height, width = spatial_axes(conv.spatial(shape), 1)
    channels = shape[-1 if conv.channels_last else 1]
    pixel, channel = (channels, 1) if conv.channels_last else (1, depth * height * width)
    return [channels * depth * height * width, height * width * pixel, width * pixel, pixel, channel]
