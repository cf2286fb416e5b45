"""Activation functions: Relu and its kin, the sigmoid family, Clip."""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Shape, TensorType
from miniinfer_cli.ops import activation_expansions as expansions
from miniinfer_cli.ops import symbolic
from miniinfer_cli.ops.element_types import FLOATS, NUMBERS, expect_dtype, same_dtype
from miniinfer_cli.ops.elementwise import unary_rule
from miniinfer_cli.ops.gelu import gelu_into
from miniinfer_cli.ops.numerics import elementwise
from miniinfer_cli.ops.registry import OpDef, define
from miniinfer_cli.ops.shapes import broadcast, same_dim

Function = Callable[..., Any]


@elementwise
def relu(x: Array) -> Array:
    """max(x, 0). Source: ONNX Relu-14."""
    return symbolic.maximum(x, 0) if x.dtype == object else np.maximum(x, 0)


@elementwise
def leaky_relu(x: Array, *, alpha: float = expansions.LEAKY_RELU_ALPHA) -> Array:
    """x, or alpha * x below 0. Source: ONNX LeakyRelu-16."""
    return np.where(x < 0, x * alpha, x)


@elementwise
def prelu(x: Array, slope: Array) -> Array:
    """x, or slope * x below 0. Source: ONNX PRelu-16."""
    return np.where(x < 0, x * slope, x)


def infer_prelu(x: TensorType, slope: TensorType) -> TensorType:
    """The type of ``x``, onto which the slope must broadcast."""
    expect_dtype("PRelu", x, NUMBERS)
    dtype = same_dtype("PRelu", x, slope)
    shape = broadcast("PRelu", x, slope)
    if shape is not None and x.shape is not None and _grows(x.shape, shape):
        raise ModelError(f"PRelu: the slope {slope} does not broadcast onto {x}")
    return TensorType(dtype, x.shape)


@elementwise
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x, or alpha * (exp(x) - 1) below 0. Source: ONNX Elu-22."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0)) * alpha, x)


@elementwise
def selu(x: Array, *, alpha: float = expansions.SELU_ALPHA, gamma: float = expansions.SELU_GAMMA) -> Array:
    """gamma * x, or gamma * alpha * (exp(x) - 1) at 0 and below. Source: ONNX Selu-22."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * alpha) * gamma


@elementwise
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)). Source: ONNX Celu-28."""
    return np.maximum(x, 0) + np.minimum(np.expm1(x / alpha) * alpha, 0)


@elementwise
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)). Source: ONNX Sigmoid-13."""
    return _sigmoid(x)


@elementwise
def hard_sigmoid(x: Array, *, alpha: float = expansions.HARD_SIGMOID_ALPHA, beta: float = 0.5) -> Array:
    """alpha * x + beta held within [0, 1]. Source: ONNX HardSigmoid-22."""
    return np.clip(x * alpha + beta, 0, 1)


@elementwise
def hard_swish(x: Array) -> Array:
    """x * hard_sigmoid(x, 1/6, 1/2). Source: ONNX HardSwish-22."""
    return np.clip(x / 6 + 0.5, 0, 1) * x


@elementwise
def softplus(x: Array) -> Array:
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)), where nothing overflows. Source: ONNX Softplus-22."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@elementwise
def softsign(x: Array) -> Array:
    """x / (1 + |x|). Source: ONNX Softsign-22."""
    result: Array = x / (1 + np.abs(x))
    return result


@elementwise
def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """x above alpha, else 0. Source: ONNX ThresholdedRelu-22."""
    return np.where(x > alpha, x, 0)


@elementwise
def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x + bias below -lambd, x - bias above lambd, else 0. Source: ONNX Shrink-9."""
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


@elementwise
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """x * Phi(x), or ONNX's formula in tanh; see ``gelu_into``. Source: ONNX Gelu-20."""
    out = np.empty(x.shape, x.dtype)
    gelu_into(x, out, np.empty_like(out), np.empty_like(out), tanh=approximate == "tanh")
    return out


def infer_gelu(x: TensorType, *, approximate: str = "none") -> TensorType:
    """The type of ``x``."""
    if approximate not in ("none", "tanh"):
        raise ModelError(f"Gelu approximate is {approximate!r}, expected 'none' or 'tanh'")
    expect_dtype("Gelu", x, FLOATS)
    return TensorType(x.dtype, x.shape)


@elementwise
def mish(x: Array) -> Array:
    """x * tanh(log(1 + exp(x))), which is x * n / (n + 2) for n = exp(x) * (exp(x) + 2). Source: ONNX Mish-22."""
    exponential = np.exp(np.minimum(x, 20))  # the factor is 1 from there, in f64 too
    n = exponential * (exponential + 2)
    result: Array = n / (n + 2) * x
    return result


