"""Decomposed attention -> one Attention node: MatMul, scale, masks, Softmax, MatMul, as exporters write them.

    softmax(scale * (q @ k^T) + mask) @ v

The recogniser starts at a Softmax. Upwards it peels off masks (added, or selected by Where) and scales (before or after the
product, on q, on k, or on both) until it meets the product of q and the transposed k; downwards it passes the guard against
rows without any key, and meets the product with v. Heads are an axis of their own (rank 4), or merged with the batch (rank 3).
"""

from dataclasses import dataclass, field

import numpy as np

from miniinfer_cli.ir import Graph, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims, scalar, sole_user

_NEVER = -1e30  # a fill at or below this leaves nothing of a probability in f32, whatever the score was


@dataclass(slots=True)
class _Scores:
    """What stands between a Softmax and the product of q and k."""

    q: Value
    keys: Value  # k transposed: [..., size, keys]
    scale: float
    added: list[Value] = field(default_factory=list)  # masks that are added
    visible: list[Value] = field(default_factory=list)  # boolean masks, True where a key may be attended to
    hidden: list[Value] = field(default_factory=list)  # boolean masks, True where it may not


def recognize_attention(graph: Graph) -> int:
    """Replaces every decomposed attention by an Attention node of rank 4."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node in graph and node.is_op("Softmax"))


def _rewrite(graph: Graph, softmax: Node) -> bool:
    rank = softmax.output.tensor.rank if isinstance(softmax.output.type, TensorType) else None
    if rank not in (3, 4) or softmax.attrs.get("axis", -1) not in (-1, rank - 1):
        return False
    product = _product_with_values(graph, softmax)
    scores = _scores(graph, softmax.inputs[0])
    if product is None or scores is None:
        return False
    values = product.inputs[1]
    if values is None or not _fits(scores, values, rank):
        return False
    before = product
    mask = _mask(graph, scores, before)
    operands = [scores.q, _swap_last(graph, scores.keys, before), values]
    if rank == 3:
        lead = graph.add_constant(np.array([0], np.int64), "axes")
        operands = [insert(graph, "Unsqueeze", v, lead, before=before) for v in operands]
        mask = insert(graph, "Unsqueeze", mask, lead, before=before) if mask is not None and len(dims(mask) or ()) == 3 else mask
    if mask is not None:
        operands.append(mask)
    output = insert(graph, "Attention", *operands, before=before, out=product.output.name, scale=scores.scale)
    if rank == 3:
        output = insert(graph, "Squeeze", output, lead, before=before)
    graph.replace_uses(product.output, output)
    return True


def _product_with_values(graph: Graph, softmax: Node) -> Node | None:
    """The MatMul that alone reads the probabilities, past the guard ``Where(IsNaN(p), 0, p)``."""
    p = softmax.output
    if graph.is_output(p):
        return None
    readers = p.users
    if len(readers) == 2:
        guard = next((n for n in readers if n.is_op("Where")), None)
        test = next((n for n in readers if n.is_op("IsNaN")), None)
        if guard is None or test is None or guard.inputs[0] is not test.output or guard.inputs[2] is not p:
            return None
        if scalar(guard.inputs[1]) != 0 or sole_user(graph, test.output) is not guard:
            return None
        p = guard.output
    reader = sole_user(graph, p)
    return reader if reader is not None and reader.is_op("MatMul") and reader.inputs[0] is p and _is_read(graph, reader) else None


def _is_read(graph: Graph, node: Node) -> bool:
    return bool(node.output.users) or graph.is_output(node.output)


def _scores(graph: Graph, value: Value | None) -> _Scores | None:
    """Peels masks and scales off the operand of a Softmax until the product; None where something else is in the way."""
    found = _Scores(q=value, keys=value, scale=1.0) if value is not None else None  # q and keys are set at the product
    while found is not None and value is not None:
        node = value.producer
        if node is None or node.domain or sole_user(graph, value) is None:
            return None
        if node.op == "MatMul":
            q, keys = node.inputs
            assert q is not None
            assert keys is not None
            found.q, factor = _unscaled(q)
            found.keys, other = _unscaled(keys)
            found.scale *= factor * other
            return found
        value = _peel(node, found)
    return None


def _peel(node: Node, found: _Scores) -> Value | None:
    """Takes one mask or scale off, noting it in ``found``; gives what lies below, None where the node is something else."""
    if node.op in ("Mul", "Div"):
        a, b = node.inputs
        number = scalar(b)
        if number is None and node.op == "Mul":
            (a, b), number = (b, a), scalar(a)
        if not number:
            return None
        found.scale *= 1 / number if node.op == "Div" else number
        return a
    if found.scale != 1.0:
        return None  # the mask below a scale is scaled too, which Attention cannot say
    if node.op == "Add":
        a, b = node.inputs
        if _leads_to_product(b):
            a, b = b, a
        if a is None or b is None or not _leads_to_product(a):
            return None
        found.added.append(b)
        return a
    if node.op == "Where":
        condition, a, b = node.inputs
        hides = scalar(b) is None  # masked_fill: where the condition holds, the score is replaced
        kept, number = (b, scalar(a)) if hides else (a, scalar(b))
        if condition is None or number is None or number > _NEVER:
            return None
        (found.hidden if hides else found.visible).append(condition)
        return kept
    return None


def _leads_to_product(value: Value | None) -> bool:
    """True when ``value`` is a product of two computed tensors, seen through scales and masks."""
    for _ in range(6):
        node = value.producer if value is not None else None
        if node is None or node.domain:
            return False
        if node.op == "MatMul":
            return all(v is not None and v.constant is None for v in node.inputs)
        if node.op in ("Mul", "Div"):
            a, b = node.inputs
            value = b if scalar(a) is not None else a
        elif node.op == "Where":
            value = node.inputs[2] if scalar(node.inputs[1]) is not None else node.inputs[1]
        elif node.op == "Add":
            return any(_leads_to_product(v) for v in node.inputs)
        else:
            return False
    return False


def _unscaled(value: Value) -> tuple[Value, float]:
    """``value`` as a number times something."""
    factor = 1.0
    while True:
        node = value.producer
        if node is None or not node.is_op("Mul", "Div"):
            return value, factor
        a, b = node.inputs
        number = scalar(b)
        if number is None and node.op == "Mul":
            (a, b), number = (b, a), scalar(a)
        if not number or a is None:
            return value, factor
        value, factor = a, factor * (1 / number if node.op == "Div" else number)


def _fits(scores: _Scores, values: Value, rank: int) -> bool:
    """True when q, k and v are tensors of one rank and type, with masks that broadcast onto the scores by Attention's rules."""
    shapes = [dims(v) for v in (scores.q, scores.keys, values)]
    if any(s is None or len(s) != rank for s in shapes):
        return False
    kinds = {v.tensor.dtype for v in (scores.q, scores.keys, values)}
    masks = [dims(m) for m in (*scores.added, *scores.visible, *scores.hidden)]
    if masks and shapes[1] is not None and shapes[1][-1] != 1 and all(m is not None and m[-1:] in ((), (1,)) for m in masks):
        return False  # Attention takes a mask shorter than the keys to forbid the rest of them
    return len(kinds) == 1 and all(m is not None and len(m) <= rank for m in masks) and scores.scale > 0


