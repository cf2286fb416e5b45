"""Putting pieces back where they came from: MaxUnpool, Col2Im."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ir.dims import floor_divide
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.operands import count_of, dims_of, ints_of, to_indices, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs, volume

# -- MaxUnpool ---------------------------------------------------------------------------------------------------------


def infer_max_unpool(
    x: TensorType,
    indices: TensorType,
    output_shape: TensorType | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> TensorType:
    """The shape that the pooling came from: the operand's contents, or worked out from kernel, strides and pads."""
    if x.rank is not None and x.rank != len(kernel_shape) + 2:
        raise ModelError(f"MaxUnpool kernel_shape {list(kernel_shape)} does not fit input {x}")
    for i, (d, e) in enumerate(zip(x.shape or (), indices.shape or (), strict=False)):
        same_dim("MaxUnpool", f"dimension {i} of {x} and indices {indices}", d, e)
    if output_shape is not None:
        dims = dims_of(output_shape)
        if dims is None:
            return TensorType(x.dtype, (UNKNOWN,) * (len(kernel_shape) + 2))
        if len(dims) != len(kernel_shape) + 2:
            raise ModelError(f"MaxUnpool output_shape [{','.join(map(str, dims))}] does not fit input {x}")
        return TensorType(x.dtype, dims)
    if x.shape is None:
        return TensorType(x.dtype, (UNKNOWN,) * (len(kernel_shape) + 2))
    return TensorType(x.dtype, unpooled_shape(x.shape, kernel_shape, pads, strides))


def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Zeros with ``x`` at its indices, which count the elements of the shape that the attributes imply.

    A larger ``output_shape`` holds that in its first corner. Source: ONNX MaxUnpool-22.
    """
    dims = [int(d) for d in unpooled_shape(x.shape, kernel_shape, pads, strides)]
    flat = np.zeros(math.prod(dims), x.dtype)
    flat[to_indices("MaxUnpool", indices, flat.size).reshape(-1)] = x.reshape(-1)
    out = flat.reshape(dims)
    if output_shape is None or to_ints(output_shape) == dims:
        return out
    placed = np.zeros(to_ints(output_shape), x.dtype)
    shared = tuple(slice(0, min(a, b)) for a, b in zip(dims, placed.shape, strict=True))
    placed[shared] = out[shared]
    return placed


def unpooled_shape(
    shape: Sequence[Dim], kernel_shape: Sequence[int], pads: Sequence[int] | None, strides: Sequence[int] | None
) -> tuple[Dim, ...]:
    """The shape that a pooling with these attributes makes ``shape`` of."""
    rank = len(kernel_shape)
    if len(strides or kernel_shape) != rank or len(pads or 2 * list(kernel_shape)) != 2 * rank:
        raise ModelError(f"MaxUnpool strides {strides} or pads {pads} do not fit kernel_shape {list(kernel_shape)}")
    step, pad = strides or [1] * rank, pads or [0] * 2 * rank
    spatial = (
        (d - 1) * s + k - before - after
        for d, k, s, before, after in zip(shape[2:], kernel_shape, step, pad[:rank], pad[rank:], strict=True)
    )
    return (*shape[:2], *spatial)


# -- Col2Im ------------------------------------------------------------------------------------------------------------


def infer_col2im(
    input: TensorType,
    image_shape: TensorType,
    block_shape: TensorType,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> TensorType:
    """[N, C, *image] from ``input`` [N, C * block elements, blocks]."""
    expect_rank("Col2Im", input, 3)
    image, block = dims_of(image_shape), ints_of(block_shape)
    rank = next(
        (n for n in (count_of("Col2Im image_shape", image_shape), count_of("Col2Im block_shape", block_shape)) if n is not None),
        None,
    )
    if rank is None:
        return TensorType(input.dtype)
    batch, depth, blocks = input.shape or (UNKNOWN,) * 3
    channels: Dim = UNKNOWN
    if block is not None:
        size = math.prod(block)
        if min(block, default=0) < 1:
            raise ModelError(f"Col2Im block_shape {list(block)} is not positive")
        if isinstance(depth, int) and depth % size:
            raise ModelError(f"Col2Im: {depth} rows of {input} are not a multiple of the {size} elements of block {list(block)}")
        channels = UNKNOWN if depth == UNKNOWN else floor_divide(depth, size)
        if image is not None:
            counts = block_counts(image, block, dilations, pads, strides)
            total: Dim = 1
            for n in counts:
                total = total * n
            same_dim("Col2Im", f"blocks of {input} for an image of [{','.join(map(str, image))}]", blocks, total)
    return TensorType(input.dtype, (batch, channels, *((UNKNOWN,) * rank if image is None else image)))


@widen_half
def col2im(
    input: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The image whose blocks are the columns of ``input``; where blocks overlap, they add up. Source: ONNX Col2Im-18."""
    image, block = to_ints(image_shape), to_ints(block_shape)
    rank = len(image)
    step, gap, pad = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    counts = [int(n) for n in block_counts(image, block, dilations, pads, strides)]
    n, channels = input.shape[0], input.shape[1] // math.prod(block)
    columns = input.reshape(n, channels, math.prod(block), *counts)
    padded = [size + before + after for size, before, after in zip(image, pad[:rank], pad[rank:], strict=True)]
    out = np.zeros((n, channels, *padded), input.dtype)
    for number, tap in enumerate(itertools.product(*map(range, block))):
        window = [slice(t * g, t * g + (c - 1) * s + 1, s) for t, g, c, s in zip(tap, gap, counts, step, strict=True)]
        target = out[(slice(None), slice(None), *window)]
        target += columns[:, :, number]
    inner = (slice(before, before + size) for size, before in zip(image, pad[:rank], strict=True))
    return out[:, :, *inner]


def block_counts(
    image: Sequence[Dim],
    block: Sequence[int],
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> list[Dim]:
    """How many places a block takes along each axis of the padded image."""
    rank = len(block)
    step, gap, pad = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    if len(image) != rank or len(step) != rank or len(gap) != rank or len(pad) != 2 * rank:
        raise ModelError(f"Col2Im: image of {len(image)} axes, block {list(block)}, strides, dilations and pads do not fit")
    return [
        floor_divide(size + before + after - g * (k - 1) - 1, s) + 1
        for size, before, after, g, k, s in zip(image, pad[:rank], pad[rank:], gap, block, step, strict=True)
    ]


MAX_UNPOOL = define("MaxUnpool", infer=infer_max_unpool, reference=max_unpool, shape_operands=(2,))


def _col2im_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """A call for each element of a block, over the image with its padding."""
    x, image, block = inputs
    if x is None or image is None or block is None:
        return 0
    sizes, rank = to_ints(image), image.size
    pads, taps = attrs.get("pads") or (0,) * (2 * rank), math.prod(to_ints(block))
    padded = volume([n + b + e for n, b, e in zip(sizes, pads[:rank], pads[rank:], strict=True)])
    result: int = 4 * x.size + 16 * CALL * taps + 4 * x.shape[0] * (x.shape[1] // max(taps, 1)) * padded
    return result


COL2IM = define("Col2Im", infer=infer_col2im, reference=col2im, shape_operands=(1, 2), work=_col2im_work)
