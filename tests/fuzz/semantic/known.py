"""Differences from ONNX Runtime that are not ours to mend: each with its reason, and the smallest model that shows it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.fuzz.semantic.oracle import nodes_behind

_FLAGS = {
    "keepdims", "saturate", "noop_with_empty_axes", "select_last_index", "exclusive", "reverse", "allowzero", "transA", "transB",
    "align_corners", "ceil_mode", "count_include_pad", "largest", "sorted", "is_causal", "half_pixel", "fmod", "upper",
    "interleaved", "training_mode", "periodic",
}  # fmt: skip
_INTEGERS = {
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
_NARROW = {TensorProto.UINT4, TensorProto.INT4, TensorProto.UINT2, TensorProto.INT2}


@dataclass(frozen=True)
class Known:
    """A node of ``operations`` (none: any) for which ``applies`` may differ, for ``reason``; ``example`` is one that does."""

    operations: frozenset[str]
    condition: str
    reason: str
    applies: Callable[[onnx.NodeProto, onnx.ModelProto], bool]
    example: Callable[[], onnx.ModelProto]


def reason_of(model: onnx.ModelProto, outputs: Collection[str]) -> str:
    """Why a difference in these outputs is not ours; "" where no reason is known."""
    nodes = nodes_behind(model, outputs)
    for known in KNOWN:
        if any((not known.operations or n.op_type in known.operations) and known.applies(n, model) for n in nodes):
            return f"{', '.join(sorted(known.operations)) or 'any'}: {known.condition}: {known.reason}"
    return ""


def _odd_flag(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.type == AttributeProto.INT and a.name in _FLAGS and a.i not in (0, 1) for a in node.attribute)


def _to_narrow_integers(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    # CastLike takes the type from an operand, whose type the model may not tell.
    return node.op_type == "CastLike" or any(a.name == "to" and a.i in _NARROW for a in node.attribute)


def _halves_to_uint4() -> onnx.ModelProto:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT4)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [9])
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.UINT4, [9]), 21)


def _to_powers_of_two(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.name == "to" and a.i == TensorProto.FLOAT8E8M0 for a in node.attribute)


def _negative_to_power_of_two() -> onnx.ModelProto:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E8M0)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT8E8M0, [2])
    return _model([node], [], y, 25, [helper.make_tensor("x", TensorProto.FLOAT, [2], [-1.5, 1.0])])


def _integer_mask(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return len(node.input) > 3 and _type_of(node.input[3], model) in _INTEGERS


def _short_integer_mask() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q", "m"], ["y"], is_causal=1)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    mask = helper.make_tensor("m", TensorProto.INT64, [2], [0, 1])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 25, [mask])


def _scores_after_the_mask(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.name == "qk_matmul_output_mode" and a.i == 2 for a in node.attribute)


def _masked_scores() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q"], ["z", "", "", "y"], is_causal=1, qk_matmul_output_mode=2)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23)


def _split_without_keepdims(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return len(node.input) > 1 and any(a.name == "keepdims" and a.i == 0 for a in node.attribute)


def _split_in_ones() -> onnx.ModelProto:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "one"], ["s"], keepdims=0),
        helper.make_node("SequenceAt", ["s", "one"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    return _model(nodes, [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 12, [one])


def _scalar(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return _rank_of(node.input[0], model) in (0, None)


def _scalar_that_is_not_zero() -> onnx.ModelProto:
    node = helper.make_node("NonZero", ["x"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    return _model([node], [], y, 13, [helper.make_tensor("x", TensorProto.FLOAT, [], [1.0])])


def _odd_alpha(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        alphas = [np.float16(a.f) for a in node.attribute if a.name == "alpha"]
    return any(a == 0 or not np.isfinite(a) for a in alphas)


def _celu_of_alpha_zero() -> onnx.ModelProto:
    node = helper.make_node("Celu", ["x"], ["y"], alpha=-0.0)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [8]) for name in "xy")
    return _model([node], [x], y, 28)


def _beyond_a_double_or_the_type(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether integers that the model stores come to more than their type holds, or a double holds exactly."""
    values = [_stored(name, model) for name in node.input]
    base = values[0]
    if base is None or base.dtype.kind not in "iu":
        return False
    x = np.abs(base.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        if node.op_type == "ReduceProd":
            most = np.prod(np.maximum(x, 1))
        elif node.op_type == "Pow":
            exponent = values[1]
            integers = exponent is not None and exponent.dtype.kind in "iu"
            most = np.max(x, initial=0) ** float(np.max(exponent, initial=0)) if integers else np.float64(0)
        else:
            most = np.sum(np.square(x) if node.op_type in ("ReduceSumSquare", "ReduceL2") else x)
    return bool(most > min(np.iinfo(base.dtype).max, 2**53))


def _product_of_large_integers() -> onnx.ModelProto:
    node = helper.make_node("ReduceProd", ["x"], ["y"], keepdims=0)
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [])
    return _model([node], [], y, 18, [helper.make_tensor("x", TensorProto.INT32, [2], [1 << 16, 3 << 15])])