def _mask(graph: Graph, scores: _Scores, before: Node) -> Value | None:
    """One mask of all: boolean if every one is, else added, with -inf where a boolean one forbids."""
    kind = scores.q.tensor.dtype
    visible: Value | None = None
    shown = [insert(graph, "Not", c, before=before, out="visible") for c in scores.hidden]
    for condition in (*scores.visible, *shown):
        visible = condition if visible is None else insert(graph, "And", visible, condition, before=before, out="visible")
    total: Value | None = None
    for mask in scores.added:
        total = mask if total is None else insert(graph, "Add", total, mask, before=before, out="mask")
    if total is None or visible is None:
        chosen = total if total is not None else visible
    else:
        never = graph.add_constant(np.array(-np.inf, numpy_dtype(kind)), "never")
        chosen = insert(graph, "Where", visible, total, never, before=before, out="mask")
    shape = dims(chosen)
    if chosen is not None and shape is not None and len(shape) < 2:
        axes = graph.add_constant(np.arange(2 - len(shape)), "axes")
        chosen = insert(graph, "Unsqueeze", chosen, axes, before=before, out="mask")
    return chosen


def _swap_last(graph: Graph, value: Value, before: Node) -> Value:
    """``value`` with its last two axes swapped: found where an exporter swapped them by way of rank 3, else a Transpose."""
    apart = _swapped_by_reshapes(value)
    if apart is not None:
        shape = insert(graph, "Shape", value, before=before, out="swapped_shape")
        order = graph.add_constant(np.array([0, 1, 3, 2], np.int64), "order")
        target = insert(graph, "Gather", shape, order, before=before, out="keys_shape")
        return insert(graph, "Reshape", apart, target, before=before, out=f"{value.name}_swapped")
    rank = len(dims(value) or ())
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return insert(graph, "Transpose", value, before=before, out=f"{value.name}_swapped", perm=perm)


def _swapped_by_reshapes(value: Value) -> Value | None:
    """``m`` [batch * heads, keys, size] when ``value`` is its Transpose [0, 2, 1] with batch and heads apart again."""
    back = value.producer
    swap = back.inputs[0].producer if back is not None and back.is_op("Reshape") and back.inputs[0] is not None else None
    if swap is None or not swap.is_op("Transpose") or list(swap.attrs.get("perm", ())) != [0, 2, 1]:
        return None
    merged = swap.inputs[0]
    outer, middle = dims(value), dims(merged)
    if outer is None or middle is None or len(outer) != 4 or middle[1:] != outer[-2:][::-1]:
        return None
    return merged
