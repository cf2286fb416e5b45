"""GlobalAveragePool, GlobalMaxPool, GlobalLpPool, and GlobalAveragePoolNHWC of ours."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype
from miniinfer_cli.ops.layout import expand_channels_last
from miniinfer_cli.ops.numerics import mean, widen_half
from miniinfer_cli.ops.pool import lowest
from miniinfer_cli.ops.registry import OURS, define


def infer_global_pool(x: TensorType) -> TensorType:
    """``x`` [N,C,spatial...] gives [N,C,1...]. Source: ONNX GlobalAveragePool-22, GlobalMaxPool-22."""
    expect_dtype("Global pooling", x, FLOATS)
    if x.shape is None:
        return TensorType(x.dtype)
    if len(x.shape) < 2:
        raise ModelError(f"Global pooling expects batch, channels and spatial axes, got {x}")
    return TensorType(x.dtype, (*x.shape[:2], *(1,) * (len(x.shape) - 2)))


def infer_global_lp_pool(x: TensorType, *, p: int = 2) -> TensorType:
    """``x`` [N,C,spatial...] gives [N,C,1...]. Source: ONNX GlobalLpPool-22."""
    if p < 1:
        raise ModelError(f"GlobalLpPool p is {p}, expected 1 or more")
    return infer_global_pool(x)


def infer_global_average_pool_nhwc(x: TensorType) -> TensorType:
    """``x`` [N,spatial...,C] gives [N,1...,C]."""
    expect_dtype("GlobalAveragePoolNHWC", x, FLOATS)
    if x.shape is None:
        return TensorType(x.dtype)
    if len(x.shape) < 2:
        raise ModelError(f"GlobalAveragePoolNHWC expects batch, spatial axes and channels, got {x}")
    return TensorType(x.dtype, (x.shape[0], *(1,) * (len(x.shape) - 2), x.shape[-1]))


@widen_half
def global_average_pool(x: Array) -> Array:
    """The mean over all spatial axes."""
    return mean(x, tuple(range(2, x.ndim)), keep=True)


def global_max_pool(x: Array) -> Array:
    """The maximum over all spatial axes."""
    result: Array = np.max(x, axis=tuple(range(2, x.ndim)), keepdims=True, initial=lowest(x.dtype))
    return result


@widen_half
def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    """The p-norm over all spatial axes."""
    total = np.sum(np.abs(x) ** p, axis=tuple(range(2, x.ndim)), keepdims=True)
    result: Array = total ** total.dtype.type(1 / p)
    return result


@widen_half
def global_average_pool_nhwc(x: Array) -> Array:
    """GlobalAveragePool with the channels last."""
    return mean(x, tuple(range(1, x.ndim - 1)), keep=True)


GLOBAL_AVERAGE_POOL = define("GlobalAveragePool", infer=infer_global_pool, reference=global_average_pool)
GLOBAL_MAX_POOL = define("GlobalMaxPool", infer=infer_global_pool, reference=global_max_pool)
GLOBAL_LP_POOL = define("GlobalLpPool", infer=infer_global_lp_pool, reference=global_lp_pool)
GLOBAL_AVERAGE_POOL_NHWC = define(
    "GlobalAveragePoolNHWC",
    domain=OURS,
    infer=infer_global_average_pool_nhwc,
    reference=global_average_pool_nhwc,
    expand=expand_channels_last,
)
