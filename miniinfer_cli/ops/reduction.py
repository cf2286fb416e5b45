"""Reductions over axes: ReduceSum, Mean, Max, Min, Prod, L1, L2, LogSum, LogSumExp, SumSquare."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, Dim, Graph, Node, Shape, TensorType, Value
from miniinfer_cli.ops.element_types import BOOL, NUMBERS, expect_dtype
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import mean, widen_half
from miniinfer_cli.ops.operands import count_of, ints_of
from miniinfer_cli.ops.registry import OpDef, define
from miniinfer_cli.ops.shapes import normal_axes
from miniinfer_cli.ops.sums import add_up


def reduced_shape(op: str, x: TensorType, axes: Sequence[int], keepdims: bool) -> Shape | None:
    """The shape of ``x`` with ``axes`` (already known, maybe negative) reduced; None when the rank is not known."""
    if x.shape is None:
        return None
    gone = normal_axes(op, axes, x) if x.shape else ()
    if keepdims:
        return tuple(1 if i in gone else d for i, d in enumerate(x.shape))
    return tuple(d for i, d in enumerate(x.shape) if i not in gone)


def _infer_for(op: str) -> Callable[..., TensorType]:
    def infer(
        data: TensorType, axes: TensorType | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> TensorType:
        """``data`` with the reduced axes gone, or of size 1 when ``keepdims``."""
        expect_dtype(op, data, NUMBERS | BOOL)
        if data.shape is None:
            return TensorType(data.dtype)
        chosen = None if axes is None or count_of(f"{op} axes", axes) == 0 else axes
        if chosen is None:
            every = () if noop_with_empty_axes else tuple(range(len(data.shape)))
            return TensorType(data.dtype, reduced_shape(op, data, every, bool(keepdims)))
        known = ints_of(chosen)
        if known is not None:
            return TensorType(data.dtype, reduced_shape(op, data, known, bool(keepdims)))
        return TensorType(data.dtype, _shape_for_unknown_axes(len(data.shape), chosen, bool(keepdims)))

    return infer


def _shape_for_unknown_axes(rank: int, axes: TensorType, keepdims: bool) -> Shape | None:
    if keepdims:
        return (UNKNOWN,) * rank
    count: Dim | None = axes.shape[0] if axes.shape is not None and len(axes.shape) == 1 else None
    return (UNKNOWN,) * (rank - count) if isinstance(count, int) and count <= rank else None


Reduction = Callable[[Array, tuple[int, ...], bool], Any]


def _reference_for(reduce: Reduction) -> Callable[..., Array]:
    @widen_half
    def reference(data: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        if axes is None or axes.size == 0:
            chosen = () if noop_with_empty_axes else tuple(range(data.ndim))
        else:
            chosen = tuple(int(a) for a in axes.reshape(-1)) if data.ndim else ()
        result = np.asarray(reduce(data, chosen, bool(keepdims)))
        return result if result.dtype == data.dtype else result.astype(data.dtype)

    reference.__doc__ = reduce.__doc__
    return reference


def _sum(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The sum; 0 over nothing. Source: ONNX ReduceSum-13."""
    return add_up(x, axes, keep=keep) if x.dtype.kind == "f" and axes else np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype)


