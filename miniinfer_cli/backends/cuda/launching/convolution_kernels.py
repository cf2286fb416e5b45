"""Convolutions by our own kernels: tiles of an implicit matrix product, one element a thread, and depthwise."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.grids import blocks_for, index_dtype, index_name, load_width
from miniinfer_cli.backends.cuda.launching.convolutions import Convolution, Finish, Ints, Places, turned
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.transposing import permute
from miniinfer_cli.backends.cuda.problems import ConvolutionProblem
from miniinfer_cli.backends.cuda.steps import NULL, Argument, Derived, Kernel, Launch, LibraryCall, Lowered, Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import c_type, element_nbytes
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Constant, Graph, TensorType
from miniinfer_cli.ops.layout import channels_first, channels_last

_TILE = 64  # CONV_TILE of convolution.cuh
_THREADS = 256  # CONV_THREADS
_NARROW = 16  # features of a group below which a tile is mostly empty
_HELD_KERNELS = (3, 5, 7)  # sizes of a row of depthwise weights that a thread holds
_HELD_STRIDES = (1, 2)


def own_kernel(conv: Convolution, places: Places, finish: Finish, target: Target) -> Lowered:
    """The convolution, which writes something, by one launch."""
    if conv.is_depthwise:
        return _depthwise(conv, places, finish, target)
    vector = 4 if conv.channels_last and conv.channels % 4 == 0 and conv.features % 4 == 0 else 1
    tiles = tile_counts(conv)
    defines = [("MI_T", c_type(conv.dtype)), ("MI_ACTIVATION", finish.activation.value or "none")]
    operands = (places.x, places.w, finish.bias or NULL, finish.residual or NULL, places.y)
    launch = tiled_or_direct(conv, "conv", defines, operands, tiles, vector, target)
    return Lowered((launch,), tactic=launch.kernel.name)


def tile_counts(conv: Convolution) -> tuple[int, int]:
    """Tiles over the pixels of a phase (see convolution.cuh) and over the features of a group."""
    steps = conv.strides if conv.transposed else (1,) * len(conv.strides)
    pixels = math.prod(-(-n // s) for n, s in zip(conv.spatial(conv.y_shape), steps, strict=True))
    return -(-conv.y_shape[0] * pixels // _TILE), -(-conv.features // _TILE)


def tiled_or_direct(
    conv: Convolution,
    name: str,
    defines: list[tuple[str, str]],
    operands: tuple[Argument, ...],
    tiles: tuple[int, int],
    vector: int,
    target: Target,
) -> Launch[Operand]:
    """The launch of ``name_tiled`` or ``name_direct`` of ``name.cu``, whichever suits the shape."""
    largest = max(math.prod(s) for s in (conv.x_shape, conv.w_shape, conv.y_shape))
    index = index_dtype(largest)
    phases = math.prod(conv.strides) if conv.transposed else 1
    blocks = math.prod(tiles) * phases * conv.group
    common = [*defines, ("MI_INDEX", index_name(largest)), ("MI_PIXELS_FIRST", str(int(not conv.channels_last)))]
    common += [("MI_TRANSPOSED", str(int(conv.transposed)))]
    geometry = (_sizes(conv), _strides(conv).astype(index))
    if conv.features >= _NARROW and blocks < 1 << 31:
        kernel = Kernel(f"{name}_tiled", f"{name}.cu", (*common, ("MI_VEC", str(vector))))
        return Launch(kernel, (blocks,), (_THREADS,), (*operands, *geometry, np.int32(tiles[0]), np.int32(tiles[1])))
    count = math.prod(conv.y_shape)
    kernel = Kernel(f"{name}_direct", f"{name}.cu", (*common, ("MI_VEC", "0")))
    grid = (blocks_for(count, target.multiprocessors),)
    return Launch(kernel, grid, (_THREADS,), (*operands, *geometry, index.type(count)))


def library_call(conv: Convolution, places: Places, finish: Finish, problem: ConvolutionProblem, target: Target) -> Lowered:
    """The convolution by cuDNN; what is channels first is transposed before and after, constant weights once and for all."""
    extra = tuple(o for o in (finish.bias, finish.residual) if o is not None)
    if conv.channels_last:
        return Lowered((LibraryCall(problem, (places.x, places.w, places.y, *extra)),), tactic="cudnn")
    nbytes, rank = element_nbytes(conv.dtype), len(conv.x_shape)
    forth, back = channels_last(rank), channels_first(rank)
    x, y, w = Operand.scratch(0), Operand.scratch(1), Operand.scratch(2)
    before = [permute(x, places.x, nbytes, conv.x_shape, forth, target)]
    scratch = [math.prod(s) * nbytes for s in (conv.x_shape, conv.y_shape)]
    derived: tuple[Derived, ...] = ()
    if places.weights is not None:
        w, derived = Operand.derived(0), (transposed_weights(places.weights, forth),)
    else:
        before.append(permute(w, places.w, nbytes, conv.w_shape, forth, target))
        scratch.append(math.prod(conv.w_shape) * nbytes)
    after = permute(places.y, y, nbytes, turned(conv.y_shape), back, target)
    actions = (*before, LibraryCall(problem, (x, w, y, *extra)), after)
    return Lowered(actions, scratch=tuple(scratch), derived=derived, tactic="cudnn between transposes")


def transposed_weights(weights: Constant, perm: list[int]) -> Derived:
    """The constant with its axes permuted."""
    graph = Graph("weights")
    source = graph.add_input("w", TensorType(weights.dtype, weights.shape))
    graph.set_outputs([graph.add("Transpose", source, perm=perm)])
    return Derived((weights,), f"transpose {perm}", graph)


def _depthwise(conv: Convolution, places: Places, finish: Finish, target: Target) -> Lowered:
    sizes = conv.spatial(conv.y_shape)
    held = conv.dilations[-1] == 1 and conv.w_shape[-2] in _HELD_KERNELS and conv.strides[-1] in _HELD_STRIDES
    vector = load_width(conv.group, element_nbytes(conv.dtype), 16)
    width = 4 if held else 1

    def threads() -> int:
        return conv.y_shape[0] * math.prod(sizes[:-1]) * -(-sizes[-1] // width) * (conv.group // vector)

    enough = target.multiprocessors * 128
    if threads() < enough:
        width = 1
    if threads() < enough and vector * element_nbytes(conv.dtype) == 16 and vector > 1:
        vector //= 2
    largest = max(math.prod(s) for s in (conv.x_shape, conv.w_shape, conv.y_shape))
    weights, derived = places.w, tuple[Derived, ...]()
    if places.weights is not None and conv.taps > 1:
        rank = len(conv.w_shape)
        weights, derived = Operand.derived(0), (transposed_weights(places.weights, [*range(1, rank), 0]),)
    defines = (
        ("MI_T", c_type(conv.dtype)),
        ("MI_INDEX", index_name(largest)),
        ("MI_ACTIVATION", finish.activation.value or "none"),
        ("MI_VEC", str(vector)),
        ("MI_WIDTH", str(width)),
        ("MI_KERNEL", str(conv.w_shape[-2] if held else 0)),
        ("MI_STRIDE", str(conv.strides[-1] if held else 1)),
        ("MI_TAPS_FIRST", str(int(bool(derived) or conv.taps == 1))),
    )
    operands = (places.x, weights, finish.bias or NULL, finish.residual or NULL, places.y)
    block = 128
    divisors = (conv.group // vector, -(-sizes[-1] // width), *_three(sizes, 1)[1::-1])
    launch = Launch(
        Kernel("conv_depthwise", "conv_depthwise.cu", defines),
        (-(-threads() // block),),
        (block,),
        (*operands, _sizes(conv), dividers(divisors), index_dtype(largest).type(threads())),
    )
    return Lowered((launch,), derived=derived, tactic="depthwise")


def _three(values: Ints, filler: int) -> list[int]:
    """One entry for each of the three axes of kernels; the axes in front have ``filler``."""
    return [filler] * (3 - len(values)) + list(values)


def _sizes(conv: Convolution) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    """The argument ``ConvSizes``. Raises ModelError for an axis that 32 bits cannot count."""
    x, y, kernel = (_three(conv.spatial(s), 1) for s in (conv.x_shape, conv.y_shape, conv.w_shape))
    steps = (*_three(conv.strides, 1), *_three(conv.dilations, 1), *_three(conv.begin, 0))
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
    depth, height, width = _three(conv.spatial(shape), 1)
    channels = shape[-1 if conv.channels_last else 1]
    pixel, channel = (channels, 1) if conv.channels_last else (1, depth * height * width)
    return [channels * depth * height * width, height * width * pixel, width * pixel, pixel, channel]
