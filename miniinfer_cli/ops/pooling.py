"""MaxPool, AveragePool, LpPool, and the channels-last MaxPoolNHWC and AveragePoolNHWC of ours."""

from collections.abc import Sequence

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype
from miniinfer_cli.ops.layout import expand_channels_last
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.pool import average_pool, max_pool, max_pool_indices, sum_pool
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.windows import window
from miniinfer_cli.ops.work import pooling_work

Ints = Sequence[int]


def infer_max_pool(
    x: TensorType,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """``x`` [N,C,spatial...]: the maxima, and where they were if a second output is asked for. Source: ONNX MaxPool-22."""
    if storage_order not in (0, 1):
        raise ModelError(f"MaxPool storage_order is {storage_order}, expected 0 or 1")
    shape = _shape("MaxPool", x, 2, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    return (TensorType(x.dtype, shape), TensorType(DType.I64, shape))[:n_outputs]


def infer_average_pool(
    x: TensorType,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> TensorType:
    """``x`` [N,C,spatial...]. Source: ONNX AveragePool-22."""
    return TensorType(x.dtype, _shape("AveragePool", x, 2, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode))


def infer_lp_pool(
    x: TensorType,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> TensorType:
    """``x`` [N,C,spatial...]. Source: ONNX LpPool-22."""
    if p < 1:
        raise ModelError(f"LpPool p is {p}, expected 1 or more")
    return TensorType(x.dtype, _shape("LpPool", x, 2, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode))


def infer_max_pool_nhwc(
    x: TensorType,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> TensorType:
    """``x`` [N,spatial...,C]; MaxPool with the channels last, and no indices."""
    return TensorType(x.dtype, _shape("MaxPoolNHWC", x, 1, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode))


def infer_average_pool_nhwc(
    x: TensorType,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> TensorType:
    """``x`` [N,spatial...,C]; AveragePool with the channels last."""
    return TensorType(x.dtype, _shape("AveragePoolNHWC", x, 1, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode))


def max_pool_nchw(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """The maximum of each window; with two outputs also its index among all elements of ``x``."""
    geometry = window(
        "MaxPool", kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    if n_outputs == 2:
        return max_pool_indices(x, geometry, column_major=bool(storage_order))
    return (max_pool(x, geometry, 2),)


@widen_half
def average_pool_nchw(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Array:
    """The mean of each window; padding counts as elements of value 0 only with ``count_include_pad``."""
    geometry = window(
        "AveragePool", kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    return average_pool(x, geometry, 2, bool(count_include_pad))


@widen_half
def lp_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> Array:
    """The p-norm of each window."""
    geometry = window(
        "LpPool", kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    total = sum_pool(np.abs(x) ** p, geometry, 2)
    result: Array = total ** total.dtype.type(1 / p)
    return result


def max_pool_nhwc(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Array:
    """MaxPool with the channels last."""
    geometry = window(
        "MaxPoolNHWC", kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    return max_pool(x, geometry, 1)


@widen_half
def average_pool_nhwc(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Array:
    """AveragePool with the channels last."""
    geometry = window(
        "AveragePoolNHWC", kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    return average_pool(x, geometry, 1, bool(count_include_pad))


def _shape(
    op: str,
    x: TensorType,
    first_axis: int,
    kernel_shape: Ints,
    strides: Ints | None,
    pads: Ints | None,
    dilations: Ints | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[Dim, ...] | None:
    geometry = window(op, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode)
    expect_dtype(op, x, FLOATS | {DType.I8, DType.U8} if op.startswith("MaxPool") else FLOATS)
    if x.shape is None:
        return None
    if x.rank != len(kernel_shape) + 2:
        raise ModelError(f"{op} input is {x}, expected rank {len(kernel_shape) + 2} for kernel_shape {list(kernel_shape)}")
    stop = first_axis + len(kernel_shape)
    return (*x.shape[:first_axis], *geometry.output_sizes(x.shape[first_axis:stop]), *x.shape[stop:])


MAX_POOL = define("MaxPool", infer=infer_max_pool, reference=max_pool_nchw, work=pooling_work)
AVERAGE_POOL = define("AveragePool", infer=infer_average_pool, reference=average_pool_nchw, work=pooling_work)
LP_POOL = define("LpPool", infer=infer_lp_pool, reference=lp_pool, work=pooling_work)
MAX_POOL_NHWC = define(
    "MaxPoolNHWC",
    domain=OURS,
    infer=infer_max_pool_nhwc,
    reference=max_pool_nhwc,
    expand=expand_channels_last,
    work=pooling_work,
)
AVERAGE_POOL_NHWC = define(
    "AveragePoolNHWC",
    domain=OURS,
    infer=infer_average_pool_nhwc,
    reference=average_pool_nhwc,
    expand=expand_channels_last,
    work=pooling_work,
)
