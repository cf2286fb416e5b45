"""Decomposed attention -> one Attention node: MatMul, scale, masks, Softmax, MatMul, as exporters write them.

    softmax(softcap(scale * (q @ k^T)) + mask) @ v

The recogniser starts at a Softmax. Upwards it peels off masks (added, or selected by Where) and scales (before or after the
product, on q, on k, or on both) until it meets the product of q and the transposed k; downwards it meets the product with v.
What becomes of a row of NaN, as of a query that may see no key, is kept: zeros behind the guard of a safe softmax, else NaN.
Heads are an axis of their own (rank 4), or merged with the batch (rank 3); axes in front of the heads beyond one (windows of an
image, say) are merged with the batch, and masks may stand between views of the scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.ir import Dim, DType, Graph, Node, Value
from miniinfer_cli.ir.dims import product as product_of
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.attention_masks import Added, Selected, can_combine, combined_mask, fit_mask, forbids
from miniinfer_cli.passes.attention_windows import Placed, can_place, placed
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.exact_scaling import keeps_digits
from miniinfer_cli.passes.operands import dims, same_type, scalar, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape, may_not_fit, reshape_target

_RANK = 4
"""Of Attention's operands."""


@dataclass(frozen=True, slots=True)
class _Scores:
    """What stands between a Softmax and the product of q and k."""

    q: Value
    keys: Value  # k transposed: [..., size, keys]
    scale: float = 1.0
    softcap: float = 0.0
    steps: tuple[Placed, ...] = ()  # the masks in the order in which they are applied


