"""ConvInteger and QLinearConv."""

import math
from collections.abc import Sequence

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.convolution import ConvAttributes, conv_shape
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last
from miniinfer_cli.ops.element_types import expect_dtype
from miniinfer_cli.ops.exact_product import exact_float, requantize, without_zero_point, wrap_to_int32
from miniinfer_cli.ops.flops import convolution_flops
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.quantized_matmul import BYTES, SCALES, expect_zero_point
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.work import convolution_work

Ints = Sequence[int]


def infer_conv_integer(
    x: TensorType,
    w: TensorType,
    x_zero_point: TensorType | None = None,
    w_zero_point: TensorType | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> TensorType:
    """``x`` [N,C,spatial...] and ``w`` [K,C/group,kernel...] of 8 bits give i32. Source: ONNX ConvInteger-10."""
    _check("ConvInteger", x, w, x_zero_point, w_zero_point)
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = conv_shape("ConvInteger", x, w, None, stated)
    return TensorType(DType.I32, None if sizes is None else (n, features, *sizes))


def infer_qlinear_conv(
    x: TensorType,
    x_scale: TensorType,
    x_zero_point: TensorType,
    w: TensorType,
    w_scale: TensorType,
    w_zero_point: TensorType,
    y_scale: TensorType,
    y_zero_point: TensorType,
    b: TensorType | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> TensorType:
    """``x`` [N,C,spatial...] and ``w`` [K,C/group,kernel...] give the type of ``y_zero_point``; ``b`` [K] is i32.

    Source: ONNX QLinearConv-10.
    """
    _check("QLinearConv", x, w, x_zero_point, w_zero_point)
    for scale in (x_scale, w_scale, y_scale):
        expect_dtype("QLinearConv", scale, SCALES)
    expect_dtype("QLinearConv", y_zero_point, BYTES)
    expect_dtype("QLinearConv", b, frozenset({DType.I32}))
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    n, features, sizes = conv_shape("QLinearConv", x, w, b, stated)
    return TensorType(y_zero_point.dtype, None if sizes is None else (n, features, *sizes))


def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    kernel_shape: Ints | None = None,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    for_each: ForEach | None = None,
) -> Array:
    """Conv of the operands less their zero points, which is what padding counts as."""
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    total = _total(x, w, x_zero_point, w_zero_point, stated, for_each)
    return np.ascontiguousarray(np.moveaxis(total, -1, 1))


def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
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
    """Conv of the dequantized operands, quantized; the bias is in units of ``x_scale`` times ``w_scale``."""
    stated = ConvAttributes(kernel_shape, strides, pads, dilations, group, auto_pad)
    total = _total(x, w, x_zero_point, w_zero_point, stated, for_each)
    if b is not None:
        total += b
    scale = x_scale.astype(np.float32) * w_scale.astype(np.float32) / y_scale.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(requantize(total, scale, y_zero_point), -1, 1))


def _check(op: str, x: TensorType, w: TensorType, x_zero_point: TensorType | None, w_zero_point: TensorType | None) -> None:
    for operand, zero_point in ((x, x_zero_point), (w, w_zero_point)):
        expect_dtype(op, operand, BYTES)
        expect_zero_point(op, operand, zero_point)
        if zero_point is not None and zero_point.rank is not None and zero_point.rank > 1:
            raise ModelError(f"{op} zero point is {zero_point}, expected a scalar or a vector")


def _total(
    x: Array,
    w: Array,
    x_zero_point: Array | None,
    w_zero_point: Array | None,
    stated: ConvAttributes,
    for_each: ForEach | None,
) -> Array:
    """The i32 accumulators, channels last."""
    if w_zero_point is not None:
        w_zero_point = w_zero_point.reshape(-1, *(1,) * (w.ndim - 1))
    wide_x, wide_w = without_zero_point(x, x_zero_point), without_zero_point(w, w_zero_point)
    exact = exact_float(math.prod(w.shape[1:]), wide_x, wide_w)
    geometry = Geometry.of(stated.window("QLinearConv", w.shape[2:]), x.shape[2:], stated.group)
    last_x, last_w = (np.moveaxis(a, 1, -1).astype(exact) for a in (wide_x, wide_w))
    return wrap_to_int32(conv_channels_last(last_x, last_w, None, geometry, for_each=for_each))


CONV_INTEGER = define(
    "ConvInteger",
    infer=infer_conv_integer,
    reference=conv_integer,
    work=convolution_work(1, 2),
    heavy=True,
    flops=convolution_flops(1),
)
QLINEAR_CONV = define(
    "QLinearConv",
    infer=infer_qlinear_conv,
    reference=qlinear_conv,
    work=convolution_work(3, 2),
    heavy=True,
    flops=convolution_flops(3),
)
