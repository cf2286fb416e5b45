"""LRN and LpNormalization: each element divided by a norm of its neighbours or of its row."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs, volume


def infer_lrn(x: TensorType, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> TensorType:
    """Same type as ``x``, which is [N, C, spatial...]."""
    if x.rank is not None and x.rank < 2:
        raise ModelError(f"LRN expects an input of rank 2 or more, got {x}")
    if size < 1:
        raise ModelError(f"LRN size is {size}, expected 1 or more")
    return TensorType(x.dtype, x.shape)


@widen_half
def lrn(x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta. Source: ONNX LRN-13."""
    before, after = (size - 1) // 2, size // 2
    padded = np.zeros((x.shape[0], x.shape[1] + size - 1, *x.shape[2:]), x.dtype)
    np.multiply(x, x, out=padded[:, before : padded.shape[1] - after])
    total = np.zeros_like(x)
    for tap in range(size):
        total += padded[:, tap : tap + x.shape[1]]
    total *= alpha / size
    total += bias
    result: Array = x / np.power(total, x.dtype.type(beta), out=total)
    return result


def infer_lp_normalization(input: TensorType, *, axis: int = -1, p: int = 2) -> TensorType:
    """Same type as ``input``."""
    if p not in (1, 2):
        raise ModelError(f"LpNormalization p is {p}, expected 1 or 2")
    if input.rank is not None:
        normal_axis("LpNormalization", axis, input)
    return TensorType(input.dtype, input.shape)


@widen_half
def lp_normalization(input: Array, *, axis: int = -1, p: int = 2) -> Array:
    """input / its Lp norm along ``axis``, zero where the norm is. Source: ONNX LpNormalization-22."""
    if p == 1:
        norm = np.sum(np.abs(input), axis=axis, keepdims=True)
    else:
        norm = np.sqrt(np.sum(input * input, axis=axis, keepdims=True))
    result: Array = input / np.where(norm == 0, norm.dtype.type(1), norm)
    return result


def expand_lp_normalization(graph: Graph, node: Node) -> tuple[Value]:
    """ReduceL1 or ReduceL2, Equal, Where, Div."""
    at = Expansion(graph, node)
    x = at.widen(at.required(0))
    reduction = "ReduceL1" if node.attrs.get("p", 2) == 1 else "ReduceL2"
    norm = at.op(reduction, x, at.integers([node.attrs.get("axis", -1)]), keepdims=1)
    is_zero = at.op("Equal", norm, at.scalar(0, x.tensor.dtype))
    divisor = at.op("Where", is_zero, at.scalar(1, x.tensor.dtype), norm)
    return (at.cast(at.op("Div", x, divisor), at.required(0).tensor.dtype),)


def _lrn_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """A call for each neighbour, over channels with room for all of them."""
    (x,) = inputs
    return 0 if x is None else attrs["size"] * (CALL + 2 * x.size + volume((x.shape[0], *x.shape[2:])))


LRN = define("LRN", infer=infer_lrn, reference=lrn, work=_lrn_work)
LP_NORMALIZATION = define(
    "LpNormalization", infer=infer_lp_normalization, reference=lp_normalization, takes=(REAL,), expand=expand_lp_normalization
)
