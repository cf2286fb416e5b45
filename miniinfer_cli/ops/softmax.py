"""Softmax, LogSoftmax, Hardmax."""

from collections.abc import Callable

import numpy as np

from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops.element_types import ANY, FLOATS, REAL, expect_dtype
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis


def _infer_for(op: str, allowed: frozenset[DType] = FLOATS) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int = -1) -> TensorType:
        """Same type as ``x``."""
        expect_dtype(op, x, allowed)
        if x.rank is not None:
            normal_axis(op, axis, x)
        return TensorType(x.dtype, x.shape)

    return infer


@widen_half
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along ``axis``, shifted by the maximum. Source: ONNX Softmax-13."""
    if x.ndim == 0:
        result: Array = np.exp(x - x)
        return result
    return softmax_into(np.empty_like(x), x, axis)


@widen_half
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """log(softmax(x)) along ``axis``. Source: ONNX LogSoftmax-13."""
    if x.ndim == 0:
        return np.asarray(x - x)
    if not x.size:
        return np.empty_like(x)
    shifted: Array = x - np.max(x, axis=axis, keepdims=True)
    shifted -= np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
    return shifted


def hardmax(x: Array, *, axis: int = -1) -> Array:
    """One at the first maximum along ``axis``, zero elsewhere. Source: ONNX Hardmax-13."""
    if x.ndim == 0:
        return np.ones_like(x)
    out = np.zeros_like(x)
    if not x.size:
        return out
    np.put_along_axis(out, np.expand_dims(np.argmax(x, axis=axis), axis), np.array(1, x.dtype), axis)
    return out


def softmax_into(out: Array, x: Array, axis: int, *, zero_for_empty: bool = False) -> Array:
    """Softmax of ``x`` along ``axis``, written to ``out`` (f32 or f64; may be ``x`` itself), which is returned.

    ``zero_for_empty``: a row of minus infinities gives zeros, where it would give NaN.
    """
    if not x.size:
        return out
    highest = np.max(x, axis=axis, keepdims=True)
    if zero_for_empty:
        highest[np.isneginf(highest)] = 0
    np.subtract(x, highest, out=out)
    np.exp(out, out=out)
    scale = np.sum(out, axis=axis, keepdims=True)
    if zero_for_empty:
        scale[scale == 0] = 1
    np.divide(1, scale, out=scale)
    out *= scale
    return out


SOFTMAX = define("Softmax", infer=_infer_for("Softmax"), reference=softmax)
LOG_SOFTMAX = define("LogSoftmax", infer=_infer_for("LogSoftmax"), reference=log_softmax)
HARDMAX = define("Hardmax", infer=_infer_for("Hardmax", ANY), reference=hardmax, takes=(REAL,))