def recognize_attention(graph: Graph) -> int:
    """Replaces every decomposed attention by an Attention node of rank 4."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node in graph and node.is_op("Softmax"))


def _rewrite(graph: Graph, softmax: Node) -> bool:
    shape = dims(softmax.output)
    if shape is None or len(shape) < 3 or softmax.attrs.get("axis", -1) not in (-1, len(shape) - 1):
        return False
    (product, is_safe), scores = _product_with_values(graph, softmax), softmax.inputs[0]
    values = product.inputs[1] if product is not None else None
    if product is None or values is None or scores is None:
        return False
    found = next((c for c in _candidates(graph, scores, _Scores(scores, scores)) if _fits(c, values, shape)), None)
    if found is None or not _merges(found, values, shape) or not can_place(found.steps, scores):
        return False
    steps, back = placed(graph, found.steps, scores, product)
    mask = combined_mask(graph, steps, product)
    if mask is not None and back is not None:
        mask = back.come(graph, mask, product)
    if mask is not None:
        mask = fit_mask(graph, mask, found.keys, -1, product)
    swapped = _swap_last(graph, found.keys, product)
    keys, factor = _unscaled(swapped)  # before they were swapped
    if not _is_scale(found.scale * factor, keys.tensor.dtype):
        keys, factor = swapped, 1.0
    dtype = values.tensor.dtype
    operands = [v if v.tensor.dtype is dtype else _cast(graph, v, dtype, product) for v in (found.q, keys, values)]
    attrs: dict[str, Any] = {"scale": found.scale * factor}
    if found.softcap:
        attrs["softcap"] = found.softcap
    if softmax.output.tensor.dtype is not dtype:
        attrs["softmax_precision"] = code_of_dtype(softmax.output.tensor.dtype)
    if is_safe or mask is not None:
        attrs["nan_rows"] = "zero" if is_safe else "keep"
    output = _attention(graph, operands, mask, product, attrs)
    graph.replace_node(product, [output])
    return True


def _attention(graph: Graph, operands: list[Value], mask: Value | None, product: Node, attrs: dict[str, Any]) -> Value:
    """The node; operands of rank 3 count as those of a batch of one, and what is in front of heads as one batch."""
    out = product.output.name
    rank = len(dims(operands[0]) or ())
    if rank > _RANK:
        merged = [insert_reshape(graph, v, _with_one_batch(v), before=product, out=f"{v.name}_merged") for v in operands]
        operands = [v for v in merged if v is not None]
        if mask is not None and len(dims(mask) or ()) > _RANK:
            fitting = insert_reshape(graph, mask, (dims(mask) or ())[-_RANK:], before=product, out="mask")
            mask = fitting if fitting is not None else mask
        y = insert(graph, "Attention", *operands, *(() if mask is None else (mask,)), before=product, out=out, **attrs)
        apart = insert_reshape(graph, y, dims(product.output) or (), before=product, out=out)
        assert apart is not None and len(operands) == 3, "_merges asked for it"
        return apart
    if rank == _RANK:
        return insert(graph, "Attention", *operands, *(() if mask is None else (mask,)), before=product, out=out, **attrs)
    axes = graph.add_constant(np.array([0], np.int64), "axes")
    operands = [insert(graph, "Unsqueeze", v, axes, before=product, out=v.name) for v in operands]
    if mask is not None:
        is_whole = len(dims(mask) or ()) == 3
        operands.append(insert(graph, "Unsqueeze", mask, axes, before=product, out="mask") if is_whole else mask)
    y = insert(graph, "Attention", *operands, before=product, out=out, **attrs)
    return insert(graph, "Squeeze", y, axes, before=product, out=out)


def _with_one_batch(value: Value) -> tuple[Dim, ...]:
    shape = dims(value) or ()
    return product_of(shape[:-3]), *shape[-3:]


def _merges(scores: _Scores, values: Value, shape: tuple[Dim, ...]) -> bool:
    """Whether the axes in front of heads can be merged with the batch, where there are several: no mask tells them apart."""
    if len(shape) <= _RANK:
        return True
    masks = [dims(s.mask) for s in scores.steps]
    if any(mask is None or any(d != 1 for d in mask[:-3]) for mask in masks) or any(
        dims(s.scores) != shape for s in scores.steps
    ):
        return False
    views = [dims(v) or () for v in (scores.q, values)]
    whole = [reshape_target(v, (product_of(v[:-3]), *v[-3:])) is not None for v in views]
    back = (product_of(shape[:-3]), *shape[-3:-1], views[1][-1])
    return all(whole) and reshape_target(back, (*shape[:-1], views[1][-1])) is not None


# -- Below the Softmax -------------------------------------------------------------------------------------------------


def _product_with_values(graph: Graph, softmax: Node) -> tuple[Node | None, bool]:
    """The MatMul that alone reads the probabilities, past a Cast and the guard ``Where(IsNaN(p), 0, p)``, and whether that is
    there."""
    p = _guarded(graph, softmax.output)
    is_safe = p is not softmax.output
    cast = sole_user(graph, p)
    if cast is not None and cast.is_op("Cast"):
        p = _guarded(graph, cast.output)
        is_safe = is_safe or p is not cast.output
    product = sole_user(graph, p)
    if product is None or not product.is_op("MatMul") or product.inputs[0] is not p or product.inputs[1] is p:
        return None, False
    return (product if product.output.users or graph.is_output(product.output) else None), is_safe


def _guarded(graph: Graph, p: Value) -> Value:
    """``Where(IsNaN(p), 0, p)`` when that is what alone reads ``p``; else ``p``."""
    readers = p.users
    guard = next((n for n in readers if n.is_op("Where")), None)
    test = next((n for n in readers if n.is_op("IsNaN")), None)
    if len(readers) != 2 or guard is None or test is None or graph.is_output(p):
        return p
    if guard.inputs[0] is not test.output or guard.inputs[2] is not p or scalar(guard.inputs[1]) != 0:
        return p
    if not same_type(guard.output, p):
        return p  # the zero has more axes
    return guard.output if sole_user(graph, test.output) is guard else p


# -- Above the Softmax -------------------------------------------------------------------------------------------------


def _candidates(graph: Graph, value: Value | None, above: _Scores) -> Iterator[_Scores]:
    """Peels masks and scales off ``value`` down to a product, noting them; an Add may have one on either side."""
    node = value.producer if value is not None else None
    if node is None or node.domain or value is None or sole_user(graph, value) is None:
        return
    if node.op == "MatMul":
        (q, factor), (keys, other) = (_unscaled(v) for v in node.inputs if v is not None)
        yield replace(above, q=q, keys=keys, scale=above.scale * factor * other)
    elif node.op in ("Mul", "Div"):
        x, factor = _scaled(node)
        yield from _candidates(graph, x, replace(above, scale=above.scale * factor))
    elif node.op == "Cast":
        if _widens(node):
            yield from _candidates(graph, node.inputs[0], above)
    elif node.op == "Tanh" and above.scale > 0 and not above.softcap:
        yield from _candidates(graph, node.inputs[0], replace(above, softcap=above.scale))
    elif node.is_op(*VIEWS):
        if not may_not_fit(node) and (dims(node.inputs[0]) or ())[-2:] == (dims(value) or ())[-2:]:
            yield from _candidates(graph, node.inputs[0], above)
    elif above.scale != 1.0 or above.softcap:
        return  # a mask below a scale is scaled too, which Attention cannot say
    elif node.op == "Add":
        for x, mask in (node.inputs, node.inputs[::-1]):
            if mask is not None and mask is not x:
                yield from _candidates(graph, x, replace(above, steps=(Placed(Added(mask), value), *above.steps)))
    elif node.op == "Where":
        x, step = _selected(node)
        if step is not None:
            yield from _candidates(graph, x, replace(above, steps=(Placed(step, value), *above.steps)))


def _selected(node: Node) -> tuple[Value | None, Selected | None]:
    """The scores that a Where keeps, and where; (None, None) when it does not put a very low number elsewhere."""
    condition, a, b = node.inputs
    negated = scalar(b) is None  # masked_fill: where the condition holds, the score is replaced
    kept, fill = (b, scalar(a)) if negated else (a, scalar(b))
    dtype = node.output.tensor.dtype
    if condition is None or fill is None or not forbids(fill, dtype):
        return None, None
    return kept, Selected(condition, fill, dtype, negated)


def _widens(cast: Node) -> bool:
    """True for a Cast from a half float to a full one."""
    x, y = cast.inputs[0], cast.output
    return x is not None and x.tensor.dtype.is_half and y.tensor.dtype.is_float and not y.tensor.dtype.is_half


def _unscaled(value: Value) -> tuple[Value, float]:
    """``value`` as a number times something."""
    factor = 1.0
    while (node := value.producer) is not None and node.is_op("Mul", "Div"):
        x, times = _scaled(node)
        if x is None:
            break
        value, factor = x, factor * times
    return value, factor


def _scaled(node: Node) -> tuple[Value | None, float]:
    """What a Mul or Div scales by a number, and the number; (None, 1) when it is not that."""
    a, b = node.inputs
    number = scalar(b)
    if number is None and node.op == "Mul":
        (a, b), number = (b, a), scalar(a)
    if not number or dims(a) != dims(node.output):
        return None, 1.0
    return a, 1 / number if node.op == "Div" else float(number)


# -- Both --------------------------------------------------------------------------------------------------------------


def _fits(scores: _Scores, values: Value, shape: tuple[object, ...]) -> bool:
    """True when q, k, v and the masks are what Attention takes: nothing is repeated but heads of k and v, and by all."""
    q, keys, v = dims(scores.q), dims(scores.keys), dims(values)
    if q is None or keys is None or v is None or not len(q) == len(keys) == len(v) == len(shape):
        return False
    if not (q[:-3] == keys[:-3] == v[:-3] and keys[-3] == v[-3] and keys[-3] in (1, q[-3])):
        return False
    if shape != (*q[:-1], keys[-1]):
        return False  # a mask repeats the scores
    kind, kept = scores.q.tensor.dtype, values.tensor.dtype
    # Where scores of half floats were widened, the values may have been, too, and the probabilities never narrowed.
    if kept is not kind and not (kind.is_half and kept is DType.F32):
        return False
    return (
        scores.keys.tensor.dtype is kind
        and kind in _FLOATS
        and _is_scale(scores.scale, kind)
        and can_combine([s.step for s in scores.steps])
    )


def _is_scale(scale: float, dtype: DType) -> bool:
    """Whether Attention can be asked for it."""
    return scale > 0 and keeps_digits(np.array(scale), DType.F64 if dtype is DType.F64 else DType.F32)


_FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16)


def _cast(graph: Graph, value: Value, dtype: DType, before: Node) -> Value:
    return insert(graph, "Cast", value, before=before, out=f"{value.name}_wide", to=code_of_dtype(dtype))


def _swap_last(graph: Graph, value: Value, before: Node) -> Value:
    """``value`` with its last two axes swapped: found where an exporter swapped them by way of rank 3, else a Transpose."""
    shape = dims(value) or ()
    apart = _swapped_by_reshapes(value)
    if apart is not None:
        swapped = insert_reshape(graph, apart, [*shape[:-2], shape[-1], shape[-2]], before=before, out=f"{value.name}_swapped")
        if swapped is not None:
            return swapped
        now = insert(graph, "Shape", value, before=before, out="swapped_shape")
        order = graph.add_constant(np.array([0, 1, 3, 2], np.int64), "order")
        target = insert(graph, "Gather", now, order, before=before, out="keys_shape")
        return insert(graph, "Reshape", apart, target, before=before, out=f"{value.name}_swapped")
    perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    inner = value.producer
    if inner is not None and inner.is_op("Transpose") and inner.inputs[0] is not None and "perm" in inner.attrs:
        value, perm = inner.inputs[0], [inner.attrs["perm"][axis] for axis in perm]
    if perm == sorted(perm):
        return value
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