def _power_of_large_integers() -> onnx.ModelProto:
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1])
    stored = [helper.make_tensor(name, TensorProto.INT32, [1], [value]) for name, value in (("x", 3), ("e", 40))]
    return _model([node], [], y, 15, stored)


def _odd_scale(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return any(not np.isfinite(np.float16(np.sqrt(a.f))) for a in node.attribute if a.name == "scale")


def _infinite_scale() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "k", "k"], ["z", "", "", "y"], scale=float("inf"))
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 2])
    keys = helper.make_tensor("k", TensorProto.FLOAT, [1, 1, 2, 2], [1, -1, -2, 1])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23, [keys])


def _stored(name: str, model: onnx.ModelProto) -> "np.ndarray[Any, Any] | None":
    """What the main graph stores under the name, None where that is no constant."""
    tensors = [t for t in model.graph.initializer if t.name == name]
    tensors += [
        a.t for n in model.graph.node if n.op_type == "Constant" and name in n.output for a in n.attribute if a.name == "value"
    ]
    return numpy_helper.to_array(tensors[0]) if tensors else None


def _type_of(name: str, model: onnx.ModelProto) -> int:
    """The element type that the model tells of a value of its main graph, 0 where it tells none."""
    stored = [t.data_type for t in model.graph.initializer if t.name == name]
    declared = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.value_info) if v.name == name]
    return next(iter((*stored, *declared)), 0)


def _rank_of(name: str, model: onnx.ModelProto) -> int | None:
    stored = [len(t.dims) for t in model.graph.initializer if t.name == name]
    declared = [len(v.type.tensor_type.shape.dim) for v in (*model.graph.input, *model.graph.value_info) if v.name == name]
    return next(iter((*stored, *declared)), None)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    opset: int,
    stored: Sequence[TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, [output], list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def _flag_of_two() -> onnx.ModelProto:
    node = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=2)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 18)


KNOWN = (
    Known(frozenset(), "a flag that is neither 0 nor 1",
          "ONNX gives a flag these two values and says nothing of others: here they are true, there some are false",
          _odd_flag, _flag_of_two),
    Known(frozenset({"Cast", "CastLike"}), "floats to integers of 2 or 4 bits",
          "ONNX's reference drops the fraction as for wider integers, ONNX Runtime rounds; beyond the range nothing is defined",
          _to_narrow_integers, _halves_to_uint4),
    Known(frozenset({"Cast"}), "to float8e8m0",
          "ONNX leaves open what negative numbers become, which random inputs hold: their magnitude here, as in its reference",
          _to_powers_of_two, _negative_to_power_of_two),
    Known(frozenset({"Attention"}), "a mask of integers",
          "ONNX describes masks of bools and of floats; where such a mask is short, ONNX Runtime lets through what it should not",
          _integer_mask, _short_integer_mask),
    Known(frozenset({"Attention"}), "qk_matmul_output_mode is 2",
          "what is masked is minus infinity in that output, as in ONNX's reference; ONNX Runtime gives the lowest finite number",
          _scores_after_the_mask, _masked_scores),
    Known(frozenset({"SplitToSequence"}), "keepdims is 0 beside a split",
          "ONNX ignores keepdims where there is a split; ONNX Runtime drops the axis where all parts are of size 1",
          _split_without_keepdims, _split_in_ones),
    Known(frozenset({"NonZero"}), "a scalar", "ONNX gives the shape [0, N] for a scalar, ONNX Runtime gives [1, N] as numpy did",
          _scalar, _scalar_that_is_not_zero),
    Known(frozenset({"Celu"}), "alpha is 0 or not finite as a half",
          "ONNX's formula is 0 / 0 or infinity * 0 there, which is NaN; ONNX Runtime runs the function, which rounds alpha first",
          _odd_alpha, _celu_of_alpha_zero),
    Known(frozenset({"ReduceProd", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceMean"}),
          "integers that come to more than their type holds, or a double holds exactly",
          "they wrap here, as in ONNX's reference; ONNX Runtime computes in doubles and takes the nearest integer of the type",
          _beyond_a_double_or_the_type, _product_of_large_integers),
    Known(frozenset({"Pow"}), "an integer to the power of an integer is more than the type holds, or a double holds exactly",
          "it wraps here, as in ONNX's reference; ONNX Runtime computes in doubles, and the least integer is what is too large",
          _beyond_a_double_or_the_type, _power_of_large_integers),
    Known(frozenset({"Attention"}), "scale is negative, not finite, or beyond what halves hold",
          "ONNX multiplies queries and keys by its root before their product, where infinities of both signs meet: NaN; "
          "ONNX Runtime multiplies the product, and takes NaN for no scale",
          _odd_scale, _infinite_scale),
)  # fmt: skip
"""Every reason; a test runs the examples, so that one which differs no more has to go."""
