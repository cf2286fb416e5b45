"""Removes operations that give back their input: Identity, Dropout, and those whose attributes ask for no change."""

from collections.abc import Callable

import numpy as np

from miniinfer_cli.ir import DType, Graph, Node, Value
from miniinfer_cli.passes.operands import concrete, known_ints, same_type, scalar


def remove_identities(graph: Graph) -> int:
    """Gives the number of nodes removed. Only exact rewrites: adding +0.0 turns -0.0 to 0.0, so it stays."""
    removed = 0
    for node in graph.nodes:
        rule = _RULES.get(node.op) if node.domain == "" and node.inputs else None
        value = rule(node) if rule is not None else None
        if value is None or any(v.users or graph.is_output(v) for v in node.outputs[1:]):
            continue
        graph.replace_uses(node.outputs[0], value)
        graph.remove(node)
        removed += 1
    return removed


def _operand(node: Node, index: int) -> Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _always(node: Node) -> Value | None:
    return node.inputs[0]


def _same_type(node: Node) -> Value | None:
    """For operations that can only keep all elements in their places when they keep the shape."""
    x = node.inputs[0]
    return x if x is not None and same_type(x, node.outputs[0]) else None


def _cast(node: Node) -> Value | None:
    """A conversion to the same type, or back from a wider one that holds every value."""
    inner = node.inputs[0].producer if node.inputs[0] is not None else None
    x = inner.inputs[0] if inner is not None and inner.is_op("Cast") else None
    if x is None or inner is None or not same_type(x, node.output):
        return _same_type(node)
    return x if inner.output.tensor.dtype in _WIDER.get(x.tensor.dtype, ()) else None


_WIDER = {
    DType.F16: (DType.F32, DType.F64),
    DType.BF16: (DType.F32, DType.F64),
    DType.F32: (DType.F64,),
    DType.I32: (DType.I64, DType.F64),
    DType.BOOL: (DType.I32, DType.I64, DType.F16, DType.BF16, DType.F32, DType.F64),
}


def _unless_training(node: Node) -> Value | None:
    training = _operand(node, 2)
    return node.inputs[0] if training is None or scalar(training) == 0 else None


def _slice(node: Node) -> Value | None:
    steps = _operand(node, 4)
    steps_are_one = steps is None or set(known_ints(steps) or (0,)) == {1}
    return _same_type(node) if steps_are_one else None


def _pad(node: Node) -> Value | None:
    pads = known_ints(_operand(node, 1))
    return node.inputs[0] if pads is not None and not any(pads) else None


def _transpose(node: Node) -> Value | None:
    perm = node.attrs.get("perm")
    return _same_type(node) if perm is not None and list(perm) == sorted(perm) else None


def _only_operand(node: Node) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _only_part(node: Node) -> Value | None:
    return _same_type(node) if len(node.inputs) == 1 else None


def _only_output(node: Node) -> Value | None:
    return _same_type(node) if len(node.outputs) == 1 and (node.attrs.get("num_outputs", 1) == 1) else None


def _no_bounds(node: Node) -> Value | None:
    return node.inputs[0] if all(v is None for v in node.inputs[1:]) else None


def _resize(node: Node) -> Value | None:
    """Scales of 1 map each pixel onto itself, except where a region of interest is cut out."""
    scales = concrete(_operand(node, 2))
    cropping = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return node.inputs[0] if scales is not None and scales.size and (scales == 1).all() and not cropping else None


def _reduce(node: Node) -> Value | None:
    """A reduction over axes of size 1 that are kept. Only those that then leave an element as it is."""
    return _same_type(node) if node.attrs.get("keepdims", 1) else None


def _where(node: Node) -> Value | None:
    condition, x, y = node.inputs
    truth = concrete(condition)
    if truth is None or truth.size == 0 or truth.all() != truth.any():
        return None
    chosen = x if truth.all() else y
    return chosen if chosen is not None and same_type(chosen, node.output) else None


def _neutral(right_only: bool, is_neutral: Callable[[Value], bool]) -> Callable[[Node], Value | None]:
    """The other operand of a binary operation when one is neutral and does not change the shape."""

    def rule(node: Node) -> Value | None:
        a, b = node.inputs
        if a is None or b is None:
            return None
        if is_neutral(b) and same_type(a, node.output):
            return a
        return b if not right_only and is_neutral(a) and same_type(b, node.output) else None

    return rule


def _is_one(value: Value) -> bool:
    result: bool = scalar(value) == 1
    return result


def _is_added_zero(value: Value) -> bool:
    """Zero for integers; only -0.0 for floats, for 0.0 + -0.0 is 0.0."""
    zero = scalar(value)
    return zero is not None and zero == 0 and (not isinstance(zero, float) or bool(np.signbit(zero)))


def _is_subtracted_zero(value: Value) -> bool:
    zero = scalar(value)
    return zero is not None and zero == 0 and (not isinstance(zero, float) or not np.signbit(zero))


def _is_true(value: Value) -> bool:
    return scalar(value) is True


def _is_false(value: Value) -> bool:
    return scalar(value) is False


_RULES: dict[str, Callable[[Node], Value | None]] = {
    "Add": _neutral(False, _is_added_zero),
    "And": _neutral(False, _is_true),
    "Cast": _cast,
    "CastLike": _same_type,
    "Clip": _no_bounds,
    "Concat": _only_part,
    "Div": _neutral(True, _is_one),
    "Dropout": _unless_training,
    "Expand": _same_type,
    "Flatten": _same_type,
    "Identity": _always,
    "Max": _only_operand,
    "Mean": _only_operand,
    "Min": _only_operand,
    "Mul": _neutral(False, _is_one),
    "Or": _neutral(False, _is_false),
    "Pad": _pad,
    "Pow": _neutral(True, _is_one),
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _same_type,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _only_output,
    "Squeeze": _same_type,
    "Sub": _neutral(True, _is_subtracted_zero),
    "Sum": _only_operand,
    "Tile": _same_type,
    "Transpose": _transpose,
    "Unsqueeze": _same_type,
    "Where": _where,
}