def _mean(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The sum divided by the count, towards zero for integers. Source: ONNX ReduceMean-18."""
    return mean(x, axes, keep=keep)


def _prod(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The product; 1 over nothing. Source: ONNX ReduceProd-18."""
    return np.prod(x, axis=axes, keepdims=keep, dtype=x.dtype)


def _max(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The largest; over nothing minus infinity or the type's lowest. Source: ONNX ReduceMax-20."""
    if x.dtype == object:
        return np.max(x, axis=axes, keepdims=keep)
    return np.max(x, axis=axes, keepdims=keep, initial=_lowest(x.dtype))


def _min(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The smallest; over nothing infinity or the type's highest. Source: ONNX ReduceMin-20."""
    if x.dtype == object:
        return np.min(x, axis=axes, keepdims=keep)
    return np.min(x, axis=axes, keepdims=keep, initial=_highest(x.dtype))


def _l1(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The sum of magnitudes. Source: ONNX ReduceL1-18."""
    return _sum(np.abs(x), axes, keep)


def _l2(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The square root of the sum of squares. Source: ONNX ReduceL2-18."""
    return np.sqrt(_sum_square(x, axes, keep))


def _sum_square(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The sum of squares. Source: ONNX ReduceSumSquare-18."""
    return _sum(x * x, axes, keep)


def _log_sum(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """The logarithm of the sum; minus infinity over nothing. Source: ONNX ReduceLogSum-18."""
    with np.errstate(divide="ignore"):
        return np.log(_sum(x, axes, keep))


def _log_sum_exp(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
    """log(sum(exp(x))), shifted by the maximum so that nothing overflows. Source: ONNX ReduceLogSumExp-18."""
    if x.dtype.kind != "f":
        x = x.astype(np.float64)
    shift = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, x.dtype.type(0))
    with np.errstate(divide="ignore"):
        result = np.log(np.sum(np.exp(x - shift), axis=axes, keepdims=True)) + shift
    return result if keep else np.squeeze(result, axis=axes)


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _expand_l1(graph: Graph, node: Node) -> tuple[Value]:
    at = Expansion(graph, node)
    return (_rounded(at, _reduced(at, "ReduceSum", at.op("Abs", at.widen(at.required(0))))),)


def _expand_sum_square(graph: Graph, node: Node) -> tuple[Value]:
    at = Expansion(graph, node)
    return (_rounded(at, _reduced_square(at)),)


def _expand_l2(graph: Graph, node: Node) -> tuple[Value] | None:
    at = Expansion(graph, node)
    return (_rounded(at, at.op("Sqrt", _reduced_square(at))),) if _is_float(at) else None


def _expand_log_sum(graph: Graph, node: Node) -> tuple[Value] | None:
    at = Expansion(graph, node)
    return (_rounded(at, at.op("Log", _reduced(at, "ReduceSum", at.widen(at.required(0))))),) if _is_float(at) else None


def _expand_log_sum_exp(graph: Graph, node: Node) -> tuple[Value] | None:
    at = Expansion(graph, node)
    if not _is_float(at):
        return None
    x = at.widen(at.required(0))
    highest = _reduced(at, "ReduceMax", x, keepdims=1)
    shift = at.op("Where", at.op("IsInf", highest), at.scalar(0, x.tensor.dtype), highest)
    result = at.op("Log", _reduced(at, "ReduceSum", at.op("Exp", at.op("Sub", x, shift))))
    if not node.attrs.get("keepdims", 1):
        shift = at.op("Reshape", shift, at.op("Shape", result))
    return (_rounded(at, at.op("Add", result, shift)),)


def _reduced(at: Expansion, op: str, x: Value, **attrs: Any) -> Value:
    """``x`` reduced by ``op`` over the node's axes."""
    own = {k: v for k, v in at.node.attrs.items() if k in ("keepdims", "noop_with_empty_axes")}
    return at.op(op, x, *at.node.inputs[1:], **(own | attrs))


def _reduced_square(at: Expansion) -> Value:
    x = at.widen(at.required(0))
    return _reduced(at, "ReduceSum", at.op("Mul", x, x))


def _rounded(at: Expansion, x: Value) -> Value:
    """``x`` in the element type of the node's input."""
    return at.cast(x, at.required(0).tensor.dtype)


def _is_float(at: Expansion) -> bool:
    """Square roots and logarithms are defined for floating-point types alone."""
    return at.required(0).tensor.dtype.is_float


def _define(
    name: str, reduce: Reduction, symbolic: bool = False, expand: Callable[..., tuple[Value] | None] | None = None
) -> OpDef:
    return define(
        name, infer=_infer_for(name), reference=_reference_for(reduce), symbolic=symbolic, expand=expand, shape_operands=(1,)
    )


REDUCE_SUM = _define("ReduceSum", _sum, symbolic=True)
REDUCE_MEAN = _define("ReduceMean", _mean)
REDUCE_PROD = _define("ReduceProd", _prod, symbolic=True)
REDUCE_MAX = _define("ReduceMax", _max, symbolic=True)
REDUCE_MIN = _define("ReduceMin", _min, symbolic=True)
REDUCE_L1 = _define("ReduceL1", _l1, expand=_expand_l1)
REDUCE_L2 = _define("ReduceL2", _l2, expand=_expand_l2)
REDUCE_SUM_SQUARE = _define("ReduceSumSquare", _sum_square, expand=_expand_sum_square)
REDUCE_LOG_SUM = _define("ReduceLogSum", _log_sum, expand=_expand_log_sum)
REDUCE_LOG_SUM_EXP = _define("ReduceLogSumExp", _log_sum_exp, expand=_expand_log_sum_exp)
