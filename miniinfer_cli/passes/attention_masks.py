"""The masks between attention's scores and its softmax, put together into the one mask of an Attention node.

Attention gives zeros or NaN, as ``nan_rows`` has it, for a query that may see no key. Scores that a mask replaced by a finite
number gave that query equal weights instead, and such rows are common: padding on the left of a causal model. So a condition
becomes a boolean mask only where it forbids by minus infinity, or where each query provably sees a key; else it is added, as 0
and a number so low that whatever is added to it is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Dim, DType, Graph, Node, Value, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.operands import concrete, dims, fills
from miniinfer_cli.passes.triangles import triangle

_NEVER = {DType.F64: -1e9, DType.F32: -1e9, DType.BF16: -1e9, DType.F16: -6e4}
_ABSORBS = -1e30  # a score added to this or less is lost
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Added:
    """A mask that is added to the scores."""

    mask: Value


@dataclass(frozen=True, slots=True)
class Selected:
    """Scores of type ``dtype`` are kept where ``condition`` holds (``negated``: where it does not), and ``fill`` elsewhere."""

    condition: Value
    fill: float
    dtype: DType
    negated: bool = False


Step = Added | Selected


def forbids(fill: float, dtype: DType) -> bool:
    """True for a number that leaves nothing of a probability, among scores of this type."""
    return fill <= _NEVER.get(dtype, -np.inf)


def can_combine(steps: Sequence[Step]) -> bool:
    """True when ``combined_mask`` can say the same as ``steps``, which stand in the order in which they are applied."""
    if _is_boolean(steps):
        return True
    finite = [s.fill for s in steps if isinstance(s, Selected) and s.fill != -np.inf]
    if not any(fill > _ABSORBS for fill in finite):
        return True
    # A lower number stands in for these: right as long as nothing tells them from each other or from what is added.
    return len(set(finite)) == 1 and not any(isinstance(s, Added) for s in steps)


def combined_mask(graph: Graph, steps: Sequence[Step], before: Node) -> Value | None:
    """One mask that says what ``steps`` say: boolean where that is enough, else one to add; None when there are none."""
    if _is_boolean(steps):
        conditions = [_visible(graph, s, before) for s in steps if isinstance(s, Selected)]
        return conjunction(graph, conditions, before)
    dtype = max((_dtype_of(s) for s in steps), key=lambda d: d.bits, default=DType.F32)
    if dtype is DType.F16 and any(isinstance(s, Selected) and s.fill > _ABSORBS for s in steps):
        dtype = DType.F32  # f16 has no number low enough
    total: Value | None = None
    for step in steps:
        if isinstance(step, Added):
            mask = step.mask if step.mask.tensor.dtype is dtype else _cast(graph, step.mask, dtype, before)
            total = mask if total is None else insert(graph, "Add", total, mask, before=before, out="mask")
        else:
            fill = step.fill if step.fill <= _ABSORBS else _LOWEST
            never = graph.add_constant(np.array(fill, numpy_dtype(dtype)), "never")
            kept = total if total is not None else graph.add_constant(np.array(0, numpy_dtype(dtype)), "always")
            branches = (never, kept) if step.negated else (kept, never)
            total = insert(graph, "Where", step.condition, *branches, before=before, out="mask")
    return total


def conjunction(graph: Graph, conditions: Sequence[Value], before: Node) -> Value | None:
    """The And of all; None of none."""
    total: Value | None = None
    for condition in conditions:
        total = condition if total is None else insert(graph, "And", total, condition, before=before, out="visible")
    return total


def fit_mask(graph: Graph, mask: Value, keys: Value, axis: int, before: Node) -> Value:
    """``mask`` with at least two axes, the last as long as ``keys`` is along ``axis``, as Attention wants it.

    Attention takes a shorter one to forbid the keys beyond it, and not to repeat.
    """
    shape, count = dims(mask) or (), (dims(keys) or ())[axis]
    if len(shape) < 2:
        axes = graph.add_constant(np.arange(2 - len(shape)), "axes")
        mask = insert(graph, "Unsqueeze", mask, axes, before=before, out="mask")
        shape = (1,) * (2 - len(shape)) + shape
    if fills(shape[-1], count):
        return mask
    ones = graph.add_constant(np.ones(len(shape) - 1, np.int64), "ones")
    target = insert(graph, "Concat", ones, _length(graph, keys, axis, count, before), before=before, out="mask_shape", axis=0)
    return insert(graph, "Expand", mask, target, before=before, out="mask")


def _is_boolean(steps: Sequence[Step]) -> bool:
    selected = [s for s in steps if isinstance(s, Selected)]
    if not selected or len(selected) < len(steps):
        return False
    return all(s.fill == -np.inf for s in selected) or _leaves_a_key(selected)


def _leaves_a_key(selected: Sequence[Selected]) -> bool:
    """True when each query provably sees a key, by the form of the masks or by the contents of a constant one."""
    patterns = [triangle(s.condition) for s in selected]
    if all(p is not None and p.lower != s.negated for p, s in zip(patterns, selected, strict=True)):
        return True  # key 0 at least
    if len(selected) != 1:
        return False
    known = concrete(selected[0].condition)
    return known is not None and known.ndim > 0 and bool(np.all(np.any(known != selected[0].negated, axis=-1)))


def _visible(graph: Graph, step: Selected, before: Node) -> Value:
    return insert(graph, "Not", step.condition, before=before, out="visible") if step.negated else step.condition


def _dtype_of(step: Step) -> DType:
    return step.dtype if isinstance(step, Selected) else step.mask.tensor.dtype


def _cast(graph: Graph, value: Value, dtype: DType, before: Node) -> Value:
    return insert(graph, "Cast", value, before=before, out=value.name, to=code_of_dtype(dtype))


def _length(graph: Graph, keys: Value, axis: int, count: Dim, before: Node) -> Value:
    if isinstance(count, int):
        return graph.add_constant(np.array([count], np.int64), "keys")
    axis %= len(dims(keys) or ())
    return insert(graph, "Shape", keys, before=before, out="keys", start=axis, end=axis + 1)
