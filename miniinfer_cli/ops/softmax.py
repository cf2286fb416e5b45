"""Softmax, LogSoftmax, Hardmax."""

import numpy as np

from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis


def infer_softmax(x: TensorType, *, axis: int = -1) -> TensorType:
    """Same type as ``x``."""
    if x.rank is not None:
        normal_axis("Softmax", axis, x)
    return TensorType(x.dtype, x.shape)


@widen_half
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along ``axis``, shifted by the maximum. Source: ONNX Softmax-13."""
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    shifted /= np.sum(shifted, axis=axis, keepdims=True)
    return shifted


@widen_half
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """log(softmax(x)) along ``axis``. Source: ONNX LogSoftmax-13."""
    shifted = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def hardmax(x: Array, *, axis: int = -1) -> Array:
    """One at the first maximum along ``axis``, zero elsewhere. Source: ONNX Hardmax-13."""
    out = np.zeros_like(x)
    np.put_along_axis(out, np.expand_dims(np.argmax(x, axis=axis), axis), np.array(1, x.dtype), axis)
    return out


SOFTMAX = define("Softmax", infer=infer_softmax, reference=softmax)
LOG_SOFTMAX = define("LogSoftmax", infer=infer_softmax, reference=log_softmax)
HARDMAX = define("Hardmax", infer=infer_softmax, reference=hardmax)
