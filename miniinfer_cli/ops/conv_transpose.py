"""ConvTranspose, and ConvTransposeNHWC of ours.

ConvTransposeNHWC keeps its weights as ``[C, kernel..., K/group]``: ONNX's ``[C, K/group, kernel...]`` with the spatial
axes in the middle. That is KRSC of the convolution whose input gradient this is, the form that matrix libraries want.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.convolution import ConvAttributes, check_groups, common_rank, split_channels
from miniinfer_cli.ops.convolve_transposed import Spread, prepare_conv_transpose
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import transposed_convolution_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.layout import expand_channels_last
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.shapes import same_dim
from miniinfer_cli.ops.windows import Window, window
from miniinfer_cli.ops.work import transposed_convolution_work

Ints = Sequence[int]


def infer_conv_transpose(
    x: TensorType,
    w: TensorType,
    b: TensorType | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
) -> TensorType:
    """``x`` [N,C,spatial...], ``w`` [C,K/group,kernel...], ``b`` [K]: gives [N,K,out spatial...].

    Source: ONNX ConvTranspose-22.
    """
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = _shape("ConvTranspose", x, w, b, stated, _Output(output_padding, output_shape), 1)
    return TensorType(x.dtype, None if sizes is None else (n, features, *sizes))


def infer_conv_transpose_nhwc(
    x: TensorType,
    w: TensorType,
    b: TensorType | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
) -> TensorType:
    """``x`` [N,spatial...,C], ``w`` [C,kernel...,K/group], ``b`` [K]: gives [N,out spatial...,K]."""
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = _shape("ConvTransposeNHWC", x, w, b, stated, _Output(output_padding, output_shape), -1)
    return TensorType(x.dtype, None if sizes is None else (n, *sizes, features))


@widen_half
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    for_each: ForEach | None = None,
) -> Array:
    """Adds, for each input pixel, its multiple of the filters to the output; the gradient of Conv."""
    y = conv_transpose_nhwc(
        np.moveaxis(x, 1, -1),
        np.moveaxis(w, 1, -1),
        b,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
        auto_pad=auto_pad,
        output_padding=output_padding,
        output_shape=output_shape,
        for_each=for_each,
    )
    return np.ascontiguousarray(np.moveaxis(y, -1, 1))


@widen_half
def conv_transpose_nhwc(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    for_each: ForEach | None = None,
) -> Array:
    """ConvTranspose with the channels last."""
    op = "ConvTransposeNHWC"
    geometry = window(op, w.shape[1:-1], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    sizes = _output_sizes(geometry, x.shape[1:-1], output_padding, output_shape)
    begin = transpose_padding(geometry, x.shape[1:-1], output_padding, output_shape)
    out = np.empty((x.shape[0], *(int(s) for s in sizes), w.shape[-1] * group), x.dtype)
    spread = Spread(geometry.strides, begin, geometry.dilations, group)
    prepare_conv_transpose(np.ascontiguousarray(x), np.ascontiguousarray(w), b, spread, out=out, for_each=for_each)()
    return out


def transpose_padding(
    geometry: Window, sizes: Sequence[int], output_padding: Ints | None, output_shape: Ints | None
) -> tuple[int, ...]:
    """How much of the full output is cut off before each spatial axis."""
    if output_shape is None and not geometry.auto_pad.startswith("SAME"):
        return geometry.begin
    full = _full_sizes(geometry, sizes, output_padding)
    wanted = _output_sizes(geometry, sizes, output_padding, output_shape)
    totals = [max(int(f - o), 0) for f, o in zip(full, wanted, strict=True)]
    return tuple(t // 2 if geometry.auto_pad == "SAME_UPPER" else t - t // 2 for t in totals)


@dataclass(frozen=True, slots=True)
class _Output:
    """What the node says of the size of its output: sizes that are added at the ends, or the sizes themselves."""

    padding: Ints | None
    shape: Ints | None


def _shape(
    op: str,
    x: TensorType,
    w: TensorType,
    b: TensorType | None,
    stated: ConvAttributes,
    output: _Output,
    channels_axis: int,
) -> tuple[Dim, Dim, tuple[Dim, ...] | None]:
    kernel_shape, group = stated.kernel_shape, stated.group
    same_dtype(op, x, w, b)
    expect_dtype(op, x, FLOATS)
    rank = common_rank(op, x, w, kernel_shape)
    if rank is None:
        return UNKNOWN, UNKNOWN, None
    n, channels, sizes = split_channels(x, rank, channels_axis)
    w_channels, per_group, kernel = split_channels(w, rank, channels_axis)
    if kernel_shape is not None:
        kernel = tuple(same_dim(op, "kernel_shape against the weights", k, d) for k, d in zip(kernel_shape, kernel, strict=True))
    check_groups(op, x, w, channels, w_channels, w_channels, group)
    features = per_group * group
    if b is not None and b.shape is not None:
        if b.rank != 1:
            raise ModelError(f"{op} bias is {b}, expected one dimension")
        features = same_dim(op, f"bias {b} against the features of the weights {w}", b.shape[0], features)
    geometry = stated.window(op, kernel)
    for name, values, counts in (
        ("output_padding", output.padding, (rank - 2,)),
        ("output_shape", output.shape, (rank - 2, rank)),
    ):
        if values is not None and (len(values) not in counts or any(v < 0 for v in values)):
            raise ModelError(f"{op} {name} is {list(values)}, expected {rank - 2} entries of 0 or more")
    out = _output_sizes(geometry, sizes, output.padding, output.shape)
    if any(isinstance(size, int) and size < 1 for size in out):
        raise ModelError(f"{op}: pads {list(stated.pads or ())} leave nothing of the output for input {x} and weights {w}")
    return n, features, out


def _output_sizes(
    geometry: Window, sizes: Sequence[Dim], output_padding: Ints | None, output_shape: Ints | None
) -> tuple[Dim, ...]:
    if output_shape is not None:
        return tuple(output_shape)[-len(sizes) :]
    if geometry.auto_pad.startswith("SAME"):
        return tuple(size * stride for size, stride in zip(sizes, geometry.strides, strict=True))
    full = _full_sizes(geometry, sizes, output_padding)
    return tuple(f - b - e for f, b, e in zip(full, geometry.begin, geometry.end, strict=True))


def _full_sizes(geometry: Window, sizes: Sequence[Dim], output_padding: Ints | None) -> tuple[Dim, ...]:
    """What the taps reach, before padding cuts off its part."""
    extra = output_padding if output_padding is not None else (0,) * len(sizes)
    return tuple(
        (size - 1) * s + more + (k - 1) * d + 1
        for size, s, more, k, d in zip(sizes, geometry.strides, extra, geometry.kernel, geometry.dilations, strict=True)
    )


CONV_TRANSPOSE = define(
    "ConvTranspose",
    infer=infer_conv_transpose,
    reference=conv_transpose,
    work=transposed_convolution_work,
    heavy=True,
    flops=transposed_convolution_flops,
)
CONV_TRANSPOSE_NHWC = define(
    "ConvTransposeNHWC",
    domain=OURS,
    infer=infer_conv_transpose_nhwc,
    reference=conv_transpose_nhwc,
    expand=expand_channels_last,
    work=transposed_convolution_work,
    heavy=True,
    flops=transposed_convolution_flops,
)
