"""An attention mask that lets each query see the keys up to its own place -> ``is_causal`` on the Attention node.

Such masks come as a comparison of positions, as the lower triangle of ones, or as 0 and minus infinity selected by either;
alone, or And-ed with a mask for padding, which then stays.
"""

import numpy as np

from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.passes.operands import concrete, dims, scalar


def recognize_causal_masks(graph: Graph) -> int:
    """Takes the causal part out of the masks of Attention nodes that have one."""
    fired = 0
    for node in graph.nodes:
        if node.is_op("Attention") and len(node.inputs) == 4 and not node.attrs.get("is_causal", 0):
            fired += _rewrite(graph, node)
    return fired


def _rewrite(graph: Graph, node: Node) -> bool:
    mask = node.inputs[3]
    assert mask is not None
    shape = dims(mask)
    if shape is None or len(shape) < 2 or 1 in shape[-2:]:
        return False  # a mask that broadcasts over queries or keys is not a triangle of the scores
    is_bool, rest = _is_bool(mask), None
    if is_bool and mask.producer is not None and mask.producer.is_op("And"):
        a, b = mask.producer.inputs
        if _is_lower(b):
            a, b = b, a
        causal, rest = _is_lower(a), b
    else:
        causal = _is_lower(mask) if is_bool else _is_lower_added(mask)
    if not causal:
        return False
    graph.set_inputs(node, (*node.inputs[:3], *([rest] if rest is not None else [])))
    node.attrs["is_causal"] = 1
    return True


def _is_lower_added(value: Value) -> bool:
    """True when ``value`` is 0 in the lower triangle and minus infinity (or near it) above."""
    known = concrete(value)
    if known is not None:
        lower = _lower_triangle(known)
        wide = known.astype(np.float64)  # the bound is beyond f16
        return lower is not None and bool(np.all(wide[lower] == 0) and np.all(wide[np.logical_not(lower)] <= -1e30))
    node = value.producer
    if node is None or not node.is_op("Where"):
        return False
    condition, a, b = node.inputs
    first, second = scalar(a), scalar(b)
    if first is None or second is None:
        return False
    if first == 0 and second <= -1e30:
        return _is_lower(condition)
    return second == 0 and first <= -1e30 and _is_lower(condition, negated=True)


def _is_lower(value: Value | None, negated: bool = False) -> bool:
    """True when ``value`` holds exactly where the key's place is at most the query's (``negated``: exactly where it is not)."""
    node = value.producer if value is not None else None
    if value is None or node is None:
        known = concrete(value)
        lower = _lower_triangle(known) if known is not None and known.dtype == np.bool_ else None
        return lower is not None and known is not None and bool(np.array_equal(known, lower != negated))
    if node.is_op("Not"):
        return _is_lower(node.inputs[0], not negated)
    if node.is_op("Equal"):
        a, b = node.inputs
        return scalar(b) == 0 and _is_triangle(a) and negated
    if node.is_op("Cast") and _is_bool(value):
        return _is_triangle(node.inputs[0]) and not negated
    if node.is_op("Trilu"):
        return _is_triangle(value) and not negated
    if node.is_op("LessOrEqual", "GreaterOrEqual", "Less", "Greater"):
        keys, queries = node.inputs if node.op.startswith("Less") else node.inputs[::-1]
        if node.op in ("Less", "Greater"):  # query < key is the upper triangle
            keys, queries = queries, keys
        return _counts_along(keys, -1) and _counts_along(queries, -2) and negated == (node.op in ("Less", "Greater"))
    return False


def _lower_triangle(like: Array) -> Array | None:
    """True at and below the diagonal of the last two axes, in the shape of ``like``; None where it has fewer axes."""
    if like.ndim < 2:
        return None
    rows, columns = like.shape[-2:]
    return np.broadcast_to(np.arange(columns) <= np.arange(rows)[:, None], like.shape)


def _is_triangle(value: Value | None) -> bool:
    """True for Trilu of ones, the diagonal and below kept."""
    node = value.producer if value is not None else None
    if node is None or not node.is_op("Trilu") or node.attrs.get("upper", 1):
        return False
    offset = node.inputs[1] if len(node.inputs) > 1 else None
    return (offset is None or scalar(offset) == 0) and _is_ones(node.inputs[0])


def _is_ones(value: Value | None) -> bool:
    if value is None:
        return False
    known = concrete(value)
    if known is not None:
        return bool(np.all(known == 1))
    if scalar(value) == 1:
        return True
    node = value.producer
    if node is not None and node.is_op("Expand", "Cast"):
        return _is_ones(node.inputs[0])
    if node is not None and node.is_op("ConstantOfShape"):
        fill = node.attrs.get("value")
        return fill is not None and bool(np.all(np.asarray(fill) == 1))
    return False


def _counts_along(value: Value | None, axis: int) -> bool:
    """True when ``value`` is 0, 1, 2 ... along ``axis`` (negative) and has size 1 along every other."""
    shape = dims(value)
    if value is None or shape is None or len(shape) < -axis:
        return False
    if any(d != 1 for i, d in enumerate(shape) if i != len(shape) + axis):
        return False
    known = concrete(value)
    if known is not None:
        return bool(np.array_equal(known.reshape(-1), np.arange(known.size)))
    node = value.producer
    while node is not None and node.is_op("Reshape", "Unsqueeze", "Cast"):
        below = node.inputs[0]
        node = below.producer if below is not None else None
    if node is None or not node.is_op("Range"):
        return False
    start, _, step = node.inputs
    return scalar(start) == 0 and scalar(step) == 1


def _is_bool(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype == "bool"
