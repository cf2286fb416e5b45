"""Attention as primitive operations: MatMul, masks by Where and Add, Softmax, MatMul.

Half-width operands stay half-width, as in the graphs that attention is recognised in; so results differ from the
reference, which rounds once, by the rounding of the scores and of the probabilities.
"""

import math
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import DType, Graph, Node, Value
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.type_codes import dtype_of_code

RAW, AFTER_SOFTCAP, AFTER_BIAS, AFTER_SOFTMAX = range(4)
"""What the output qk_matmul_output holds, by the attribute qk_matmul_output_mode."""


def expand_attention(graph: Graph, node: Node) -> tuple[Value, ...] | None:
    """The primitives; None where ranks, the head size (without ``scale``) or unequal head counts are not known."""
    at = Expansion(graph, node)
    attrs = node.attrs
    rank = at.required(0).tensor.rank
    if rank is None:
        return None
    q = _heads_apart(at, at.required(0), attrs.get("q_num_heads", 0))
    k = _joined(at, 4, _heads_apart(at, at.required(1), attrs.get("kv_num_heads", 0)))
    v = _joined(at, 5, _heads_apart(at, at.required(2), attrs.get("kv_num_heads", 0)))
    shapes = [x.tensor.shape for x in (q, k, v)]
    if any(s is None for s in shapes):
        return None
    (_, heads, _, size), (_, shared, _, _) = shapes[0] or (), shapes[1] or ()
    scale = attrs.get("scale")
    if scale is None:
        if not isinstance(size, int):
            return None
        scale = 1 / math.sqrt(max(size, 1))
    shared_k, shared_v = k, v
    if heads != shared:
        if not isinstance(heads, int) or not isinstance(shared, int):
            return None
        owner = at.integers(np.repeat(np.arange(shared), heads // shared).tolist())
        shared_k, shared_v = at.op("Gather", k, owner, axis=1), at.op("Gather", v, owner, axis=1)

    dtype = q.tensor.dtype
    scores = at.op("MatMul", at.op("Mul", q, at.scalar(scale, dtype)), at.op("Transpose", shared_k, perm=[0, 1, 3, 2]))
    stages = [scores]
    if softcap := attrs.get("softcap", 0.0):
        limit = at.scalar(softcap, dtype)
        scores = at.op("Mul", at.op("Tanh", at.op("Div", scores, limit)), limit)
    stages.append(scores)
    guards: list[Value] = []
    visible = _visible(at, q, k)
    if visible is not None:
        scores = at.op("Where", visible.keys, scores, at.scalar(-np.inf, dtype))
        if visible.may_leave_none or at.input(3) is not None:  # the mask may hide what is left
            guards.append(visible.keys)
    mask = _padded_mask(at, k, dtype)
    if mask is not None and mask.tensor.dtype is DType.BOOL:
        scores = at.op("Where", mask, scores, at.scalar(-np.inf, dtype))
        guards.append(mask)
    elif mask is not None:
        scores = at.op("Add", scores, at.cast(mask, dtype))
        known = mask.tensor.concrete
        if known is None or np.isneginf(known.astype(np.float64)).any():
            guards.append(at.op("Greater", mask, at.scalar(-np.inf, mask.tensor.dtype)))
    stages.append(scores)
    precision = attrs.get("softmax_precision")
    working = scores if precision is None else at.cast(scores, dtype_of_code(precision))
    probabilities = at.cast(at.op("Softmax", working, axis=-1), dtype)
    nan_rows = attrs.get("nan_rows", "hidden")
    if nan_rows == "zero":
        probabilities = at.op("Where", at.op("IsNaN", probabilities), at.scalar(0, dtype), probabilities)
    for guard in guards if nan_rows == "hidden" else ():
        # A query that sees no key has a row of NaN here, each of them hidden by one mask or another.
        probabilities = at.op("Where", guard, probabilities, at.scalar(0, dtype))
    stages.append(probabilities)
    y = at.cast(at.op("MatMul", probabilities, at.cast(shared_v, dtype)), dtype)
    if rank == 3:
        y = at.op("Reshape", at.op("Transpose", y, perm=[0, 2, 1, 3]), at.integers([0, 0, -1]))
    return (y, k, v, stages[attrs.get("qk_matmul_output_mode", RAW)])[: len(node.outputs)]


@dataclass(frozen=True)
class _Visible:
    """Which keys each query may see, mask input apart; ``may_leave_none``: a query may be left without any."""

    keys: Value
    may_leave_none: bool


def _visible(at: Expansion, q: Value, k: Value) -> _Visible | None:
    attrs, nonpad = at.node.attrs, at.input(6)
    left, right = attrs.get("left_window_size", -1), attrs.get("right_window_size", -1)
    conditions: list[Value] = []
    key = _count_up(at, k, 2)
    if attrs.get("is_causal", 0) or left >= 0 or right >= 0:
        query = at.op("Unsqueeze", _count_up(at, q, 2), at.integers([1]))
        position = at.op("Add", query, _offset(at, q))
        if attrs.get("is_causal", 0):
            conditions.append(at.op("LessOrEqual", key, position))
        if left >= 0:
            conditions.append(at.op("GreaterOrEqual", key, at.op("Sub", position, at.scalar(left, DType.I64))))
        if right >= 0:
            conditions.append(at.op("LessOrEqual", key, at.op("Add", position, at.scalar(right, DType.I64))))
    if nonpad is not None:
        conditions.append(at.op("Less", key, at.op("Reshape", nonpad, at.integers([-1, 1, 1, 1]))))
    if not conditions:
        return None
    keys = conditions[0]
    for condition in conditions[1:]:
        keys = at.op("And", keys, condition)
    return _Visible(keys, left >= 0 or nonpad is not None)


def _offset(at: Expansion, q: Value) -> Value:
    """The position of the first query among the keys."""
    past, nonpad = at.input(4), at.input(6)
    if past is not None:
        return _length(at, past, 2)
    if nonpad is None:
        return at.scalar(0, DType.I64)
    return at.op("Reshape", at.op("Sub", nonpad, _length(at, q, 2)), at.integers([-1, 1, 1, 1]))


def _padded_mask(at: Expansion, k: Value, scores: DType) -> Value | None:
    """The mask input, bool or to be added to ``scores``, its last axis filled up to the number of keys with what hides them."""
    mask = at.input(3)
    if mask is not None and mask.tensor.dtype.is_integer:  # integers are added, and have no infinity to hide by
        mask = at.cast(mask, scores)
    if mask is None or mask.tensor.rank == 0:
        return mask
    shape, keys = mask.tensor.shape, (k.tensor.shape or ())[2]
    if shape is None or shape[-1] == keys:
        return mask
    missing = at.op("Sub", _length(at, k, 2), _length(at, mask, len(shape) - 1))
    none = at.integers([0] * (2 * len(shape) - 1))
    pads = at.op("Concat", none, at.op("Unsqueeze", missing, at.integers([0])), axis=0)
    hidden = 0 if mask.tensor.dtype is DType.BOOL else -np.inf
    return at.op("Pad", mask, pads, at.scalar(hidden, mask.tensor.dtype))


def _heads_apart(at: Expansion, x: Value, heads: int) -> Value:
    """[batch, heads, length, size] of an operand of either form."""
    if x.tensor.rank == 4:
        return x
    return at.op("Transpose", at.op("Reshape", x, at.integers([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _joined(at: Expansion, past_index: int, new: Value) -> Value:
    past = at.input(past_index)
    return new if past is None else at.op("Concat", past, new, axis=2)


def _count_up(at: Expansion, x: Value, axis: int) -> Value:
    """0, 1, 2 ... for each index along ``axis`` of ``x``."""
    return at.op("Range", at.scalar(0, DType.I64), _length(at, x, axis), at.scalar(1, DType.I64))


def _length(at: Expansion, x: Value, axis: int) -> Value:
    """The size of ``x`` along ``axis``, an i64 of rank 0."""
    size = (x.tensor.shape or ())[axis] if x.tensor.shape is not None else None
    if isinstance(size, int):
        return at.scalar(size, DType.I64)
    return at.op("Squeeze", at.op("Shape", x, start=axis, end=axis + 1), at.integers([0]))
