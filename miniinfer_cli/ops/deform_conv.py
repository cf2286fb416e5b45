"""DeformConv: convolution that reads its input at positions shifted by learned offsets."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops.convolution import ConvAttributes, conv_shape
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import convolution_flops
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import same_dim
from miniinfer_cli.ops.windows import window
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs, elements

Ints = Sequence[int]


def infer_deform_conv(
    x: TensorType,
    w: TensorType,
    offset: TensorType,
    b: TensorType | None = None,
    mask: TensorType | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    offset_group: int = 1,
) -> TensorType:
    """``x`` [N,C,spatial...], ``w`` [K,C/group,kernel...], ``offset`` [N,offset_group*taps*axes,out spatial...],
    ``mask`` [N,offset_group*taps,out spatial...]: gives [N,K,out spatial...]. Source: ONNX DeformConv-22.
    """
    dtype = same_dtype("DeformConv", x, w, offset, b, mask)
    expect_dtype("DeformConv", x, FLOATS)
    n, features, sizes = conv_shape("DeformConv", x, w, b, ConvAttributes(kernel_shape, strides, pads, dilations, group))
    if sizes is None:
        return TensorType(dtype)
    channels = None if x.shape is None else x.shape[1]
    if offset_group < 1 or (isinstance(channels, int) and channels % offset_group):
        raise ModelError(f"DeformConv offset_group {offset_group} does not divide the channels of input {x}")
    kernel: Sequence[Dim] | None = kernel_shape if kernel_shape is not None else w.shape and w.shape[2:]
    for name, operand, per_tap in (("offset", offset, len(sizes)), ("mask", mask, 1)):
        if operand is None or operand.shape is None:
            continue
        if len(operand.shape) != len(sizes) + 2:
            raise ModelError(f"DeformConv {name} is {operand}, expected rank {len(sizes) + 2}")
        if kernel is not None:
            same_dim("DeformConv", f"channels of {name} {operand}", operand.shape[1], product(kernel) * offset_group * per_tap)
        sizes = tuple(
            same_dim("DeformConv", f"sizes of {name} {operand}", a, d) for a, d in zip(sizes, operand.shape[2:], strict=True)
        )
    return TensorType(dtype, (n, features, *sizes))


@widen_half
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    offset_group: int = 1,
    for_each: ForEach | None = None,
) -> Array:
    """Conv whose tap t of output pixel p reads ``x`` at its usual place plus offset[t, p], interpolated, times mask[t, p]."""
    geometry = window("DeformConv", w.shape[2:], strides=strides, dilations=dilations, pads=pads)
    n, channels, *sizes = x.shape
    kernel, out_sizes = w.shape[2:], offset.shape[2:]
    taps, pixels = int(np.prod(kernel)), int(np.prod(out_sizes))
    shifts = offset.reshape(n * offset_group, taps, len(sizes), pixels)
    factors = None if mask is None else mask.reshape(n * offset_group, taps, pixels)
    source = x.reshape(n * offset_group, channels // offset_group, int(np.prod(sizes)))
    starts = np.meshgrid(
        *(np.arange(size, dtype=x.dtype) * s - p for size, s, p in zip(out_sizes, geometry.strides, geometry.begin, strict=True)),
        indexing="ij",
    )
    columns = np.empty((taps, n, channels, pixels), x.dtype)
    for number, tap in enumerate(itertools.product(*(range(k) for k in kernel))):
        places = [
            start.reshape(-1) + t * d + shifts[:, number, axis]
            for axis, (start, t, d) in enumerate(zip(starts, tap, geometry.dilations, strict=True))
        ]
        read = _interpolate(source, sizes, places)
        if factors is not None:
            read *= factors[:, number, None]
        columns[number] = read.reshape(n, channels, pixels)
    features, per_group = w.shape[0] // group, channels // group
    rows = columns.reshape(taps, n, group, per_group, pixels).transpose(1, 2, 3, 0, 4).reshape(n, group, per_group * taps, pixels)
    y = multiply(w.reshape(group, features, per_group * taps), rows, for_each=for_each).reshape(n, group * features, *out_sizes)
    if b is not None:
        y += b.reshape(-1, *(1,) * len(sizes))
    return y


def _interpolate(source: Array, sizes: Sequence[int], places: Sequence[Array]) -> Array:
    """``source`` [B,C,pixels of ``sizes``] read linearly at ``places`` (for each axis [B,P]); zero outside. Gives [B,C,P]."""
    floors = [np.floor(place) for place in places]
    total = np.zeros((*source.shape[:2], places[0].shape[-1]), source.dtype)
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = np.ones_like(places[0])
        index = np.zeros(weight.shape, np.int64)
        for side, size, place, low in zip(corner, sizes, places, floors, strict=True):
            at = low + side
            weight *= (1 - np.abs(place - at)) * ((at >= 0) & (at < size))
            index *= size
            index += np.clip(at, 0, size - 1).astype(np.int64)
        total += np.take_along_axis(source, index[:, None], axis=2) * weight[:, None]
    return total


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Each tap reads the corners around each of its places, and a product follows."""
    x, w = inputs[:2]
    if x is None or w is None:
        return 0
    taps, corners = math.prod(w.shape[2:]), 1 << (x.ndim - 2)
    reads = x.shape[1] * (elements(outputs[0]) // max(w.shape[0], 1))
    result: int = taps * corners * (20 * CALL + 100 * reads) + elements(outputs[0]) * (w.size // max(w.shape[0], 1))
    return result


DEFORM_CONV = define(
    "DeformConv", infer=infer_deform_conv, reference=deform_conv, work=_work, heavy=True, flops=convolution_flops(1)
)