@elementwise
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """x * sigmoid(alpha * x); SiLU when alpha is 1. Source: ONNX Swish-24."""
    return _sigmoid(x * alpha) * x


def infer_swiglu(a: TensorType, b: TensorType, *, alpha: float = 1.0) -> TensorType:
    """The type that both have: nothing broadcasts."""
    expect_dtype("SwiGLU", a, FLOATS)
    dtype = same_dtype("SwiGLU", a, b)
    if a.shape is None or b.shape is None:
        return TensorType(dtype, a.shape if b.shape is None else b.shape)
    if len(a.shape) != len(b.shape):
        raise ModelError(f"SwiGLU needs operands of one shape, got {a} and {b}")
    return TensorType(
        dtype, tuple(same_dim("SwiGLU", f"{a} and {b} differ", m, n) for m, n in zip(a.shape, b.shape, strict=True))
    )


@elementwise
def swiglu(a: Array, b: Array, *, alpha: float = 1.0) -> Array:
    """swish(a, alpha) * b. Source: ONNX SwiGLU-28."""
    return _sigmoid(a * alpha) * a * b


def infer_clip(x: TensorType, min: TensorType | None = None, max: TensorType | None = None) -> TensorType:
    """The type of ``x``; the limits are scalars."""
    expect_dtype("Clip", x, NUMBERS)
    for limit in (min, max):
        if limit is not None and limit.shape is not None and any(d != 1 for d in limit.shape if isinstance(d, int)):
            raise ModelError(f"Clip needs scalar limits, got {limit}")
    return TensorType(same_dtype("Clip", x, min, max), x.shape)


@elementwise
def clip(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """min(max(x, ``min``), ``max``). Source: ONNX Clip-13."""
    exact = x.dtype == object
    if min is not None:
        x = (symbolic.maximum if exact else np.maximum)(x, min.reshape(()))
    if max is not None:
        x = (symbolic.minimum if exact else np.minimum)(x, max.reshape(()))
    return x


def _grows(shape: Shape, result: Shape) -> bool:
    """True when broadcasting made ``result`` larger than ``shape``."""
    return len(result) > len(shape) or any(a == 1 and isinstance(b, int) and b != 1 for a, b in zip(shape, result, strict=True))


def _sigmoid(x: Array) -> Array:
    """Where exp overflows, the quotient is 0, as it should be; elsewhere it is exact to the last digits."""
    out = np.exp(np.negative(x))
    return np.divide(1, np.add(out, 1))


def _define(op: str, reference: Function, expand: Function, allowed: frozenset[DType] = FLOATS) -> OpDef:
    return define(op, infer=unary_rule(op, allowed), reference=reference, pointwise=True, expand=expand)


CELU = _define("Celu", celu, expansions.celu)
CLIP = define("Clip", infer=infer_clip, reference=clip, pointwise=True, symbolic=True)
ELU = _define("Elu", elu, expansions.elu)
GELU = define("Gelu", infer=infer_gelu, reference=gelu, pointwise=True, expand=expansions.gelu)
HARD_SIGMOID = _define("HardSigmoid", hard_sigmoid, expansions.hard_sigmoid)
HARD_SWISH = _define("HardSwish", hard_swish, expansions.hard_swish)
LEAKY_RELU = _define("LeakyRelu", leaky_relu, expansions.leaky_relu)
MISH = _define("Mish", mish, expansions.mish)
PRELU = define("PRelu", infer=infer_prelu, reference=prelu, pointwise=True, expand=expansions.prelu)
RELU = define("Relu", infer=unary_rule("Relu", NUMBERS), reference=relu, pointwise=True, symbolic=True)
SELU = _define("Selu", selu, expansions.selu)
SHRINK = define("Shrink", infer=unary_rule("Shrink", NUMBERS), reference=shrink, pointwise=True)
SIGMOID = define("Sigmoid", infer=unary_rule("Sigmoid", FLOATS), reference=sigmoid, pointwise=True)
SOFTPLUS = _define("Softplus", softplus, expansions.softplus)
SOFTSIGN = _define("Softsign", softsign, expansions.softsign)
SWIGLU = define("SwiGLU", infer=infer_swiglu, reference=swiglu, pointwise=True, expand=expansions.swiglu)
SWISH = _define("Swish", swish, expansions.swish)
THRESHOLDED_RELU = _define("ThresholdedRelu", thresholded_relu, expansions.thresholded_relu)
