"""Conv, and ConvNHWC of ours: shape rules and references."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import convolution_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.layout import expand_channels_last
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.shapes import same_dim
from miniinfer_cli.ops.windows import Window, window
from miniinfer_cli.ops.work import convolution_work

Ints = Sequence[int]


@dataclass(frozen=True, slots=True)
class ConvAttributes:
    """The attributes of a convolution as its node has them. Source: ONNX Conv-22."""

    kernel_shape: Ints | None
    strides: Ints | None
    pads: Ints | None
    dilations: Ints | None
    group: int
    auto_pad: str = "NOTSET"

    def window(self, op: str, kernel: Sequence[Dim]) -> Window:
        """The geometry over weights of this ``kernel``. Raises ModelError for attributes that do not fit."""
        return window(op, kernel, strides=self.strides, dilations=self.dilations, pads=self.pads, auto_pad=self.auto_pad)


def infer_conv(
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
) -> TensorType:
    """``x`` [N,C,spatial...], ``w`` [K,C/group,kernel...], ``b`` [K]: gives [N,K,out spatial...]. Source: ONNX Conv-22."""
    _check_dtypes("Conv", x, w, b)
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = conv_shape("Conv", x, w, b, stated)
    return TensorType(x.dtype, None if sizes is None else (n, features, *sizes))


def infer_conv_nhwc(
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
) -> TensorType:
    """``x`` [N,spatial...,C], ``w`` [K,kernel...,C/group], ``b`` [K]: gives [N,out spatial...,K]."""
    _check_dtypes("ConvNHWC", x, w, b)
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = conv_shape("ConvNHWC", x, w, b, stated, -1)
    return TensorType(x.dtype, None if sizes is None else (n, *sizes, features))


@widen_half
def conv(
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
    for_each: ForEach | None = None,
) -> Array:
    """Cross-correlation of ``x`` with the filters ``w``, plus the bias."""
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    y = _convolve("Conv", np.moveaxis(x, 1, -1), np.moveaxis(w, 1, -1), b, stated, for_each)
    return np.ascontiguousarray(np.moveaxis(y, -1, 1))


@widen_half
def conv_nhwc(
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
    for_each: ForEach | None = None,
) -> Array:
    """Conv with the channels last."""
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    return _convolve("ConvNHWC", x, w, b, stated, for_each)


def conv_shape(
    op: str,
    x: TensorType,
    w: TensorType,
    b: TensorType | None,
    stated: ConvAttributes,
    channels_axis: int = 1,
) -> tuple[Dim, Dim, tuple[Dim, ...] | None]:
    """Batch, features and output sizes of a convolution; the sizes are None when no operand tells the rank.

    ``channels_axis`` is that of the channels in ``x`` and ``w``: 1, or -1 for channels last. Raises ModelError.
    """
    kernel_shape = stated.kernel_shape
    rank = common_rank(op, x, w, kernel_shape)
    if rank is None:
        return UNKNOWN, UNKNOWN, None
    n, channels, sizes = split_channels(x, rank, channels_axis)
    features, per_group, kernel = split_channels(w, rank, channels_axis)
    if kernel_shape is not None:
        kernel = tuple(same_dim(op, "kernel_shape against the weights", k, d) for k, d in zip(kernel_shape, kernel, strict=True))
    check_groups(op, x, w, channels, per_group * stated.group, features, stated.group)
    if b is not None and b.shape is not None:
        if b.rank != 1:
            raise ModelError(f"{op} bias is {b}, expected one dimension")
        features = same_dim(op, f"bias {b} against the features of the weights {w}", b.shape[0], features)
    return n, features, stated.window(op, kernel).output_sizes(sizes)


def common_rank(op: str, x: TensorType, w: TensorType, kernel_shape: Ints | None) -> int | None:
    """The rank that input, weights and kernel_shape agree on, at least 3; None when none of them tells."""
    ranks = {t.rank for t in (x, w) if t.rank is not None}
    if kernel_shape is not None:
        ranks.add(len(kernel_shape) + 2)
    if len(ranks) > 1 or any(r < 3 for r in ranks):
        shape = "" if kernel_shape is None else f" and kernel_shape {list(kernel_shape)}"
        raise ModelError(f"{op} input {x} and weights {w}{shape} do not agree on a rank of 3 or more")
    return next(iter(ranks), None)


def split_channels(x: TensorType, rank: int, channels: int) -> tuple[Dim, Dim, tuple[Dim, ...]]:
    """The first dimension, the channels and the rest of a shape; UNKNOWN where it is not known."""
    if x.shape is None:
        return UNKNOWN, UNKNOWN, (UNKNOWN,) * (rank - 2)
    first, *rest = x.shape
    middle = rest.pop(channels if channels < 0 else channels - 1)
    return first, middle, tuple(rest)


def check_groups(op: str, x: TensorType, w: TensorType, channels: Dim, expected: Dim, features: Dim, group: int) -> None:
    """Raises ModelError unless the input has the ``expected`` channels and ``group`` divides the features."""
    if group < 1:
        raise ModelError(f"{op} group is {group}, expected 1 or more")
    if isinstance(channels, int) and isinstance(expected, int) and channels != expected:
        raise ModelError(f"{op} input {x} has {channels} channels, weights {w} with group {group} expect {expected}")
    if isinstance(features, int) and features % group:
        raise ModelError(f"{op} weights {w} have {features} features, which {group} groups do not divide")


def _check_dtypes(op: str, *operands: TensorType | None) -> None:
    same_dtype(op, *operands)
    expect_dtype(op, operands[0], FLOATS)


def _convolve(op: str, x: Array, w: Array, b: Array | None, stated: ConvAttributes, for_each: ForEach | None) -> Array:
    geometry = Geometry.of(stated.window(op, w.shape[1:-1]), x.shape[1:-1], stated.group)
    return conv_channels_last(x, w, b, geometry, for_each=for_each)


CONV = define("Conv", infer=infer_conv, reference=conv, work=convolution_work(1, 2), heavy=True, flops=convolution_flops(1))
CONV_NHWC = define(
    "ConvNHWC",
    domain=OURS,
    infer=infer_conv_nhwc,
    reference=conv_nhwc,
    expand=expand_channels_last,
    work=convolution_work(1, 1),
    heavy=True,
    flops=convolution_flops(1),
)
